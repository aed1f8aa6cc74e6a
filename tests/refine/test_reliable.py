"""The weight-free refiner against closed forms and an analytic scene."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup_ns.refine.imaging.filters import gaussian_blur
from closeup_ns.refine.protocol import RefinedView, RefineRequest
from closeup_ns.refine.reliable import ReliableRefiner, hit_probability, photograph_sigma, source_footprint
from closeup_ns.views.psnr import psnr
from closeup_ns.views.reliability import Observation, ReliablePixels
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View
from tests.refine.scene import backed, camera, close_up, faulty, known, photographs, solid


def refine(
    view: View, render: Rendered, mask: ReliablePixels, references: list[Observation], **options: float
) -> RefinedView:
    """``options`` stand in for the module's constants of these names."""
    constants = {name.upper(): value for name, value in options.items()}
    with patch.dict("closeup_ns.refine.reliable.__dict__", constants):
        return ReliableRefiner().refine(RefineRequest([view], [render], [mask], references, 0, ["view"]))[0]


def flat(view: View, color: Tensor, depth: float = 1.0) -> Rendered:
    return solid(color.expand(view.height, view.width, 3).contiguous(), depth)


def says(view: View, blended: Tensor, dense: Tensor | None = None, support: int = 5) -> ReliablePixels:
    """Photographs that show ``blended`` [3, H, W] on the mask."""
    dense = torch.ones(view.height, view.width, dtype=torch.bool) if dense is None else dense
    return backed(dense, blended=blended * dense, support=support * dense)


def observation(view: View) -> Observation:
    return Observation(view, torch.zeros(3, view.height, view.width), torch.ones(view.height, view.width))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 3.0, 9.0]), st.integers(1, 4))
def test_render_stays_wherever_nothing_is_known(seed: int, zoom: float, support: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    view = camera(0, 0, 4 - 4 / zoom, 32, 24)
    rough = torch.rand(1, 1, 6, 8, generator=generator)
    dense = torch.nn.functional.interpolate(rough, (24, 32), mode="nearest")[0, 0] < 0.6
    render = flat(view, torch.rand(24, 32, 3, generator=generator), 4 / zoom)
    mask = says(view, torch.rand(3, 24, 32, generator=generator), dense, support)
    refined = refine(view, render, mask, [observation(camera(0, 0, 0, 32, 24))], max_residual=1.0)
    assert torch.equal(refined.image[~dense], render.color[~dense])
    assert not refined.real[~dense].any()
    assert (refined.weight[~dense] == 0).all()
    assert ((refined.weight >= 0) & (refined.weight <= 1)).all()
    assert ((refined.image >= 0) & (refined.image <= 1)).all()
    if support < 2:
        assert torch.equal(refined.image, render.color)


def test_colour_at_the_views_own_sharpness_passes_through(generator: torch.Generator) -> None:
    view = camera(0, 0, 0)
    truth = torch.rand(3, view.height, view.width, generator=generator)
    render = flat(view, torch.full((3,), 0.5))
    refined = refine(view, render, says(view, truth), [observation(camera(0.2, 0, 0))], max_residual=1.0)
    torch.testing.assert_close(refined.image, truth.permute(1, 2, 0), atol=1e-6, rtol=0)
    assert refined.real.all()
    torch.testing.assert_close(refined.weight, torch.ones_like(refined.weight))


def test_a_colour_cast_goes_and_fine_detail_stays() -> None:
    """Photographs of a grey wall, nine view pixels to each of theirs; the render is tinted and has a checkerboard."""
    view = camera(0, 0, 4 - 4 / 9)
    rows, columns = torch.meshgrid(torch.arange(view.height), torch.arange(view.width), indexing="ij")
    checker = (0.1 * (1 - 2 * ((rows + columns) % 2)))[..., None]
    render = flat(view, torch.tensor([0.55, 0.4, 0.5]) + checker, 4 / 9)
    gray = torch.full((3, view.height, view.width), 0.5)
    refined = refine(view, render, says(view, gray), [observation(camera(0, 0, 0))])
    torch.testing.assert_close(refined.image, 0.5 + checker.expand(-1, -1, 3), atol=2e-3, rtol=0)


def test_what_photographs_confirm_is_not_touched(generator: torch.Generator) -> None:
    """A render whose blur is exactly what the photographs show is a fixed point, whatever detail it has."""
    view = camera(0, 0, 4 - 4 / 3)
    detail = torch.rand(3, view.height, view.width, generator=generator)
    seen = gaussian_blur(detail, photograph_sigma(3.0))
    render = flat(view, detail.permute(1, 2, 0), 4 / 3)
    refined = refine(view, render, says(view, seen), [observation(camera(0, 0, 0))])
    torch.testing.assert_close(refined.image, render.color, atol=1e-5, rtol=0)


def test_a_leak_past_an_occluder_is_no_reliable_pixel() -> None:
    view = camera(0, 0, 0)
    render = flat(view, torch.full((3,), 0.2))
    leak = torch.full((3, view.height, view.width), 0.25)
    leak[:, 20:40, 30:60] = 0.9
    refined = refine(view, render, says(view, leak), [observation(camera(0.1, 0, 0))])
    assert torch.equal(refined.image[20:40, 30:60], render.color[20:40, 30:60])
    assert (refined.weight[20:40, 30:60] == 0).all()
    assert not refined.real[20:40, 30:60].any()
    assert refined.real[60, 80]
    torch.testing.assert_close(refined.image[60, 80], torch.full((3,), 0.25))


def test_the_correction_fades_in_from_the_edge_of_what_is_known() -> None:
    view = camera(0, 0, 0)
    render = flat(view, torch.full((3,), 0.4))
    dense = torch.zeros(view.height, view.width, dtype=torch.bool)
    dense[:, 30:] = True
    photos = torch.full((3, view.height, view.width), 0.6)
    refined = refine(view, render, says(view, photos, dense), [observation(camera(0.1, 0, 0))], feather=8.0)
    profile = refined.image[36, :, 0]
    steps = profile.diff()
    assert (profile[:30] == 0.4).all()
    assert (steps[29:37] > 0).all()
    assert steps.max() < 0.05
    torch.testing.assert_close(profile[37:], torch.full((view.width - 37,), 0.6))
    assert torch.equal(refined.real[36], profile >= 0.5)


def test_specks_of_mask_and_broken_colours_change_nothing() -> None:
    view = camera(0, 0, 0, 20, 16)
    render = flat(view, torch.full((3,), 0.5))
    dense = torch.zeros(16, 20, dtype=torch.bool)
    dense[4, 4:12] = True
    assert torch.equal(refine(view, render, says(view, torch.full((3, 16, 20), 0.6), dense), []).image, render.color)
    broken = says(view, torch.full((3, 16, 20), 0.6))
    broken.blended[:, 2:8] = float("nan")
    refined = refine(view, render, broken, [observation(camera(0, 0, 0, 20, 16))])
    assert refined.image.isfinite().all()
    assert torch.equal(refined.image[2:8], render.color[2:8])


def test_footprint_in_closed_form() -> None:
    """(z_r / f_r) / (z_v / f_v), and the root of n / sum(1/s^2) over several photographs."""
    view = camera(0, 0, 3.0)
    depth, every = torch.ones(72, 96), torch.ones(72, 96, dtype=torch.bool)
    far, near, blind = camera(0, 0, 0), camera(0, 0, 2.0), camera(50.0, 0, 0)
    assert source_footprint(view, depth, every, [far]) == pytest.approx(4.0, rel=1e-4)
    assert source_footprint(view, depth, every, [far.scaled_to(192, 144)]) == pytest.approx(2.0, rel=1e-4)
    together = math.sqrt(2 / (1 / 16 + 1 / 4))
    assert source_footprint(view, depth, every, [far, near, blind]) == pytest.approx(together, rel=1e-4)
    behind = camera(0, 0, 9.0)
    assert source_footprint(view, depth, every, [blind, behind]) == 1.0
    assert source_footprint(view, depth, ~every, [far]) == 1.0
    assert source_footprint(view, depth, every, []) == 1.0


@pytest.mark.parametrize(
    ("zoom", "views", "share"), [(3, 1, 0.12), (3, 5, 0.45), (3, 20, 0.90), (9, 20, 0.22), (27, 50, 0.067)]
)
def test_knowledge_is_the_hit_rate_of_papers_md(zoom: float, views: int, share: float) -> None:
    assert float(hit_probability(torch.tensor([views]), zoom)) == pytest.approx(share, abs=0.012)
    assert hit_probability(torch.tensor([0, 1]), 1.0).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("zoom", "gain"), [(3.0, 6.0), (9.0, 5.0)])
def test_closer_to_the_truth_than_the_render_and_than_pasting(
    generator: torch.Generator, zoom: float, gain: float
) -> None:
    references = photographs()
    view, truth = close_up(zoom)
    render = faulty(truth, generator)
    mask = known(view, render, references)
    refined = refine(view, render, mask, references)
    used = refined.real
    pasted = torch.where(mask.dense[..., None], mask.blended.permute(1, 2, 0), render.color)
    score = psnr(refined.image, truth.color, used)
    assert used.float().mean() > 0.9
    assert score > psnr(render.color, truth.color, used) + gain
    assert score > psnr(pasted, truth.color, used) + 1.0
    assert refined.notes["footprint_px"] == pytest.approx(zoom, rel=0.02)
