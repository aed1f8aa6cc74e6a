"""What an original resolves must survive: pictures whose fate is known."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from closeup_ns.refine.imaging.filters import gaussian_blur
from closeup_ns.refine.judging.detail import BLOCK, SHIFT, fitted_error, lost_detail
from closeup_ns.views.reliability import ReliablePixels
from tests.refine.scene import backed

HEIGHT, WIDTH = 64, 96


def texture(seed: int, sigma: float = 0.8) -> Tensor:
    """[H, W, 3] in 0 to 1, with detail of about two pixels."""
    noise = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))
    soft = gaussian_blur(noise, sigma)
    return (0.5 + (soft - 0.5) * 1.5).clamp(0, 1).permute(1, 2, 0)


def blurred(picture: Tensor, sigma: float) -> Tensor:
    return gaussian_blur(picture.permute(2, 0, 1), sigma).permute(1, 2, 0)


TRUTH = texture(0)
RENDER = blurred(TRUTH, 1.5)


def seen(footprint: float, columns: int = WIDTH) -> ReliablePixels:
    """Photographs that show the truth on the first ``columns``, with pixels of ``footprint`` pixels of the view."""
    dense = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    dense[:, :columns] = True
    sparse = dense & (torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) < 0.6)
    colour = TRUTH.permute(2, 0, 1)
    photographed = torch.where(sparse, footprint, 1.0)
    return backed(dense, sparse=sparse, color=colour * sparse, blended=colour * dense, footprint=photographed)


def moved(picture: Tensor, pixels: int) -> Tensor:
    return torch.roll(picture, (pixels, pixels), (0, 1))


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("the truth", TRUTH),
        ("the truth, a pixel and a half beside it", (moved(TRUTH, 1) + moved(TRUTH, 2)) / 2),
        ("the truth in other colours", 0.6 * TRUTH + torch.tensor([0.2, 0.1, 0.0])),
        ("the render", RENDER),
        ("the render, a little sharper", RENDER + 0.8 * (RENDER - blurred(RENDER, 1.5))),
    ],
)
def test_what_is_as_good_as_the_render_keeps_its_detail(name: str, picture: Tensor) -> None:
    resolved, lost = lost_detail(picture, RENDER, seen(1.0))
    assert resolved.all(), name
    inner = lost[BLOCK:-BLOCK, BLOCK:-BLOCK]  # rolled pictures are wrong at the border
    assert not inner.any(), name


def test_invented_detail_is_lost_detail_where_an_original_resolves_the_view_and_only_there() -> None:
    invented = RENDER + (texture(5) - blurred(texture(5), 1.5))
    resolved, lost = lost_detail(invented, RENDER, seen(1.0, columns=48))
    assert resolved[:, :48].all() and not resolved[:, 48:].any()
    assert lost[:, :48].float().mean() > 0.9 and not lost[:, 48:].any()


def test_something_else_is_lost_detail_although_the_render_was_no_better() -> None:
    """Letters that became dashes, from a render in which they were mush."""
    _, lost = lost_detail(texture(5), texture(6), seen(1.0))
    assert lost.float().mean() > 0.9
    _, lost = lost_detail(TRUTH, texture(6), seen(1.0))
    assert not lost.any()


def test_the_truth_is_kept_where_the_blend_of_photographs_is_softer() -> None:
    """Photographs that are off by a pixel blend to something as soft as the render."""
    soft = dataclasses.replace(seen(1.0), blended=blurred(TRUTH, 1.2).permute(2, 0, 1))
    _, lost = lost_detail(TRUTH, RENDER, soft)
    assert not lost[BLOCK:-BLOCK, BLOCK:-BLOCK].any()
    _, lost = lost_detail(texture(5), RENDER, soft)
    assert lost.float().mean() > 0.9


def test_flattened_detail_is_lost() -> None:
    _, lost = lost_detail(torch.full_like(TRUTH, 0.5), RENDER, seen(1.0))
    assert lost.all()


def test_coarse_photographs_cannot_judge_detail() -> None:
    resolved, lost = lost_detail(texture(5), RENDER, seen(3.0))
    assert not resolved.any() and not lost.any()


def test_flat_surfaces_and_broken_renders_lose_nothing() -> None:
    flat = torch.full_like(TRUTH, 0.5)
    mask = seen(1.0)
    mask.blended = flat.permute(2, 0, 1)
    assert not lost_detail(texture(5), flat, mask)[1].any()
    assert not lost_detail(TRUTH, torch.full_like(TRUTH, float("nan")), seen(1.0))[1].any()


def test_fitted_error_against_brute_force(generator: torch.Generator) -> None:
    """Every block, shift, channel and pixel in turn, on a size that is no multiple of a block."""
    picture, wanted = torch.rand(2, 3, 21, 37, generator=generator).double()
    inside = torch.rand(21, 37, generator=generator) < 0.4
    total = 0.0
    for top in range(0, 21, BLOCK):
        for left in range(0, 37, BLOCK):
            rows, columns = inside[top : top + BLOCK, left : left + BLOCK].nonzero(as_tuple=True)
            rows, columns = rows + top, columns + left
            errors = []
            for down, right in itertools.product(range(-SHIFT, SHIFT + 1), repeat=2):
                seen = picture[:, (rows + down).clamp(0, 20), (columns + right).clamp(0, 36)]
                errors.append(float((seen - wanted[:, rows, columns]).var(dim=1, correction=0).mean()))
            total += min(errors) * len(rows)
    assert fitted_error(picture, wanted, inside) == pytest.approx(total / int(inside.sum()), rel=1e-6)
