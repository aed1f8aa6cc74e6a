"""Inputs that no scene should hold, and some that a scene may: every render ends in an image or in a clear error."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from closeup_ns.rendering import gather, ssim
from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.checks import DEBUG_VARIABLE, MAX_SIDE
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.rendering.rasterize_2d import rasterization_2dgs
from closeup_ns.rendering.request import RasterRequest

from .scenes import Outcome, assert_agree, make_request, on_kernels, run, run_oracle
from .scenes_2d import make_surfel_request

pytestmark = pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])
NAN, INF = float("nan"), float("inf")
FIELDS = ("means", "quats", "scales", "opacities", "colors")
COUNT = 40


def both_agree(request: RasterRequest, tolerance: float = 3e-5) -> Outcome:
    """Forward and backward of the kernels against the float64 reference."""
    ours = run(on_kernels(), request, viewmat_gradient=True)
    assert_agree(ours, run_oracle(request, viewmat_gradient=True), tolerance)
    return ours


def call(request: RasterRequest, **changes: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The public seam."""
    given = {**vars(request), **changes}
    return rasterization(**given)


def test_behind_and_around_the_camera(generator: torch.Generator) -> None:
    """A camera in the middle of the ball: half of the Gaussians lie behind it, some right before the near plane."""
    request = make_request(60, generator, near_plane=0.2)
    viewmats = torch.eye(4)[None].clone()
    outcome = both_agree(replace(request, viewmats=viewmats), tolerance=2e-4)
    assert (outcome.info["radii"][0, request.means[:, 2] < 0.2] == 0).all()


@pytest.mark.parametrize("value", [NAN, INF])
def test_broken_features_touch_nobody_else(value: float, generator: torch.Generator) -> None:
    colors = torch.rand(COUNT, 3, generator=generator)
    colors[3, 2] = value
    request = make_request(COUNT, generator, cameras=2, colors=colors, sh_degree=None)
    both_agree(request)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colors": torch.zeros(5, 9), "sh_degree": None}, "at most 7"),
        ({"colors": torch.zeros(5, 0), "sh_degree": None}, "no channel"),
        ({"rasterize_mode": "XYZ"}, "rasterize_mode"),
        ({"eps2d": -0.1}, "eps2d is -0.1"),
        ({"eps2d": INF}, "eps2d is inf"),
    ],
)
def test_arguments_that_cannot_be(changes: dict[str, Any], message: str, generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match=message):
        call(replace(make_request(5, generator), **changes))


def test_more_gaussians_than_32_bits_count(generator: torch.Generator) -> None:
    request, count = make_request(1, generator), 2**31
    many = {name: getattr(request, name).expand(count, *getattr(request, name).shape[1:]) for name in FIELDS}
    with pytest.raises(ValueError, match="at most 2147483647"):
        call(replace(request, **many))


def test_the_longest_side(generator: torch.Generator) -> None:
    """Tile numbers fill 16 bits, and the last pixel is still drawn."""
    K = torch.tensor([[[1.0, 0, MAX_SIDE - 0.5], [0, 1.0, 0.5], [0, 0, 1]]])
    means, viewmats = torch.zeros(1, 3), torch.eye(4)[None].clone()
    viewmats[:, 2, 3] = 1.0
    request = make_request(1, generator, means=means, viewmats=viewmats, opacities=torch.ones(1), Ks=K, absgrad=False)
    for size in ({"width": MAX_SIDE, "height": 1}, {"width": 1, "height": MAX_SIDE}):
        if size["width"] == 1:
            request = replace(request, Ks=K.flip(1).flip(2)[:, [1, 0, 2]][:, :, [1, 0, 2]])
            request.Ks[:] = torch.tensor([[1.0, 0, 0.5], [0, 1.0, MAX_SIDE - 0.5], [0, 0, 1]])
        _, alpha, _ = on_kernels()(replace(request, **size))
        assert alpha.flatten()[-1] > 0.9 and not alpha.flatten()[: MAX_SIDE // 2].any()


STARVED = """
import resource, torch
from closeup_ns.rendering.kernels import load_kernels
from tests.rendering.scenes import make_request, on_kernels
kernels = load_kernels()
generator = torch.Generator().manual_seed(0)
request = make_request(20000, generator, width=640, height=640, scales=torch.full((20000, 3), 1.0),
                       opacities=torch.full((20000,), 0.01))
request.means.requires_grad_()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for spare in (20, 60, 120, 180):
    resource.setrlimit(resource.RLIMIT_AS, (used + (spare << 20), resource.RLIM_INFINITY))
    try:
        on_kernels(kernels)(request)
        print("rendered")
    except MemoryError as error:
        print("MemoryError", error)
    except RuntimeError as error:
        print("torch", error)
"""


def test_memory_that_runs_out_in_the_kernels_is_an_error_and_no_crash() -> None:
    done = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "MemoryError the CPU rasteriser ran out of memory in raster_forward" in done.stdout, done.stdout


@pytest.fixture
def debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG_VARIABLE, "1")


@pytest.mark.parametrize(
    ("field", "index", "value", "message"),
    [
        ("means", (3, 1), NAN, r"means\[3, 1\] is nan, expected a finite number \(1 such in all\)"),
        ("quats", (2, 0), INF, r"quats\[2, 0\] is inf"),
        ("quats", (2,), 0.0, r"the length of quats\[2\] is 0.0"),
        ("scales", (4, 2), -1.0, r"scales\[4, 2\] is -1.0, expected a positive"),
        ("opacities", (1,), 1.5, r"opacities\[1\] is 1.5, expected a number in \[0, 1\]"),
        ("colors", (0, 3, 1), -INF, r"colors\[0, 3, 1\] is -inf"),
        ("viewmats", (0, 0, 0), 2.0, r"R R\^T of viewmats\[0, 0, 0\]"),
        ("viewmats", (0, 2, 2), -1.0, r"det R of viewmats\[0\] is -1.0"),
        ("viewmats", (0, 3, 3), 2.0, r"the last row of viewmats\[0, 3\] is 2.0"),
        ("Ks", (0, 0, 0), -5.0, r"focal lengths of Ks\[0, 0\] is -5.0"),
    ],
)
@pytest.mark.usefixtures("debug")
def test_debug_mode_names_tensor_index_and_value(
    field: str, index: tuple[int, ...], value: float, message: str, generator: torch.Generator
) -> None:
    request = make_request(6, generator)
    call(request)
    values = getattr(request, field).clone()
    values[index] = value
    with pytest.raises(ValueError, match=message):
        call(replace(request, **{field: values}))


@pytest.mark.usefixtures("debug")
def test_debug_mode_names_a_broken_gradient(generator: torch.Generator) -> None:
    request = make_request(6, generator)
    image, alpha, _ = call(replace(request, means=request.means.clone().requires_grad_()))
    image.sum().backward(retain_graph=True)
    with pytest.raises(ValueError, match=r"the gradient of alphas\[0, 4, 5, 0\] is nan"):
        (alpha[0, 4, 5, 0] * NAN).backward()


@pytest.mark.usefixtures("debug")
def test_debug_mode_names_values_and_gradients_of_surfels(generator: torch.Generator) -> None:
    request = make_surfel_request(6, generator)
    request.scales[:, 2] = NAN  # is not looked at
    means = request.means.clone().requires_grad_()
    rendered = rasterization_2dgs(**vars(replace(request, means=means)))
    for name, index in (("channels", 0), ("alphas", 1), ("normals", 2), ("distort", 4)):
        image = rendered[index]
        assert isinstance(image, torch.Tensor)
        with pytest.raises(ValueError, match=rf"the gradient of {name}\[0, 4, 5, 0\] is nan"):
            (image[0, 4, 5, 0] * NAN).backward(retain_graph=True)
    scales = request.scales.clone()
    scales[4, 1] = -1.0
    with pytest.raises(ValueError, match=r"rasterization_2dgs: scales\[4, 1\] is -1.0, expected a positive"):
        rasterization_2dgs(**vars(replace(request, scales=scales)))


def test_ssim_of_broken_pixels(generator: torch.Generator) -> None:
    image, reference = torch.rand(2, 30, 40, 3, generator=generator)
    image[3, 4, 0] = NAN
    image.requires_grad_()
    value = ssim.ssim(image, reference)
    value.backward()
    assert torch.isnan(value) and image.grad is not None
    assert torch.isfinite(image.grad[24:]).all() and torch.isfinite(image.grad[..., 1:]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factor": 0}, "factor is 0"),
        ({"render": torch.rand(8, 8, 5)}, "5 channels"),
        ({"render": torch.rand(8, 8, 3, dtype=torch.float64)}, "float32"),
        ({"window": torch.ones(4, dtype=torch.float64)}, "float32"),
        ({"factor": 9}, "a window of .* for 0 samples"),
    ],
)
def test_gather_refuses_what_its_kernel_would_misread(changes: dict[str, Any], message: str) -> None:
    given = {
        "render": torch.rand(8, 8, 3),
        "alpha": torch.rand(8, 8, 1),
        "factor": 2,
        "window": torch.ones(2) / 2,
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        gather.gather_pixels(**given)
