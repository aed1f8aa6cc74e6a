"""Rounds that survive a kill: each file appears whole or not at all, and a view counts only once its JSON is there.

Layout below the run's folder:

    rounds/schedule.json                  only where rounds were asked for in the viewer: the schedule since then
    rounds/run.json                       which scene, target and seed the rounds belong to
    rounds/targets.json                   the points to come close to
    rounds/round_1/plan.json              anchors, frontier, to-be-updated views
    rounds/round_1/passes.json            which views are refined together, where a refiner takes several at once
    rounds/round_1/exact/update_00.npz    what training reads, bit for bit
    rounds/round_1/images|renders|after/update_00.png, masks/update_00_{reliable,sparse,real}.png, weights/update_00.png
    rounds/round_1/views/update_00.json   written last: verdict, seconds, camera
    rounds/round_1/verdict.json           whether the round is kept
    rounds/round_1/transforms.json        nerfstudio format, so that another method can train on the views
    rounds/round_1/report.json            written when the round is over
    rounds/round_1/contact_sheet.png

Killing the process at any instant loses at most the view in progress. One process writes a run at a time
(`studio.run_folder`). What a file holds is in `layout`.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from closeup_ns.atomic import atomic_path, write_json
from closeup_ns.data.frames import write_transforms
from closeup_ns.data.pictures import write_picture
from closeup_ns.errors import RoundStorageError
from closeup_ns.planning.target import Target
from closeup_ns.reading import reading
from closeup_ns.rounds.store import layout
from closeup_ns.rounds.store.layout import RoundVerdict, Schedule, StoredPasses, StoredPlan, load
from closeup_ns.rounds.store.view import StoredView, quantised, read_exact, view_header, write_exact

ROUND_NAME = re.compile(r"round_([1-9][0-9]*)")
ADVICE = "Give this run another output folder or experiment name, or resume it with the data it was started on"


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
    """The rounds of one run. Reading never writes; nothing is created before the first ``claim`` or ``save``.

    Every reader raises RoundStorageError where a file is damaged, every writer DiskError where the disk refuses it.
    """

    def __init__(self, root: Path) -> None:
        """``root``: the ``rounds`` folder of a run; it need not exist."""
        self.root = Path(root)

    # Whose rounds these are

    def claim(self, identity: dict[str, Any], advice: str = ADVICE) -> None:
        """Makes the folder this run's own, or checks that it is.

        Args:
            identity: what must be the same, such as `run_identity`.
            advice: what to do where it is not, as a sentence.

        Raises:
            RoundStorageError: the rounds belong to another scene, target or seed.
        """
        path = self.root / "run.json"
        found = load(path, layout.RUN)
        if found is None:
            if self.rounds():
                raise RoundStorageError(
                    f"{self.root} holds rounds but no run.json: whose they are is not known. {advice}"
                )
            write_json(path, identity)
            return
        different = [key for key in identity if not _same(found.get(key), identity[key])]
        if different:
            what = "; ".join(f"{key}: {found.get(key)} there, {identity[key]} here" for key in different)
            raise RoundStorageError(f"the rounds in {self.root} belong to another run ({what}). {advice}")

    # What was decided: small files that are written once

    def save_targets(self, targets: list[dict[str, Any]]) -> None:
        """Writes the run's targets, so that a resumed run does not look for them again in a changed model."""
        write_json(self.root / "targets.json", {"targets": targets})

    def load_targets(self) -> list[Target] | None:
        """The run's targets, or None where none were found yet."""
        path = self.root / "targets.json"
        if not path.exists() and (self.root / "run.json").exists() and self.rounds():
            raise RoundStorageError(f"{path} is missing, although rounds were begun. {layout.BEGIN_ANEW}")
        return load(path, layout.TARGETS)

    def save_schedule(self, schedule: dict[str, int]) -> None:
        """Writes a schedule that differs from the command line's: rounds were asked for in the viewer."""
        write_json(self.root / "schedule.json", schedule)

    def load_schedule(self) -> Schedule | None:
        """The schedule that was changed in the viewer, or None where it is the command line's."""
        return load(self.root / "schedule.json", layout.SCHEDULE)

    def save_verdict(self, round_index: int, verdict: dict[str, Any]) -> None:
        """Writes whether the round is kept; a resumed run does not judge again."""
        write_json(self.folder(round_index) / "verdict.json", verdict)

    def load_verdict(self, round_index: int) -> RoundVerdict | None:
        """Whether the round is kept, or None while it is not judged."""
        return load(self.folder(round_index) / "verdict.json", layout.VERDICT)

    def save_plan(self, round_index: int, plan: StoredPlan) -> None:
        """Writes a round's plans."""
        write_json(self.folder(round_index) / "plan.json", plan.to_dict())

    def load_plan(self, round_index: int) -> StoredPlan | None:
        """The round's plans, on the CPU, or None where it has none yet."""
        return load(self.folder(round_index) / "plan.json", layout.PLAN)

    def save_passes(self, round_index: int, passes: StoredPasses) -> None:
        """Writes which views are refined together. Views that are there already stay as they are."""
        write_json(self.folder(round_index) / "passes.json", asdict(passes))

    def load_passes(self, round_index: int) -> StoredPasses | None:
        """Which views are refined together, or None where nothing was planned yet, or each stands alone."""
        return load(self.folder(round_index) / "passes.json", layout.PASSES)

    # Views

    def save_view(self, round_index: int, name: str, stored: StoredView) -> StoredView:
        """Writes one view; it counts from the moment its JSON, written last, is there.

        Returns:
            The view as every later ``load_view`` gives it back, bit for bit (CPU, float32). Train on this one, not on
            the argument: a resumed run then sees the same pixels.

        Raises:
            DiskError: it cannot be written; then none of its files remain.
        """
        files, folder = _files(name), self.folder(round_index)
        exact = quantised(stored)
        pictures: dict[str, Tensor] = {
            "image": exact.image,
            "render": exact.render,
            "reliable": exact.reliable.dense,
            "sparse": exact.reliable.sparse,
            "real": exact.real,
            "weight": exact.weight,
        }
        try:
            with atomic_path(folder / files["exact"]) as temporary:
                write_exact(temporary, exact)
            for kind, values in pictures.items():
                write_picture(folder / files[kind], values)
            write_json(folder / files["header"], {**view_header(exact), "name": name})
        except Exception:
            for relative in files.values():
                with contextlib.suppress(OSError):  # read-only since a moment ago: the first error is the one to tell
                    (folder / relative).unlink(missing_ok=True)
            raise
        self._write_transforms(round_index)
        return exact

    def load_view(self, round_index: int, name: str) -> StoredView:
        """A view that was saved, on the CPU in float32.

        Raises:
            RoundStorageError: it is not there, or damaged.
        """
        header = self.header(round_index, name)
        files, folder = _files(name), self.folder(round_index)
        with reading(
            folder / files["exact"], f"Delete {folder / files['header']} to refine it again", RoundStorageError
        ):
            return read_exact(folder / files["exact"], header)

    def views(self, round_index: int) -> list[str]:
        """Names of the views of a round that are wholly there, sorted."""
        return sorted(p.stem for p in (self.folder(round_index) / "views").glob("*.json") if not p.name.startswith("."))

    def header(self, round_index: int, name: str) -> StoredView:
        """A stored view without its pixels: camera, the gate's decision, how it was refined."""
        return layout.read(self.folder(round_index) / _files(name)["header"], layout.VIEW)

    def picture(self, round_index: int, name: str, kind: str = "image") -> Path:
        """A view's PNG: ``image`` (refined), ``render``, ``reliable``, ``sparse``, ``real``, ``weight``, ``after``."""
        return self.folder(round_index) / _files(name)[kind]

    def save_after(self, round_index: int, name: str, image: Tensor) -> None:
        """Writes what the fine-tuned model shows from a view (float [H, W, 3] in [0, 1]), for the contact sheet."""
        write_picture(self.picture(round_index, name, "after"), image)

    # Rounds

    def finish_round(self, round_index: int, report: dict[str, Any]) -> None:
        """Writes the report, which marks the round as over. Plain JSON types; NaN is refused (ValueError)."""
        self._write_transforms(round_index)
        write_json(self.folder(round_index) / "report.json", report)

    def report(self, round_index: int) -> dict[str, Any] | None:
        """The round's report, or None while it is not over."""
        return load(self.folder(round_index) / "report.json", layout.REPORT)

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
        return self.root / f"round_{round_index}"

    def contact_sheet(self, round_index: int) -> Path:
        """Where the round's contact sheet belongs."""
        return self.folder(round_index) / "contact_sheet.png"

    def close_photographs(self, round_index: int) -> Path:
        """Where the picture of held-out photographs belongs: before the round, after it, and the photograph."""
        return self.folder(round_index) / "close_photographs.png"

    def check(self) -> None:
        """Read every file that a resumed run would read. RoundStorageError names the first that is damaged."""
        load(self.root / "run.json", layout.RUN)
        self.load_targets()
        self.load_schedule()
        for number in self.rounds():
            for read in (self.load_plan, self.load_passes, self.load_verdict, self.report):
                read(number)
            load(self.folder(number) / "native" / "transforms.json", layout.NATIVE)
            for name in self.views(number):
                self.load_view(number, name)

    # Inside

    def _write_transforms(self, round_index: int) -> None:
        """Lists the views that the gate let through. Derived from the headers, so it can be written again any time."""
        headers = {name: self.header(round_index, name) for name in self.views(round_index)}
        frames = [
            (_frame_keys(name, header.decision.verdict), header.view)
            for name, header in headers.items()
            if header.decision.verdict != "rejected"
        ]
        write_transforms(self.folder(round_index) / "transforms.json", frames, orientation_override="none")


def _files(name: str) -> dict[str, str]:
    """A view's files below its round's folder, by what they hold. The header comes last and makes the view count."""
    return {
        "exact": f"exact/{name}.npz",
        "image": f"images/{name}.png",
        "render": f"renders/{name}.png",
        "reliable": f"masks/{name}_reliable.png",
        "sparse": f"masks/{name}_sparse.png",
        "real": f"masks/{name}_real.png",
        "weight": f"weights/{name}.png",
        "after": f"after/{name}.png",
        "header": f"views/{name}.json",
    }


def _same(found: Any, wanted: Any) -> bool:
    """Equality, up to rounding for coordinates: a target found again on another machine may differ in the last bits."""
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return all(_same(a, b) for a, b in zip(found, wanted, strict=True))
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-4, abs_tol=1e-6)
    return found == wanted


def _frame_keys(name: str, verdict: str) -> dict[str, Any]:
    """What transforms.json says of a view beside its camera."""
    files = _files(name)
    about = {"generated": True, "verdict": verdict}
    return {"file_path": files["image"], **about, "real_mask_path": files["real"], "weight_path": files["weight"]}
