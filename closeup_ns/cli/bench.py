"""`closeup-gs bench`: a protocol's scenes times methods times seeds, and the paper's tables of the results."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from closeup_ns.bench.executor import make_executor
from closeup_ns.bench.experiment import Experiment, ExperimentResult, read_experiments, record_failure, scene_folder
from closeup_ns.bench.methods import Budget, Method, load_methods, pick_methods, table_methods
from closeup_ns.bench.process import leave
from closeup_ns.bench.scenes.prepare import prepare_scene
from closeup_ns.bench.scenes.protocol import Protocol, Scene, load_protocol
from closeup_ns.bench.stages import finished_experiment
from closeup_ns.errors import CloseupError
from closeup_ns.evaluation.evaluate import EvaluationConfig
from closeup_ns.progress import bar, say

FULL = Budget(30000, 3, 5000)
"""The paper's: section 5.2."""
QUICK = Budget(3000, 3, 500)
"""A tenth of it. closeup-gs-quick itself has rounds of 750 steps."""


@dataclass
class Bench:
    """Run a protocol: every method on every scene with every seed, all for the same number of steps, and tabulate.

    Interrupted or repeated, it goes on where it was: finished experiments are kept while their settings are unchanged,
    a training that was killed continues from its checkpoint, and what failed is repeated.
    """

    protocol: str = "demo"
    """demo, farclose, lerf, llff or zoom, or the path of a protocol of your own (YAML)."""
    methods: tuple[str, ...] = ()
    """Rows, by their names in closeup_ns/bench/methods.yaml, or any method of ns-train; default: those of --table."""
    table: Literal["auto", "default", "1", "2", "3", "fig5", "zoom"] = "auto"
    """Rows of one of the paper's tables; auto: of the one that shows this protocol."""
    renders: dict[str, str] = field(default_factory=dict)
    """Rows made by anything else: ``--renders zipnerf FOLDER`` for pictures FOLDER/PROTOCOL/SCENE/NAME.png."""
    scenes: tuple[str, ...] = ()
    """Scenes of the protocol; default: all."""
    data: Path = Path("data")
    """Folder that the protocol's data lie below."""
    output: Path = Path("outputs/bench")
    """Folder for scenes, experiments and tables."""
    seeds: tuple[int, ...] = (0,)
    """Each row is trained once per seed."""
    quick: bool = not torch.cuda.is_available()
    """A tenth of the steps, and the methods' quick siblings. The default where there is no GPU."""
    base_steps: int = 0
    """Steps of the base phase; 0: 30000, quick 3000."""
    rounds: int = -1
    """Rounds of progressive methods; -1: the protocol's."""
    round_steps: int = 0
    """Steps of each round, which rows without rounds train too; 0: 5000, quick 500."""
    threshold: float | None = None
    """farclose: photographs this many times farther than the near ones are trained on; default: the protocol's."""
    train_options: dict[str, str] = field(default_factory=dict)
    """Further options for every ns-train, without dashes: ``--train-options pipeline.planner.anchors 3 mixed-precision
    False``. Several values of one option go into quotes."""
    workers: int = 0
    """Experiments at a time; 0: one per GPU, or without one as the cores allow."""
    executor: Literal["local", "ray"] = "local"
    """local: processes of this machine. ray: a task per experiment, on a cluster or a Ray that starts here."""
    ray_address: str = ""
    """Cluster that --executor ray joins, e.g. HOST:6379; default: a Ray starts here."""
    only_tables: bool = False
    """Train nothing: write the tables from the experiments that are there."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Metrics and their weights."""

    def main(self) -> list[ExperimentResult]:
        """Run what is left to run and write the tables.

        Returns:
            All experiments of this call, or with ``only_tables`` all that are in ``output``; rows in the order they
            were given, which is the tables'.

        Raises:
            CloseupError: a name is unknown, Ray is missing, or every experiment failed.
        """
        before = signal.signal(signal.SIGTERM, leave)
        try:
            experiments = self._earlier() if self.only_tables else self._run()
        finally:
            signal.signal(signal.SIGTERM, before)
        if not experiments:
            raise CloseupError(f"there are no experiments in {self.output}; run closeup-gs bench without --only-tables")
        self._report(experiments)
        failed = [experiment for experiment in experiments if experiment.state != "done"]
        if len(failed) == len(experiments):
            raise CloseupError(f"all {len(experiments)} experiments failed; the first: {failed[0].error}")
        return experiments

    def _earlier(self) -> list[ExperimentResult]:
        """The experiments in ``output``: rows in the order of --methods, then of methods.yaml."""
        order = [*self.methods, *load_methods()]
        experiments = read_experiments(self.output)
        return sorted(experiments, key=lambda one: order.index(one.method) if one.method in order else len(order))

    def _report(self, experiments: Sequence[ExperimentResult]) -> None:
        """Write the tables, plots and pictures, and say where they are."""
        from closeup_ns.bench.output.report import write_report  # matplotlib takes its time, --help has no need of it

        for path in write_report(self.output, experiments):
            say(str(path))

    def _run(self) -> list[ExperimentResult]:
        executor = make_executor(self.executor, self.workers, self.ray_address)
        protocol = load_protocol(self.protocol, threshold=self.threshold).pick(self.scenes)
        names = self.methods or (() if self.renders else table_methods(self.table, protocol.name))
        methods = pick_methods(names, self.renders)
        specs, results = [], []
        for scene in protocol.scenes:
            experiments = self._experiments(protocol, scene, methods)
            try:
                say(f"preparing {protocol.name} {scene.name}")
                prepare_scene(protocol.name, scene, self.data, scene_folder(self.output, protocol.name, scene.name))
                specs += experiments
            except (CloseupError, OSError) as problem:
                results += [record_failure(spec.result(self.output, "failed", str(problem))) for spec in experiments]
        results += [experiment for spec in specs if (experiment := finished_experiment(spec, self.output)) is not None]
        for experiment in results:
            CONSOLE.print(_line(experiment, kept=experiment.state == "done"), soft_wrap=True, highlight=False)
        finished = {experiment.folder for experiment in results}
        left = [spec for spec in specs if spec.folder(self.output) not in finished]
        with bar("experiments", len(left)) as advance:
            shares: dict[Path, float] = {}

            def watch(spec: Experiment, share: float) -> None:
                folder = spec.folder(self.output)
                if folder not in shares:
                    say(f"started {_where(spec.result(self.output, 'running'))}")
                shares[folder] = share
                advance(sum(shares.values()), len(left))

            for by_time in (False, True):  # rows that train for as much time as another one come after it
                wave = [spec for spec in left if bool(spec.method.cpu_time_of) == by_time]
                for experiment in executor(wave, self.output, watch) if wave else ():
                    results.append(experiment)
                    shares[experiment.folder] = 1.0
                    advance(sum(shares.values()), len(left))
                    CONSOLE.print(_line(experiment), soft_wrap=True, highlight=False)
        order = [method.name for method in methods]
        return sorted(results, key=lambda one: (order.index(one.method), one.scene, one.seed))

    def _experiments(self, protocol: Protocol, scene: Scene, methods: Sequence[Method]) -> list[Experiment]:
        """The experiments of one scene. A folder of renders has no seeds."""
        standard = QUICK if self.quick else FULL
        budget = Budget(
            self.base_steps or standard.base_steps,
            scene.rule.rounds if self.rounds < 0 else self.rounds,
            self.round_steps or standard.round_steps,
        )
        options = tuple(word for name, value in self.train_options.items() for word in (f"--{name}", *value.split()))
        return [
            Experiment(protocol.name, scene.name, method, seed, budget, self.quick, options, self.evaluation)
            for method in methods
            for seed in (self.seeds if not method.renders else (0,))
        ]


def _where(experiment: ExperimentResult) -> str:
    """Which experiment this is."""
    return f"{experiment.protocol} {experiment.scene}: {experiment.label}, seed {experiment.seed}"


def _line(experiment: ExperimentResult, kept: bool = False) -> str:
    """The line that is printed when an experiment is over."""
    where = escape(_where(experiment))
    if experiment.state != "done":
        last = experiment.error.strip().splitlines()[-1:] or ["no reason given"]
        return f"[red]failed[/] {where}: {escape(last[0])}"
    if kept:
        return f"[green]kept[/]   {where}"
    took = f" ({sum(experiment.seconds.get(stage, 0.0) for stage in ('train', 'render', 'score')):.0f} s)"
    return f"[green]done[/]   {where}{took}"
