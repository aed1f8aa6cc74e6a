"""A finished run, ready to render: for the commands that are not nerfstudio's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.eval_utils import eval_setup

from closeup_ns.errors import CheckpointError, CloseupError
from closeup_ns.model.lazy_lpips import lazy_lpips
from closeup_ns.model.model import CloseupModel
from closeup_ns.planning.target import Target, target_automatic
from closeup_ns.reading import reading
from closeup_ns.report.config_file import option, read_config
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.studio.checkpoints import find_checkpoint, locate, read_checkpoint
from closeup_ns.studio.datamanager import views_remembered
from closeup_ns.studio.pipeline import CloseupPipeline, CloseupPipelineConfig
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

    @property
    def model(self) -> CloseupModel:
        return self.pipeline.model

    @property
    def config(self) -> CloseupPipelineConfig:
        return self.pipeline.config


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
    target = _target(config_path, views, render)
    return LoadedRun(pipeline, render, views, photographs.photograph_names(), target, config_path.parent)


def _target(config_path: Path, views: list[View], render: Renderer) -> Target:
    targets = RoundStore(config_path.parent / "rounds").load_targets()
    return targets[0] if targets else target_automatic(views, render)


@dataclass(frozen=True, eq=False)
class ModelAlone:
    """A run of closeup-gs without its photographs; what it shares with `LoadedRun` is called the same."""

    model: CloseupModel
    config: CloseupPipelineConfig
    train_views: list[View]
    train_names: list[str]
    """Numbers: the photographs' names are gone with them."""
    target: Target


def load_alone(config_path: Path) -> ModelAlone:
    """The latest checkpoint of a run whose photographs are gone: its model, and the cameras that it remembers.

    Raises:
        CheckpointError: ``config_path`` or the checkpoint is damaged, or is not of a run of closeup-gs.
    """
    remedy = "Was it written by this version of closeup-gs?"
    with reading(config_path, remedy, CheckpointError):
        config = yaml.load(config_path.read_text(encoding="utf8"), Loader=yaml.Loader)  # as eval_setup
    path = find_checkpoint(config_path.parent / config.relative_model_dir.name)
    state, device = read_checkpoint(path)["pipeline"], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with reading(path, remedy, CheckpointError), lazy_lpips():
        views = [view.to(device) for view in views_remembered(state["datamanager.cameras"])]
        box = SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3]))
        model = config.pipeline.model.setup(scene_box=box, num_train_data=len(views), metadata={}, device=device)
        parts = {name.partition(".")[::2]: value for name, value in state.items()}
        model.load_state_dict({name: value for (part, name), value in parts.items() if part == "_model"})
    model.to(device).eval()
    names = [str(index) for index in range(len(views))]
    return ModelAlone(model, config.pipeline, views, names, _target(config_path, views, model.render_view))


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
