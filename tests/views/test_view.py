"""Views: exact re-aim and move-closer (App. B), sizes, storage."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.errors import CloseupError
from closeup_ns.views.view import View, aim_at, look_at, move_closer
from closeup_ns.views.warp import project, unproject
from tests.scenes import intrinsics


def random_view(seed: int, dtype: torch.dtype = torch.float64) -> tuple[View, torch.Tensor]:
    """A view with any orientation, off-centre principal point and unequal focal lengths, and any point."""
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3, :3] = rotation * torch.linalg.det(rotation)
    c2w[:3, 3] = torch.randn(3, generator=generator, dtype=torch.float64) * 5
    K = torch.tensor([[812.3, 0.0, 301.7], [0.0, 795.1, 250.9], [0.0, 0.0, 1.0]], dtype=torch.float64)
    point = torch.randn(3, generator=generator, dtype=torch.float64) * 5
    return View(K, c2w, 640, 480).to(dtype=dtype), point.to(dtype)


def rotation_angle(first: View, second: View) -> float:
    relative = first.c2w[:3, :3].T @ second.c2w[:3, :3]
    return float(torch.arccos(((relative.trace() - 1) / 2).clamp(-1, 1)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_aim_at_centres_the_point_by_the_smallest_rotation(seed: int) -> None:
    view, point = random_view(seed)
    aimed = aim_at(view, point)
    uv, z = project(aimed, point)
    assert float(z) > 0
    torch.testing.assert_close(uv, view.K[:2, 2], atol=1e-4, rtol=0)
    rotation = aimed.c2w[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert float(torch.linalg.det(rotation)) > 0
    torch.testing.assert_close(aimed.position, view.position)
    needed = torch.arccos(torch.dot(view.forward, torch.nn.functional.normalize(point - view.position, dim=0)))
    assert rotation_angle(view, aimed) == pytest.approx(float(needed), abs=1e-6)


@pytest.mark.parametrize("slip", [0.0, 1e-13, 1e-7, 1e-3])
def test_aim_at_behind_keeps_the_vertical(slip: float) -> None:
    view, _ = random_view(3)
    behind = view.position - 4.0 * view.forward + slip * view.c2w[:3, 0]
    aimed = aim_at(view, behind)
    uv, z = project(aimed, behind)
    assert float(z) > 0
    torch.testing.assert_close(uv, view.K[:2, 2], atol=1e-4, rtol=0)
    if slip < 1e-6:
        torch.testing.assert_close(aimed.c2w[:3, 1], view.c2w[:3, 1], atol=1e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.5, 81.0))
def test_move_closer_divides_the_distance_and_keeps_the_orientation(seed: int, zoom: float) -> None:
    view, point = random_view(seed)
    moved = move_closer(view, point, zoom)
    torch.testing.assert_close((moved.position - point) * zoom, view.position - point)
    assert torch.equal(moved.c2w[:3, :3], view.c2w[:3, :3])


def test_look_at_has_up_upwards_and_survives_a_parallel_up() -> None:
    K = intrinsics(64, 48)
    position, target = torch.zeros(3, dtype=torch.float64), torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    view = look_at(position, target, up, K, 64, 48)
    (uv, _), (above, _) = project(view, target), project(view, target + 0.1 * up)
    torch.testing.assert_close(uv, K[:2, 2], atol=1e-9, rtol=0)
    assert float(above[1]) < float(uv[1])
    assert float(above[0]) == pytest.approx(float(uv[0]), abs=1e-6)
    parallel = look_at(position, up * 3, up, K, 64, 48)
    torch.testing.assert_close(project(parallel, up * 3)[0], K[:2, 2], atol=1e-9, rtol=0)
    assert float(torch.linalg.det(parallel.c2w[:3, :3])) == pytest.approx(1.0)


def test_viewmat_inverts_c2w() -> None:
    view, _ = random_view(1)
    torch.testing.assert_close(view.viewmat @ view.c2w, torch.eye(4, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(640, 480, (128, 96)), (481, 641, (96, 128)), (90, 60, (90, 60))]
)
def test_resized_keeps_the_frustum_and_never_enlarges(width: int, height: int, expected: tuple[int, int]) -> None:
    view = View(intrinsics(width, height), torch.eye(4, dtype=torch.float64), width, height)
    small = view.resized(128)
    assert (small.width, small.height) == expected
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    ones = torch.ones(4, dtype=torch.float64)
    before = unproject(view, corners * torch.tensor([width, height]), ones)
    after = unproject(small, corners * torch.tensor([small.width, small.height]), ones)
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_view_survives_json_bit_for_bit(dtype: torch.dtype) -> None:
    view, _ = random_view(9, dtype)
    back = View.from_dict(json.loads(json.dumps(view.to_dict(), allow_nan=False)))
    assert torch.equal(back.K, view.K)
    assert torch.equal(back.c2w, view.c2w)
    assert back.c2w.dtype == dtype
    assert (back.width, back.height) == (640, 480)


def test_a_camera_cannot_look_at_its_own_centre() -> None:
    view, _ = random_view(2)
    with pytest.raises(CloseupError, match="own centre"):
        aim_at(view, view.position)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"c2w": [[float("nan")] * 4] * 4}, "c2w holds a number that is not finite"),
        ({"c2w": (2 * torch.eye(4)).tolist()}, "no rotation"),
        ({"c2w": torch.diag(torch.tensor([-1.0, 1, 1, 1])).tolist()}, "no rotation"),
        ({"K": [[0.0, 0, 1], [0, 1, 1], [0, 0, 1]]}, "focal length of 0 pixels"),
        ({"K": [[500, 0, float("inf")], [0, 500, 1], [0, 0, 1]]}, "K holds a number that is not finite"),
        ({"K": [[500, 0, 320], [0, -20, 240], [0, 0, 1]]}, "focal length of -20 pixels"),
        ({"K": [[500, 3.5, 320], [0, 500, 240], [0, 0, 1]]}, "skew"),
        ({"K": [[1.0]]}, "K is .*3 3"),
        ({"K": "x"}, "this is no saved View"),
        ({"c2w": torch.diag(torch.tensor([1.0, 1, 1, 2])).tolist()}, "last row"),
        ({"dtype": "float16"}, "float16"),
        ({"width": 10**9}, "pixels for 1000000000 pixels"),
        ({"height": "7"}, "height is '7': .*integer"),
        ({"roll": 1}, "roll is 1: .*not permitted"),
    ],
)
def test_what_no_camera_can_be_is_refused(changes: dict[str, Any], said: str) -> None:
    view, _ = random_view(2)
    assert View.from_dict(view.to_dict()).to_dict() == view.to_dict()
    with pytest.raises(CloseupError, match=said):
        View.from_dict({**view.to_dict(), **changes})
