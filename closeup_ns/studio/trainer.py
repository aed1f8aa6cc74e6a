"""The trainer: absolute schedule, checkpoints that appear whole, resumption that trains."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE

from closeup_ns.atomic import PARTIAL, atomic_path, writing
from closeup_ns.data.eval_cameras import read_cameras
from closeup_ns.errors import CheckpointError
from closeup_ns.model.kernel import PixelKernel
from closeup_ns.planning.targets import check_targets
from closeup_ns.progress import shows_bars
from closeup_ns.reading import reading
from closeup_ns.refine.refiner import check_refiner
from closeup_ns.rendering.backend import describe_backend
from closeup_ns.rounds.loop import Rounds
from closeup_ns.rounds.native import native_rounds
from closeup_ns.rounds.next_round import adopt_schedule
from closeup_ns.rounds.refine_step import refines
from closeup_ns.rounds.schedule import bind_schedule
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.rounds.trials.trial import photograph_psnr
from closeup_ns.studio.checkpoints import find_checkpoint, locate, read_checkpoint
from closeup_ns.studio.compatibility import config_being_loaded, forgive_event_writers
from closeup_ns.studio.exposure import start_exposure
from closeup_ns.studio.memory import keep_freed_memory
from closeup_ns.studio.pipeline import CloseupPipeline, CloseupPipelineConfig
from closeup_ns.studio.run_folder import hold_folder, inherit_rounds, refuse_used_folder

SPLATFACTO_KERNEL = PixelKernel.of(0.3)
"""gsplat's own, with which every splatfacto checkpoint was trained."""
CPU_STEPS = 10_000
"""More steps than this deserve a warning where there is no GPU."""
LINES = 20
"""In a pipe a run says this many times how far it is."""


@dataclass
class CloseupTrainerConfig(TrainerConfig):
    """nerfstudio's trainer, with the number of steps taken from the schedule."""

    _target: type = field(default_factory=lambda: CloseupTrainer)
    pipeline: CloseupPipelineConfig = field(default_factory=CloseupPipelineConfig)
    """Data, model, and the rounds after the base phase."""
    max_num_iterations: int = 0
    """Steps of the whole run, counted from its start also when it is resumed. 0: what ``pipeline.schedule`` adds up
    to. A smaller number stops early."""
    foreign_psnr: float = 12.0
    """A loaded checkpoint that renders this capture's photographs below this many dB is of another scene."""

    def save_config(self) -> None:
        """What ns-train does first: here it takes the folder, and notes the data so that it is found from anywhere.

        Raises:
            RunFolderError: another process trains in the folder, or it holds another run.
            DiskError: the folder cannot be written.
        """
        folder = self.get_base_dir()
        hold_folder(folder)
        refuse_used_folder(self)
        self.output_dir = self.output_dir.absolute()
        manager: Any = self.pipeline.datamanager
        if manager.data is not None:
            manager.data = manager.data.absolute()
        manager.dataparser.data = manager.dataparser.data.absolute()
        with atomic_path(folder / "config.yml") as temporary:
            temporary.write_text(yaml.dump(self), encoding="utf8")

    def get_base_dir(self) -> Path:
        """The run's folder: where its config.yml was loaded from, or else where it will be trained."""
        loaded = self.__dict__.get("loaded_from")
        return super().get_base_dir() if loaded is None else loaded.parent

    def get_checkpoint_dir(self) -> Path:
        """Where the checkpoints are; for ns-eval and its like beside config.yml, which may have been copied since."""
        loaded = config_being_loaded()
        if loaded is not None:
            locate(self, loaded)
        return super().get_checkpoint_dir()


class CloseupTrainer(Trainer):
    """`Trainer` that can be killed at any instant and resumed."""

    config: CloseupTrainerConfig
    pipeline: CloseupPipeline

    def __init__(self, config: CloseupTrainerConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.schedule = config.pipeline.schedule
        if not shows_bars():
            config.logging.local_writer.max_log_size = 0  # the table of steps would redraw itself
        self._follows_schedule = config.max_num_iterations <= 0
        self._set_total_steps()

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        CONSOLE.print(describe_backend(self.device))
        if self.device == "cpu":
            keep_freed_memory()
        if self.device == "cpu" and self.config.max_num_iterations > CPU_STEPS:
            CONSOLE.print(
                f"[yellow]{self.config.max_num_iterations} steps without a GPU take hours; closeup-gs-quick: minutes"
            )
        if self.schedule.rounds > 0:
            # Now, and not after the base phase: a refiner without its weights would be found out hours later.
            check_refiner(self.config.pipeline.refiner, self.device)
        if self.config.load_dir is not None:
            inherit_rounds(self.config.load_dir, self.base_dir)
            # Where rounds were asked for in the viewer, the run has a schedule of its own.
            adopt_schedule(RoundStore(self.base_dir / "rounds"), self.schedule)
            self._set_total_steps()
        super().setup(test_mode)
        forgive_event_writers()
        if not shows_bars():
            self._say_steps_in_lines()
        if self.schedule.rounds > 0:
            self._check_rounds()

    def _say_steps_in_lines(self) -> None:
        """A row of nerfstudio's table now and then, each when it is written: to a pipe Python would keep them back."""
        writer.GLOBAL_BUFFER["steps_per_log"] = max(self.config.max_num_iterations // LINES, 1)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)

    def _check_rounds(self) -> None:
        """Refuse now, too, what the first round would refuse after the whole base phase."""
        config, data = self.pipeline.config, self.pipeline.datamanager
        if config.frontier_cameras is not None:
            read_cameras(config.frontier_cameras)
        if RoundStore(self.base_dir / "rounds").load_targets() is None:
            check_targets(config.target, data.photograph_names(), data.train_views())

    def _set_total_steps(self) -> None:
        if self._follows_schedule:
            self.config.max_num_iterations = self.schedule.total_steps

    def _settle_rounds(self) -> None:
        """Leave out rounds that would have nothing to say: neither native detail nor a refiner (issue 11.6)."""
        config, store = self.pipeline.config, RoundStore(self.base_dir / "rounds")
        stored, wanted = store.load_schedule(), self.schedule.rounds
        if wanted > 0 and not refines(config, self.device):
            finer = [original.finer for original in self.pipeline.datamanager.originals() if original is not None]
            reach = max(finer, default=0.0) if config.originals.enabled else 0.0
            useful = native_rounds(reach, self.schedule.zoom, wanted)
            # A run that is resumed goes on as it was begun, also where its originals are gone since.
            begun = max([stored.rounds if stored else 0, *store.rounds()])
            self.schedule.rounds = min(wanted, max(useful, begun))
            if self.schedule.rounds < wanted:
                said = f"The originals are {reach:.1f}x finer than" if reach else "No originals are finer than"
                CONSOLE.print(
                    f"Rounds: {self.schedule.rounds} of {wanted} are planned. {said} what is trained on, and there is "
                    "no refiner (--pipeline.refiner.kind) for what lies beyond.",
                    soft_wrap=True,
                )
        if stored is not None or self.schedule.rounds < wanted:  # what is stored is what the run, resumed or not, does
            store.save_schedule(self.schedule.to_dict())
            self._set_total_steps()

    def setup_optimizers(self) -> Optimizers:
        self._settle_rounds()
        bind_schedule(self.config.optimizers, self.schedule)
        self.pipeline.seed_without_points()
        return super().setup_optimizers()

    def train(self) -> None:
        """Train to the end of the schedule, and on where a person asks for another round in the viewer."""
        self._train_to(self.config.max_num_iterations)
        while self._more_to_train():
            self._start_step = self._next_step()
            self.training_state = "training"
            self._train_to(self.schedule.total_steps)

    def _train_to(self, total: int) -> None:
        """Train from the current step to step ``total``. Upstream would train as many steps once more."""
        self.config.max_num_iterations = max(total - self._start_step, 0)
        self.step = self._start_step
        try:
            super().train()
        finally:
            self.config.max_num_iterations = total

    def _next_step(self) -> int:
        """The step after the last that was trained."""
        return max(self._rounds().next_step, self._start_step)

    def _more_to_train(self) -> bool:
        """After the last step: whether somebody asked for a round since."""
        rounds, step = self._rounds(), self._next_step()
        rounds.next_round.grant(rounds.schedule, rounds.store, step, rounds.end_base_phase)
        # A run that --max-num-iterations ends early is over at its end, whatever the schedule says.
        return rounds.next_round.granted and step < self.schedule.total_steps

    def _rounds(self) -> Rounds:
        assert self.pipeline.rounds is not None, "made with the training callbacks, by setup"
        return self.pipeline.rounds

    def _after_train(self) -> None:
        self.step = max(self._next_step() - 1, 0)  # upstream counts one on where the loop was ended early
        super()._after_train()

    def _train_complete_viewer(self) -> None:
        """Upstream's waits for Ctrl+C; here a wish for another round goes on with the training as well."""
        if self.viewer_state is None or self._more_to_train():
            return
        self.viewer_state.training_complete()
        CONSOLE.print("Use ctrl+c to quit, or ask for the next round in the viewer", justify="center")
        while not self._more_to_train():
            time.sleep(0.1)

    # ---- checkpoints

    def save_checkpoint(self, step: int) -> None:
        """Upstream's checkpoint, written beside its place and renamed: a kill or a full disk leaves the last one.

        Raises:
            DiskError: the disk refuses it.
        """
        folder, name = self.checkpoint_dir, f"step-{step:09d}.ckpt"
        with writing(folder / name):
            folder.mkdir(parents=True, exist_ok=True)
            # Outside the folder of checkpoints: upstream's loaders take any name in there for a checkpoint.
            with tempfile.TemporaryDirectory(
                prefix=f"{PARTIAL}checkpoint-", dir=folder.parent, ignore_cleanup_errors=True
            ) as temporary:
                self.checkpoint_dir = Path(temporary)
                try:
                    super().save_checkpoint(step)
                finally:
                    self.checkpoint_dir = folder
                with open(Path(temporary) / name, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(Path(temporary) / name, folder / name)
            if self.config.save_only_latest_checkpoint:
                for old in folder.glob("step-*.ckpt"):
                    if old.name != name:
                        old.unlink()

    def _load_checkpoint(self) -> None:
        path = self.config.load_checkpoint
        if self.config.load_dir is not None:
            path = find_checkpoint(self.config.load_dir, self.config.load_step)
        if path is None:
            super()._load_checkpoint()
            start_exposure(self.pipeline.model, self.pipeline.datamanager)
            return
        state = read_checkpoint(path)
        own = "_model.screen_kernel" in state["pipeline"]
        with reading(path, "Load another one, by --load-checkpoint or --load-step", CheckpointError):
            self._check_shapes(path, state["pipeline"])
            super()._load_checkpoint()
        if not own:
            self._continue_from_splatfacto(path)
            start_exposure(self.pipeline.model, self.pipeline.datamanager)
        self._check_scene(path)

    def _check_shapes(self, path: Path, state: Mapping[str, Any]) -> None:
        """Refuse what torch would refuse later in words that help nobody."""
        loaded = state.get("_model.gauss_params.features_rest")
        own = self.pipeline.model.features_rest
        if loaded is not None and loaded.shape[1:] != own.shape[1:]:
            raise CheckpointError(
                f"{path} has {loaded.shape[1]} spherical-harmonics coefficients per Gaussian, this run {own.shape[1]}: "
                "set --pipeline.model.sh-degree as in the run that wrote it"
            )
        images = state.get("_model.exposure.log_gain")
        if images is not None and len(images) != self.pipeline.model.num_train_data:
            raise CheckpointError(
                f"{path} was trained on {len(images)} photographs, this capture has "
                f"{self.pipeline.model.num_train_data}: it is a checkpoint of another scene"
            )

    def _continue_from_splatfacto(self, path: Path) -> None:
        """A splatfacto checkpoint stands for a finished base phase, whatever its own number of steps."""
        self._start_step = self.schedule.base_steps
        self.pipeline.model.kernel = SPLATFACTO_KERNEL
        for scheduler in self.optimizers.schedulers.values():
            scheduler.last_epoch = self._start_step - 1
            scheduler.step()
        CONSOLE.print(f"{path.name} is a splatfacto run: the base phase is skipped, the rounds start from it.")

    def _check_scene(self, path: Path) -> None:
        count = len(self.pipeline.datamanager.train_dataset)
        sample = list(range(0, count, max(count // 3, 1)))[:3]
        quality = photograph_psnr(self.pipeline.as_run(), sample)
        if quality < self.config.foreign_psnr and self._start_step >= min(1000, self.schedule.base_steps):
            raise CheckpointError(
                f"{path} renders the photographs of this capture at {quality:.1f} dB: it is a checkpoint of another "
                f"scene, or of this one with other poses. Train from scratch, or lower --foreign-psnr to go on anyway."
            )
