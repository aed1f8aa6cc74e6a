"""The pipeline: builds model and data, and hands the trainer's steps to the rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nerfstudio.data.datamanagers.base_datamanager import DataManagerConfig
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from torch import Tensor

from closeup_ns.model.model import CloseupModel, CloseupModelConfig
from closeup_ns.model.seeding import frustum_points
from closeup_ns.progress import track
from closeup_ns.report.write import write_report
from closeup_ns.rounds.loop import Rounds
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.settings import RoundSettings
from closeup_ns.studio.close_metrics import close_metrics, finite, say_missing
from closeup_ns.studio.compatibility import refuse_command
from closeup_ns.studio.datamanager import CloseupDatamanager, CloseupDatamanagerConfig
from closeup_ns.studio.exposure import predicted_psnr
from closeup_ns.viewer.control import CloseupViewerControl
from closeup_ns.views.psnr import mean_of_numbers, psnr

FEWEST_POINTS = 100
"""A sparse cloud of fewer points is no start: what it leaves empty stays empty for long."""


@dataclass
class CloseupPipelineConfig(RoundSettings, VanillaPipelineConfig):
    """Base phase, then progressive rounds."""

    _target: type = field(default_factory=lambda: CloseupPipeline)
    datamanager: DataManagerConfig = field(default_factory=CloseupDatamanagerConfig)
    """Photographs and injected views."""
    model: CloseupModelConfig = field(default_factory=CloseupModelConfig)  # type: ignore[assignment]
    """The Gaussians and how they are rendered."""


class CloseupPipeline(VanillaPipeline):
    """`VanillaPipeline` with rounds. Nothing heavy is loaded here: ns-eval, ns-render and ns-viewer build it too."""

    config: CloseupPipelineConfig
    datamanager: CloseupDatamanager
    model: CloseupModel

    def __init__(self, config: CloseupPipelineConfig, device: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, device, *args, **kwargs)
        refuse_command(len(self.datamanager.eval_dataset))
        self.model.base_steps = config.schedule.base_steps
        self.datamanager.background = self.model.evaluation_background()
        self.rounds: Rounds | None = None
        # nerfstudio's viewer looks for attributes of this type; without a viewer it does nothing.
        self.viewer_control = CloseupViewerControl(self.as_run())

    def as_run(self, trainer: Trainer | None = None) -> Run:
        """What the rounds see of this pipeline."""
        return Run(self.model, self.datamanager, self.config, trainer)

    def seed_without_points(self) -> None:
        """Start the Gaussians in the cameras' frusta where the capture has hardly a point; before the optimizers."""
        data = self.datamanager
        outputs = data.train_dataparser_outputs
        cloud: Tensor | None = outputs.metadata.get("points3D_xyz")
        few = 0 if cloud is None else len(cloud)
        if few >= FEWEST_POINTS or self.config.model.random_init:
            return
        generator = torch.Generator().manual_seed(self.config.seed)
        photographs = [data.photograph(index) for index in range(len(data.train_dataset))]
        shown = [data.shown(index) for index in range(len(photographs))]
        bounds, count = outputs.metadata.get("bounds"), self.config.model.num_random
        xyz, rgb = frustum_points(data.train_views(), photographs, bounds, count, generator, shown)
        if cloud is not None and few:
            CONSOLE.print(f"{few} sparse points are too few to start from: {count} random ones beside them")
            xyz, rgb = torch.cat([cloud.cpu(), xyz]), torch.cat([outputs.metadata["points3D_rgb"].cpu(), rgb])
        self.model.start_from(xyz, rgb)

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """The rounds' work comes before a step's own callbacks, so that it sees the model between two steps."""
        trainer = training_callback_attributes.trainer
        assert trainer is not None
        folder = trainer.base_dir
        self.rounds = Rounds(self.as_run(trainer), folder / "rounds", lambda: write_page(folder / "config.yml"))
        self.viewer_control.rounds = self.rounds
        self.datamanager.remember_cameras()
        self.model.footprint_views = self.datamanager.train_views()
        before = TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self.rounds.before_step)
        after = TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.rounds.after_step)
        return [before, *super().get_training_callbacks(training_callback_attributes), after]

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        """One step's loss. Densification counts photographs in the base phase, near views later."""
        camera, batch = self.datamanager.next_train(step)
        if self.config.schedule.round_at(step):
            self.model.strategy.counts_this_step = bool(batch.get("densifies", False))
        outputs = self._model(camera)
        metrics = self.model.get_metrics_dict(outputs, batch)
        return outputs, self.model.get_loss_dict(outputs, batch, metrics), metrics

    @torch.no_grad()
    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ) -> dict[str, Any]:
        """nerfstudio's own keys, the pixel kernel that the images were rendered with and, in ns-eval, close-up metrics.

        ``missing`` says why one is absent.
        """
        metrics = super().get_average_eval_image_metrics(step, output_path, get_std)
        masked = [(v, i, m) for v, i, m in self.datamanager.eval_photographs() if m is not None and bool(m.any())]
        if masked:  # nerfstudio's own figure counts what the masks hide
            shown = track(masked, "evaluation photographs, masked")
            scores = [psnr(self.model.render_view(view).color, image, mask) for view, image, mask in shown]
            metrics["psnr_masked"] = mean_of_numbers(scores)
        missing = {}
        if isinstance(predicted := predicted_psnr(self.model, self.datamanager), str):
            missing["psnr_predicted_exposure"] = predicted
        else:
            metrics["psnr_predicted_exposure"] = predicted
        kernel = self.model.kernel
        metrics |= {"kernel_variance": kernel.variance, "kernel_supersample": float(kernel.supersample)}
        training = self.rounds is not None  # where it would cost seconds at every evaluation
        if not training:
            close, absent = close_metrics(self.as_run())
            missing |= absent
            say_missing(missing)
            metrics |= {**close, "missing": missing}
        return metrics if training else finite(metrics)


def write_page(config: Path) -> None:
    """``report.html`` of a run, from its files alone. Hours of training do not end for want of a page: it says why."""
    try:
        CONSOLE.print(f"Report: {write_report(config)}", soft_wrap=True)
    except Exception as error:
        CONSOLE.print(f"[yellow]The report is not written: {escape(str(error))}. Later: closeup-gs report")
