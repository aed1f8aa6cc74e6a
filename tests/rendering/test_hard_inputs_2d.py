"""Hard inputs to the surfels' seam: every render ends in images or in a clear error, and nothing broken spreads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.checks import DEBUG_VARIABLE
from closeup_ns.rendering.cpu.surfels import rasterize_cpu_2d
from closeup_ns.rendering.rasterize_2d import SurfelRender, rasterization_2dgs
from closeup_ns.rendering.request import SurfelImages, SurfelRequest

from .scenes_2d import OUTPUTS, in_dtype, make_surfel_request
from .test_cpu_2d import LEAVES

pytestmark = pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])
NAN, INF = float("nan"), float("inf")
FIELDS = ("means", "quats", "scales", "opacities", "colors")
COUNT, BROKEN = 40, 5


def call(request: SurfelRequest, **changes: Any) -> SurfelRender:
    """The public seam."""
    return rasterization_2dgs(**{**vars(request), **changes})


def linear(images: SurfelImages, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum((getattr(images, name) * weight).sum() for name, weight in weights.items())  # pyright: ignore


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("broken_output", OUTPUTS)
def test_a_broken_loss_at_a_pixel_concerns_what_is_drawn_there(
    broken_output: str, value: float, generator: torch.Generator
) -> None:
    """In the same block of 4x4 pixels, surfels that do not reach the pixel keep their gradients, bit for bit."""
    request = make_surfel_request(80, generator, scales=torch.full((80, 3), 0.03))
    request = in_dtype(request, torch.float32, LEAVES[:5])
    leaves = [getattr(request, name) for name in FIELDS]
    images = rasterize_cpu_2d(request)
    row, column = divmod(int(images.alphas[0].argmax()), request.width)
    weights = {name: torch.randn(getattr(images, name).shape, generator=generator) for name in OUTPUTS}
    healthy = torch.autograd.grad(linear(images, weights), leaves, retain_graph=True)
    colors = torch.zeros(80, 1, requires_grad=True)
    probe = rasterize_cpu_2d(replace(request, colors=colors, sh_degree=None, render_mode="RGB", distloss=False))
    (drawn_weights,) = torch.autograd.grad(probe.channels[0, row, column, 0], colors)
    drawn = drawn_weights[:, 0] > 0
    weights[broken_output][0, row, column] = value
    broken = torch.autograd.grad(linear(images, weights), leaves)
    assert drawn.any() and not drawn.all()
    for before, after in zip(healthy, broken):
        assert torch.equal(before[~drawn], after[~drawn])
    assert not torch.isfinite(broken[0][drawn]).all()


def test_debug_mode_names_values_and_gradients(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    request = make_surfel_request(6, generator)
    request.scales[:, 2] = NAN  # is not looked at
    means = request.means.clone().requires_grad_()
    rendered = call(replace(request, means=means))
    for name, index in (("channels", 0), ("alphas", 1), ("normals", 2), ("distort", 4), ("median", 5)):
        image = rendered[index]
        assert isinstance(image, torch.Tensor)
        with pytest.raises(ValueError, match=rf"the gradient of {name}\[0, 4, 5, 0\] is nan"):
            (image[0, 4, 5, 0] * NAN).backward(retain_graph=True)
    scales = request.scales.clone()
    scales[4, 1] = -1.0
    with pytest.raises(ValueError, match=r"rasterization_2dgs: scales\[4, 1\] is -1.0, expected a positive"):
        call(replace(request, scales=scales))
