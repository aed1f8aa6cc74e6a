"""The contract with the installed gsplat: the call we make, the strategy we feed, and the maths we share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gsplat
import pytest
import torch
from gsplat.cuda import _torch_impl as gsplat_torch
from gsplat.strategy import DefaultStrategy
from torch import Tensor

from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.gsplat_backend import gsplat_arguments, gsplat_arguments_2d
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.rendering.rasterize_2d import rasterization_2dgs
from closeup_ns.rendering.reference.gaussians import _project_camera, spherical_harmonics
from closeup_ns.rendering.request import RasterRequest, SurfelRequest

from .scenes import make_request
from .scenes_2d import make_surfel_request

needs_kernels = pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])
Render = Callable[..., tuple[Tensor, dict[str, Any]]]


@pytest.mark.parametrize("render_mode", ["RGB", "RGB+ED"])
def test_our_calls_fit_gsplats_signatures(render_mode: Any, generator: torch.Generator) -> None:
    options = {"packed": False, "tile_size": 16, "sparse_grad": False}
    arguments = gsplat_arguments(make_request(5, generator, render_mode=render_mode), **options)
    inspect.signature(gsplat.rasterization).bind(**arguments)
    arguments = gsplat_arguments_2d(make_surfel_request(5, generator, render_mode=render_mode), **options)
    inspect.signature(gsplat.rasterization_2dgs).bind(**arguments)


@pytest.mark.parametrize(
    ("ours", "theirs", "different"),
    [
        (rasterization, gsplat.rasterization, {"packed", "render_mode", "rasterize_mode"}),
        (rasterization_2dgs, gsplat.rasterization_2dgs, set()),
    ],
)
def test_what_our_signatures_take_gsplat_takes(ours: Any, theirs: Any, different: set[str]) -> None:
    """By the same names, with the same defaults."""
    own, known = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    names = set(own) - {"backend"}
    assert names <= set(known)
    for name in names - different:
        assert own[name].default == known[name].default, name


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


def densify(strategy: DefaultStrategy, values: dict[str, Tensor], render: Render) -> int:
    """How many Gaussians there are after six steps; ``render`` gives a loss and the info that the strategy reads."""
    params = torch.nn.ParameterDict({name: torch.nn.Parameter(value) for name, value in values.items()})
    optimizers: dict[str, torch.optim.Optimizer] = {name: torch.optim.Adam([params[name]], lr=1e-3) for name in params}
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state(scene_scale=1.0)
    for step in range(1, 7):
        p = params
        means, quats, scales, opacities = p["means"], p["quats"], p["scales"].exp(), p["opacities"].sigmoid()
        loss, info = render(means, quats, scales, opacities, p["colors"])
        strategy.step_pre_backward(params, optimizers, state, step, info)
        loss.backward()
        strategy.step_post_backward(params, optimizers, state, step, info)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.isfinite(value).all() for value in params.values())
    return len(params["means"])


def parameters(request: RasterRequest | SurfelRequest) -> dict[str, Tensor]:
    opacities = torch.logit(request.opacities.clamp(0.05, 0.95))
    names = {"means": request.means, "quats": request.quats, "scales": request.scales.log(), "opacities": opacities}
    return {**names, "colors": request.colors}


@needs_kernels
@pytest.mark.parametrize("absgrad", [False, True])
def test_default_strategy_densifies_on_our_info(absgrad: bool, generator: torch.Generator) -> None:
    request = make_request(300, generator, width=64, height=48)

    def render(*gaussians: Tensor) -> tuple[Tensor, dict[str, Any]]:
        options = {"sh_degree": 3, "absgrad": absgrad, "rasterize_mode": "antialiased"}
        image, _, info = rasterization(*gaussians, request.viewmats, request.Ks, 64, 48, **options)
        return (image - 0.5).square().mean(), info

    strategy = DefaultStrategy(refine_start_iter=2, refine_every=2, reset_every=100, grow_grad2d=1e-6, absgrad=absgrad)
    assert densify(strategy, parameters(request), render) > 300


@needs_kernels
@pytest.mark.parametrize("key", ["means2d", "gradient_2dgs"])
def test_default_strategy_densifies_on_our_surfels_info(key: Any, generator: torch.Generator) -> None:
    request = make_surfel_request(120, generator, width=32, height=24)

    def render(*surfels: Tensor) -> tuple[Tensor, dict[str, Any]]:
        options: dict[str, Any] = {"sh_degree": 3, "render_mode": "RGB+ED", "distloss": True}
        rendered = rasterization_2dgs(*surfels, request.viewmats, request.Ks, 32, 24, **options)
        image, _, normals, _, distort, info = rendered
        return (image - 0.5).square().mean() + normals.mean() + distort.mean(), info

    strategy = DefaultStrategy(
        refine_start_iter=1, refine_every=2, reset_every=100, grow_grad2d=1e-6, key_for_gradient=key
    )
    assert densify(strategy, parameters(request), render) > 120
