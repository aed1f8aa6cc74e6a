"""Small random scenes and comparisons for the rasteriser's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from closeup_ns.rendering.cpu.gaussians import rasterize_cpu
from closeup_ns.rendering.kernels import Kernels
from closeup_ns.rendering.reference.gaussians import rasterize_reference
from closeup_ns.rendering.request import RasterRequest

Render = Callable[[RasterRequest], tuple[Tensor, Tensor, dict[str, Any]]]
LEAVES = ("means", "quats", "scales", "opacities", "colors", "viewmats")


def make_request(count: int, generator: torch.Generator, *, cameras: int = 1, width: int = 45, height: int = 37,
                 **changes: Any) -> RasterRequest:  # fmt: skip
    """A ball of Gaussians of mixed size, shape and opacity in front of cameras that look at it."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    viewmats = torch.eye(4).repeat(cameras, 1, 1)
    viewmats[:, 2, 3] = 3.0
    viewmats[:, :3, 3] += 0.2 * normal(cameras, 3)
    K = torch.tensor([[0.9 * width, 0, 0.52 * width], [0, 0.8 * width, 0.47 * height], [0, 0, 1]])
    request = RasterRequest(
        means=normal(count, 3), quats=normal(count, 4), scales=0.15 * torch.exp(0.7 * normal(count, 3)),
        opacities=torch.sigmoid(2 * normal(count)), colors=0.3 * normal(count, 16, 3), viewmats=viewmats,
        Ks=K.repeat(cameras, 1, 1), width=width, height=height, near_plane=0.01, far_plane=1e10, radius_clip=0.0,
        eps2d=0.3, sh_degree=3, render_mode="RGB", absgrad=True, rasterize_mode="classic",
    )  # fmt: skip
    return replace(request, **changes)


def of_thread_counts(compute: Callable[[], Any]) -> list[Any]:
    """What ``compute`` gives on one, two and three threads."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(compute())
    finally:
        torch.set_num_threads(before)
    return found


def on_kernels(kernels: Kernels | None = None) -> Render:
    """The compiled kernels as a renderer."""
    return lambda request: rasterize_cpu(request, kernels)


@dataclass
class Outcome:
    """Images and gradients of one render under a fixed random loss."""

    image: Tensor
    alpha: Tensor
    info: dict[str, Any]
    gradients: dict[str, Tensor]

    def flat(self) -> dict[str, Tensor]:
        return {"image": self.image, "alpha": self.alpha, **self.gradients}


def run(
    render: Render, request: RasterRequest, dtype: torch.dtype = torch.float32, viewmat_gradient: bool = False
) -> Outcome:
    """Render in ``dtype`` and differentiate a random linear loss of image and alpha with respect to every input."""
    tensors = {}
    for name in (*LEAVES, "Ks"):
        wanted = name in LEAVES and (name != "viewmats" or viewmat_gradient)
        tensors[name] = getattr(request, name).detach().to(dtype).clone().requires_grad_(wanted)
    image, alpha, info = render(replace(request, **tensors))
    loss_weights = torch.Generator().manual_seed(7)
    image_weight = torch.randn(image.shape, generator=loss_weights).to(dtype)
    alpha_weight = torch.randn(alpha.shape, generator=loss_weights).to(dtype)
    info["means2d"].retain_grad()
    ((image * image_weight).sum() + (alpha * alpha_weight).sum()).backward()
    gradients = {name: tensors[name].grad for name in tensors if tensors[name].grad is not None}
    gradients["means2d"] = info["means2d"].grad
    if request.absgrad:
        gradients["absgrad"] = info["means2d"].absgrad
    return Outcome(image.detach(), alpha.detach(), info, gradients)


def run_oracle(request: RasterRequest, viewmat_gradient: bool = False) -> Outcome:
    """The float64 reference under the same loss."""
    return run(rasterize_reference, request, torch.float64, viewmat_gradient)


def assert_agree(ours: Outcome, oracle: Outcome, tolerance: float = 3e-5) -> None:
    """Every image and gradient agrees in relative L2 norm, and the same Gaussians are culled."""
    actual, expected = ours.flat(), oracle.flat()
    missing = {name for name in expected.keys() - actual.keys() if expected[name].any()}
    assert not missing, f"no gradient for {missing}"
    for name in actual.keys() & expected.keys():
        assert torch.isfinite(actual[name]).all(), f"{name} is not finite"
        difference = (actual[name].double() - expected[name].double()).norm()
        scale = expected[name].double().norm() + 1e-12
        assert difference <= tolerance * scale, f"{name}: relative error {difference / scale:.1e}"
    assert torch.equal(ours.info["radii"] > 0, oracle.info["radii"] > 0)
