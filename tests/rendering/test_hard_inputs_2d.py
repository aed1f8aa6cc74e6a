"""Hard inputs to the surfels' seam: every render ends in images or in a clear error, and nothing broken spreads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.checks import DEBUG_VARIABLE, MAX_SIDE
from closeup_ns.rendering.cpu.surfels import rasterize_cpu_2d
from closeup_ns.rendering.rasterize_2d import SurfelRender, rasterization_2dgs
from closeup_ns.rendering.request import SurfelImages, SurfelRequest

from .scenes_2d import OUTPUTS, in_dtype, make_surfel_request
from .test_cpu_2d import LEAVES, assert_agree, oracle, ours

pytestmark = pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])
NAN, INF = float("nan"), float("inf")
FIELDS = ("means", "quats", "scales", "opacities", "colors")
COUNT, BROKEN = 40, 5


def call(request: SurfelRequest, **changes: Any) -> SurfelRender:
    """The public seam."""
    return rasterization_2dgs(**{**vars(request), **changes})


def finite_and_like_the_oracle(request: SurfelRequest, tolerance: float = 1e-3) -> dict[str, torch.Tensor]:
    actual = ours(request)
    assert_agree(actual, oracle(request), tolerance)
    return actual


def test_all_culled(generator: torch.Generator) -> None:
    request = make_surfel_request(30, generator)
    for changes in ({"radius_clip": 1e6}, {"near_plane": 50.0}, {"far_plane": 0.5}):
        actual = finite_and_like_the_oracle(replace(request, **changes))
        assert not actual["alphas"].any() and not actual["d_means"].any()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8192, 16), (16, 8192)])
def test_image_shapes(width: int, height: int, generator: torch.Generator) -> None:
    K = torch.tensor([[[0.5 * width, 0, 0.5 * width], [0, 0.5 * height, 0.5 * height], [0, 0, 1]]])
    request = make_surfel_request(12, generator, width=width, height=height, Ks=K)
    actual, expected = ours(request), oracle(request)
    for name in OUTPUTS:
        assert (actual[name] - expected[name]).norm() <= 1e-3 * expected[name].norm() + 1e-6, name
    assert all(torch.isfinite(value).all() for value in actual.values())
    assert call(request)[3] is not None


def test_16_cameras_at_once_are_16_renders(generator: torch.Generator) -> None:
    request = make_surfel_request(25, generator, cameras=16, width=20, height=15)
    together = ours(request, leaves=())
    for camera in (0, 7, 15):
        pick = slice(camera, camera + 1)
        one = ours(replace(request, viewmats=request.viewmats[pick], Ks=request.Ks[pick]), leaves=())
        assert all(torch.equal(one[name][0], together[name][camera]) for name in OUTPUTS)


@pytest.mark.parametrize("opacity", [0.0, 1.0])
def test_opacity_at_its_ends(opacity: float, generator: torch.Generator) -> None:
    request = make_surfel_request(COUNT, generator, opacities=torch.full((COUNT,), opacity))
    actual = finite_and_like_the_oracle(request)
    assert actual["seen"].any() == (opacity > 0)


def test_a_hundred_thousand_surfels_on_one_pixel_weigh_what_the_series_says() -> None:
    count, opacity = 100_000, 0.01
    means = torch.zeros(count, 3)
    means[:, 2] = 1 + torch.arange(count) / count
    colors = torch.zeros(count, 1, requires_grad=True)
    K = torch.tensor([[[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]])
    image = rasterization_2dgs(
        means, torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4), torch.full((count, 3), 10.0),
        torch.full((count,), opacity), colors, torch.eye(4)[None], K, 1, 1, backend="cpu",
    )[0]  # fmt: skip
    image.sum().backward()
    assert colors.grad is not None
    blended = int((colors.grad != 0).sum())
    series = opacity * (1 - opacity) ** torch.arange(blended, dtype=torch.float64)
    assert (1 - opacity) ** blended > 1e-4 * 0.999 and (1 - opacity) ** (blended + 1) < 1e-4 * 1.001
    torch.testing.assert_close(colors.grad[:blended, 0].double(), series, rtol=1e-4, atol=0)


@pytest.mark.parametrize("thin", [1e-4, 1e-12, 1e-30, 0.0])
def test_needles(thin: float, generator: torch.Generator) -> None:
    scales = torch.tensor([0.5, thin, 1.0]).repeat(COUNT, 1)
    assert all(torch.isfinite(v).all() for v in ours(make_surfel_request(COUNT, generator, scales=scales)).values())


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e8, 1e19, 1e30])
def test_sizes_at_the_ends_of_float32(size: float, generator: torch.Generator) -> None:
    request = make_surfel_request(COUNT, generator, scales=torch.full((COUNT, 3), size))
    assert all(torch.isfinite(value).all() for value in ours(request).values())


@pytest.mark.parametrize("value", [NAN, INF, -INF, 3e38, -3e38, 1e-42, 0.0])
@pytest.mark.parametrize("field", FIELDS)
def test_broken_surfels_touch_nobody_else(field: str, value: float, generator: torch.Generator) -> None:
    request = make_surfel_request(COUNT, generator, cameras=2)
    values = getattr(request, field).clone()
    values.reshape(COUNT, -1)[:BROKEN, ::2] = value
    actual = ours(replace(request, **{field: values}))
    assert all(torch.isfinite(tensor).all() for tensor in actual.values())
    if not torch.isfinite(torch.tensor(value)):
        assert field == "colors" or not actual["seen"][:, :BROKEN].any()
        alone = ours(replace(request, **{name: getattr(request, name)[BROKEN:] for name in FIELDS}))
        for name in OUTPUTS:
            torch.testing.assert_close(actual[name], alone[name])
        for name in FIELDS:
            torch.testing.assert_close(actual[f"d_{name}"][BROKEN:], alone[f"d_{name}"])


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


@pytest.mark.parametrize("field", ["viewmats", "Ks"])
def test_a_broken_camera_is_an_error_that_names_it(field: str, generator: torch.Generator) -> None:
    request = make_surfel_request(5, generator, cameras=3)
    values = getattr(request, field).clone()
    values[2, 1, 2] = NAN
    with pytest.raises(ValueError, match=rf"rasterization_2dgs: {field}\[2, 1, 2\] is nan"):
        call(replace(request, **{field: values}))


def test_images_that_do_not_fit_into_memory(generator: torch.Generator) -> None:
    with pytest.raises(MemoryError, match=f"rasterization_2dgs: .* {MAX_SIDE}x{MAX_SIDE}"):
        call(make_surfel_request(3, generator, width=MAX_SIDE, height=MAX_SIDE), backend="cpu")


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
