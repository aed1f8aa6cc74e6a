"""The ellipse that binning takes for a surfel's support, compiled from its header, against sampled supports."""

from __future__ import annotations

import ctypes
import math
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from closeup_ns.rendering import build
from tests.rendering.cross import needs_compiler

# Per surfel: center, means2d, covariance, |det P|, |q|^2 (9 floats), reach; out: x, y, xx, xy, yy, det; bounded or not.
PROGRAM = """
#include "surfels/projection.h"
using namespace closeup;
extern "C" void ellipses(int n, const float* s, const float* reach, float* out, int* bounded) {
    for (int i = 0; i < n; i++) {
        const float* v = s + 9 * i;
        const SurfelShape shape = {{v[0], v[1]}, {v[2], v[3]}, {v[4], v[5], v[6]}, v[7], v[8]};
        Ellipse e = {0, 0, 0, 0, 0, 0};
        bounded[i] = support_ellipse(shape, reach[i], e);
        memcpy(out + 6 * i, &e, sizeof e);
    }
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder: Path = tmp_path_factory.mktemp("ellipse")
    (folder / "ellipse.cpp").write_text(PROGRAM)
    flags = ["-O1", "-std=c++17", "-fPIC", "-shared", f"-I{build.SOURCES}"]
    subprocess.run(
        [*shlex.split(build.compiler()), *flags, str(folder / "ellipse.cpp"), "-o", str(folder / "ellipse.so")],
        check=True,
    )
    return ctypes.CDLL(str(folder / "ellipse.so"))


def random_surfels(count: int) -> dict[str, Tensor]:
    """Float64 surfels of 0.01 to 1000 pixels, a third of them needles, with tilts up to the camera plane."""
    generator = torch.Generator().manual_seed(4)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    P = torch.exp(2 * torch.randn(count, 1, 1, generator=generator, dtype=torch.float64))
    P = P * torch.randn(count, 2, 2, generator=generator, dtype=torch.float64)
    thickness = torch.where(uniform(count) < 0.33, 10 ** (-4 * uniform(count)), 1.0)
    P[:, 1] = thickness[:, None] * P[:, 1] + (1 - thickness[:, None]) * 0.7 * P[:, 0]
    angle, length = 2 * math.pi * uniform(count), uniform(count) ** 2
    q = length[:, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
    center = 500 * uniform(count, 2)
    means2d = center - (P @ q[..., None])[..., 0] / (1 - length.square())[:, None]
    return {"P": P, "q": q, "center": center, "means2d": means2d, "reach": 11 * uniform(count)}


def support_boundary(surfels: dict[str, Tensor], samples: int) -> tuple[Tensor, Tensor]:
    """Points [N,samples,2] on the projected disc's boundary, by projecting the disc's, and on the filter's circle."""
    angles = torch.linspace(0, 2 * math.pi, samples + 1, dtype=torch.float64)[:-1]
    unit = torch.stack([angles.cos(), angles.sin()], dim=-1)
    s = surfels["reach"].sqrt()[:, None, None] * unit
    depth = 1 + (s * surfels["q"][:, None]).sum(-1, keepdim=True)
    disc = surfels["center"][:, None] + s @ surfels["P"].mT / depth
    circle = surfels["means2d"][:, None] + (surfels["reach"] / 2).sqrt()[:, None, None] * unit
    return disc, circle


def compiled_ellipses(library: ctypes.CDLL, surfels: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the header says: ellipses [N,6] in float64 and whether they are bounded [N]."""
    covariance = surfels["P"] @ surfels["P"].mT
    columns = [surfels["center"], surfels["means2d"], covariance[:, 0], covariance[:, 1, 1:],
               torch.linalg.det(surfels["P"]).abs()[:, None], surfels["q"].square().sum(-1, keepdim=True)]  # fmt: skip
    shapes, reach = torch.cat(columns, dim=-1).float().contiguous(), surfels["reach"].float()
    shapes[:, 7] *= shapes[:, 7] > 1e-9  # seen edge-on
    count = len(shapes)
    out, bounded = torch.zeros(count, 6), torch.zeros(count, dtype=torch.int32)
    library.ellipses(count, *(ctypes.c_void_p(t.data_ptr()) for t in (shapes, reach, out, bounded)))
    return out.double(), bounded.bool()


def level(ellipse: Tensor, points: Tensor) -> Tensor:
    """Squared distance [N,samples] of points from the centre, 1 on the ellipse; whitened as binning does it."""
    x, y, xx, xy, yy, det = ellipse[:, None].unbind(-1)
    dx, dy = points[..., 0] - x, points[..., 1] - y
    u, v = (yy * dx - xy * dy) / (yy * det).sqrt(), dy / yy.sqrt()
    return u.square() + v.square()


def disc_ellipse(surfels: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The header's formula: shape [N,2,2], centre [N,2] and determinant [N] of the projected disc |s|^2 <= reach."""
    P, reach, rest = surfels["P"], surfels["reach"], 1 - surfels["reach"] * surfels["q"].square().sum(-1)
    cov_g, k = -(P @ surfels["q"][..., None]), (reach / rest)[:, None, None]
    shape = k * (P @ P.mT + k * cov_g @ cov_g.mT)
    return shape, surfels["center"] + (k * cov_g)[..., 0], torch.linalg.det(P).square() * k[:, 0, 0] ** 2 / rest


def test_projected_disc_is_this_ellipse() -> None:
    surfels = random_surfels(2000)
    q2 = surfels["q"].square().sum(-1)
    bounded = surfels["reach"] * q2 < 0.99
    surfels = {name: value[bounded] for name, value in surfels.items()}
    shape, center, det = disc_ellipse(surfels)
    ellipse = torch.stack([*center.unbind(-1), shape[:, 0, 0], shape[:, 0, 1], shape[:, 1, 1], det], dim=-1)
    on_it = level(ellipse, support_boundary(surfels, 32)[0])
    torch.testing.assert_close(on_it, torch.ones_like(on_it), rtol=1e-5, atol=1e-5)


@needs_compiler
def test_support_lies_in_the_ellipse_and_fills_it(library: ctypes.CDLL) -> None:
    surfels = random_surfels(20000)
    ellipse, bounded = compiled_ellipses(library, surfels)
    tilted = surfels["reach"] * surfels["q"].square().sum(-1)
    assert bounded[tilted < 0.98].all() and not bounded[tilted > 0.991].any()
    surfels, ellipse = {name: value[bounded] for name, value in surfels.items()}, ellipse[bounded]
    disc, circle = support_boundary(surfels, 64)
    reached = torch.maximum(level(ellipse, disc).amax(-1), level(ellipse, circle).amax(-1))
    assert reached.max() <= 1 + 1e-6, "something is drawn outside"
    # Bounds that are not too wide: on average nearly touched, and never larger than both semi-axes raised to the disc.
    assert reached.mean() > 0.95
    shape, center, det = disc_ellipse(surfels)
    far = (center - surfels["means2d"]).norm(dim=-1) + (surfels["reach"] / 2).sqrt()
    major = torch.linalg.eigvalsh(shape)[:, 1].sqrt()
    raised = torch.maximum(major, far) * torch.maximum(det.sqrt() / major, far)
    assert (ellipse[:, 5].sqrt() <= 1.01 * raised + 0.01 * (1 + major)).all()


@needs_compiler
def test_edge_on_leaves_the_filter_circle(library: ctypes.CDLL) -> None:
    surfels = random_surfels(50)
    surfels["P"][:, 1] = 0.5 * surfels["P"][:, 0]
    ellipse, bounded = compiled_ellipses(library, surfels)
    assert bounded.all()
    torch.testing.assert_close(ellipse[:, :2], surfels["means2d"], rtol=0, atol=1e-3)
    torch.testing.assert_close(ellipse[:, 2].sqrt(), (surfels["reach"] / 2).sqrt(), rtol=1e-3, atol=0.15)
