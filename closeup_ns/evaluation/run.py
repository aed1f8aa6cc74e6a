"""A trained run of any nerfstudio method, as a renderer in the frame of its capture's own files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.data.eval_cameras import EvalCamera
from closeup_ns.data.names import picture_names
from closeup_ns.data.pictures import write_picture
from closeup_ns.model.cameras import cameras_of, from_model_frame, to_model_frame
from closeup_ns.studio.compatibility import allow_nerfstudio_checkpoints
from closeup_ns.studio.datamanager import CloseupDatamanager, CloseupDatamanagerConfig
from closeup_ns.views.rendered import Rendered
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

    @cached_property
    def data(self) -> CloseupDatamanager:
        """The run's photographs as closeup-gs loads them: undistorted, at the size of their cameras, with masks.

        The same for every method, so that all are scored against the same pixels.
        """
        data = self.pipeline.datamanager
        if not isinstance(data, CloseupDatamanager):
            config = CloseupDatamanagerConfig(dataparser=data.config.dataparser)
            data = config.setup(device=self.pipeline.device, test_mode="test")
            shows = getattr(self.pipeline.model, "_get_background_color", None)  # splatfacto's
            data.background = data.background if shows is None else shows()
        return data

    def photographs(self) -> list[tuple[View, Path]]:
        """Views (float64, capture's frame, undistorted) and files of the training photographs."""
        views = [self._to_capture(view) for view in self.data.train_views()]
        return list(zip(views, map(Path, self.data.train_dataset.image_filenames), strict=True))

    def write_photograph(self, index: int, path: Path) -> None:
        """Save training photograph ``index``, of the size of its view, as PNG."""
        write_picture(path, self.data.photograph(index))

    def held_out(self, folder: Path) -> list[EvalCamera]:
        """The photographs of the test split as far views; they and their masks are written into ``folder``."""
        names = picture_names(list(map(Path, self.data.eval_dataset.image_filenames)))
        cameras = []
        for name, (view, image, counted) in zip(names, self.data.eval_photographs(), strict=True):
            truth, mask = folder / f"{name}.png", None if counted is None else folder / "masks" / f"{name}.png"
            write_picture(truth, image)
            if mask is not None and counted is not None:
                write_picture(mask, counted)
            cameras.append(EvalCamera(name, 1.0, self._to_capture(view), truth, mask))
        return cameras

    def _to_capture(self, view: View) -> View:
        return from_model_frame(view.to("cpu", torch.float64), self.transform, self.scale)


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
