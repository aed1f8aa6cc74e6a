"""Rounds that survive a kill: each file appears whole or not at all, and a view counts only once its JSON is there.

Layout below the run's folder, all paths inside relative:

    rounds/schedule.json                  only where rounds were asked for in the viewer: the schedule since then
    rounds/run.json                       which scene, target and seed the rounds belong to
    rounds/round_1/plan.json              anchors, frontier, to-be-updated views
    rounds/round_1/passes.json            which views are refined together, where a refiner takes several at once
    rounds/round_1/exact/update_00.npz    what training reads, bit for bit
    rounds/round_1/images|renders|after/update_00.png, masks/update_00_{reliable,real}.png, weights/update_00.png
    rounds/round_1/views/update_00.json   written last: verdict, seconds, camera
    rounds/round_1/transforms.json        nerfstudio format, so that another method can train on the views
    rounds/round_1/report.json            written when the round is over
    rounds/round_1/contact_sheet.png

Killing the process at any instant loses at most the view in progress. One process writes a run at a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from closeup_ns.atomic import atomic_path, write_json
from closeup_ns.errors import CloseupError, RoundStorageError
from closeup_ns.rounds.store.view import StoredView, quantised, read_exact, view_header, write_exact, write_png
from closeup_ns.views.view import View

VIEW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
ROUND_NAME = re.compile(r"round_([1-9][0-9]*)")
LEFTOVER = re.compile(r"\.[A-Za-z0-9_-]+\.[a-z0-9_]{8}\.(json|png|npz)")
"""What ``atomic_path`` calls a file that is not finished; a killed process leaves it behind."""
ADVICE = "Give this run another output folder or experiment name, or resume it with the data it was started on"
OPENCV_TO_OPENGL = (1.0, -1.0, -1.0, 1.0)


def run_identity(image_names: Sequence[str], target: Sequence[float], seed: int) -> dict[str, Any]:
    """What makes rounds this run's own, for ``RoundStore.claim``.

    Args:
        image_names: the training images, in the data set's order. Give names, not absolute paths: a data set that was
            moved is still the same scene.
        target: p_target, world frame of the model.
        seed: the run's seed.
    """
    digest = hashlib.sha256("\n".join(image_names).encode("utf8")).hexdigest()
    return {"images": len(image_names), "images_sha256": digest, "target": [float(x) for x in target], "seed": seed}


class RoundStore:
    """The rounds of one run. Reading never writes; nothing is created before the first ``claim`` or ``save``."""

    def __init__(self, root: Path) -> None:
        """``root``: the ``rounds`` folder of a run; it need not exist."""
        self.root = Path(root)

    # Whose rounds these are

    def claim(self, identity: dict[str, Any], advice: str = ADVICE) -> None:
        """Makes the folder this run's own, or checks that it is, and clears what a killed process left unfinished.

        Args:
            identity: what must be the same, such as `run_identity`.
            advice: what to do where it is not, as a sentence.

        Raises:
            RoundStorageError: the rounds belong to another scene, target or seed, or the folder cannot be written.
        """
        path = self.root / "run.json"
        if path.exists():
            self._refuse_strangers(self._read_json(path), identity, advice)
        elif self.rounds():
            raise RoundStorageError(f"{self.root} holds rounds but no run.json: it is not a run of this version")
        with _explaining(self.root):
            for leftover in self.root.rglob(".*"):
                if LEFTOVER.fullmatch(leftover.name):
                    leftover.unlink()
        if not path.exists():
            with _explaining(path):
                write_json(path, identity)

    def _refuse_strangers(self, found: dict[str, Any], identity: dict[str, Any], advice: str) -> None:
        different = [key for key in identity if not _same(found.get(key), identity[key])]
        if different:
            what = "; ".join(f"{key}: {found.get(key)} there, {identity[key]} here" for key in different)
            raise RoundStorageError(f"the rounds in {self.root} belong to another run ({what}). {advice}")

    # What was decided: small files that are written once

    def save_targets(self, targets: list[dict[str, Any]]) -> None:
        """Writes the run's targets, so that a resumed run does not look for them again in a changed model."""
        self._write_json(self.root / "targets.json", {"targets": targets})

    def load_targets(self) -> list[dict[str, Any]] | None:
        """The run's targets, or None where none were found yet."""
        path = self.root / "targets.json"
        return self._read_json(path)["targets"] if path.exists() else None

    def save_schedule(self, schedule: dict[str, int]) -> None:
        """Writes a schedule that differs from the command line's: rounds were asked for in the viewer."""
        self._write_json(self.root / "schedule.json", schedule)

    def load_schedule(self) -> dict[str, int] | None:
        """The schedule that was changed in the viewer, or None where it is the command line's."""
        path = self.root / "schedule.json"
        return {name: int(value) for name, value in self._read_json(path).items()} if path.exists() else None

    def save_verdict(self, round_index: int, verdict: dict[str, Any]) -> None:
        """Writes whether the round is kept; a resumed run does not judge again."""
        self._write_json(self.folder(round_index) / "verdict.json", verdict)

    def load_verdict(self, round_index: int) -> dict[str, Any] | None:
        """Whether the round is kept, or None while it is not judged."""
        path = self.folder(round_index) / "verdict.json"
        return self._read_json(path) if path.exists() else None

    @staticmethod
    def _write_json(path: Path, content: dict[str, Any]) -> None:
        with _explaining(path):
            write_json(path, content)

    # Plans

    def save_plan(self, round_index: int, plan: dict[str, Any]) -> None:
        """Writes a round's plan (``RoundPlan.to_dict()``); a round that has views keeps the plan that they came from.

        Raises:
            RoundStorageError: it has views of another plan, or the folder cannot be written.
        """
        path = self.folder(round_index) / "plan.json"
        if self.views(round_index) and path.exists() and self._read_json(path) != json.loads(json.dumps(plan)):
            raise RoundStorageError(f"{path} already has refined views: load_plan() it instead of planning again")
        with _explaining(path):
            write_json(path, plan)

    def load_plan(self, round_index: int) -> dict[str, Any] | None:
        """The round's plan, or None where it has none yet."""
        path = self.folder(round_index) / "plan.json"
        return self._read_json(path) if path.exists() else None

    def save_passes(self, round_index: int, passes: dict[str, Any]) -> None:
        """Writes which views are refined together. Views that are there already stay as they are."""
        self._write_json(self.folder(round_index) / "passes.json", passes)

    def load_passes(self, round_index: int) -> dict[str, Any] | None:
        """Which views are refined together, or None where nothing was planned yet, or each stands alone."""
        path = self.folder(round_index) / "passes.json"
        return self._read_json(path) if path.exists() else None

    # Views

    def save_view(self, round_index: int, name: str, stored: StoredView) -> StoredView:
        """Writes one view; it counts from the moment its JSON, written last, is there.

        Returns:
            The view as every later ``load_view`` gives it back, bit for bit (CPU, float32). Train on this one, not on
            the argument: a resumed run then sees the same pixels.

        Raises:
            RoundStorageError: the view is already there, or cannot be written; then none of its files remain.
        """
        files = self._files(name)
        folder = self.folder(round_index)
        if (folder / files["header"]).exists():
            raise RoundStorageError(f"{name} of round {round_index} was refined before: load_view() it instead")
        exact = quantised(stored)
        header = {**view_header(exact), "name": name, "files": {k: v for k, v in files.items() if k != "header"}}
        pictures: dict[str, Tensor] = {
            "image": exact.image,
            "render": exact.render,
            "reliable": exact.reliable.dense,
            "sparse": exact.reliable.sparse,
            "real": exact.real,
            "weight": exact.weight,
        }
        try:
            with _explaining(folder / files["exact"]), atomic_path(folder / files["exact"]) as temporary:
                write_exact(temporary, exact)
            for kind, values in pictures.items():
                self._write_picture(folder / files[kind], values)
            with _explaining(folder / files["header"]):
                write_json(folder / files["header"], header)
        except (RoundStorageError, ValueError):
            for relative in files.values():
                (folder / relative).unlink(missing_ok=True)
            raise
        self._write_transforms(round_index)
        return exact

    def load_view(self, round_index: int, name: str) -> StoredView:
        """A view that was saved, on the CPU in float32.

        Raises:
            RoundStorageError: it is not there, damaged, or points outside its round's folder.
        """
        path = self.folder(round_index) / self._files(name)["header"]
        if not path.exists():
            there = ", ".join(self.views(round_index)) or "none"
            raise RoundStorageError(f"round {round_index} in {self.root} has no view {name}; it has: {there}")
        header = self._read_json(path)
        try:
            exact = self._inside(round_index, header["files"]["exact"])
            return read_exact(exact, header)
        except (KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile, CloseupError) as error:
            if isinstance(error, RoundStorageError):
                raise
            raise RoundStorageError(
                f"{name} of round {round_index} cannot be read ({path}: {error}). Delete {path} to refine it again"
            ) from error

    def views(self, round_index: int) -> list[str]:
        """Names of the views of a round that are wholly there, sorted."""
        return sorted(p.stem for p in (self.folder(round_index) / "views").glob("*.json") if not p.name.startswith("."))

    def header(self, round_index: int, name: str) -> dict[str, Any]:
        """A stored view without its pixels: camera, the gate's decision, names of its files."""
        return self._read_json(self.folder(round_index) / self._files(name)["header"])

    def picture(self, round_index: int, name: str, kind: str = "image") -> Path:
        """A stored view's PNG, for people: ``image`` (refined), ``render``, ``reliable``, ``real`` or ``weight``.

        Raises:
            RoundStorageError: the view is not there, or its files lie outside its round's folder.
        """
        return self._inside(round_index, str(self.header(round_index, name)["files"][kind]))

    def save_after(self, round_index: int, name: str, image: Tensor) -> None:
        """Writes what the fine-tuned model shows from a view (float [H, W, 3] in [0, 1]), for the contact sheet."""
        self._write_picture(self.folder(round_index) / "after" / f"{_checked(name)}.png", image)

    # Rounds

    def finish_round(self, round_index: int, report: dict[str, Any]) -> None:
        """Writes the report, which marks the round as over. Plain JSON types; NaN is refused (ValueError)."""
        self._write_transforms(round_index)
        path = self.folder(round_index) / "report.json"
        with _explaining(path):
            write_json(path, report)

    def report(self, round_index: int) -> dict[str, Any] | None:
        """The round's report, or None while it is not over."""
        path = self.folder(round_index) / "report.json"
        return self._read_json(path) if path.exists() else None

    def rounds(self) -> list[int]:
        """The rounds that were begun, in order."""
        if not self.root.is_dir():
            return []
        matches = [ROUND_NAME.fullmatch(path.name) for path in self.root.iterdir() if path.is_dir()]
        return sorted(int(match[1]) for match in matches if match)

    def rounds_done(self) -> list[int]:
        """The rounds that are over (they have a report), in order."""
        return [index for index in self.rounds() if (self.folder(index) / "report.json").exists()]

    def folder(self, round_index: int) -> Path:
        """A round's folder; round indices count from 1."""
        if round_index < 1:
            raise RoundStorageError(f"rounds count from 1, not {round_index}")
        return self.root / f"round_{round_index}"

    def contact_sheet(self, round_index: int) -> Path:
        """Where the round's contact sheet belongs."""
        return self.folder(round_index) / "contact_sheet.png"

    def close_photographs(self, round_index: int) -> Path:
        """Where the picture of held-out photographs belongs: before the round, after it, and the photograph."""
        return self.folder(round_index) / "close_photographs.png"

    # Inside

    @staticmethod
    def _files(name: str) -> dict[str, str]:
        """Relative paths of a view's files, by what they hold. The header comes last and makes the view count."""
        name = _checked(name)
        return {
            "exact": f"exact/{name}.npz",
            "image": f"images/{name}.png",
            "render": f"renders/{name}.png",
            "reliable": f"masks/{name}_reliable.png",
            "sparse": f"masks/{name}_sparse.png",
            "real": f"masks/{name}_real.png",
            "weight": f"weights/{name}.png",
            "header": f"views/{name}.json",
        }

    def _write_picture(self, path: Path, values: Tensor) -> None:
        with _explaining(path), atomic_path(path) as temporary:
            write_png(temporary, values)

    def _write_transforms(self, round_index: int) -> None:
        """Lists the views that the gate let through. Derived from the headers, so it can be written again any time."""
        folder = self.folder(round_index)
        headers = [self._read_json(folder / self._files(name)["header"]) for name in self.views(round_index)]
        frames = [_frame(header) for header in headers if header["decision"]["verdict"] != "rejected"]
        content = {"camera_model": "OPENCV", "orientation_override": "none", "frames": frames}
        with _explaining(folder / "transforms.json"):
            write_json(folder / "transforms.json", content)

    def _inside(self, round_index: int, relative: str) -> Path:
        """A path read from a data file, if it stays in the round's folder."""
        folder = self.folder(round_index).resolve()
        path = (folder / relative).resolve()
        if not path.is_relative_to(folder):
            raise RoundStorageError(f"{relative!r} in round {round_index} of {self.root} leads out of its folder")
        return path

    @staticmethod
    def _read_json(path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf8"))
        except (OSError, ValueError) as error:
            raise RoundStorageError(f"{path} cannot be read ({error}). Delete it to make it again") from error
        if not isinstance(content, dict):
            raise RoundStorageError(f"{path} is not one of ours: it holds no JSON object. Delete it to make it again")
        return content


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Turns a failing disk into an error that says which file and what to do."""
    try:
        yield
    except OSError as error:
        raise RoundStorageError(
            f"cannot write {path}: {error.strerror or error}. Free space there (or make the folder writable) and "
            "resume the run; views that were finished are kept"
        ) from error


def _checked(name: str) -> str:
    if not VIEW_NAME.fullmatch(name):
        raise RoundStorageError(f"{name!r} is no name for a view: use letters, digits, - and _")
    return name


def _same(found: Any, wanted: Any) -> bool:
    """Equality, up to rounding for coordinates: a target found again on another machine may differ in the last bits."""
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return all(_same(a, b) for a, b in zip(found, wanted, strict=True))
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-4, abs_tol=1e-6)
    return found == wanted


def _frame(header: dict[str, Any]) -> dict[str, Any]:
    """A nerfstudio frame: OpenGL camera-to-world in the model's world frame, intrinsics of its own."""
    view = View.from_dict(header["view"])
    flip = torch.tensor(OPENCV_TO_OPENGL, dtype=view.c2w.dtype)
    return {
        "file_path": header["files"]["image"],
        "transform_matrix": (view.c2w * flip).tolist(),
        "fl_x": float(view.K[0, 0]),
        "fl_y": float(view.K[1, 1]),
        "cx": float(view.K[0, 2]),
        "cy": float(view.K[1, 2]),
        "w": view.width,
        "h": view.height,
        "generated": True,
        "verdict": header["decision"]["verdict"],
        "real_mask_path": header["files"]["real"],
        "weight_path": header["files"]["weight"],
    }
