"""Executors: experiments as processes of this machine, or as tasks of a Ray cluster. Both write the same files.

On a cluster closeup-gs must be installed on every node, and every node must see the bench's folder under the same
path.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from closeup_ns.atomic import atomic_path
from closeup_ns.bench.experiment import Experiment, ExperimentResult, Watch, read_experiment, record_failure
from closeup_ns.bench.process import percentage, started, tail
from closeup_ns.bench.stages import TRAIN_LOG, run_experiment
from closeup_ns.errors import CloseupError, DataError

EXPERIMENT_LOG = "experiment.log"
_SPEC = "spec.json"
_POLL_SECONDS = 0.5
_TRAINING_SHARE = 0.95
"""How far a progress bar is when an experiment's training is over."""


Executor = Callable[[Sequence[Experiment], Path, Watch], Iterator[ExperimentResult]]
"""Gives the result of each experiment below a folder as it ends, also of one that fails or whose process dies."""


def run_here(
    specs: Sequence[Experiment], out: Path, watch: Watch = lambda spec, share: None, workers: int = 0
) -> Iterator[ExperimentResult]:
    """An `Executor`: experiments side by side in processes, each with its share of the cores and one GPU.

    Args:
        workers: experiments at a time; 0: one per GPU, or without one as many as there are cores (8 at most, for the
            memory).
    """
    devices, cores = cuda_devices(), os.cpu_count() or 1
    workers = max(1, min(workers or len(devices) or min(cores, 8), len(specs)))
    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    for slot in range(workers):
        slots.put(slot)
    stop = threading.Event()

    def run_one(spec: Experiment) -> ExperimentResult:
        slot = slots.get()
        try:
            return _in_process(spec, out, _environment(slot, devices, max(cores // workers, 1)), stop, watch)
        finally:
            slots.put(slot)

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(run_one, spec) for spec in specs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            stop.set()
            for future in futures:
                future.cancel()


def cuda_devices() -> list[str]:
    """The GPUs that may be used, as CUDA_VISIBLE_DEVICES names them; none where there is no CUDA."""
    if not torch.cuda.is_available():
        return []
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible or [str(index) for index in range(torch.cuda.device_count())]


def _environment(slot: int, devices: Sequence[str], threads: int) -> dict[str, str]:
    """Of an experiment's process: its threads, and one GPU, round robin."""
    own = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    if devices:
        own["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return {**os.environ, **own}


def _in_process(
    spec: Experiment, out: Path, environment: dict[str, str], stop: threading.Event, watch: Watch
) -> ExperimentResult:
    """Run an experiment in a process, so that one that is killed for its memory takes nothing else with it."""
    folder = spec.folder(out)
    written = folder / _SPEC
    with atomic_path(written) as temporary:
        temporary.write_text(spec.to_json() + "\n", encoding="utf8")
    command = [sys.executable, "-m", "closeup_ns.bench.stages", str(out), str(written)]
    with started(command, folder / EXPERIMENT_LOG, environment) as process:
        while process.poll() is None and not stop.is_set():
            watch(spec, _TRAINING_SHARE * percentage(folder / TRAIN_LOG) / 100)
            time.sleep(_POLL_SECONDS)
    return _outcome(spec, out, process.returncode)


def _outcome(spec: Experiment, out: Path, code: int) -> ExperimentResult:
    """What the process left behind. One that ended without a word has failed."""
    folder = spec.folder(out)
    try:
        found = read_experiment(folder)
    except DataError:
        found = spec.result(out, "running")
    if code == 0 and found.state in ("done", "failed"):
        return found
    log = folder / EXPERIMENT_LOG
    why = f"the experiment's process ended with code {code}; the end of {log} is:\n{tail(log)}"
    return record_failure(replace(found, state="failed", error=why))


def run_on_ray(
    specs: Sequence[Experiment], out: Path, ray: Any, address: str = "", workers: int = 0
) -> Iterator[ExperimentResult]:
    """The result of each experiment, as its task ends; one that fails, or whose worker dies, has one too.

    Args:
        ray: the module.
        address: of a cluster to join, HOST:PORT or "auto"; "" starts a Ray of this machine that ends with the bench.
        workers: CPUs of a Ray that starts here; 0: all.
    """
    with _connected(ray, address, workers) as gpus:
        task = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=1)(experiment_task)
        pending = {task.remote(spec.to_json(), str(out.resolve())): spec for spec in specs}
        try:
            while pending:
                ready, _ = ray.wait(list(pending), num_returns=1)
                for reference in ready:
                    yield _collect(ray, pending.pop(reference), out, reference)
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)


@contextmanager
def _connected(ray: Any, address: str, workers: int) -> Iterator[float]:
    """A connection to Ray for as long as needed; yields the number of the cluster's GPUs."""
    here = {"num_cpus": workers or None, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, **({"address": address} if address else here))
    except Exception as problem:  # Ray's errors for an unreachable cluster are of many kinds
        where = f"the cluster at {address}" if address else "a Ray of this machine"
        raise CloseupError(f"cannot connect to {where}: {problem}") from problem
    try:
        yield float(ray.cluster_resources().get("GPU", 0.0))
    finally:
        ray.shutdown()


def _collect(ray: Any, spec: Experiment, out: Path, reference: Any) -> ExperimentResult:
    try:
        ray.get(reference)
        return read_experiment(spec.folder(out))
    except Exception as problem:  # of the task or of its worker: the others go on
        why = f"its Ray task failed: {' '.join(str(problem).split())[-2000:]}"
        return record_failure(replace(spec.result(out, "failed"), error=why))


def experiment_task(spec_text: str, out: str) -> None:
    """On a node: run the experiment in the bench's folder. CloseupError where the node does not see that."""
    spec = Experiment.from_json(spec_text)
    if not spec.scene_folder(Path(out)).is_dir():
        raise CloseupError(f"this node does not see {out}: give --output a folder that every node shares")
    run_experiment(spec, Path(out), int(os.environ.get("OMP_NUM_THREADS", "1")))


def make_executor(kind: Literal["local", "ray"], workers: int = 0, ray_address: str = "") -> Executor:
    """The executor of that kind. CloseupError where it is "ray" and Ray is not installed."""
    if kind == "local":
        return partial(run_here, workers=workers)
    try:
        import ray  # type: ignore[import-not-found]
    except ImportError as problem:
        install = "pip install 'closeup-ns[cluster]'"
        raise CloseupError(f"--executor ray needs Ray ({problem}); install it with: {install}") from None
    return lambda specs, out, watch: run_on_ray(specs, out, ray, ray_address, workers)
