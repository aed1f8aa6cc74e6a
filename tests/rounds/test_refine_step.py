"""A round is refined in joint passes: planned once, each view stored once, whatever fails said at its view."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from closeup_ns.errors import PlanningError, RefinerError, RefinerOutOfMemory
from closeup_ns.planning.plan import RoundPlan
from closeup_ns.refine.chunking import RefinePass
from closeup_ns.refine.protocol import RefinedView, RefineRequest
from closeup_ns.rounds.injection import with_real_colors
from closeup_ns.rounds.known import consistent_views, observations
from closeup_ns.rounds.refine_step import refine_round
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.views.overlap import DepthViews
from closeup_ns.views.reliability import reliable_pixels
from closeup_ns.views.view import move_closer
from tests.passes import POINT, SIZE, JointRefiner, a_plan, a_run

NAMES = ["t0_frontier_00", "t0_frontier_01", "t0_update_00", "t0_update_01"]


@pytest.fixture(autouse=True)
def planned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Views 3 and 0 with the first anchor, then 1 and 2 with both anchors and 0 and 3; notes the calls."""
    calls: list[int] = []

    def plan_passes(targets: DepthViews, anchors: DepthViews, frames: int) -> list[RefinePass]:
        assert targets.depth.shape[0] == 4 and anchors.depth.shape[0] == 2 and max(targets.depth.shape[1:]) <= 128
        calls.append(frames)
        return [RefinePass((3, 0), (), (0,)), RefinePass((1, 2), (0, 3), (0, 1))]

    monkeypatch.setattr("closeup_ns.rounds.passes.plan_passes", plan_passes)
    return calls


def refined(
    folder: Path,
    refiner: Any,
    plans: Sequence[RoundPlan] = (),
    run: Any = None,
    number: int = 1,
    limit: int | None = None,
) -> RoundStore:
    store = RoundStore(folder)
    refine_round(run or a_run(), refiner, number, plans or [a_plan()], store, store, limit)
    return store


def test_a_pass_is_one_request_with_its_references(tmp_path: Path) -> None:
    refiner = JointRefiner()
    store = refined(tmp_path, refiner)
    assert store.views(1) == NAMES
    first, second = refiner.requests
    assert (first.names, second.names) == (["t0_frontier_01", "t0_update_00"], ["t0_update_01", "t0_frontier_00"])
    assert [guide.name for guide in first.anchors] == ["train/0.png"] and not first.neighbours
    assert [guide.name for guide in second.anchors] == ["train/0.png", "train/1.png"]
    run = a_run()
    for index, guide in enumerate(second.anchors):
        assert guide.is_real and torch.equal(guide.image, run.photographs.photograph(index))
    assert [guide.name for guide in second.neighbours] == ["t0_update_00", "t0_frontier_01"]
    for guide in second.neighbours:
        assert torch.equal(guide.image, store.load_view(1, guide.name).image) and not guide.is_real
    assert first.seed == second.seed == 7 and len(first.references) == 4
    record = store.load_view(1, "t0_update_01").record
    assert (record.pass_number, record.frames, record.refiner) == (2, 6, "joint")
    assert record.references == ("train/0.png", "train/1.png", "t0_update_00", "t0_frontier_01")
    assert record.memory_of == "process" and record.peak_memory_mb > 50 and record.generates
    assert store.load_view(1, "t0_frontier_00").seconds > 0
    assert [store.load_view(1, name).record.frames for name in NAMES] == [6, 3, 3, 6]


def test_a_view_in_which_nothing_is_invented_is_not_called_generated(tmp_path: Path) -> None:
    store = refined(tmp_path, JointRefiner(t0_update_00=lambda view: dataclasses.replace(view, generated=False)))
    generated = {name: store.load_view(1, name).record.generates for name in NAMES}
    assert generated == {name: name != "t0_update_00" for name in NAMES}


def test_a_killed_round_goes_on_with_the_same_passes(tmp_path: Path, planned: list[int]) -> None:
    """Killed in the second pass after one of its views was stored: the other one is refined with it as a neighbour."""
    whole = refined(tmp_path / "whole", JointRefiner())
    cut = refined(tmp_path / "cut", JointRefiner())
    (tmp_path / "cut/round_1/views/t0_frontier_00.json").unlink()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut/round_1/exact").iterdir()}
    refiner = JointRefiner()
    refined(tmp_path / "cut", refiner)
    (request,) = refiner.requests
    assert request.names == ["t0_frontier_00"]
    assert [guide.name for guide in request.neighbours] == ["t0_update_00", "t0_frontier_01", "t0_update_01"]
    assert planned == [6, 6]  # once for each folder, not again
    changed = {path.stem for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert changed == {"t0_frontier_00"}
    assert cut.views(1) == NAMES
    assert torch.equal(cut.load_view(1, NAMES[0]).image, whole.load_view(1, NAMES[0]).image)
    refiner = JointRefiner()
    refined(tmp_path / "cut", refiner)
    assert not refiner.requests


def test_other_frames_are_planned_anew(tmp_path: Path, planned: list[int]) -> None:
    store = refined(tmp_path, JointRefiner(6))
    (tmp_path / "round_1/views/t0_frontier_00.json").unlink()
    refined(tmp_path, JointRefiner(5))
    passes = store.load_passes(1)
    assert planned == [6, 5] and passes is not None and passes.frames == 5


def test_a_refiner_of_single_views_gets_each_alone(tmp_path: Path, planned: list[int]) -> None:
    refiner = JointRefiner(frames=1)
    store = refined(tmp_path, refiner)
    assert [list(request.names) for request in refiner.requests] == [
        ["t0_update_00"], ["t0_update_01"], ["t0_frontier_00"], ["t0_frontier_01"]
    ]  # fmt: skip
    assert all(len(request.anchors) == 2 and not request.neighbours for request in refiner.requests)
    assert not planned and store.load_passes(1) is None


def test_only_so_many_views(tmp_path: Path) -> None:
    refiner = JointRefiner(frames=1)
    assert refined(tmp_path, refiner, limit=3).views(1) == ["t0_frontier_00", "t0_update_00", "t0_update_01"]
    assert refined(tmp_path, refiner).views(1) == NAMES and len(refiner.requests) == 4


# What goes wrong


def nan(view: RefinedView) -> RefinedView:
    return dataclasses.replace(view, image=torch.full_like(view.image, torch.nan))


def failing(view: RefinedView) -> RefinedView:
    return dataclasses.replace(view, failure="out of memory even for one view [/of] them")


def test_a_view_that_fails_falls_back_and_is_no_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refiner = JointRefiner(t0_update_00=failing, t0_frontier_01=nan)
    store = refined(tmp_path, refiner)
    assert not refiner.requests[1].neighbours
    for name, reason in (("t0_update_00", "out of memory even for one view"), ("t0_frontier_01", "NaN")):
        stored = store.load_view(1, name)
        assert stored.decision.verdict == "reliable_only" and reason in stored.decision.reason
        assert not stored.weight.any() and not stored.real.any() and stored.decision.psnr_after is None
        assert torch.allclose(stored.image, stored.render)
    assert store.load_view(1, "t0_update_01").decision.accepted
    said = " ".join(capsys.readouterr().out.split())
    assert "Round 1: 2 of 4 refined views are not used as refined" in said and "one view [/of] them" in said


def test_a_pass_that_does_not_fit_into_memory_costs_its_views_alone(tmp_path: Path) -> None:
    class Small(JointRefiner):
        def refine(self, request: RefineRequest) -> list[RefinedView]:
            if "t0_update_00" in request.names:
                raise RefinerOutOfMemory("3 pictures do not fit into 1 GB")
            return super().refine(request)

    store = refined(tmp_path, Small())
    assert [store.load_view(1, name).decision.accepted for name in NAMES] == [True, False, False, True]
    assert "do not fit" in store.load_view(1, "t0_update_00").decision.reason


def test_a_refiner_that_cannot_work_keeps_what_was_refined(tmp_path: Path) -> None:
    class Breaking(JointRefiner):
        def refine(self, request: RefineRequest) -> list[RefinedView]:
            if self.requests:
                raise RefinerError("the weights are gone")
            return super().refine(request)

    with pytest.raises(RefinerError, match="weights are gone"):
        refined(tmp_path, Breaking())
    assert RoundStore(tmp_path).views(1) == ["t0_frontier_01", "t0_update_00"]


@pytest.mark.parametrize("name", ["train/gone.png", "round1/t0_update_09", "roundX/a", "elsewhere"])
def test_an_anchor_that_is_gone_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(PlanningError, match=f"anchor {name} is neither one of the 4 photographs nor a refined view"):
        refined(tmp_path, JointRefiner(), [a_plan(["train/0.png", name])])


# Real and generated


def test_a_generated_colour_is_never_called_real(tmp_path: Path) -> None:
    """The stub claims that every pixel is real; only where photographs see the surface may it say so."""
    store = refined(tmp_path, JointRefiner())
    for name in NAMES:
        stored = store.load_view(1, name)
        assert torch.equal(stored.real, stored.reliable.dense)


def kept_round(folder: Path) -> Any:
    """A first round whose refined views are known to the second."""
    run = a_run()
    refined(folder, JointRefiner(), run=run).save_verdict(1, {"accepted": True, "reason": ""})
    return run


@pytest.mark.parametrize("generates", [True, False])
def test_later_masks_know_what_accepted_views_show_and_the_loss_does_not(tmp_path: Path, generates: bool) -> None:
    """Papers.md 6.3 #17, where the photographs' right halves have no depth; nothing where nothing is invented."""
    run, refiner = kept_round(tmp_path), JointRefiner()
    refiner.generates = generates
    left = torch.arange(SIZE[0]).expand(SIZE[1], -1) < 16
    run.photographs.shown = lambda index: left
    consistent = list(consistent_views(run, RoundStore(tmp_path), 2).values())
    store, grown = refined(tmp_path, refiner, run=run, number=2), 0
    for request in refiner.requests:
        for name, shown, view, render in zip(request.names, request.masks, request.views, request.renders):
            stored = store.load_view(2, name).reliable
            photographs = list(observations(run, [view], POINT).values())
            alone = reliable_pixels(view, render.depth, render.alpha, photographs)
            assert torch.equal(stored.dense, alone.dense) and torch.equal(stored.sparse, alone.sparse)
            by_views = reliable_pixels(view, render.depth, render.alpha, consistent)
            assert torch.equal(shown.dense, (alone.dense | by_views.dense) if generates else alone.dense)
            assert torch.equal(shown.sparse, alone.sparse) and torch.equal(shown.support, alone.support)
            grown += int((shown.dense & ~stored.dense).sum())
    assert (grown > 50) == generates


def test_only_as_many_photographs_are_looked_at_as_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The anchor, and those whose direction from the target is nearest to that of a close-up."""
    run = a_run(5)
    views = run.photographs.train_views()
    monkeypatch.setattr("closeup_ns.rounds.known.OBSERVED_BYTES", 3 * SIZE[0] * SIZE[1] * 16 + 1)
    to_camera = torch.stack([view.position for view in views]) - POINT
    angles = torch.nn.functional.cosine_similarity(to_camera, to_camera[4:]).acos()
    second = angles.argsort().tolist()[1]
    anchor = next(index for index in range(5) if index not in (second, 4))
    close_up = move_closer(views[4], POINT, 9)
    found = observations(run, [close_up], POINT, [f"train/{anchor}.png"])
    assert list(found) == [f"train/{index}.png" for index in sorted([anchor, second, 4])]
    assert "Depth of 3 of 5 photographs" in capfd.readouterr().out


def test_views_of_kept_rounds_are_consistent_where_the_model_learnt_them(tmp_path: Path) -> None:
    """Papers.md 6.3 #26: below 20 dB one contradicts the rest."""
    run, store = kept_round(tmp_path), RoundStore(tmp_path)
    assert list(consistent_views(run, store, 2)) == [f"round1/{name}" for name in NAMES]
    assert consistent_views(run, store, 1) == {}
    render = run.model.render_view
    run.model.render_view = lambda view: dataclasses.replace(render(view), color=1 - render(view).color)
    assert consistent_views(run, store, 2) == {}
    run.model.render_view = render
    store.save_verdict(1, {"accepted": False, "reason": ""})
    assert consistent_views(run, store, 2) == {}


def test_an_earlier_rounds_view_can_be_an_anchor(tmp_path: Path) -> None:
    """As it was refined where the gate accepted it, else its render with real colours on the reliable pixels."""
    store = refined(tmp_path, JointRefiner(t0_frontier_01=nan))
    refiner, names = JointRefiner(), ["round1/t0_frontier_00", "round1/t0_frontier_01"]
    refined(tmp_path, refiner, [a_plan(names)], number=2)
    good, bad = refiner.requests[1].anchors
    assert [good.name, bad.name] == names and not good.is_real and not bad.is_real
    assert torch.equal(good.image, store.load_view(1, "t0_frontier_00").image)
    stored = store.load_view(1, "t0_frontier_01")
    assert stored.reliable.sparse.any() and torch.equal(bad.image, with_real_colors(stored))
