"""The contract with the installed gsplat: the call we make, the strategy we feed, and the maths we share."""

from __future__ import annotations

import inspect

import gsplat
import pytest
import torch
from gsplat.cuda import _torch_impl as gsplat_torch
from gsplat.strategy import DefaultStrategy

from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.gsplat_backend import gsplat_arguments
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.rendering.reference.gaussians import _project_camera, spherical_harmonics

from .scenes import make_request


@pytest.mark.parametrize("render_mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
def test_our_call_fits_gsplats_signature(render_mode: str, generator: torch.Generator) -> None:
    channels = {"RGB": 3, "D": 1, "ED": 1, "RGB+D": 4, "RGB+ED": 4}[render_mode]
    request = make_request(5, generator, render_mode=render_mode, backgrounds=torch.zeros(1, channels))
    arguments = gsplat_arguments(request, packed=False, tile_size=16, sparse_grad=False)
    bound = inspect.signature(gsplat.rasterization).bind(**arguments)
    colors = 1 if render_mode in ("D", "ED") else 3
    assert bound.arguments["backgrounds"].shape == (1, colors), "gsplat appends the depth channel itself"


def test_our_signature_takes_what_gsplat_takes() -> None:
    ours, theirs = inspect.signature(rasterization).parameters, inspect.signature(gsplat.rasterization).parameters
    for name in set(ours) - {"backend"}:
        assert name in theirs, name
        if name not in ("packed", "render_mode", "rasterize_mode"):
            assert ours[name].default == theirs[name].default, name


def test_reference_projection_is_gsplats(generator: torch.Generator) -> None:
    """gsplat's own PyTorch projection: same means, conics, depths and 3-sigma radii where both see a Gaussian."""
    request = make_request(200, generator, eps2d=0.3)
    covariances, _ = gsplat_torch._quat_scale_to_covar_preci(request.quats, request.scales, True, False, False)
    radii, means2d, depths, conics, _ = gsplat_torch._fully_fused_projection(
        request.means, covariances, request.viewmats, request.Ks, request.width, request.height, request.eps2d
    )
    ours = _project_camera(request, 0)
    both = (ours["radii"] > 0) & (radii[0] > 0)
    assert both.sum() > 50
    for name, theirs in (("means2d", means2d), ("conics", conics), ("depths", depths)):
        torch.testing.assert_close(ours[name][both], theirs[0][both], atol=1e-3, rtol=1e-3)
    assert (ours["radii"][both] - radii[0][both]).abs().max() <= 1


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_reference_harmonics_are_gsplats(degree: int, generator: torch.Generator) -> None:
    directions, coefficients = torch.randn(50, 3, generator=generator), torch.randn(50, 16, 3, generator=generator)
    theirs = gsplat_torch._spherical_harmonics(degree, directions, coefficients)
    torch.testing.assert_close(spherical_harmonics(degree, directions, coefficients), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])
@pytest.mark.parametrize("absgrad", [False, True])
def test_default_strategy_densifies_on_our_info(absgrad: bool, generator: torch.Generator) -> None:
    request = make_request(300, generator, width=64, height=48)
    values = {
        "means": request.means, "quats": request.quats, "scales": request.scales.log(),
        "opacities": torch.logit(request.opacities.clamp(0.05, 0.95)), "sh": request.colors,
    }  # fmt: skip
    params = torch.nn.ParameterDict({name: torch.nn.Parameter(value) for name, value in values.items()})
    optimizers = {name: torch.optim.Adam([params[name]], lr=1e-3) for name in params}
    strategy = DefaultStrategy(refine_start_iter=2, refine_every=2, reset_every=100, grow_grad2d=1e-6, absgrad=absgrad)
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state(scene_scale=1.0)
    for step in range(1, 7):
        image, _, info = rasterization(
            params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid(), params["sh"],
            request.viewmats, request.Ks, 64, 48, sh_degree=3, absgrad=absgrad, rasterize_mode="antialiased",
        )  # fmt: skip
        strategy.step_pre_backward(params, optimizers, state, step, info)
        (image - 0.5).square().mean().backward()
        strategy.step_post_backward(params, optimizers, state, step, info)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
    assert len(params["means"]) > 300
    assert all(torch.isfinite(value).all() for value in params.values())
