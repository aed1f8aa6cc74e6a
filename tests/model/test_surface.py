"""The losses that hold discs to a surface, against closed forms, a loop over pixels, and what an empty sky does."""

from __future__ import annotations

import math

import pytest
import torch
from gsplat.utils import depth_to_normal
from hypothesis import given
from hypothesis import strategies as st

from closeup_ns.model.surface import Surface, normal_consistency, normals_image

SIZE = (7, 9)


def flat_surface(cosine: float, alpha: float) -> Surface:
    """A wall that faces the camera, and discs on it that are tilted by the angle of this cosine."""
    wall = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64).expand(*SIZE, 3)
    tilted = torch.tensor([math.sqrt(1 - cosine**2), 0.0, -cosine], dtype=torch.float64).expand(*SIZE, 3)
    opacity = torch.full((*SIZE, 1), alpha, dtype=torch.float64)
    return Surface(alpha * tilted, wall, opacity, None)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_tilted_discs_pay_one_minus_the_cosine(cosine: float, alpha: float) -> None:
    """And discs that lie in the wall pay nothing, however opaque they are."""
    loss = float(normal_consistency(flat_surface(cosine, alpha)))
    assert loss == pytest.approx(alpha**2 * (1 - cosine), abs=1e-12)


def test_the_loss_is_the_mean_over_pixels_by_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    alpha = torch.rand(*SIZE, 1, generator=generator)
    normals = alpha * torch.randn(*SIZE, 3, generator=generator)
    from_depth = torch.nn.functional.normalize(torch.randn(*SIZE, 3, generator=generator), dim=-1)
    total = 0.0
    for row in range(1, SIZE[0] - 1):
        for column in range(1, SIZE[1] - 1):
            around = [(row, column), (row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            weight = min(float(alpha[at]) for at in around)
            total += weight * float(alpha[row, column] - (normals[row, column] * from_depth[row, column]).sum())
    loss = normal_consistency(Surface(normals, from_depth, alpha, None))
    assert float(loss) == pytest.approx(total / ((SIZE[0] - 2) * (SIZE[1] - 2)), rel=1e-5)


def test_opacity_is_not_taught_by_the_weight() -> None:
    normals, alpha = torch.rand(*SIZE, 3), torch.rand(*SIZE, 1, requires_grad=True)
    normals.requires_grad_()
    normal_consistency(Surface(normals, torch.rand(*SIZE, 3), alpha, None)).backward()
    assert alpha.grad is None and normals.grad is not None and normals.grad.any()


def test_the_gradient_stays_bounded_at_the_tip_of_a_disc_in_an_empty_sky() -> None:
    """There the neighbours left and right have no depth, their difference is zero, and what divides by it explodes."""
    depth = torch.zeros(1, 8, 8, 1)
    depth[0, 2:7, 4] = 2.0
    alpha = (depth[0] > 0).float()
    depth.requires_grad_()
    K = torch.tensor([[[8.0, 0.0, 4.0], [0.0, 8.0, 4.0], [0.0, 0.0, 1.0]]])
    from_depth = depth_to_normal(depth, torch.eye(4)[None], K)[0]
    normal_consistency(Surface(torch.rand(8, 8, 3), from_depth, alpha, None)).backward()
    assert depth.grad is not None and depth.grad.abs().max() < 100


def test_a_picture_without_an_inside_has_no_loss() -> None:
    normals = torch.rand(2, 5, 3, requires_grad=True)
    loss = normal_consistency(Surface(normals, torch.rand(2, 5, 3), torch.rand(2, 5, 1), None))
    loss.backward()
    assert float(loss.detach()) == 0 and normals.grad is not None


def test_normals_are_shown_as_nerfstudio_shows_them() -> None:
    normals = torch.zeros(4, 6, 3)
    normals[:2, :2] = torch.tensor([0.0, 0.0, -0.3])  # half transparent: the picture shows the direction alone
    normals[:2, 2:4, 0] = torch.tensor([[0.9, 0.1], [0.0, 0.0]])
    picture = normals_image(normals, 2)
    assert picture.shape == (2, 3, 3)
    torch.testing.assert_close(picture[0, 0], torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(picture[0, 1], torch.tensor([1.0, 0.5, 0.5]))
    assert not picture[1].any() and not picture[0, 2].any()
