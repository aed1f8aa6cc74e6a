"""The gauge: what is common to all cameras is taken out, and nothing else."""

from __future__ import annotations

import torch

from closeup_ns.rounds.poses import without_gauge
from closeup_ns.views.registration import moved
from closeup_ns.views.view import View
from tests.scenes import facing_views

DISTANCE = 4.0


def views() -> list[View]:
    return [view.to(dtype=torch.float64) for view in facing_views(9, seed=4)]


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
    left = without_gauge(own, cameras, DISTANCE)
    assert torch.allclose(without_gauge(own + common, cameras, DISTANCE), left, atol=1e-9)
    assert torch.allclose(without_gauge(left, cameras, DISTANCE), left, atol=1e-9)
    assert float(left.abs().max()) > 0.005


def test_the_mean_of_the_cameras_stays_where_it_was() -> None:
    cameras = views()
    own = torch.randn(len(cameras), 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.01
    left = without_gauge(own, cameras, DISTANCE)
    before = torch.stack([view.position for view in cameras]).mean(0)
    after = torch.stack([moved(view, motion).position for view, motion in zip(cameras, left, strict=True)]).mean(0)
    assert torch.allclose(before, after, atol=1e-4)
