"""Experiments as tasks of a Ray cluster: one experiment is one task with its GPU, its files in the bench's folder.

closeup-gs must be installed on every node, and every node must see the bench's folder under the same path, as on one
machine or a shared file system.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from closeup_ns.bench.experiment import Experiment, ExperimentResult, read_experiment, record_failure
from closeup_ns.bench.stages import run_experiment
from closeup_ns.errors import CloseupError

_INSTALL = "pip install 'closeup-ns[cluster]'"


def import_ray() -> Any:
    """The ``ray`` module. CloseupError with the command that installs it where it is missing."""
    try:
        import ray  # type: ignore[import-not-found]
    except ImportError as problem:
        raise CloseupError(f"--executor ray needs Ray ({problem}); install it with: {_INSTALL}") from None
    return ray


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


@contextlib.contextmanager
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
