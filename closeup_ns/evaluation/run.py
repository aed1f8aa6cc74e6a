"""A trained run of any nerfstudio method, as a renderer in the frame of its capture's own files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.model.cameras import cameras_of, from_model_frame, to_model_frame, views_of
from closeup_ns.rendering.types import Rendered
from closeup_ns.studio.compatibility import allow_nerfstudio_checkpoints
from closeup_ns.views.view import View


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """A loaded run."""

    config: Any
    """nerfstudio's TrainerConfig."""
    pipeline: Any
    """nerfstudio's pipeline, in evaluation mode."""
    step: int
    """Of the checkpoint."""
    folder: Path
    """Where config.yml is."""
    transform: Float[Tensor, "3 4"]
    """From the capture's frame to the model's, before scaling."""
    scale: float
    """Model units per unit of the capture."""

    @property
    def method(self) -> str:
        """nerfstudio's name of it."""
        return str(self.config.method_name)

    @torch.no_grad()
    def render(self, view: View) -> Rendered:
        """Render a view of the capture's frame; depth comes back in the capture's units.

        The depth of methods that give the distance along the ray is taken as z-depth; it only helps to choose
        reference photographs. A method without depth or accumulation gives depth 0 and alpha 1.
        """
        camera = cameras_of(to_model_frame(view, self.transform, self.scale).to(self.pipeline.device, torch.float32))
        outputs = self.pipeline.model.get_outputs_for_camera(camera)
        color = next(outputs[key] for key in ("rgb", "rgb_fine", "rgb_coarse", "img") if key in outputs)
        alpha = outputs.get("accumulation", torch.ones_like(color[..., :1]))[..., 0]
        depth = outputs.get("depth", outputs.get("expected_depth"))
        depth = torch.zeros_like(alpha) if depth is None else torch.where(alpha > 0, depth[..., 0], 0.0) / self.scale
        return Rendered(color, depth, alpha)

    def photographs(self) -> list[tuple[View, Path]]:
        """Views (float64, capture's frame) and files of the training photographs."""
        outputs = self.pipeline.datamanager.train_dataparser_outputs
        views = [from_model_frame(view, self.transform, self.scale) for view in views_of(outputs.cameras)]
        return list(zip(views, map(Path, outputs.image_filenames), strict=True))

    def held_out(self) -> list[tuple[View, Path]]:
        """The same for the photographs of the test split."""
        outputs = self.pipeline.datamanager.dataparser.get_dataparser_outputs(split="test")
        views = [from_model_frame(view, self.transform, self.scale) for view in views_of(outputs.cameras)]
        return list(zip(views, map(Path, outputs.image_filenames), strict=True))


def open_run(config_path: Path, data: Path | None = None) -> EvaluatedRun:
    """Load the latest checkpoint of a run, whatever its method.

    Args:
        data: the photographs, where they were moved since.

    Raises:
        CheckpointError: the config or its checkpoint is not there or damaged, or the method is not installed here.
    """
    from closeup_ns.studio.loading import open_pipeline

    allow_nerfstudio_checkpoints()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        config, pipeline, step = open_pipeline(config_path, data=data)
    outputs = pipeline.datamanager.train_dataparser_outputs
    transform, scale = outputs.dataparser_transform.double().cpu(), float(outputs.dataparser_scale)
    return EvaluatedRun(config, pipeline, step, config_path.parent, transform, scale)
