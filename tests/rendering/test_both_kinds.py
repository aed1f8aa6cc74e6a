"""Promises of the kernels for 3D Gaussians and surfels alike: threads, instruction sets, odd and broken input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from closeup_ns.errors import CloseupError
from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.build import runnable_variants
from closeup_ns.rendering.checks import MAX_SIDE
from closeup_ns.rendering.cpu.gaussians import rasterize_cpu
from closeup_ns.rendering.cpu.surfels import rasterize_cpu_2d
from closeup_ns.rendering.kernels import Kernels, load_kernels
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.rendering.rasterize_2d import rasterization_2dgs
from closeup_ns.rendering.request import RasterRequest

from . import test_cpu_2d as surfels
from .scenes import Outcome, make_request, of_thread_counts, on_kernels, run, run_oracle
from .scenes_2d import OUTPUTS, make_surfel_request
from .test_cpu_2d import assert_agree

pytestmark = pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])
NAN, INF = float("nan"), float("inf")
FIELDS = ("means", "quats", "scales", "opacities", "colors")
COUNT, BROKEN = 40, 5


@dataclass(frozen=True)
class Kind:
    """3D Gaussians or surfels: a random request, the public seam, and images, with gradients or not, by name."""

    name: str
    images: tuple[str, ...]
    make: Callable[..., Any]
    seam: Callable[..., Any]
    render: Callable[..., dict[str, Tensor]]
    ours: Callable[..., dict[str, Tensor]]
    oracle: Callable[..., dict[str, Tensor]]


def by_name(outcome: Outcome) -> dict[str, Tensor]:
    """As the surfels' tests name everything."""
    gradients = {f"d_{name}": value for name, value in outcome.gradients.items()}
    return {"seen": outcome.info["radii"] > 0, "channels": outcome.image, "alphas": outcome.alpha, **gradients}


def ours(request: RasterRequest, kernels: Kernels | None = None) -> dict[str, Tensor]:
    return by_name(run(on_kernels(kernels), request, viewmat_gradient=True))


def oracle(request: RasterRequest) -> dict[str, Tensor]:
    return by_name(run_oracle(request, viewmat_gradient=True))


GAUSSIANS = Kind(
    "gaussians", ("channels", "alphas"), partial(make_request, render_mode="RGB+ED", rasterize_mode="antialiased"),
    rasterization, lambda request: dict(zip(("channels", "alphas"), rasterize_cpu(request))), ours, oracle,
)  # fmt: skip
SURFELS = Kind(
    "surfels", OUTPUTS, make_surfel_request, rasterization_2dgs, lambda request: vars(rasterize_cpu_2d(request)),
    surfels.ours, surfels.oracle,
)  # fmt: skip


@pytest.fixture(params=[GAUSSIANS, SURFELS], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


def all_finite(outcome: dict[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in outcome.values())


def test_thread_count_changes_no_bit(kind: Kind, generator: torch.Generator) -> None:
    request = kind.make(3000, generator, cameras=2, width=150, height=110)
    first, *others = of_thread_counts(lambda: kind.ours(request))
    for outcome in others:
        for name, value in outcome.items():
            assert torch.equal(value, first[name]), name


@pytest.mark.parametrize("variant", runnable_variants())
def test_every_instruction_set_agrees(kind: Kind, variant: str, generator: torch.Generator) -> None:
    kernels = load_kernels(variant)
    assert kernels.lanes == variant
    request = kind.make(200, generator)
    assert_agree(kind.ours(request, kernels), kind.oracle(request))


def test_early_stop_and_alpha_limit(kind: Kind, generator: torch.Generator) -> None:
    """Opaque layers: pixels finish, and the clamp at 0.999 gives its Gaussian no gradient."""
    scales = torch.tensor([0.5, 0.4, 0.3]).repeat(1500, 1)
    request = kind.make(1500, generator, scales=scales, opacities=torch.ones(1500))
    actual = kind.ours(request)
    assert 0.9 < actual["alphas"].max() < 1.0
    assert_agree(actual, kind.oracle(request), tolerance=1e-3)


def test_one_tile_with_many_chunks(kind: Kind, generator: torch.Generator) -> None:
    """More entries in a tile than a chunk holds, nearly transparent: none may be lost at a seam."""
    request = kind.make(2600, generator, width=20, height=18, opacities=torch.full((2600,), 0.02))
    assert_agree(kind.ours(request), kind.oracle(request), tolerance=1e-3)


@pytest.mark.parametrize("count", [0, 30])
def test_nothing_to_see_is_black(kind: Kind, count: int, generator: torch.Generator) -> None:
    """No Gaussians, or all of them behind the camera."""
    request = kind.make(count, generator)
    request.viewmats[:, 2, 3] = -30.0
    actual = kind.ours(request)
    assert not any(value.any() for value in actual.values())


@pytest.mark.parametrize("changes", [{"radius_clip": 1e6}, {"near_plane": 50.0}, {"far_plane": 0.5}])
def test_all_culled(kind: Kind, changes: dict[str, float], generator: torch.Generator) -> None:
    request = replace(kind.make(30, generator), **changes)
    actual = kind.ours(request)
    assert_agree(actual, kind.oracle(request))
    assert not actual["alphas"].any() and not actual["d_means"].any()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8192, 16), (16, 8192)])
def test_image_shapes(kind: Kind, width: int, height: int, generator: torch.Generator) -> None:
    K = torch.tensor([[[0.5 * width, 0, 0.5 * width], [0, 0.5 * height, 0.5 * height], [0, 0, 1]]])
    request = kind.make(12, generator, width=width, height=height, Ks=K)
    actual, expected = kind.ours(request), kind.oracle(request)
    if kind is GAUSSIANS:
        assert_agree(actual, expected, 3e-4)  # a float32 pixel coordinate of 8000 is good to 5e-4 pixels
    for name in kind.images:
        assert (actual[name] - expected[name]).norm() <= 1e-3 * expected[name].norm() + 1e-6, name
    assert all_finite(actual)


def test_16_cameras_at_once_are_16_renders(kind: Kind, generator: torch.Generator) -> None:
    request = kind.make(25, generator, cameras=16, width=20, height=15)
    together = kind.ours(request)
    for camera in (0, 7, 15):
        pick = slice(camera, camera + 1)
        one = kind.ours(replace(request, viewmats=request.viewmats[pick], Ks=request.Ks[pick]))
        assert all(torch.equal(one[name][0], together[name][camera]) for name in kind.images)


@pytest.mark.parametrize("opacity", [0.0, 1.0])
def test_opacity_at_its_ends(kind: Kind, opacity: float, generator: torch.Generator) -> None:
    request = kind.make(COUNT, generator, opacities=torch.full((COUNT,), opacity))
    actual = kind.ours(request)
    assert_agree(actual, kind.oracle(request), 1e-3)
    assert actual["seen"].any() == (opacity > 0)


def test_a_hundred_thousand_on_one_pixel_weigh_what_the_series_says(kind: Kind) -> None:
    """Equal opacities a: the k-th weight is a (1 - a)^k, until the transmittance would fall to 1e-4."""
    count, opacity = 100_000, 0.01
    means = torch.zeros(count, 3)
    means[:, 2] = 1 + torch.arange(count) / count
    colors = torch.zeros(count, 1, requires_grad=True)
    K = torch.tensor([[[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]])
    image, alpha, *_ = kind.seam(
        means, torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4), torch.full((count, 3), 10.0),
        torch.full((count,), opacity), colors, torch.eye(4)[None], K, 1, 1, backend="cpu",
    )  # fmt: skip
    image.sum().backward()
    assert colors.grad is not None
    blended = int((colors.grad != 0).sum())
    series = opacity * (1 - opacity) ** torch.arange(blended, dtype=torch.float64)
    assert (1 - opacity) ** blended > 1e-4 * 0.999 and (1 - opacity) ** (blended + 1) < 1e-4 * 1.001
    torch.testing.assert_close(colors.grad[:blended, 0].double(), series, rtol=1e-4, atol=0)
    assert alpha.item() == pytest.approx(series.sum().item(), rel=1e-5)


@pytest.mark.parametrize("thin", [1e-4, 1e-12, 1e-20, 1e-30, 0.0])
def test_needles_with_nothing_added(kind: Kind, thin: float, generator: torch.Generator) -> None:
    """Axes down to a point, and eps2d 0: the determinant underflows, and no gradient may."""
    nothing_added = {"eps2d": 0.0} if kind is GAUSSIANS else {}
    scales = torch.tensor([0.5, thin, thin]).repeat(COUNT, 1)
    assert all_finite(kind.ours(kind.make(COUNT, generator, scales=scales, **nothing_added)))


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e8, 1e15, 1e19, 1e30])
def test_sizes_at_the_ends_of_float32(kind: Kind, size: float, generator: torch.Generator) -> None:
    assert all_finite(kind.ours(kind.make(COUNT, generator, scales=torch.full((COUNT, 3), size))))


@pytest.mark.parametrize("value", [NAN, INF, -INF, 3e38, -3e38, 1e-42, 0.0])
@pytest.mark.parametrize("field", FIELDS)
def test_broken_ones_touch_nobody_else(kind: Kind, field: str, value: float, generator: torch.Generator) -> None:
    """Whatever stands in the first five, the others' image is rendered and their gradients are what they were."""
    request = kind.make(COUNT, generator, cameras=2)
    values = getattr(request, field).clone()
    values.reshape(COUNT, -1)[:BROKEN, ::2] = value
    request = replace(request, **{field: values})
    actual = kind.ours(request)
    assert all_finite(actual)
    if kind is GAUSSIANS and not abs(value) > 1:  # NaN, too; 3e38 is culled in float32, in float64 it is a Gaussian
        assert_agree(actual, kind.oracle(request), 1e-4)
    if not torch.isfinite(torch.tensor(value)):
        assert field == "colors" or not actual["seen"][:, :BROKEN].any()
        alone = kind.ours(replace(request, **{name: getattr(request, name)[BROKEN:] for name in FIELDS}))
        for name in kind.images:
            torch.testing.assert_close(actual[name], alone[name])
        for name in FIELDS:
            torch.testing.assert_close(actual[f"d_{name}"][BROKEN:], alone[f"d_{name}"])


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("absgrad", [False, True])
def test_a_broken_loss_at_a_pixel_concerns_what_is_drawn_there(
    kind: Kind, absgrad: bool, value: float, generator: torch.Generator
) -> None:
    """In the same block of 4x4 pixels, those that do not reach the pixel keep their gradients, bit for bit."""
    if absgrad and kind is SURFELS:
        pytest.skip("surfels have no absolute gradients")
    request = kind.make(80, generator, scales=torch.full((80, 3), 0.03))
    request = replace(request, absgrad=absgrad) if kind is GAUSSIANS else request
    leaves = [getattr(request, name).clone().requires_grad_() for name in FIELDS]
    images = kind.render(replace(request, **dict(zip(FIELDS, leaves))))
    row, column = divmod(int(images["alphas"][0].argmax()), request.width)
    weights = {name: torch.randn(images[name].shape, generator=generator) for name in kind.images}

    def gradients(weights: dict[str, Tensor]) -> tuple[Tensor, ...]:
        loss = torch.stack([(images[name] * weight).sum() for name, weight in weights.items()]).sum()
        return torch.autograd.grad(loss, leaves, retain_graph=True)

    colors = torch.zeros(80, 1, requires_grad=True)
    probe = kind.render(replace(request, colors=colors, sh_degree=None))["channels"][0, row, column, 0]
    drawn = torch.autograd.grad(probe, colors)[0][:, 0] > 0
    assert drawn.any() and not drawn.all()
    healthy = gradients(weights)
    for output in kind.images:
        weight = weights[output].clone()
        weight[0, row, column] = value
        broken = gradients({**weights, output: weight})
        for before, after in zip(healthy, broken):
            assert torch.equal(before[~drawn], after[~drawn]), output
        assert not torch.isfinite(broken[0][drawn]).all(), output


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("field", ["viewmats", "Ks"])
def test_a_broken_camera_is_named(
    kind: Kind, field: str, value: float, backend: str, generator: torch.Generator
) -> None:
    request = kind.make(5, generator, cameras=3)
    values = getattr(request, field).clone()
    values[2, 1, 2] = value
    with pytest.raises(ValueError, match=rf"{kind.seam.__name__}: {field}\[2, 1, 2\] is {value}, expected a finite"):
        kind.seam(**{**vars(request), field: values}, backend=backend)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"viewmats": torch.zeros(0, 4, 4), "Ks": torch.zeros(0, 3, 3)}, "no camera"),
        ({"width": 0}, "at least 1x1"),
        ({"quats": torch.zeros(4, 4)}, "quats has shape"),
        ({"colors": torch.zeros(5, 4, 3)}, "colors has shape"),
        ({"sh_degree": 4}, "sh_degree is 4"),
        ({"render_mode": "RGB+D"}, "render_mode"),
        ({"width": MAX_SIDE + 1, "height": 1}, f"at most {MAX_SIDE} per side"),
        ({"Ks": torch.zeros(1, 3, 3)}, "focal lengths"),
        ({"near_plane": -1.0}, "near_plane is -1.0"),
        ({"near_plane": NAN}, "near_plane is nan"),
        ({"far_plane": 0.001}, "not beyond near_plane"),
        ({"radius_clip": NAN}, "radius_clip is nan"),
        ({"colors": torch.zeros(5, 16, 3, device="meta")}, "colors is on meta"),
        ({"backend": "opengl"}, "backend 'opengl' is none of"),
    ],
)
def test_arguments_that_cannot_be(
    kind: Kind, changes: dict[str, Any], message: str, generator: torch.Generator
) -> None:
    with pytest.raises(ValueError, match=message):
        kind.seam(**{**vars(kind.make(5, generator)), **changes})


def test_gsplats_backend_needs_a_gpu(kind: Kind, generator: torch.Generator) -> None:
    with pytest.raises(CloseupError, match="needs CUDA tensors"):
        kind.seam(**vars(kind.make(5, generator)), backend="gsplat")


def test_images_that_do_not_fit_into_memory(kind: Kind, generator: torch.Generator) -> None:
    request = kind.make(3, generator, width=MAX_SIDE, height=MAX_SIDE)
    with pytest.raises(MemoryError, match=f"{kind.seam.__name__}: .* {MAX_SIDE}x{MAX_SIDE}"):
        kind.seam(**vars(request), backend="cpu")
