"""A finished run, ready to render: for the commands that are not nerfstudio's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.eval_utils import eval_setup

from closeup_ns.errors import CheckpointError
from closeup_ns.planning.target import Target, target_automatic
from closeup_ns.rendering.types import Renderer
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.studio.pipeline import CloseupPipeline
from closeup_ns.views.view import View

CHECKPOINT = re.compile(r"step-([0-9]+)\.ckpt")


def checkpoint_folder(config_path: Path) -> Path:
    """Where a run's checkpoints are."""
    return config_path.parent / "nerfstudio_models"


def checkpoint_steps(config_path: Path) -> list[int]:
    """Steps of a run's checkpoints, in order."""
    names = (CHECKPOINT.fullmatch(path.name) for path in checkpoint_folder(config_path).glob("step-*.ckpt"))
    return sorted(int(match[1]) for match in names if match)


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


def load_run(config_path: Path, step: int | None = None) -> LoadedRun:
    """Load a checkpoint of a run.

    Args:
        step: of the checkpoint; the latest by default.

    Raises:
        CheckpointError: ``config_path`` does not exist, or is not a run of closeup-gs.
    """
    if not config_path.is_file():
        raise CheckpointError(f"{config_path} does not exist: --load-config wants the config.yml of a run")

    def at_step(config: TrainerConfig) -> TrainerConfig:
        config.load_step = step
        own = checkpoint_folder(config_path)
        if own.is_dir():  # nerfstudio looks where the run was trained; it may have been moved or copied since
            config.relative_model_dir = own.resolve()
        return config

    _, pipeline, _, _ = eval_setup(config_path, test_mode="test", update_config_callback=at_step)
    if not isinstance(pipeline, CloseupPipeline):
        raise CheckpointError(
            f"{config_path} is a run of {type(pipeline).__name__}: this command needs a closeup-gs run"
        )
    data, render = pipeline.datamanager, pipeline.model.render_view
    views = data.train_views()
    store = RoundStore(config_path.parent / "rounds")
    targets = store.load_targets()
    target = Target.from_dict(targets[0]) if targets else target_automatic(views, render)
    return LoadedRun(pipeline, render, views, data.photograph_names(), target, config_path.parent)
