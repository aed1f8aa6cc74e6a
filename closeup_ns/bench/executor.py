"""Executors: experiments as processes of this machine, or as tasks of a Ray cluster. Both write the same files."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from closeup_ns.atomic import atomic_path
from closeup_ns.bench.cluster import import_ray, run_on_ray
from closeup_ns.bench.experiment import Experiment, ExperimentResult, Watch, read_experiment, record_failure
from closeup_ns.bench.process import percentage, started, tail
from closeup_ns.bench.stages import TRAIN_LOG
from closeup_ns.errors import DataError

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


def make_executor(kind: Literal["local", "ray"], workers: int = 0, ray_address: str = "") -> Executor:
    """The executor of that kind. CloseupError where it is "ray" and Ray is not installed."""
    if kind == "local":
        return partial(run_here, workers=workers)
    ray = import_ray()
    return lambda specs, out, watch: run_on_ray(specs, out, ray, ray_address, workers)
