"""A finished run, ready to render: for the commands that are not nerfstudio's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.eval_utils import eval_setup

from closeup_ns.errors import CheckpointError, CloseupError
from closeup_ns.model.lazy_lpips import lazy_lpips
from closeup_ns.planning.target import Target, target_automatic
from closeup_ns.report.config_file import option, read_config
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.studio.checkpoints import locate
from closeup_ns.studio.pipeline import CloseupPipeline
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A run of closeup-gs and what it was trained for."""

    pipeline: CloseupPipeline
    renderer: Renderer
    """Renders with the run's own pixel kernel."""
    train_views: list[View]
    train_names: list[str]
    target: Target
    """The run's first target; found anew where the run has no rounds."""
    folder: Path
    """The run's folder, where config.yml is."""


def load_run(config_path: Path, step: int | None = None, data: Path | None = None) -> LoadedRun:
    """Load a checkpoint of a run.

    Args:
        step: of the checkpoint; the latest by default.
        data: the photographs, where they are neither where the run was trained on them nor beside it.

    Raises:
        CheckpointError: ``config_path`` is not there, damaged, or not of a run of closeup-gs; its checkpoint is not
            there or damaged.
    """
    _, pipeline, _ = open_pipeline(config_path, step, data)
    if not isinstance(pipeline, CloseupPipeline):
        raise CheckpointError(
            f"{config_path} is a run of {type(pipeline).__name__}: this command needs a closeup-gs run"
        )
    photographs, render = pipeline.datamanager, pipeline.model.render_view
    views = photographs.train_views()
    store = RoundStore(config_path.parent / "rounds")
    targets = store.load_targets()
    target = targets[0] if targets else target_automatic(views, render)
    return LoadedRun(pipeline, render, views, photographs.photograph_names(), target, config_path.parent)


def open_pipeline(
    config_path: Path, step: int | None = None, data: Path | None = None
) -> tuple[TrainerConfig, Any, int]:
    """nerfstudio's ``eval_setup`` for a run of any method, from wherever its folder is now; the last is the step.

    Raises:
        CheckpointError: ``config_path`` or its checkpoint is not there or damaged, or the method is not installed.
    """
    method = option(read_config(config_path), "method_name")

    def at_step(config: TrainerConfig) -> TrainerConfig:
        config.load_step = step
        locate(config, config_path, data)
        return config

    remedy = f"Is the package of its method ({method}) installed, in the version that trained it?"
    try:
        with lazy_lpips():  # a render needs no LPIPS, and its weights may not be here
            config, pipeline, _, loaded = eval_setup(config_path, test_mode="test", update_config_callback=at_step)
    except CloseupError:
        raise
    except Exception as error:
        raise CheckpointError(f"{config_path} cannot be loaded ({error!r}). {remedy}") from error
    return config, pipeline, loaded
