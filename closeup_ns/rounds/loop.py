"""Section 4.3 of the paper on one page: plan -> render and refine -> judge -> inject -> fine-tune, round by round."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from nerfstudio.utils.rich_utils import CONSOLE

from closeup_ns.errors import RoundStorageError
from closeup_ns.model.kernel import PixelKernel
from closeup_ns.model.model import SUPERSAMPLE_FROM
from closeup_ns.planning.target import Target
from closeup_ns.planning.targets import resolve_targets
from closeup_ns.progress import duration
from closeup_ns.refine.protocol import Refiner
from closeup_ns.refine.refiner import build_refiner
from closeup_ns.rounds.injection import fine_tuning_strategy, stored_views
from closeup_ns.rounds.measured_pixel import can_measure, measure_pixel
from closeup_ns.rounds.native import cut_native_views, native_variance
from closeup_ns.rounds.next_round import NextRound
from closeup_ns.rounds.plan_step import plan_views
from closeup_ns.rounds.poses import refine_poses
from closeup_ns.rounds.refine_step import refine_round, refines
from closeup_ns.rounds.reporting.round_report import RoundResult, write_round_report
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.store.native import NativeStore
from closeup_ns.rounds.store.rounds import RoundStore, run_identity
from closeup_ns.rounds.trials.acceptance import Candidate, RoundVerdict, try_round
from closeup_ns.rounds.trials.kernel_search import SEARCH_AT, TRIAL_STEPS, held_out_indices, search_kernel
from closeup_ns.rounds.trials.trial import eval_psnr
from closeup_ns.rounds.views import InjectedView

STAGES = {
    "cut": ("cutting originals", "cut its native views"),
    "register": ("registering native views", "registered"),
    "plan": ("planning", "planned"),
    "refine": ("refining", "refined"),
    "judge": ("judging", "judged"),
    "learn": ("", "trained on its native views"),
    "fine_tune": ("", "fine-tuned"),
}
"""A round's stages: what is shown while one lasts (nothing while steps are trained), and what is said after it."""

GROWTH = 1.5
"""A round whose generated views densify may multiply the number of Gaussians by at most this, whatever
``pipeline.model.max-gaussians`` allowed the base phase."""

REGISTRATIONS = 3
"""How often a round registers its native views, evenly over its steps. Once is enough where nothing moves (fern); where
poses are worse or the wind blows, one round gains 0.9 dB at 9x with three against none with one (flower)."""


class Rounds:
    """Runs between the trainer's steps. Everything that must survive a kill is in the store, not in here."""

    def __init__(self, run: Run, folder: Path, round_over: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            folder: the run's ``rounds`` folder.
            round_over: called when a round's report is written.
        """
        assert run.trainer is not None
        self._round_over = round_over
        self.run, self.trainer, self.settings, self.schedule = run, run.trainer, run.settings, run.settings.schedule
        self.store, self.native_store = RoundStore(folder), NativeStore(folder)
        self.targets: list[Target] = []
        self.next_round = NextRound()
        self.stage = ""
        """What is being done between two steps, for whoever watches; empty while steps are trained."""
        self.next_step = 0
        self._caught_up = False
        self._under_way: Iterator[int] | None = None
        self._trained_until = 0
        """The step before which the round under way wants to go on."""

    # ---- one round

    def _round(self, number: int, step: int) -> Iterator[int]:
        """Round ``number`` from top to bottom, begun or resumed at ``step``; the fine-tuning happens where it yields,
        until the step that it gives.

        A stage whose result the store holds is skipped: that is all that resuming is. Where there are native views,
        half of the round trains on them before anything is refined: a refiner shall see what was photographed.
        """
        run, start, zoom = self.run, self.schedule.round_start(number), self.schedule.zoom**number
        end = start + self.schedule.round_steps
        CONSOLE.rule(f"Round {number} of {self.schedule.rounds}: {zoom:g}x closer")
        targets, result = self.find_targets(), RoundResult(number, zoom)
        if step == start:
            self.trainer.save_checkpoint(step - 1)  # resuming starts here
        refiner, description = build_refiner(self.settings.refiner, run.device)
        with self._stage(result, "cut"):
            native = cut_native_views(run, self.native_store, number, targets)
            run.photographs.native += native
        if not (native or refines(self.settings, run.device)):
            yield self._leave_out(number)
        if step == start:
            result.look_before(run, targets[0])
        if native and step == start and self.settings.originals.refine_poses:
            with self._stage(result, "register"):
                refine_poses(run, number)
        refined_at = start + (self.schedule.round_steps // 2 if native and refines(self.settings, run.device) else 0)
        if step < refined_at:
            self._prepare(number, False, range(start, refined_at), step)
            with self._stage(result, "learn"):
                yield refined_at
            step = refined_at
            self.trainer.save_checkpoint(step - 1)  # its views are rendered by this model
        views = self._refined_views(result, refiner, description)
        self._prepare(number, refiner.generates, range(refined_at, end), step)
        with self._stage(result, "judge"):
            target, steps = targets[0].point, self.schedule.round_steps
            verdict = self._judge(Candidate(number, views, target, refiner.generates, refined_at, steps))
            result.verdict = verdict
        views = views if verdict.accepted else []
        run.photographs.injected += views
        if views and step == refined_at:
            # 4.3.4: refined views are a new objective, so Adam starts anew (papers.md 6.3 #20). Native views are
            # photographs: by forgetting for them, flower lost 0.6 dB at 3x and 0.7 at 9x.
            for optimizer in self.trainer.optimizers.optimizers.values():
                optimizer.state.clear()
        CONSOLE.print(f"Round {number} is {'kept' if verdict.accepted else 'not kept'}: {verdict.reason}")
        with self._stage(result, "fine_tune"):
            yield end  # 4.3.4: the trainer's own steps
        result.psnr_after = eval_psnr(run)
        write_round_report(run, self.store, result, targets[0])
        self._round_over()

    def _leave_out(self, number: int) -> int:
        """End the run before round ``number``, which has nothing to say, nor has any that goes nearer (issue 11.6).

        Returns the step that the run ends with.
        """
        CONSOLE.print(
            f"[yellow]Round {number} is left out and the run ends: no finer original shows the target, and there is no "
            "refiner. Another target (--pipeline.target.pixel) may be in more photographs.",
            soft_wrap=True,
        )
        self.schedule.rounds = number - 1
        self.store.save_schedule(self.schedule.to_dict())
        self.next_round.granted = True  # the trainer's loop would go on with the schedule that it began with
        return self.schedule.total_steps

    def _refined_views(self, result: RoundResult, refiner: Refiner, description: str) -> list[InjectedView]:
        """4.3.1 to 4.3.3: the round's own views; none where nothing refines."""
        if not refines(self.settings, self.run.device):
            return []
        with self._stage(result, "plan"):
            result.plans = plan_views(self.run, self.store, result.number, self.targets, refiner)
        with self._stage(result, "refine"):
            CONSOLE.print(description, soft_wrap=True)
            refine_round(self.run, refiner, result.number, result.plans, self.store, self.store)
            return stored_views(self.store, result.number, result.plans, self.settings.fine_tune, self.run.device)

    def _prepare(self, number: int, generates: bool, steps: range, step: int) -> None:
        """4.3.4: a fresh densification strategy, sizes held to the finest pixel, and what is drawn how often.

        ``steps``: those that belong together, of which ``step`` is trained next. Native views may add Gaussians in
        the first of a round, a generator's views in those that train on them.
        """
        run, originals = self.run, self.settings.originals
        model, data, native = run.model, run.photographs, run.native_views(number)
        model.full_resolution = True
        if native and originals.own_kernel:
            variance = native_variance(native)
            model.set_native_kernel(number, PixelKernel.of(variance, model.kernel.supersample, model.config.eps2d))
        model.footprint_views = [*data.train_views(), *map(data.native_view, data.native)]
        model.measure_footprint()
        new = bool(native) and steps.start == self.schedule.round_start(number)
        if step == steps.start:
            model.gaussians_at_start.fill_(model.num_points)
        growth = GROWTH if generates else 1.0
        if new and originals.own_budget:
            growth = max(growth, originals.growth)
        model.strategy = fine_tuning_strategy(
            model,
            self.settings.fine_tune,
            start=steps.start,
            steps=len(steps),
            densifies=generates or new,
            max_gaussians=int(int(model.gaussians_at_start) * growth),
        )
        model.strategy_state = model.strategy.initialize_state(scene_scale=1.0)
        data.mix(number, originals.share)

    def _judge(self, candidate: Candidate) -> RoundVerdict:
        """Is the round worth keeping? Decided once; a resumed run reads the decision, if it was on as many views.

        It was not where a run without a refiner is gone on with and has one now.
        """
        saved = self.store.load_verdict(candidate.number)
        if saved is not None and saved.views == len(candidate.views):
            return saved
        verdict = try_round(self.run, candidate)
        self.store.save_verdict(candidate.number, asdict(verdict))
        return verdict

    @contextmanager
    def _stage(self, result: RoundResult, name: str) -> Iterator[None]:
        """One of `STAGES`: shown to whoever watches, timed, and reported in a line when it is over."""
        began = time.perf_counter()
        doing, done = STAGES[name]
        self.stage = doing and f"round {result.number}: {doing}"
        yield
        result.seconds[name] = time.perf_counter() - began
        CONSOLE.print(f"Round {result.number}: {done} in {duration(result.seconds[name])}", highlight=False)

    # ---- the trainer's steps

    def before_step(self, step: int) -> None:
        """Called with the model between two steps, before step ``step`` is trained."""
        if not self._caught_up:
            self._catch_up(step)
        self.next_round.grant(self.schedule, self.store, step, self.end_base_phase)
        if step == int(SUPERSAMPLE_FROM * self.schedule.base_steps):
            self._start_supersampling()
        if step == self._kernel_step() and self.run.photographs.held_out:
            self._choose_kernel(step, self.schedule.base_steps)
        number = self.schedule.round_at(step)
        if number and self._under_way is None:
            self._under_way = self._round(number, step)
            self._trained_until = next(self._under_way)
        elif self._under_way is not None and step == self._trained_until:
            self._trained_until = next(self._under_way)
        elif number:
            self._register_between(number, step)

    def _register_between(self, number: int, step: int) -> None:
        """Register a round's native views anew while it trains: the sharper the model, the finer they are placed."""
        every = self.schedule.round_steps // REGISTRATIONS
        passed = step - self.schedule.round_start(number)
        due = every > 0 and passed in range(every, every * REGISTRATIONS, every)
        if due and self.settings.originals.refine_poses:
            refine_poses(self.run, number)

    def after_step(self, step: int) -> None:
        """Called after step ``step`` was trained."""
        number = self.schedule.round_at(step)
        last = number > 0 and self.schedule.round_at(step + 1) != number
        if last:
            self.stage = f"round {number}: writing its report"  # before the step counts: the round is not over yet
        self.next_step = step + 1
        if self.next_round.granted and self.next_step >= self.schedule.total_steps:
            self.trainer.stop_training = True  # the base phase was cut short: the trainer's loop would go on
        if last and self._under_way is not None:
            next(self._under_way, None)
            self._under_way, self.stage = None, ""

    def _catch_up(self, step: int) -> None:
        """Hold out photographs and load earlier rounds' views, as in a run that came to ``step`` without a break."""
        self._caught_up = True
        data = self.run.photographs
        if step <= self._kernel_step() and self.settings.kernel_search.enabled and not can_measure(self.run):
            data.hold_out(held_out_indices(len(data.train_views())))
        if step < self.schedule.base_steps or self.schedule.rounds == 0:
            return
        for earlier in range(1, self.schedule.round_at(step) or self.schedule.rounds + 1):
            self._join_stored(earlier)

    def _join_stored(self, number: int) -> None:
        """Views of an earlier round, as they were."""
        verdict, plan = self.store.load_verdict(number), self.store.load_plan(number)
        if verdict is None or (plan is None and self.store.views(number)):
            missing = "verdict.json" if verdict is None else "plan.json"
            raise RoundStorageError(
                f"this run was trained beyond round {number}, but {self.store.folder(number)} holds no {missing}: "
                "its views cannot be trained on any more. Restore the folder, or resume from an earlier checkpoint "
                "with --load-step"
            )
        self.find_targets()
        data = self.run.photographs
        data.native += self.native_store.load(number, data.photograph_names())
        if plan is not None and verdict.accepted:
            data.injected += stored_views(self.store, number, plan.plans, self.settings.fine_tune, self.run.device)

    # ---- base phase

    def _kernel_step(self) -> int:
        return int(SEARCH_AT * self.schedule.base_steps)

    def _choose_kernel(self, step: int, base_steps: int) -> None:
        steps = max(int(TRIAL_STEPS * base_steps), 1)
        search_kernel(self.run, step, steps)
        self.run.photographs.hold_out([])

    def _start_supersampling(self) -> None:
        """From now on the pixel is an area: the photographs' own, where their originals tell it."""
        model = self.run.model
        model.start_supersampling()
        model.kernel = measure_pixel(self.run) or model.kernel

    def end_base_phase(self, step: int) -> None:
        """The base phase ends before ``step``, earlier than scheduled: do now what it would have done later."""
        model = self.run.model
        if step <= int(SUPERSAMPLE_FROM * self.schedule.base_steps):
            self._start_supersampling()
        if self.run.photographs.held_out:
            self.stage = "choosing the pixel kernel"
            self._choose_kernel(step, base_steps=step)
        model.base_steps = step

    # ---- memory across rounds

    def find_targets(self) -> list[Target]:
        """The run's targets, from the store if it has them."""
        if self.targets:
            return self.targets
        data, settings = self.run.photographs, self.settings
        names, saved = data.photograph_names(), self.store.load_targets()
        if saved is None:
            self.targets = resolve_targets(settings.target, names, data.train_views(), self.run.render)
        else:
            if settings.target.xyz or settings.target.pixel:
                CONSOLE.print("The rounds go on with the target they were begun with; another one needs a new run.")
            self.targets = [replace(target, point=target.point.to(self.run.device)) for target in saved]
        # A resumed run too: rounds of another capture are refused, and what a kill left half-written is removed.
        self.store.claim(run_identity(names, self.targets[0].point.tolist(), settings.seed))
        if saved is None:
            self.store.save_targets([target.to_dict() for target in self.targets])
        return self.targets
