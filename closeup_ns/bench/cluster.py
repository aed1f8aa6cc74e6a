"""Cells as tasks of a Ray cluster: one cell is one task with its GPU, its result files in the bench's folder.

closeup-gs must be installed on every node. Where a node sees the bench's folder (one machine, or a shared file system)
cells are worked on in place and can be gone on with; elsewhere the case travels to the node and the cell's files come
back when it is over.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from closeup_ns.bench.cell import CellResult, CellSpec, read_cell
from closeup_ns.bench.executor import Watch, record_failure
from closeup_ns.bench.work import run_cell
from closeup_ns.errors import CloseupError, DataError

_TOKEN = ".bench-token"
"""File in the bench's folder by which a node knows that it sees the same folder."""
_INSTALL = "pip install 'closeup-ns[cluster]'"


def import_ray() -> Any:
    """The ``ray`` module. CloseupError with the command that installs it where it is missing."""
    try:
        import ray  # type: ignore[import-not-found]
    except ImportError as problem:
        raise CloseupError(f"--executor ray needs Ray ({problem}); install it with: {_INSTALL}") from None
    return ray


@dataclass(frozen=True)
class RayExecutor:
    """Cells as Ray tasks. Without an address a Ray of this machine starts, and ends with the bench."""

    ray: Any
    """The module."""
    address: str = ""
    """Of a cluster to join: HOST:PORT or "auto"."""
    workers: int = 0
    """CPUs of a Ray that starts here; 0: all."""

    def run(
        self, specs: Sequence[CellSpec], out: Path, watch: Watch = lambda spec, share: None
    ) -> Iterator[CellResult]:
        local = self._specs_of_folders(specs)
        with self._connected() as gpus:
            out.mkdir(parents=True, exist_ok=True)
            token = secrets.token_hex(8)
            (out / _TOKEN).write_text(token, encoding="utf8")
            task = self.ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=1)(cell_task)
            cases = {spec.case_folder(out) for spec in specs if spec not in local} if self.address else set()
            packed = {folder: self.ray.put(pack(folder)) for folder in cases}
            pending = {
                task.remote(spec.to_json(), str(out.resolve()), token, packed.get(spec.case_folder(out))): spec
                for spec in specs
                if spec not in local
            }
            try:
                for spec in local:
                    yield run_cell(spec, out)
                while pending:
                    ready, _ = self.ray.wait(list(pending), num_returns=1)
                    for reference in ready:
                        spec = pending.pop(reference)
                        yield self._collect(spec, out, reference)
            finally:
                for reference in pending:
                    self.ray.cancel(reference, force=True)
                (out / _TOKEN).unlink(missing_ok=True)

    @staticmethod
    def _specs_of_folders(specs: Sequence[CellSpec]) -> list[CellSpec]:
        """Folders of renders lie here, not on the nodes; there is nothing to train for them."""
        return [spec for spec in specs if spec.method.renders]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[float]:
        """A connection to Ray for as long as needed; yields the number of the cluster's GPUs."""
        options: dict[str, Any] = {"address": self.address} if self.address else {"num_cpus": self.workers or None}
        if not self.address:
            options["include_dashboard"] = False
        try:
            self.ray.init(log_to_driver=False, **options)
        except Exception as problem:  # Ray's errors for an unreachable cluster are of many kinds
            where = f"the cluster at {self.address}" if self.address else "a Ray of this machine"
            raise CloseupError(f"cannot connect to {where}: {problem}") from problem
        try:
            yield float(self.ray.cluster_resources().get("GPU", 0.0))
        finally:
            self.ray.shutdown()

    def _collect(self, spec: CellSpec, out: Path, reference: Any) -> CellResult:
        try:
            files = self.ray.get(reference)
            if files is not None:
                _replace_folder(spec.folder(out), files)
            return read_cell(spec.folder(out))
        except Exception as problem:  # of the task, of its worker, or of the way back: the others go on
            why = f"its Ray task failed: {' '.join(str(problem).split())[-2000:]}"
            return record_failure(replace(spec.result(out, "failed"), error=why))


def cell_task(spec_text: str, out: str, token: str, case: bytes | None) -> bytes | None:
    """On a node: work on the cell in the bench's folder where it is seen from here, else on a copy that is sent back.

    Returns:
        None where the cell is in the bench's folder, otherwise its files (`pack`).

    Raises:
        CloseupError: the folder is not seen from here and no case was sent.
    """
    spec, threads = CellSpec.from_json(spec_text), int(os.environ.get("OMP_NUM_THREADS", "1"))
    with contextlib.suppress(OSError):
        if (Path(out) / _TOKEN).read_text(encoding="utf8") == token:
            run_cell(spec, Path(out), threads)
            return None
    if case is None:
        raise CloseupError(f"this node does not see {out}")
    with tempfile.TemporaryDirectory(prefix="closeup-cell-") as scratch:
        unpack(case, spec.case_folder(Path(scratch)))
        run_cell(spec, Path(scratch), threads)
        return pack(spec.folder(Path(scratch)))


def pack(folder: Path) -> bytes:
    """A folder's files as an uncompressed zip: pictures and checkpoints do not shrink. Links are left out."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.name != ".lock":
                archive.write(path, path.relative_to(folder).as_posix())
    return written.getvalue()


def unpack(files: bytes, folder: Path) -> None:
    """The inverse of `pack`. DataError where a name leads out of the folder."""
    with zipfile.ZipFile(io.BytesIO(files)) as archive:
        for name in archive.namelist():
            if name.startswith("/") or ".." in Path(name).parts:
                raise DataError(f"a node sent a file called {name!r}")
        folder.mkdir(parents=True, exist_ok=True)
        archive.extractall(folder)


def _replace_folder(folder: Path, files: bytes) -> None:
    """Put what a node sent in the folder's place, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".cell-", dir=folder.parent))
    try:
        unpack(files, temporary / "cell")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary / "cell", folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
