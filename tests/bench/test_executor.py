"""Where experiments run: processes of this machine, and tasks of a Ray whose module is a stand-in."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from closeup_ns.bench import executor
from closeup_ns.bench.executor import cuda_devices, experiment_task, make_executor, run_here, run_on_ray
from closeup_ns.bench.experiment import Experiment, ExperimentResult, read_experiment, record_failure
from closeup_ns.errors import CloseupError
from tests.bench.stand_in import a_spec, put_in_pythons_place, write_scene
from tests.bench.test_stages import given_folder

EXPERIMENT = """
import json, os, pathlib, signal, sys, time
out, written = map(pathlib.Path, sys.argv[3:5])
spec = json.loads(written.read_text())
folder, seed = written.parent, spec["seed"]
def tell(state, error=""):
    content = dict(protocol=spec["protocol"], scene=spec["scene"], method=spec["method"]["name"], label="label",
                   seed=seed, state=state, error=error)
    (folder / "status.json").write_text(json.dumps(content))
(folder / "environment.json").write_text(json.dumps(dict(os.environ)))
(folder / "train.log").write_text("4 (50.00%)")
tell("running")
print("seed", seed, flush=True)  # what is buffered dies with a killed process
if seed == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if seed == 2:
    sys.exit("no memory left")
if seed == 3:
    time.sleep(10**5)  # for ever: a test that waits for it runs into its timeout
time.sleep(3.0 if seed == 0 else 0.5)  # the first is watched, also where nothing is quick
tell("failed", "as it should") if seed == 4 else tell("done")
"""


@pytest.fixture
def experiments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Puts a script in the place of an experiment's process: what becomes of it depends on the seed."""
    put_in_pythons_place(EXPERIMENT, monkeypatch, tmp_path)
    monkeypatch.setattr(executor, "_POLL_SECONDS", 0.05)


def environment(result: ExperimentResult) -> dict[str, str]:
    return json.loads((result.folder / "environment.json").read_text())


@pytest.mark.usefixtures("experiments")
def test_experiments_that_fail_or_die_leave_the_others_be(tmp_path: Path) -> None:
    told: list[float] = []
    specs = [a_spec(seed=seed) for seed in (1, 0, 2, 4, 5)]
    run = make_executor("local", 2)
    results = {r.seed: r for r in run(specs, tmp_path / "out", lambda spec, share: told.append(share))}
    assert {seed: result.state for seed, result in results.items()} == {
        0: "done", 1: "failed", 2: "failed", 4: "failed", 5: "done"
    }  # fmt: skip
    assert "ended with code -9" in results[1].error and "seed 1" in results[1].error
    assert "no memory left" in results[2].error and results[4].error == "as it should"
    for result in results.values():
        assert read_experiment(result.folder).state == result.state
    assert 0 < max(told) < 1


@pytest.mark.usefixtures("experiments")
def test_experiments_share_the_cores_and_take_gpus_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    specs = [a_spec(seed=seed) for seed in (5, 6, 7, 8)]
    results = list(run_here(specs, tmp_path / "a", workers=2))
    assert {environment(result)["OMP_NUM_THREADS"] for result in results} == {"3"}
    monkeypatch.setattr(executor, "cuda_devices", lambda: ["2", "5"])
    results = list(run_here(specs, tmp_path / "b"))
    assert {environment(result)["CUDA_VISIBLE_DEVICES"] for result in results} == {"2", "5"}
    results = list(run_here(specs, tmp_path / "c", workers=4))
    devices = [environment(result)["CUDA_VISIBLE_DEVICES"] for result in results]
    assert set(devices) <= {"2", "5"}


def test_gpus_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cuda_devices() == []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cuda_devices() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7")
    assert cuda_devices() == ["3", "7"]


@pytest.mark.usefixtures("experiments")
def test_an_interrupted_bench_ends_its_experiments(tmp_path: Path) -> None:
    """Closing the iterator is what a KeyboardInterrupt in the caller does."""
    results = run_here([a_spec(seed=0), a_spec(seed=3), a_spec(seed=6)], tmp_path, workers=2)
    assert next(results).seed in (0, 6)
    before = threading.active_count()
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() < before


def test_a_finished_experiment_is_not_overwritten_by_a_failure(tmp_path: Path) -> None:
    done = a_spec().result(tmp_path, "done")
    done.write()
    failure = record_failure(a_spec().result(tmp_path, "failed", "the scene cannot be prepared"))
    assert failure.state == "failed" and read_experiment(done.folder).state == "done"


class StandInRay:
    """As much of Ray as is used: a task runs when its result is fetched."""

    def __init__(self, gpus: float = 0.0, before: Callable[[list[Any]], None] = lambda arguments: None) -> None:
        self.gpus, self.before = gpus, before
        self.options: dict[str, Any] = {}
        self.options_given: dict[str, Any] = {}
        self.cancelled: list[object] = []
        self.open = False

    def init(self, **options: Any) -> None:
        if options.get("address") == "nowhere:1":
            raise ConnectionError("no answer from nowhere:1")
        self.options, self.open = options, True

    def shutdown(self) -> None:
        self.open = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 4.0, **({"GPU": self.gpus} if self.gpus else {})}

    def remote(self, **options_given: Any) -> Callable[[Any], Any]:
        self.options_given = options_given
        return lambda function: SimpleNamespace(remote=lambda *arguments: (function, *arguments))

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return references[-1:], references[:-1]

    def get(self, reference: Any) -> Any:
        function, *arguments = reference
        self.before(arguments)
        return function(*arguments)

    def cancel(self, reference: object, force: bool) -> None:
        self.cancelled.append(reference)


Trainer = Callable[..., Callable[[], list[list[str]]]]


def test_ray_tasks_run_in_the_shared_folder_with_a_gpu_each_where_there_are_some(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer()
    write_scene(tmp_path)
    ray = StandInRay()
    results = list(run_on_ray([a_spec(), a_spec(seed=1), given_folder(tmp_path)], tmp_path, ray, workers=2))
    assert [result.state for result in results] == ["done"] * 3
    assert ray.options_given["num_gpus"] == 0 and ray.options["num_cpus"] == 2 and not ray.open
    ray = StandInRay(2.0)
    monkeypatch.setitem(sys.modules, "ray", ray)
    list(make_executor("ray", 2, "head:6379")([a_spec()], tmp_path, lambda spec, share: None))
    assert ray.options_given["num_gpus"] == 1 and ray.options["address"] == "head:6379"


def test_a_task_that_dies_is_a_failed_experiment(tmp_path: Path, trainer: Trainer) -> None:
    trainer()
    write_scene(tmp_path)

    def die(arguments: list[Any]) -> None:
        if Experiment.from_json(arguments[0]).seed == 1:
            raise OSError("the worker died of its memory")

    results = {r.seed: r for r in run_on_ray([a_spec(), a_spec(seed=1)], tmp_path, StandInRay(before=die))}
    assert results[0].state == "done" and results[1].state == "failed"
    assert "died of its memory" in results[1].error and read_experiment(results[1].folder).state == "failed"


def test_an_interrupted_bench_cancels_its_tasks(tmp_path: Path, trainer: Trainer) -> None:
    trainer()
    write_scene(tmp_path)
    ray = StandInRay()
    results = run_on_ray([a_spec(), a_spec(seed=1), a_spec(seed=2)], tmp_path, ray)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(ray.cancelled) == 2 and not ray.open


def test_what_a_user_must_mend_for_ray_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CloseupError, match="cannot connect to the cluster at nowhere:1: no answer"):
        list(run_on_ray([a_spec()], tmp_path, StandInRay(), "nowhere:1"))
    with pytest.raises(CloseupError, match="does not see .* a folder that every node shares"):
        experiment_task(a_spec().to_json(), str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CloseupError, match=r"pip install 'closeup-ns\[cluster\]'"):
        make_executor("ray")
