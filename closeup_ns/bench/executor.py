"""Where cells run: in processes of this machine, or as tasks of a Ray cluster. Either way a cell ends up as files."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from closeup_ns.atomic import atomic_path
from closeup_ns.bench.cell import CellResult, CellSpec, read_cell
from closeup_ns.bench.process import percentage, tail
from closeup_ns.bench.work import TRAIN_LOG
from closeup_ns.errors import CloseupError, DataError

CELL_LOG = "cell.log"
_SPEC = "spec.json"
_POLL_SECONDS = 0.5
_TRAINING_SHARE = 0.95
"""How far a progress bar is when a cell's training is over."""

Watch = Callable[[CellSpec, float], None]
"""Told of a running cell how far it is, 0 to 1."""


class Executor(Protocol):
    """Runs cells."""

    def run(
        self, specs: Sequence[CellSpec], out: Path, watch: Watch = lambda spec, share: None
    ) -> Iterator[CellResult]:
        """The result of each cell, as it ends. A cell that fails, or whose process dies, is a result like another."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """Cells side by side in processes of this machine, each with its share of the cores and one GPU."""

    workers: int = 0
    """Cells at a time; 0: one per GPU, or without one as many as there are cores (8 at most, for the memory)."""

    def run(
        self, specs: Sequence[CellSpec], out: Path, watch: Watch = lambda spec, share: None
    ) -> Iterator[CellResult]:
        devices, cores = cuda_devices(), os.cpu_count() or 1
        workers = max(1, min(self.workers or len(devices) or min(cores, 8), len(specs)))
        slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(workers):
            slots.put(slot)
        stop = threading.Event()

        def work(spec: CellSpec) -> CellResult:
            slot = slots.get()
            try:
                return _in_process(spec, out, _environment(slot, devices, max(cores // workers, 1)), stop, watch)
            finally:
                slots.put(slot)

        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(work, spec) for spec in specs]
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
    """Of a cell's process: its threads, and one GPU, round robin."""
    own = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    if devices:
        own["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return {**os.environ, **own}


def _in_process(
    spec: CellSpec, out: Path, environment: dict[str, str], stop: threading.Event, watch: Watch
) -> CellResult:
    """Run a cell in a process, so that one that is killed for its memory takes nothing else with it."""
    folder = spec.folder(out)
    written = folder / _SPEC
    with atomic_path(written) as temporary:
        temporary.write_text(spec.to_json() + "\n", encoding="utf8")
    command = [sys.executable, "-m", "closeup_ns.bench.work", str(out), str(written)]
    with open(folder / CELL_LOG, "w", encoding="utf8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            while process.poll() is None and not stop.is_set():
                watch(spec, _TRAINING_SHARE * percentage(folder / TRAIN_LOG) / 100)
                time.sleep(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return _outcome(spec, out, process.returncode)


def _outcome(spec: CellSpec, out: Path, code: int) -> CellResult:
    """What the process left behind. One that ended without a word has failed."""
    folder = spec.folder(out)
    try:
        found = read_cell(folder)
    except DataError:
        found = spec.result(out, "running")
    if code == 0 and found.state in ("done", "failed"):
        return found
    why = f"the cell's process ended with code {code}; the end of {folder / CELL_LOG} is:\n{tail(folder / CELL_LOG)}"
    return record_failure(replace(found, state="failed", error=why))


def record_failure(result: CellResult) -> CellResult:
    """Write the failure, unless a finished cell is there or the folder cannot be written: then it is only reported."""
    try:
        if read_cell(result.folder).state == "done":
            return result
    except DataError:
        pass
    with contextlib.suppress(OSError):
        result.write()
    return result


def make_executor(kind: str, workers: int = 0, ray_address: str = "") -> Executor:
    """The executor called ``kind``: "local" or "ray". CloseupError for another, or where Ray is not installed."""
    if kind == "local":
        return LocalExecutor(workers)
    if kind == "ray":
        from closeup_ns.bench.cluster import RayExecutor, import_ray

        return RayExecutor(import_ray(), ray_address, workers)
    raise CloseupError(f"there is no executor {kind!r}; there are local and ray")
