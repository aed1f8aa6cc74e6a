"""Frontier, candidates and whole rounds on scenes with exact depth."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.errors import CloseupError, PlanningError
from closeup_ns.planning import candidates, survey
from closeup_ns.planning.candidates import _draw_pairs, _slerp, _tilt, draw_candidates, find_candidates
from closeup_ns.planning.frontier import SEED_SEPARATION, directions_from, place_frontier, seed_views
from closeup_ns.planning.plan import KnownView, PlannerConfig, RoundPlan, plan_round
from closeup_ns.planning.target import Target, target_from_xyz
from closeup_ns.rounds.schedule import ScheduleConfig
from closeup_ns.views.rendered import Rendered, Renderer
from closeup_ns.views.view import View
from closeup_ns.views.warp import project
from tests.scenes import BOX, analytic_renderer, facing_views, orbit_views

RENDER = analytic_renderer()
ON_BOX = (0.25, 0.0, BOX[0][2])
VIEWS = facing_views(14, ON_BOX)
SMALL = PlannerConfig(candidates=24)
TARGET = target_from_xyz(ON_BOX, VIEWS, RENDER)


@pytest.fixture(autouse=True)
def small_depth_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "DEPTH_SIZE", 48)


def known_views(views: list[View]) -> list[KnownView]:
    return [KnownView(f"photo_{index:03d}", view, True) for index, view in enumerate(views)]


def plan(
    round_index: int = 1,
    views: list[View] = VIEWS,
    render: Renderer = RENDER,
    seed: int = 0,
    target: Target | None = None,
    known: list[KnownView] | None = None,
    previous: list[str] | None = None,
    given: list[View] | None = None,
) -> RoundPlan:
    target = target or target_from_xyz(ON_BOX, views, render)
    generator = torch.Generator().manual_seed(seed)
    return plan_round(round_index, 3.0, target, known or known_views(views), render, SMALL, generator, previous, given)


def angle_between(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.rad2deg(torch.arccos((first * second).sum(-1).clamp(-1, 1)))


@pytest.mark.parametrize("round_index", [1, 2, 3])
def test_a_round_is_what_the_paper_describes(round_index: int) -> None:
    result = plan(round_index)
    point = TARGET.point
    assert result.radius == pytest.approx(TARGET.distance / 3**round_index)
    assert result.previous_radius == pytest.approx(3 * result.radius)
    assert result.zoom_total == 3**round_index
    assert len(result.anchors) == len(result.frontier) == len(result.anchor_coverage) == 5
    assert len(result.updates) == len(result.update_weights) == 8
    assert result.warnings == []
    names = {f"photo_{i:03d}" for i in range(14)}
    assert {a.name for a in result.anchors} <= names
    for view, seed in zip(result.frontier, result.frontier_seeds, strict=True):
        uv, _ = project(view, point)
        torch.testing.assert_close(uv, view.K[:2, 2], atol=1e-4, rtol=0)
        assert float((view.position - point).norm()) == pytest.approx(result.radius)
        source = VIEWS[int(seed[-3:])]
        towards = directions_from(point, [view, source])
        assert float(angle_between(towards[0], towards[1])) < 1e-4
    for view in result.candidates:
        distance = float((view.position - point).norm())
        assert result.radius < distance < result.previous_radius
        sight = (point - view.position) / distance
        assert float(angle_between(view.forward, sight)) <= 3.0 + 1e-6
    assert all(any(update is candidate for candidate in result.candidates) for update in result.updates)


def test_anchors_see_the_frontier_and_differ() -> None:
    """Photographs that look elsewhere are never anchors, though they overlap with nothing."""
    away = facing_views(6, (9.0, 0.0, 4.0), seed=5)
    result = plan(views=[*VIEWS, *away])
    assert all(int(anchor.name[-3:]) < len(VIEWS) for anchor in result.anchors)
    assert min(result.anchor_coverage) > 0.3


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    first, second, other = (plan(seed=seed).to_dict() for seed in (4, 4, 5))
    assert first == second
    assert first["candidates"] != other["candidates"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_plan_survives_json_exactly(dtype: torch.dtype) -> None:
    result = plan(views=facing_views(14, ON_BOX, dtype=dtype))
    content = result.to_dict()
    back = RoundPlan.from_dict(json.loads(json.dumps(content, allow_nan=False)))
    assert back.to_dict() == content
    assert torch.equal(back.updates[0].c2w, result.updates[0].c2w)
    assert back.anchors[0].is_real is True
    content.pop("radius")
    with pytest.raises(CloseupError, match="radius"):
        RoundPlan.from_dict(content)


def test_later_rounds_start_from_the_previous_anchors() -> None:
    first = plan(1)
    names = [anchor.name for anchor in first.anchors]
    assert plan(2, previous=names).frontier_seeds == names


def test_views_planned_from_native_ones_have_the_photographs_field() -> None:
    """A native view is three times narrower and off centre: three times nearer it would show a ninth, elsewhere."""
    crops = []
    for view in VIEWS:
        K = view.K.clone()
        K[:2] *= 3
        K[0, 2], K[1, 2] = K[0, 2] - 150, K[1, 2] - 110
        c2w = view.c2w.clone()
        c2w[:3, 3] += 1e-3
        crops.append(View(K, c2w, view.width, view.height))
    known = known_views(VIEWS) + [KnownView(f"native1/{i:04d}", crop, True) for i, crop in enumerate(crops)]
    result = plan(known=known)
    assert any(anchor.name.startswith("native") for anchor in result.anchors), "the test needs native anchors"
    for view in (*result.frontier, *result.updates):
        assert torch.equal(view.K, VIEWS[0].K)


def test_accepted_generated_views_join_the_known_set() -> None:
    first = plan(1)
    known = known_views(VIEWS) + [KnownView(f"gen_{i}", v, False) for i, v in enumerate(first.frontier + first.updates)]
    previous = [anchor.name for anchor in first.anchors] + ["gen_0"]
    second = plan(2, known=known, previous=previous)
    # A generated frontier view lies on its anchor's line: it must not give a second frontier view there.
    towards = directions_from(TARGET.point, second.frontier)
    apart = angle_between(towards[:, None], towards[None]) + 180.0 * torch.eye(len(second.frontier))
    assert float(apart.min()) >= SEED_SEPARATION - 1e-6


def test_portrait_and_landscape_views_mix() -> None:
    portrait = facing_views(7, ON_BOX, size=(90, 160), seed=3)
    result = plan(views=[*VIEWS[:7], *portrait])
    assert len(result.anchors) == 5
    assert {(v.width, v.height) for v in result.candidates} == {(160, 120), (90, 160)}


def test_fewer_known_views_than_anchors_is_a_warning() -> None:
    result = plan(views=VIEWS[:3])
    assert len(result.frontier) == 3
    assert len(result.anchors) == 3
    assert any("3 frontier views instead of 5" in w for w in result.warnings)
    assert any("3 anchors instead of 5" in w for w in result.warnings)
    assert len(plan(views=VIEWS[:1]).anchors) == 1


def test_a_full_orbit_has_opposite_cameras_and_still_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opposite cameras have no unique arc between them; candidates must still stay outside the object."""
    sphere = ((0.0, 0.0, 0.0), 0.8)
    render = analytic_renderer(None, (), [sphere])
    views = orbit_views(16)
    target = target_from_xyz((0.8, 0.0, 0.0), views, render)
    monkeypatch.setattr(candidates, "PAIR_ANGLE", 120.0)
    result = plan(1, views, render, target=target)
    assert all(float(view.position.norm()) > 0.8 for view in result.candidates + result.frontier)


@pytest.mark.parametrize("depth", [3.0, 3.4])
def test_a_blocked_line_is_turned_to_the_nearest_free_direction(depth: float) -> None:
    """A small plate right before the close-up's camera at 2.67, or half way to the target at 4."""
    plate = ((-0.06, -0.06, depth), (0.06, 0.06, depth + 0.02))
    render = analytic_renderer(boxes=(plate,))
    front = facing_views(1, (0.0, 0.0, 4.0), spread=(0.0, 0.0, 0.0))[0]
    sides = facing_views(8, (0.0, 0.0, 4.0), spread=(3.0, 2.0, 0.0), seed=2)
    point = torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64)
    target = Target(point, 4.0, 1.0, "test")
    views = [front, *sides]
    found = place_frontier(views, [f"v{i}" for i in range(9)], [0], target, 4.0 / 3, render)
    towards = directions_from(point, [found.views[0], front])
    turned = float(angle_between(towards[0], towards[1]))
    assert turned in [pytest.approx(a, abs=1e-3) for a in (5, 10, 20, 30, 45)]
    assert "v0" in found.warnings[0]
    assert "blocked" in found.warnings[0]


def inside_everything(view: View) -> Rendered:
    """Far views see the scene; nearer than 2 from the target everything is full of matter."""
    rendered = RENDER(view)
    near = float((view.position - torch.tensor(ON_BOX, dtype=view.c2w.dtype)).norm()) < 2.0
    return Rendered(rendered.color, torch.full_like(rendered.depth, 0.01) if near else rendered.depth, rendered.alpha)


def test_a_radius_inside_geometry_is_refused_by_its_number() -> None:
    with pytest.raises(PlanningError, match=rf"radius {TARGET.distance / 3:.4g}.*inside geometry"):
        plan(render=inside_everything, target=TARGET)


def test_no_usable_candidate_is_refused_with_reasons() -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(PlanningError, match=r"none of 72 views.*inside geometry: 72.*smaller\s+zoom"):
        find_candidates(VIEWS, TARGET, (0.4, 1.2), inside_everything, 24, 8, generator)


def test_few_usable_candidates_are_a_warning() -> None:
    calls = {"n": 0}

    def mostly_blocked(view: View) -> Rendered:
        calls["n"] += 1
        return RENDER(view) if calls["n"] % 24 == 0 else inside_everything(view)

    found = find_candidates(VIEWS, TARGET, (0.4, 1.2), mostly_blocked, 24, 8, torch.Generator().manual_seed(0))
    assert len(found.views) == len(found.depths) == found.distances.numel() == 3
    assert "only 3 of 72" in found.warnings[0]


def test_refusals() -> None:
    behind = Target(torch.tensor([0.0, 0.0, -9.0], dtype=torch.float64), 3.0, 1.0, "test")
    with pytest.raises(PlanningError, match="no known view sees the target"):
        plan(target=behind)
    with pytest.raises(PlanningError, match="anchors, updates and candidates must be at least 1"):
        PlannerConfig(anchors=0)
    with pytest.raises(PlanningError, match="zoom"):
        ScheduleConfig(zoom=1.0)


def test_farthest_point_seeds_spread_and_ignore_blind_views() -> None:
    directions = torch.nn.functional.normalize(
        torch.tensor([[0.0, 0, 1], [0.01, 0, 1], [1, 0, 1], [-1, 0, 1], [0, 1, 1], [5, 0, 1]], dtype=torch.float64),
        dim=1,
    )
    usable = torch.tensor([True, True, True, True, True, False])
    seeds = seed_views(directions, usable, 4)
    assert sorted(seeds)[1:] == [2, 3, 4] or sorted(seeds) == [1, 2, 3, 4]
    assert 5 not in seeds
    # Views 0 and 1 are half a degree apart: one of them is enough, whatever k asks.
    assert len(seed_views(directions, usable, 6)) == 4


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_candidates_stay_in_the_shell_and_near_the_arcs(seed: int) -> None:
    point = torch.tensor(ON_BOX, dtype=torch.float32)
    sources = facing_views(4, ON_BOX, seed=seed % 1000, dtype=torch.float32)
    views = draw_candidates(sources, point, (0.4, 1.2), 20, torch.Generator().manual_seed(seed))
    directions = directions_from(point, sources)
    widest = float(angle_between(directions[:, None], directions[None]).max())
    for view in views:
        offset = view.position - point
        assert 0.4 < float(offset.norm()) < 1.2
        assert float(angle_between(view.forward, -offset / offset.norm())) <= 3.01
        assert float(angle_between(offset / offset.norm(), directions).min()) <= widest / 2 + 5.01
        assert view.c2w.dtype == torch.float32


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 1.0))
def test_slerp_and_tilt(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    start, end = torch.nn.functional.normalize(torch.randn(2, 1, 3, generator=generator, dtype=torch.float64), dim=2)
    middle = _slerp(start, end, torch.tensor([share], dtype=torch.float64))
    whole = math.radians(float(angle_between(start, end)))
    assert math.radians(float(angle_between(start, middle))) == pytest.approx(share * whole, abs=1e-6)
    torch.testing.assert_close(_slerp(start, start, torch.tensor([share], dtype=torch.float64)), start)
    draw = torch.rand(2, 1, generator=generator, dtype=torch.float64)
    tilted = _tilt(start, draw[0], draw[1], 5.0)
    assert float(tilted.norm()) == pytest.approx(1.0)
    assert float(angle_between(start, tilted)) == pytest.approx(5.0 * float(draw[0].sqrt()), abs=1e-5)


def test_pairs_are_never_further_apart_than_allowed(generator: torch.Generator) -> None:
    directions = directions_from(torch.zeros(3, dtype=torch.float64), orbit_views(12))
    draws = torch.rand(2, 500, generator=generator, dtype=torch.float64)
    first, second = _draw_pairs(directions, draws[0], draws[1], 90.0)
    assert float(angle_between(directions[first], directions[second]).max()) <= 90.0 + 1e-6
    # Every allowed partner occurs, the view itself among them.
    assert len({(int(a), int(b)) for a, b in zip(first, second, strict=True) if int(a) == 0}) >= 6


def test_a_given_frontier_is_taken_as_it_is_but_for_views_inside_geometry() -> None:
    own = plan()
    inside = View(own.frontier[0].K, own.frontier[0].c2w.clone(), own.frontier[0].width, own.frontier[0].height)
    inside.c2w[:3, 3] = torch.tensor([*ON_BOX[:2], 3.98])  # a hair before the wall, within the box's shadow
    given = [*own.frontier[:3], inside]
    result = plan(given=given)
    assert len(result.frontier) == 3
    assert all(torch.equal(a.c2w, b.c2w) for a, b in zip(result.frontier, given, strict=False))
    assert result.frontier_seeds == own.frontier_seeds[:3] and result.radius == pytest.approx(own.radius, rel=1e-6)
    assert any("1 given frontier views lie inside geometry" in warning for warning in result.warnings)
    with pytest.raises(PlanningError, match="capture's frame"):
        plan(given=[inside])
