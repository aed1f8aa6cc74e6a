"""Reads a run's folder through the round store, without a model. Missing and broken files are listed as problems."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, as_tensor

from closeup_ns.data.images import open_image
from closeup_ns.errors import CloseupError, DataError
from closeup_ns.model.kernel import PixelKernel
from closeup_ns.planning.plan import KnownView, RoundPlan
from closeup_ns.planning.target import Target
from closeup_ns.reading import OPEN, checked, reading
from closeup_ns.refine.judging.footprint import as_photographed
from closeup_ns.report.config_file import option, read_config
from closeup_ns.rounds.store.layout import RoundVerdict, Schedule, StoredPlan
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.rounds.store.view import StoredView
from closeup_ns.views.psnr import psnr

T = TypeVar("T")
_REMEDY = "Restore it from a copy of the run"
NO_STEPS = Schedule(0, 0, 0)
"""Of a run that has no rounds."""


@dataclass(config=OPEN)
class BeforeAfter:
    """PSNR in dB of the test photographs, or of their native crops, before and after a round."""

    before: float | None = None
    after: float | None = None
    registered: Annotated[float | None, Field(alias="after, registered")] = None
    """After the round, from poses that were registered to the model."""


@dataclass(config=OPEN)
class Kernel:
    """`PixelKernel` as a round's report holds it."""

    eps2d: float | None = None
    lens_blur: float | None = None
    supersample: Annotated[int, Field(ge=1)] | None = None
    taps: tuple[float, ...] = ()

    @property
    def variance(self) -> float | None:
        """`PixelKernel.variance`, in squared pixels of the image."""
        if self.eps2d is None or self.lens_blur is None or self.supersample is None:
            return None
        return PixelKernel(self.eps2d, self.supersample, self.lens_blur, self.taps).variance


@dataclass(config=OPEN)
class MadeWith:
    """What a round was made with."""

    device: str = ""
    refiner: str = ""
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(config=OPEN)
class Report:
    """report.json, written when a round is over."""

    zoom: float | None = None
    gaussians: int | None = None
    native_views: int = 0
    kernel: Kernel | None = None
    native_kernel: Kernel | None = None
    """Of the round's native views."""
    evaluation_psnr: BeforeAfter | None = None
    close_photograph_psnr: BeforeAfter | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by stage."""
    peak_memory_mb: float | None = None
    peak_gpu_memory_mb: float | None = None
    made_with: MadeWith = field(default_factory=MadeWith)


@dataclasses.dataclass
class View:
    """One close-up that a round trained on."""

    name: str
    stored: StoredView
    """Without its pixels."""
    pictures: dict[str, Path]
    """By what they show, as `RoundStore.picture` calls it. Only those that are there."""
    frontier: bool
    """Whether the plan has it among the closest views."""
    photographed: float | None = None
    """Share of its pixels whose colour a real photograph set."""
    psnr_after: float | None = None
    """dB on its reliable pixels after fine-tuning."""

    @property
    def used(self) -> bool:
        """Whether the gate let any of it through."""
        return self.stored.decision.verdict != "rejected"

    @property
    def rest(self) -> str:
        """What the pixels are that no photograph set: invented by a generator, or the model's own render."""
        return "invented" if self.stored.record is not None and self.stored.record.generates else "the model's own"


@dataclasses.dataclass
class Round:
    """One round, finished or not."""

    number: int
    plans: list[RoundPlan]
    """One per target; none before the round is planned."""
    known: list[KnownView]
    """All known views at the time."""
    verdict: RoundVerdict | None = None
    report: Report | None = None
    """None while the round is under way."""
    views: list[View] = field(default_factory=list)
    contact_sheet: Path | None = None
    close_photographs: Path | None = None
    """Native crops of held-out photographs before the round, after it, and as they are."""
    problems: list[str] = field(default_factory=list)
    """Messages about files that could not be read, for the page."""

    @property
    def used(self) -> list[View]:
        """The views that the gate let through."""
        return [view for view in self.views if view.used]

    def shares(self) -> dict[str, float]:
        """Of the pixels of the views that were used: photographed, the model's own, invented."""
        measured = [(view.photographed, view.rest) for view in self.used if view.photographed is not None]
        totals: dict[str, float] = {"photographed": 0.0, "the model's own": 0.0, "invented": 0.0}
        for photographed, rest in measured:
            totals["photographed"] += photographed / len(measured)
            totals[rest] += (1 - photographed) / len(measured)
        return totals if measured else {}


@dataclasses.dataclass
class Run:
    """A run's folder."""

    folder: Path
    config: dict[str, Any]
    targets: list[Target]
    rounds: list[Round]
    schedule: Schedule
    """The command line's, or since rounds were added in the viewer the changed one."""
    problems: list[str]

    @property
    def finished(self) -> int:
        """How many rounds are over."""
        return sum(item.report is not None for item in self.rounds)

    @property
    def last(self) -> Report:
        """Of the last round that is over; empty before."""
        return next((item.report for item in reversed(self.rounds) if item.report is not None), Report())


def read_run(config_path: Path) -> Run:
    """Everything that the page says.

    Raises:
        CheckpointError: ``config_path`` is no config.yml of a run.
    """
    config, problems = read_config(config_path), list[str]()
    store = RoundStore(config_path.parent / "rounds")
    configured = checked(Schedule, option(config, "pipeline.schedule") or NO_STEPS, f"{config_path}: schedule", _REMEDY)
    changed = _read(problems, store.load_schedule, store.root / "schedule.json")
    targets = _read(problems, store.load_targets, store.root / "targets.json") or []
    rounds = [_read_round(store, number) for number in store.rounds()]
    return Run(config_path.parent, config, targets, rounds, changed or configured, problems)


def read_scores(path: Path) -> dict[str, Any]:
    """What ns-eval wrote. DataError where it is missing or something else."""
    remedy = "Write it anew with ns-eval --output-path, or leave --scores out"
    with reading(path, remedy):
        content = checked(dict[str, Any], json.loads(path.read_bytes()), path, remedy)  # may hold NaN: no LPIPS
    return checked(dict[str, Any], content.get("results"), f"{path}: results", remedy)


def _read(problems: list[str], read: Callable[[], T], where: Path) -> T | None:
    """What ``read`` gives; None where there is nothing, and where it is broken, which is said."""
    try:
        return read()
    except CloseupError as problem:
        problems.append(str(problem))
    except Exception as problem:  # of a damaged file: the store names those that it knows
        problems.append(f"{where} cannot be read ({problem!r}). {_REMEDY}")
    return None


def _read_round(store: RoundStore, number: int) -> Round:
    folder, problems = store.folder(number), list[str]()
    plan = _read(problems, lambda: _plan(store, number), folder / "plan.json") or StoredPlan([])
    item = Round(
        number,
        plan.plans,
        plan.known,
        _read(problems, lambda: store.load_verdict(number), folder / "verdict.json"),
        _read(problems, lambda: _report(store, number), folder / "report.json"),
        problems=problems,
    )
    read = [_read_view(store, item, name) for name in store.views(number)]
    item.views = [view for view in read if view is not None]
    sheet, close = store.contact_sheet(number), store.close_photographs(number)
    item.contact_sheet = sheet if sheet.is_file() else None
    item.close_photographs = close if close.is_file() else None
    if item.report is not None and item.views and item.contact_sheet is None:
        problems.append(f"{sheet} is missing")
    return item


def _plan(store: RoundStore, number: int) -> StoredPlan | None:
    """A round's plans and known views. DataError where one has a distance that no map can show."""
    stored = store.load_plan(number)
    if stored is not None and any(plan.radius <= 0 or plan.zoom_total <= 0 for plan in stored.plans):
        raise DataError(f"{store.folder(number) / 'plan.json'} has a radius or a zoom that is not positive. {_REMEDY}")
    return stored


def _report(store: RoundStore, number: int) -> Report | None:
    content = store.report(number)
    return None if content is None else checked(Report, content, store.folder(number) / "report.json", _REMEDY)


def _read_view(store: RoundStore, item: Round, name: str) -> View | None:
    """A view; None where the file that makes it one is damaged."""
    folder, problems = store.folder(item.number), item.problems
    stored = _read(problems, lambda: store.header(item.number, name), folder / f"views/{name}.json")
    if stored is None:
        return None
    kinds = ("render", "image", "real") if item.report is None else ("render", "image", "real", "after")
    places = {kind: store.picture(item.number, name, kind) for kind in kinds}
    problems += [f"{place} is missing" for place in places.values() if not place.is_file()]
    pictures = {kind: place for kind, place in places.items() if place.is_file()}
    frontier = any(name in plan.named(index, "frontier") for index, plan in enumerate(item.plans))
    view = View(name, stored, pictures, frontier)
    if "real" in pictures:
        mask = _read(problems, lambda: _picture(pictures["real"], "L"), pictures["real"])
        view.photographed = None if mask is None else float((mask > 127).mean())
    if "after" in pictures:
        read = partial(_reliable_psnr, store, item.number, name, pictures["after"])
        view.psnr_after = _read(problems, read, folder / f"exact/{name}.npz")
    return view


def _reliable_psnr(store: RoundStore, number: int, name: str, picture: Path) -> float | None:
    """PSNR in dB of ``picture``, seen as photographs see it, against their colours on the view's reliable pixels."""
    reliable = store.load_view(number, name).reliable
    if not reliable.sparse.any():
        return None
    shown: Float[Tensor, "3 H W"] = as_tensor(_picture(picture, "RGB").transpose(2, 0, 1) / 255.0)
    seen = as_photographed(shown, reliable.footprint.double())
    return psnr(seen.permute(1, 2, 0), reliable.color.permute(1, 2, 0), reliable.sparse)


def _picture(path: Path, mode: str) -> np.ndarray:
    with open_image(path) as image:
        return np.asarray(image.convert(mode))
