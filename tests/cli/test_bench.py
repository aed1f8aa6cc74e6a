"""The bench's command: which experiments it makes of its options, and what it does with those that are there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from closeup_ns import progress
from closeup_ns.bench.experiment import Experiment, ExperimentResult, Watch
from closeup_ns.bench.methods import Budget
from closeup_ns.bench.stages import run_experiment
from closeup_ns.cli import bench as bench_module
from closeup_ns.cli.bench import Bench
from closeup_ns.cli.demo import Demo
from closeup_ns.errors import CloseupError, DataError
from closeup_ns.evaluation.evaluate import EvaluationConfig
from tests.bench.stand_in import given_renders, write_scene

PROTOCOL = """
name: tiny
kind: rendered
scales: [3]
rounds: 2
scenes: [{name: small}, {name: other, rounds: 1}]
"""


@pytest.fixture
def protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A protocol whose scenes are prepared in no time; tables are written by another part."""
    path = tmp_path / "tiny.yaml"
    path.write_text(PROTOCOL)

    def prepare(name: str, scene: object, data: Path, folder: Path) -> None:
        if scene.name == "broken":  # type: ignore[attr-defined]
            raise DataError("half of the photographs are missing")
        if not folder.exists():
            write_scene(folder.parents[2], name, scene.name)  # type: ignore[attr-defined]

    monkeypatch.setattr(bench_module, "prepare_scene", prepare)
    monkeypatch.setattr(Bench, "_report", lambda *given: None)
    return path


class Recorder:
    """An executor that finishes every experiment at once."""

    def __init__(self, fail: Sequence[str] = ()) -> None:
        self.specs: list[Experiment] = []
        self.fail = fail

    def __call__(self, specs: Sequence[Experiment], out: Path, watch: object) -> Iterator[ExperimentResult]:
        for spec in reversed(specs):
            self.specs.append(spec)
            if spec.method.renders:
                yield run_experiment(spec, out)
                continue
            failed = spec.method.name in self.fail
            yield spec.result(out, "failed" if failed else "done", "no memory\nleft" if failed else "")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(bench_module, "make_executor", lambda *given: made)
    return made


def test_scenes_times_methods_times_seeds(protocol: Path, recorder: Recorder, tmp_path: Path) -> None:
    bench = Bench(str(protocol), ("plain", "closeup-gs"), output=tmp_path / "out", seeds=(0, 1), quick=True)
    experiments = bench.main()
    assert {(s.scene, s.method.name, s.seed) for s in recorder.specs} == {
        (scene, method, seed) for scene in ("small", "other") for method in ("plain", "closeup-gs") for seed in (0, 1)
    }
    assert [experiment.method for experiment in experiments] == ["plain"] * 4 + ["closeup-gs"] * 4  # the tables' order
    budgets = {spec.scene: spec.budget for spec in recorder.specs}
    assert budgets == {"small": Budget(3000, 2, 500), "other": Budget(3000, 1, 500)}
    assert all(spec.quick for spec in recorder.specs)


def test_options_reach_every_experiment(protocol: Path, recorder: Recorder, tmp_path: Path) -> None:
    Bench(
        str(protocol), ("base",), scenes=("other",), output=tmp_path, quick=False, base_steps=70, rounds=3,
        round_steps=9, train_options={"pipeline.planner.anchors": "2", "x.y": "0.1 0.3"},
    ).main()  # fmt: skip
    (spec,) = recorder.specs
    assert spec.budget == Budget(70, 3, 9) and not spec.quick and spec.scene == "other"
    assert spec.train_options == ("--pipeline.planner.anchors", "2", "--x.y", "0.1", "0.3")
    Bench(str(protocol), ("base",), scenes=("small",), output=tmp_path, quick=False).main()
    assert recorder.specs[1].budget == Budget(30000, 2, 5000)  # the paper's


def test_a_table_gives_the_rows(protocol: Path, recorder: Recorder, tmp_path: Path) -> None:
    Bench(str(protocol), table="2", scenes=("small",), output=tmp_path).main()
    assert {"no-progressive", "no-densify", "closeup-gs"} <= {spec.method.name for spec in recorder.specs}
    recorder.specs.clear()
    Bench(str(protocol), scenes=("small",), output=tmp_path).main()
    assert {spec.method.name for spec in recorder.specs} == {"plain", "base", "closeup-gs"}


def test_folders_of_renders_are_rows_once(protocol: Path, recorder: Recorder, tmp_path: Path) -> None:
    folder = given_renders(tmp_path)
    out = tmp_path / "out"
    again = Bench(
        str(protocol), renders={"theirs": str(folder)}, scenes=("small",), output=out, seeds=(0, 1),
        evaluation=EvaluationConfig(("psnr",)),
    )  # fmt: skip
    assert [(experiment.method, experiment.state) for experiment in again.main()] == [("theirs", "done")]
    assert len(recorder.specs) == 1
    assert again.main()[0].state == "done" and len(recorder.specs) == 1  # kept


def test_a_scene_that_cannot_be_prepared_fails_its_experiments_only(
    recorder: Recorder, protocol: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol.write_text(PROTOCOL.replace("name: other", "name: broken"))
    experiments = Bench(str(protocol), ("plain", "base"), output=tmp_path / "out").main()
    states = {(experiment.scene, experiment.method): experiment.state for experiment in experiments}
    assert states == {
        ("small", "plain"): "done", ("small", "base"): "done",
        ("broken", "plain"): "failed", ("broken", "base"): "failed",
    }  # fmt: skip
    assert "half of the photographs are missing" in capsys.readouterr().out


def test_every_experiment_failing_is_an_error(protocol: Path, recorder: Recorder, tmp_path: Path) -> None:
    recorder.fail = ("plain", "base")
    assert len(Bench(str(protocol), ("plain", "base", "3dgs"), scenes=("small",), output=tmp_path).main()) == 3
    with pytest.raises(CloseupError, match="(?s)all 2 experiments failed; the first: no memory"):
        Bench(str(protocol), ("plain", "base"), scenes=("small",), output=tmp_path).main()


def test_sigterm_lets_the_executor_end_its_experiments(
    protocol: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, before = [], signal.getsignal(signal.SIGTERM)

    def run(specs: Sequence[Experiment], out: Path, watch: object) -> Iterator[ExperimentResult]:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
            yield specs[0].result(out, "done")
        finally:
            ended.append(True)

    monkeypatch.setattr(bench_module, "make_executor", lambda *given: run)
    with pytest.raises(SystemExit, match="143"):
        Bench(str(protocol), ("plain",), scenes=("small",), output=tmp_path).main()
    assert ended == [True] and signal.getsignal(signal.SIGTERM) is before


def test_without_a_terminal_lines_say_what_is_done(
    protocol: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When a scene and an experiment begin and end, and between them how far all of them are."""
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)

    def run(specs: Sequence[Experiment], out: Path, watch: Watch) -> Iterator[ExperimentResult]:
        for spec in specs:
            watch(spec, 0.0)
            watch(spec, 0.5)
            yield spec.result(out, "done")

    monkeypatch.setattr(bench_module, "make_executor", lambda *given: run)
    Bench(str(protocol), ("plain",), scenes=("small",), output=tmp_path).main()
    said = capsys.readouterr().out.splitlines()
    which = "tiny small: splatfacto, antialiased, seed 0"
    assert said == [
        "preparing tiny small", f"started {which}", "experiments: 0 of 1", "experiments: 0.5 of 1",
        "experiments: 1 of 1", f"done   {which} (0 s)",
    ]  # fmt: skip


def test_rows_that_take_another_ones_time_come_after_it(protocol: Path, recorder: Recorder, tmp_path: Path) -> None:
    Bench(str(protocol), ("plain-2x", "closeup-gs", "plain"), scenes=("small",), output=tmp_path).main()
    assert [spec.method.name for spec in recorder.specs] == ["plain", "closeup-gs", "plain-2x"]


def test_the_demo_is_its_protocol_and_a_picture(recorder: Recorder, tmp_path: Path, protocol: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "demo-table-dive.png").write_bytes(b"a picture")
    experiments = Demo(tmp_path, base_steps=70, round_steps=9, hero=tmp_path / "hero.png").main()
    assert [(experiment.protocol, experiment.scene, experiment.method) for experiment in experiments] == [
        ("demo", "table", "plain"), ("demo", "table", "closeup-gs")
    ]  # fmt: skip
    assert {spec.budget for spec in recorder.specs} == {Budget(70, 3, 9)} and all(s.quick for s in recorder.specs)
    assert (tmp_path / "hero.png").read_bytes() == b"a picture"


def test_tables_alone_train_nothing(protocol: Path, recorder: Recorder, tmp_path: Path) -> None:
    with pytest.raises(CloseupError, match="there are no experiments"):
        Bench(output=tmp_path, only_tables=True).main()
    for name in ("odd", "closeup-gs", "plain"):
        ExperimentResult(
            "tiny", "small", name, name, 0, "done", tmp_path / "experiments" / "tiny" / "small" / name
        ).write()
    found = Bench(output=tmp_path, only_tables=True).main()
    assert [experiment.method for experiment in found] == ["closeup-gs", "plain", "odd"] and not recorder.specs
