"""Section 4.3 of the paper on one page: plan -> render and refine -> inject -> fine-tune, round by round."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from nerfstudio.engine.trainer import Trainer
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from closeup_ns.data.eval_cameras import read_cameras
from closeup_ns.errors import PlanningError
from closeup_ns.model.cameras import to_model_frame
from closeup_ns.planning.plan import KnownView, RoundPlan, plan_round
from closeup_ns.planning.target import Target
from closeup_ns.planning.targets import resolve_targets
from closeup_ns.progress import StepLines, bar, stage_over, watching
from closeup_ns.refine.refiner import Refiner, build_refiner
from closeup_ns.rendering.types import Rendered
from closeup_ns.rounds.acceptance import RoundVerdict, try_round
from closeup_ns.rounds.injection import FineTuneConfig, fine_tuning_strategy, injected_view, teaches
from closeup_ns.rounds.kernel_search import judges, search_kernel
from closeup_ns.rounds.known import believed_views, observations
from closeup_ns.rounds.next_round import NextRound, give_way
from closeup_ns.rounds.refine_step import Refinement, refine_round
from closeup_ns.rounds.round_report import write_round_report
from closeup_ns.rounds.store.rounds import RoundStore, run_identity
from closeup_ns.rounds.trial import eval_psnr
from closeup_ns.studio.datamanager import InjectedView
from closeup_ns.views.reliability import Observation
from closeup_ns.views.view import View

if TYPE_CHECKING:
    from closeup_ns.studio.pipeline import CloseupPipeline


@dataclass
class _Progress:
    """What is known about the round under way."""

    number: int
    plans: list[RoundPlan]
    verdict: RoundVerdict
    started: float
    seconds: dict[str, float]
    psnr_before: float | None


class Rounds:
    """Runs between the trainer's steps. Everything that must survive a kill is in the store, not in here."""

    def __init__(self, pipeline: CloseupPipeline, trainer: Trainer) -> None:
        self.pipeline, self.trainer, self.config = pipeline, trainer, pipeline.config
        self.schedule = pipeline.config.schedule
        self.store = RoundStore(trainer.base_dir / "rounds")
        self.targets: list[Target] = []
        self.progress: _Progress | None = None
        self.lines = StepLines(trainer.config.max_num_iterations)
        self.next_round = NextRound()
        self.stage = ""
        """What is being done between two steps, for whoever watches; empty while steps are trained."""
        self.next_step = 0
        self._caught_up = False

    # ---- the trainer's steps

    def before_step(self, step: int) -> None:
        """Called with the model between two steps, before step ``step`` is trained."""
        if not self._caught_up:
            self._catch_up(step)
        self.next_round.grant(self, step)
        if self.next_round.granted:
            self.lines.total = self.schedule.total_steps
        self.lines.begin(step)
        if step == int(self.config.model.supersample_from * self.schedule.base_steps):
            self.pipeline.model.start_supersampling()
        if step == self._kernel_step() and self.pipeline.datamanager.held_out:
            self._choose_kernel(step, self.schedule.base_steps)
        number = self.schedule.round_at(step)
        if number and step == self.schedule.round_start(number):
            self._begin(number, step)

    def after_step(self, step: int) -> None:
        """Called after step ``step`` was trained."""
        self.lines.done(step)
        number = self.schedule.round_at(step)
        last = number > 0 and self.schedule.round_at(step + 1) != number
        if last:
            self.stage = f"round {number}: writing its report"  # before the step counts: the round is not over yet
        self.next_step = step + 1
        if self.next_round.granted and self.next_step >= self.schedule.total_steps:
            self.trainer.stop_training = True  # the base phase was cut short: the trainer's loop would go on
        if last:
            self._finish(number)
            self.stage = ""

    def _catch_up(self, step: int) -> None:
        """Bring back what a run that starts at ``step`` would have in memory: judges, and earlier rounds' views."""
        self._caught_up = True
        if step <= self._kernel_step():
            data = self.pipeline.datamanager
            data.hold_out(judges(len(data.train_dataset), self.config.kernel_search))
        number = self.schedule.round_at(step)
        if step < self.schedule.base_steps or self.schedule.rounds == 0:
            return
        for earlier in range(1, number if number else self.schedule.rounds + 1):
            self._reload(earlier)
        if number and step != self.schedule.round_start(number):
            self._resume(number)

    # ---- base phase

    def _kernel_step(self) -> int:
        return int(self.config.kernel_search.at * self.schedule.base_steps)

    def _choose_kernel(self, step: int, base_steps: int) -> None:
        steps = max(int(self.config.kernel_search.trial_steps * base_steps), 1)
        search_kernel(self.trainer, step, self.config.kernel_search, steps)
        self.pipeline.datamanager.hold_out([])

    def end_base_phase(self, step: int) -> None:
        """The base phase ends before ``step``, earlier than scheduled: do now what it would have done later."""
        if step <= int(self.config.model.supersample_from * self.schedule.base_steps):
            self.pipeline.model.start_supersampling()
        if self.pipeline.datamanager.held_out:
            self.stage = "choosing the pixel kernel"
            self._choose_kernel(step, base_steps=step)
        self.pipeline.model.base_steps = step

    # ---- one round

    def _begin(self, number: int, step: int) -> None:
        zoom = self.config.planner.zoom**number
        if number == 1:
            self.lines.base_phase_over(step)
        CONSOLE.rule(f"Round {number} of {self.schedule.rounds}: {zoom:g}x closer")
        self.trainer.save_checkpoint(step - 1)  # resuming starts here and repeats neither plan nor refinement
        began, seconds = time.perf_counter(), {}
        before = self._reported_psnr()
        self.stage = f"round {number}: planning"
        refiner, description = build_refiner(self.config.refiner, self.pipeline.device)
        plans = self._plan(number, refiner)
        seconds["plan"] = time.perf_counter() - began
        stage_over(number, "planned", seconds["plan"])
        CONSOLE.print(description, soft_wrap=True)
        self.stage = f"round {number}: refining"
        views = self._refine(number, plans, refiner)
        seconds["refine"] = time.perf_counter() - began - seconds["plan"]
        stage_over(number, f"refined; {len(views)} views to train on", seconds["refine"])
        self._round_strategy(step, plans, refiner)
        self.stage = f"round {number}: judging"
        verdict = self._judge(number, step, views, refiner)
        seconds["judge"] = time.perf_counter() - began - seconds["plan"] - seconds["refine"]
        stage_over(number, "judged", seconds["judge"])
        self.progress = _Progress(number, plans, verdict, time.perf_counter(), seconds, before)
        if verdict.accepted:
            self._forget_moments()
            self._inject(number, views)
        self.stage = ""
        word = "[green]kept" if verdict.accepted else "[yellow]not kept"
        CONSOLE.print(f"Round {number} is {word}[/]: {verdict.reason}")

    def _plan(self, number: int, refiner: Refiner) -> list[RoundPlan]:
        """4.3.1 and 4.3.2: anchors, frontier and to-be-updated views for each target; from the store if it has them."""
        self._find_targets()
        saved = self.store.load_plan(number)
        if saved is not None:
            return [RoundPlan.from_dict(plan) for plan in saved["plans"]]
        known, plans = self._known_views(number, refiner), []
        for index, target in enumerate(self.targets):
            generator = torch.Generator().manual_seed(self.config.seed + 1000 * number + index)
            previous = self._previous_anchors(number, index, known)
            render, given, planner = self._render, self._given_frontier(number), self.config.planner
            # Rendering is what planning spends its time on: the known views, the frontier, the candidates.
            with bar(f"planning round {number}", len(known) + planner.anchors + planner.candidates) as advance:
                watched = watching(render, advance)
                plan = plan_round(number, target, known, watched, planner, generator, previous, given)
            for warning in plan.warnings:
                CONSOLE.print(f"[yellow]Plan: {escape(warning)}")
            plans.append(plan)
        content = {"plans": [plan.to_dict() for plan in plans], "known": [view.to_dict() for view in known]}
        self.store.save_plan(number, content)
        return plans

    def _render(self, view: View) -> Rendered:
        self._give_way()
        return self.pipeline.model.render_view(view)

    def _give_way(self) -> None:
        give_way(self.trainer)

    def _given_frontier(self, number: int) -> list[View] | None:
        """The cameras that the user gave as the first round's frontier, in the model's frame."""
        if self.config.frontier_cameras is None or number > 1:
            return None
        outputs = self.pipeline.datamanager.train_dataparser_outputs
        transform, scale = outputs.dataparser_transform, float(outputs.dataparser_scale)
        cameras = read_cameras(self.config.frontier_cameras)
        return [to_model_frame(camera.view, transform, scale).to(dtype=torch.float32) for camera in cameras]

    def _refine(self, number: int, plans: list[RoundPlan], refiner: Refiner) -> list[InjectedView]:
        """4.3.3: render and refine what the store does not hold yet; give back what the gate let through."""
        work = Refinement(
            self.pipeline,
            refiner,
            number,
            store=self.store,
            earlier=self.store,
            photographs=observations(self.pipeline, self._give_way),
            believed=list(self._believed(number).values()) if refiner.generates else (),
            between=self._give_way,
        )
        try:
            refine_round(work, plans)
        finally:
            refiner.close()  # what it loaded must not lie beside the fine-tuning
        return self._stored_views(number, plans, refiner.generates)

    def _forget_moments(self) -> None:
        """4.3.4: a round that is kept has a new objective, so Adam starts anew (papers.md 6.3 #20).

        One that is not kept goes on with the photographs as before: forgetting cost it 0.05 dB of the far views.
        """
        for optimizer in self.trainer.optimizers.optimizers.values():
            optimizer.state.clear()

    def _round_strategy(self, start: int, plans: list[RoundPlan], refiner: Refiner) -> None:
        """4.3.4: a fresh strategy; the schedulers raise the learning rate by themselves."""
        model = self.pipeline.model
        ratio = min(1 / plan.zoom_total for plan in plans)
        model.full_resolution = True
        model.strategy = fine_tuning_strategy(
            model, self.config.fine_tune, start, self.schedule.round_steps, ratio, refiner.generates
        )
        model.strategy_state = model.strategy.initialize_state(scene_scale=1.0)

    def _judge(self, number: int, step: int, views: list[InjectedView], refiner: Refiner) -> RoundVerdict:
        """Is the round worth keeping? Decided once; a resumed run reads the decision."""
        saved = self.store.load_verdict(number)
        if saved is not None:
            return RoundVerdict(**saved)
        self._mix(number)
        target = self.targets[0].point
        verdict = try_round(self.trainer, step, self.schedule.round_steps, views, target, refiner.generates)
        self.store.save_verdict(number, verdict.to_dict())
        return verdict

    def _mix(self, number: int) -> None:
        """How often the datamanager serves an injected view, and which round's it prefers."""
        data, config = self.pipeline.datamanager, self.config.fine_tune
        data.current_round, data.current_share = number, config.current_share
        data.injected_probability = config.probability

    def _inject(self, number: int, views: list[InjectedView]) -> None:
        """4.3.4: the views join the photographs."""
        data = self.pipeline.datamanager
        data.injected = [view for view in data.injected if view.round_index != number] + views
        self._mix(number)

    def _finish(self, number: int) -> None:
        """Show what the round did, and mark it as over."""
        progress = self.progress
        assert progress is not None and progress.number == number
        progress.seconds["fine_tune"] = time.perf_counter() - progress.started
        stage_over(number, "fine-tuned", progress.seconds["fine_tune"])
        write_round_report(
            self.pipeline,
            self.store,
            number,
            progress.plans,
            progress.verdict,
            progress.seconds,
            progress.psnr_before,
            self._reported_psnr(),
        )
        self.progress = None

    # ---- memory across rounds and across a kill

    def _find_targets(self) -> None:
        if self.targets:
            return
        data = self.pipeline.datamanager
        names, views = data.photograph_names(), data.train_views()
        saved = self.store.load_targets()
        if saved is None:
            self.targets = resolve_targets(self.config.target, names, views, self._render)
        else:
            if self.config.target.xyz or self.config.target.pixel:
                CONSOLE.print("The rounds go on with the target they were begun with; another one needs a new run.")
            found = [Target.from_dict(target) for target in saved]
            self.targets = [replace(target, point=target.point.to(self.pipeline.device)) for target in found]
        # A resumed run too: rounds of another capture are refused, and what a kill left half-written is removed.
        self.store.claim(run_identity(names, self.targets[0].point.tolist(), self.config.seed))
        if saved is None:
            self.store.save_targets([target.to_dict() for target in self.targets])

    def _believed(self, number: int) -> dict[str, Observation]:
        return believed_views(self.pipeline, self.store, number, self._give_way)

    def _known_views(self, number: int, refiner: Refiner) -> list[KnownView]:
        """Photographs, and earlier rounds' views. A generator's references may only be views that are believed."""
        data = self.pipeline.datamanager
        known = [
            KnownView(f"train/{name}", view, True) for name, view in zip(data.photograph_names(), data.train_views())
        ]
        earlier = [view for view in data.injected if view.round_index < number]
        if refiner.generates and earlier:
            believed = self._believed(number)
            earlier = [view for view in earlier if view.name in believed]
        return known + [KnownView(view.name, view.view, False) for view in earlier]

    def _previous_anchors(self, number: int, target: int, known: list[KnownView]) -> list[str] | None:
        saved = self.store.load_plan(number - 1) if number > 1 else None
        if saved is None:
            return None
        still_known = {view.name for view in known}
        names = [anchor.name for anchor in RoundPlan.from_dict(saved["plans"][target]).anchors]
        return [name for name in names if name in still_known] or None

    def _stored_views(self, number: int, plans: list[RoundPlan], generates: bool) -> list[InjectedView]:
        distances = {index: plan.radius * plan.zoom_total for index, plan in enumerate(plans)}
        views = []
        for name in self.store.views(number):
            stored = self.store.load_view(number, name)
            if not teaches(stored, self.config.fine_tune):
                continue
            plan_index = int(name.split("_")[0][1:])
            views.append(
                injected_view(
                    number,
                    name,
                    stored,
                    self.targets[plan_index].point,
                    distances[plan_index],
                    self.config.fine_tune,
                    generates,
                    self.pipeline.device,
                )
            )
        return views

    def _reload(self, number: int) -> None:
        """Views of an earlier, accepted round, as they were."""
        saved = self.store.load_verdict(number)
        plans = self.store.load_plan(number)
        if not saved or not saved["accepted"] or plans is None:
            return
        self._find_targets()
        refiner, _ = build_refiner(self.config.refiner, self.pipeline.device)
        loaded = [RoundPlan.from_dict(plan) for plan in plans["plans"]]
        self._inject(number, self._stored_views(number, loaded, refiner.generates))

    def _resume(self, number: int) -> None:
        """In the middle of a round: its views and its strategy, at the step it had reached."""
        saved, plans = self.store.load_verdict(number), self.store.load_plan(number)
        if saved is None or plans is None:
            raise PlanningError(
                f"this run stopped inside round {number}, but {self.store.folder(number)} does not hold its plan and "
                "verdict: resume with --load-dir of the run itself, so that its rounds/ folder is found"
            )
        self._find_targets()
        loaded = [RoundPlan.from_dict(plan) for plan in plans["plans"]]
        refiner, _ = build_refiner(self.config.refiner, self.pipeline.device)
        verdict = RoundVerdict(**saved)
        self.progress = _Progress(number, loaded, verdict, time.perf_counter(), {}, None)
        self._round_strategy(self.schedule.round_start(number), loaded, refiner)
        if verdict.accepted:
            self._inject(number, self._stored_views(number, loaded, refiner.generates))

    def _reported_psnr(self) -> float | None:
        """PSNR of the evaluation split: for the report only, never for a decision."""
        return eval_psnr(self.pipeline)


__all__ = ["FineTuneConfig", "Rounds"]
