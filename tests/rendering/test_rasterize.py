"""The compiled rasteriser against float64 autograd of the reference, and its own invariants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from closeup_ns.rendering.backend import describe_backend, kernels_available
from closeup_ns.rendering.kernels import load_kernels
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.rendering.request import RasterRequest

from .scenes import assert_agree, make_request, on_kernels, run, run_oracle

pytestmark = pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])


@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("render_mode", ["RGB", "RGB+ED"])
def test_images_and_all_gradients(rasterize_mode: str, render_mode: str, generator: torch.Generator) -> None:
    request = make_request(250, generator, cameras=2, eps2d=0.1, render_mode=render_mode, rasterize_mode=rasterize_mode)
    ours, oracle = run(on_kernels(), request, viewmat_gradient=True), run_oracle(request, viewmat_gradient=True)
    assert_agree(ours, oracle)
    assert (oracle.gradients["absgrad"] >= oracle.gradients["means2d"].abs() - 1e-9).all()


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("stored_degree", [2, 3])
def test_spherical_harmonics_degrees(degree: int, stored_degree: int, generator: torch.Generator) -> None:
    if degree > stored_degree:
        pytest.skip("fewer coefficients than the degree needs")
    # Large enough to reach the clamp at 0.
    colors = 0.8 * torch.randn(70, (stored_degree + 1) ** 2, 3, generator=generator)
    request = make_request(70, generator, colors=colors, sh_degree=degree)
    assert_agree(run(on_kernels(), request), run_oracle(request))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6])
def test_feature_channels(channels: int, generator: torch.Generator) -> None:
    colors = torch.rand(60, channels, generator=generator)
    request = make_request(60, generator, cameras=2, colors=colors, sh_degree=None, render_mode="RGB+ED")
    assert_agree(run(on_kernels(), request), run_oracle(request))


@pytest.mark.parametrize("eps2d", [0.0, 1e-4, 0.02])
@pytest.mark.parametrize("length", [0.3, 30.0])
def test_needles_keep_exact_gradients(eps2d: float, length: float, generator: torch.Generator) -> None:
    """Long thin Gaussians at any angle: the conic cancels in float32, the whitening must not."""
    scales = torch.tensor([length, 2e-3, 2e-3]).repeat(30, 1)
    request = make_request(
        30, generator, scales=scales, eps2d=eps2d, rasterize_mode="antialiased", opacities=torch.full((30,), 0.9)
    )
    hopeless = length > 1 and eps2d < 0.01  # thousands of pixels long, a twentieth of a pixel wide
    assert_agree(run(on_kernels(), request), run_oracle(request), tolerance=5e-2 if hopeless else 2e-3)


def test_flat_gaussians_edge_on_have_finite_gradients() -> None:
    """The sharp determinant is exactly 0: its square root's derivative must not become infinite."""
    generator = torch.Generator().manual_seed(0)
    request = make_request(
        2, generator, means=torch.zeros(2, 3), quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1), sh_degree=0,
        scales=torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.0, 0.0]]),
        rasterize_mode="antialiased",
    )  # fmt: skip
    viewmats = torch.eye(4)[None].clone()
    viewmats[0, 2, 3] = 2.0
    outcome = run(on_kernels(), replace(request, viewmats=viewmats))
    assert all(torch.isfinite(gradient).all() for gradient in outcome.gradients.values())


def test_rendering_without_gradients_gives_the_same_image(generator: torch.Generator) -> None:
    request = make_request(300, generator, render_mode="RGB+ED")
    with_gradients = run(on_kernels(), request)
    with torch.no_grad():
        image, alpha, _ = on_kernels()(request)
    assert torch.equal(image, with_gradients.image) and torch.equal(alpha, with_gradients.alpha)


def test_backward_twice_gives_the_same_gradient(generator: torch.Generator) -> None:
    request = make_request(100, generator)
    means = request.means.clone().requires_grad_()
    image, _, _ = on_kernels()(replace(request, means=means))
    first = torch.autograd.grad(image.sum(), means, retain_graph=True)[0]
    on_kernels()(request)  # a render in between must not disturb the kept lists
    assert torch.equal(first, torch.autograd.grad(image.sum(), means)[0])


def call(request: RasterRequest, **options: Any) -> Any:
    positional = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "width", "height")
    options = {"sh_degree": request.sh_degree, **options}
    return rasterization(*(getattr(request, name) for name in positional), **options)


def test_seam_info_and_dtype(generator: torch.Generator) -> None:
    request = make_request(30, generator, cameras=2)
    image, alpha, info = call(request, render_mode="RGB+ED")
    assert image.shape == (2, 37, 45, 4) and alpha.shape == (2, 37, 45, 1)
    assert info["radii"].shape == (2, 30) and not info["radii"].is_floating_point()
    assert (info["width"], info["height"], info["n_cameras"], info["gaussian_ids"]) == (45, 37, 2, None)
    on_torch, _, _ = call(request, render_mode="RGB+ED", backend="torch")
    torch.testing.assert_close(image, on_torch, atol=1e-4, rtol=1e-4)


def test_backend_is_described_in_one_line() -> None:
    line = describe_backend("cpu")
    assert "\n" not in line and load_kernels().lanes in line
