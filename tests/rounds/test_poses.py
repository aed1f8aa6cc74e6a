"""The gauge: what is common to how all cameras' pixels move is taken out, and nothing else."""

from __future__ import annotations

import torch

from closeup_ns.rounds.poses import without_gauge
from closeup_ns.views.registration import moved, pixel_metric
from closeup_ns.views.view import View
from tests.scenes import facing_views

DISTANCE = 4.0
NARROWER = 9.0


def views() -> list[View]:
    return [view.to(dtype=torch.float64) for view in facing_views(9, seed=4)]


def narrow(view: View) -> View:
    """Its middle, ``NARROWER`` times enlarged."""
    K = view.K * torch.tensor([[NARROWER], [NARROWER], [1.0]], dtype=torch.float64)
    K[:2, 2] = torch.tensor([view.width / 2, view.height / 2])
    return View(K, view.c2w, view.width, view.height)


def any_metric(count: int) -> torch.Tensor:
    """Of views that tell every motion from every other."""
    half = torch.randn(count, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return half @ half.transpose(1, 2) + torch.eye(6, dtype=torch.float64)


def motions_of(cameras: list[View], turned: torch.Tensor, shifted: torch.Tensor, grown: float) -> torch.Tensor:
    """To first order: each camera's motion under one small turn, shift and growth of the world about its middle."""
    middle = torch.stack([view.position for view in cameras]).mean(0)
    rows = []
    for view in cameras:
        offset = view.position - middle
        world = torch.linalg.cross(turned, offset) + shifted + grown * offset
        rotation = view.c2w[:3, :3].T
        rows.append(torch.cat([rotation @ turned, rotation @ world]))
    return torch.stack(rows)


def test_what_is_left_is_unchanged_by_a_common_motion_and_has_none() -> None:
    cameras = views()
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(len(cameras), 6, generator=generator, dtype=torch.float64) * 0.01
    common = motions_of(
        cameras, torch.tensor([0.02, 0.01, 0.0]).double(), torch.tensor([0.0, 0.1, 0.1]).double(), -0.02
    )
    metric = any_metric(len(cameras))
    left = without_gauge(own, metric, cameras)
    assert torch.allclose(without_gauge(own + common, metric, cameras), left, atol=1e-9)
    assert torch.allclose(without_gauge(left, metric, cameras), left, atol=1e-9)
    assert float(left.abs().max()) > 0.005


def test_what_moves_no_pixel_of_a_narrow_view_stays_without_moving_one() -> None:
    """A turn to one side and a step to the other, alike in all cameras: as motions they have a large common part."""
    cameras = [narrow(view) for view in views()]
    wall = torch.full((cameras[0].height, cameras[0].width), DISTANCE, dtype=torch.float64)
    metric = torch.stack([pixel_metric(view, wall) for view in cameras])
    turn = 0.01
    own = torch.tensor([[0.0, turn, 0.0, -turn * DISTANCE, 0.0, 0.0]], dtype=torch.float64).repeat(len(cameras), 1)

    def pixels(motion: torch.Tensor) -> float:
        return float(torch.einsum("ni,nij,nj->n", motion, metric, motion).max().sqrt())

    assert pixels(own * torch.tensor([0, 1, 0, 0, 0, 0])) > 10  # the turn alone
    assert pixels(own) < 0.1
    assert pixels(without_gauge(own, metric, cameras)) < 0.1


def test_the_mean_of_the_cameras_stays_where_it_was() -> None:
    cameras = views()
    own = torch.randn(len(cameras), 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.01
    left = without_gauge(own, torch.eye(6).double().repeat(len(cameras), 1, 1), cameras)
    before = torch.stack([view.position for view in cameras]).mean(0)
    after = torch.stack([moved(view, motion).position for view, motion in zip(cameras, left, strict=True)]).mean(0)
    assert torch.allclose(before, after, atol=1e-4)
