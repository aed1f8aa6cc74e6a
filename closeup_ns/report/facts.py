"""What a run's folder says, read without a model. What is missing or broken is said, not raised."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from closeup_ns.errors import RoundStorageError
from closeup_ns.refine.footprint import as_photographed
from closeup_ns.report.config_file import option, read_config
from closeup_ns.rounds.store import layout

VIEW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
ROUND_NAME = re.compile(r"round_([1-9][0-9]*)")
IDENTICAL_PSNR = 100.0


@dataclass
class ViewFacts:
    """One close-up that a round trained on."""

    name: str
    header: dict[str, Any]
    """Verdict of the gate, seconds, camera, the refiner's notes."""
    pictures: dict[str, Path]
    """By what they show: render, refined, after, real. Only those that are there."""
    real_share: float | None
    """Share of its pixels whose colour a real photograph set."""
    psnr_after: float | None
    """dB on its reliable pixels after fine-tuning."""

    @property
    def decision(self) -> dict[str, Any]:
        return self.header.get("decision") or {}

    @property
    def used(self) -> bool:
        """Whether the gate let any of it through."""
        return self.decision.get("verdict") != "rejected"


@dataclass
class RoundFacts:
    """One round, finished or not."""

    number: int
    plans: list[dict[str, Any]] = field(default_factory=list)
    """One per target, as `RoundPlan.to_dict` wrote them."""
    known: list[dict[str, Any]] = field(default_factory=list)
    """All known views at the time; empty where an earlier version planned."""
    verdict: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    """Empty while the round is under way."""
    views: list[ViewFacts] = field(default_factory=list)
    contact_sheet: Path | None = None
    problems: list[str] = field(default_factory=list)
    """What could not be read, for the page."""

    @property
    def real_share(self) -> float | None:
        """Mean over the views that were used."""
        shares = [view.real_share for view in self.views if view.used and view.real_share is not None]
        return sum(shares) / len(shares) if shares else None


@dataclass
class RunFacts:
    """A run's folder."""

    folder: Path
    config: dict[str, Any]
    targets: list[dict[str, Any]]
    rounds: list[RoundFacts]
    schedule: dict[str, Any]
    """``base_steps``, ``rounds`` and ``round_steps``: the command line's, or since rounds were asked for in the viewer
    the changed ones."""
    problems: list[str]

    @property
    def wanted_rounds(self) -> int:
        """How many rounds the run was asked for."""
        rounds = self.schedule.get("rounds")
        return rounds if isinstance(rounds, int) else 0

    @property
    def finished(self) -> int:
        """How many rounds are over."""
        return sum(bool(item.report) for item in self.rounds)


def read_run(config_path: Path) -> RunFacts:
    """Everything that the page says.

    Raises:
        CheckpointError: ``config_path`` is no config.yml of a run.
    """
    config = read_config(config_path)
    folder, problems = config_path.parent, []
    root = folder / "rounds"
    matches = [ROUND_NAME.fullmatch(path.name) for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    targets = _read_json(root / "targets.json", layout.TARGETS, problems).get("targets")
    return RunFacts(
        folder=folder,
        config=config,
        targets=targets or [],
        rounds=[_read_round(root, number) for number in sorted(int(match[1]) for match in matches if match)],
        schedule=_schedule(config, _read_json(root / "schedule.json", layout.SCHEDULE, problems)),
        problems=problems,
    )


def _schedule(config: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """What the run goes by, as `adopt_schedule` has it: more rounds on the command line are not taken back."""
    schedule = {**(option(config, "pipeline.schedule") or {}), **changed}
    asked = (part.get("rounds") for part in (option(config, "pipeline.schedule") or {}, changed))
    schedule["rounds"] = max((rounds for rounds in asked if isinstance(rounds, int)), default=0)
    return schedule


def _read_round(root: Path, number: int) -> RoundFacts:
    folder, problems = root / f"round_{number}", []
    plan = _read_json(folder / "plan.json", layout.PLAN, problems)
    report = _read_json(folder / "report.json", layout.REPORT, problems)
    sheet = folder / "contact_sheet.png"
    if report and not sheet.is_file():
        problems.append("contact_sheet.png is missing")
    names = sorted(path.stem for path in (folder / "views").glob("*.json") if VIEW_NAME.fullmatch(path.stem))
    return RoundFacts(
        number=number,
        plans=plan.get("plans", []),
        known=plan.get("known", []),
        verdict=_read_json(folder / "verdict.json", layout.VERDICT, problems),
        report=report,
        views=[_read_view(folder, name, bool(report), problems) for name in names],
        contact_sheet=sheet if sheet.is_file() else None,
        problems=problems,
    )


def _read_view(folder: Path, name: str, over: bool, problems: list[str]) -> ViewFacts:
    """``name`` has been checked; the paths follow from it, never from what a file says."""
    places = {"render": f"renders/{name}.png", "refined": f"images/{name}.png", "real": f"masks/{name}_real.png"}
    if over:
        places["after"] = f"after/{name}.png"
    for place in places.values():
        if not (folder / place).is_file():
            problems.append(f"{place} is missing")
    pictures = {kind: folder / place for kind, place in places.items() if (folder / place).is_file()}
    share = None
    if "real" in pictures:
        mask = _read_picture(pictures["real"], "L", problems)
        share = None if mask is None else float((mask > 127).mean())
    after = _reliable_psnr(folder / f"exact/{name}.npz", pictures["after"], problems) if "after" in pictures else None
    return ViewFacts(name, _read_json(folder / f"views/{name}.json", layout.VIEW, problems), pictures, share, after)


def _reliable_psnr(exact: Path, picture: Path, problems: list[str]) -> float | None:
    """PSNR in dB of ``picture``, seen as photographs see it, against their colours on the view's reliable pixels."""
    shown = _read_picture(picture, "RGB", problems)
    if shown is None:
        return None
    try:
        with np.load(exact, allow_pickle=False) as archive:
            sparse, color = archive["sparse"], archive["color"]
            footprint = archive["footprint"] if "footprint" in archive else np.ones(sparse.shape, np.float32)
        if not sparse.any():
            return None
        truth = color.transpose(1, 2, 0)[sparse] / 65535.0
        levels = torch.from_numpy(shown.transpose(2, 0, 1) / 255.0)
        seen = as_photographed(levels, torch.from_numpy(footprint).to(levels)).permute(1, 2, 0).numpy()
        error = float(np.square(seen[sparse] - truth).mean())
    except Exception as error:  # a damaged archive raises what zlib, zipfile, numpy or the disk please
        problems.append(f"{exact.parent.name}/{exact.name} cannot be read ({error})")
        return None
    return min(IDENTICAL_PSNR, -10 * float(np.log10(max(error, 1e-30))))


def _read_picture(path: Path, mode: str, problems: list[str]) -> np.ndarray | None:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        problems.append(f"{path.parent.name}/{path.name} cannot be read ({error})")
        return None


def _read_json(path: Path, kind: layout.Kind, problems: list[str]) -> dict[str, Any]:
    """The object in a file; {} where there is none, and said where it is broken."""
    try:
        return layout.load(path, kind) or {}
    except RoundStorageError as error:
        problems.append(str(error))
        return {}
