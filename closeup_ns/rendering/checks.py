"""Checks of a request: sizes that overflow and broken cameras always, broken numbers anywhere in debug mode.

A Gaussian with NaN or infinite parameters is culled without a word, as gsplat does, because looking for it in every
render would cost time. Debug mode looks: ``CLOSEUP_DEBUG=1`` in the environment, so that it reaches every ns-* command.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Iterator
from typing import get_args

import torch
from torch import Tensor

from closeup_ns.rendering.request import (
    MAX_CHANNELS,
    MAX_SURFEL_CHANNELS,
    RasterizeMode,
    RasterRequest,
    RenderMode,
    RenderRequest,
    SurfelRequest,
)

DEBUG_VARIABLE = "CLOSEUP_DEBUG"
"""Environment variable that turns the checks of every value on, unless it is empty or 0."""
MAX_SIDE = 32767 * 32
"""Most pixels along a side: the kernels count their tiles of 32 pixels in 16 bits."""
MAX_GAUSSIANS = 2**31 - 1
"""The kernels count Gaussians in 32 bits."""
ORTHONORMAL_TOLERANCE = 1e-3
"""How far R R^T of a camera may be from the identity, per element: float32 pose refinement stays well below."""


def debugging() -> bool:
    """Whether the environment asks for every value to be checked."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def check_request(request: RasterRequest) -> None:
    """Raise ValueError, naming the argument, where shapes, modes or sizes do not fit together."""
    check_common(request, "rasterization", MAX_CHANNELS)
    if not 0 <= request.eps2d < math.inf:
        raise ValueError(f"rasterization: eps2d is {request.eps2d}, expected 0 or more square pixels")
    if request.rasterize_mode not in get_args(RasterizeMode):
        raise ValueError(
            f"rasterization: rasterize_mode {request.rasterize_mode!r} is none of {get_args(RasterizeMode)}"
        )


def check_surfel_request(request: SurfelRequest) -> None:
    """Raise ValueError, naming the argument, where shapes, modes or sizes do not fit together."""
    check_common(request, "rasterization_2dgs", MAX_SURFEL_CHANNELS)
    if request.distloss and not request.has_depth:
        raise ValueError("rasterization_2dgs: distloss needs a depth: render_mode 'RGB+ED'")


def check_common(request: RenderRequest, caller: str, max_channels: int) -> None:
    """The checks that hold for every request: ValueError that names ``caller`` and its argument."""
    count, cameras = len(request.means), len(request.viewmats)
    if request.render_mode not in get_args(RenderMode):
        raise ValueError(f"{caller}: render_mode {request.render_mode!r} is none of {get_args(RenderMode)}")
    shapes: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "means": (request.means, (count, 3)),
        "quats": (request.quats, (count, 4)),
        "scales": (request.scales, (count, 3)),
        "opacities": (request.opacities, (count,)),
        "viewmats": (request.viewmats, (cameras, 4, 4)),
        "Ks": (request.Ks, (cameras, 3, 3)),
    }
    for name, (tensor, shape) in shapes.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{caller}: {name} has shape {tuple(tensor.shape)}, expected {shape}")
    _check_colors(request, caller, max_channels)
    check_sizes(request, caller)
    if debugging():
        check_values(request, caller)
    elif request.means.device.type == "cpu":  # on a GPU the look at the values would wait for all work before it
        check_cameras(request, caller)


def _check_colors(request: RenderRequest, caller: str, max_channels: int) -> None:
    count = len(request.means)
    shape, degree = tuple(request.colors.shape), request.sh_degree
    if degree is not None:
        if not 0 <= degree <= 3:
            raise ValueError(f"{caller}: sh_degree is {degree}, supported are 0 to 3")
        fits = len(shape) == 3 and shape[0] == count and shape[1] >= (degree + 1) ** 2 and shape[2] == 3
        if not fits:
            needed = (count, f">={(degree + 1) ** 2}", 3)
            raise ValueError(f"{caller}: colors has shape {shape}, expected {needed} for sh_degree {degree}")
    elif shape[:-1] != (count,):
        raise ValueError(f"{caller}: colors has shape {shape}, expected ({count}, D)")
    if request.channels < 1:
        raise ValueError(f"{caller}: colors has shape {shape}, which leaves no channel to render")
    if request.channels > max_channels:
        raise ValueError(
            f"{caller}: {request.channels} channels in one call, at most {max_channels} with depth; split the colours"
        )


def check_sizes(request: RenderRequest, caller: str) -> None:
    """ValueError where there is nothing to render, where a size overflows the kernels, or tensors lie apart."""
    if not len(request.viewmats):
        raise ValueError(f"{caller}: viewmats holds no camera")
    if not (1 <= request.width <= MAX_SIDE and 1 <= request.height <= MAX_SIDE):
        size = f"{request.width}x{request.height}"
        raise ValueError(f"{caller}: the image is {size} pixels, need at least 1x1 and at most {MAX_SIDE} per side")
    if len(request.means) > MAX_GAUSSIANS:
        raise ValueError(f"{caller}: {len(request.means)} Gaussians, at most {MAX_GAUSSIANS} in one call")
    for name in ("near_plane", "radius_clip"):
        if not getattr(request, name) >= 0:
            raise ValueError(f"{caller}: {name} is {getattr(request, name)}, expected 0 or more")
    if not request.far_plane > request.near_plane:
        raise ValueError(f"{caller}: far_plane {request.far_plane} is not beyond near_plane {request.near_plane}")
    for name, tensor in _tensors(request).items():
        if tensor.device != request.means.device:
            raise ValueError(f"{caller}: {name} is on {tensor.device}, means on {request.means.device}")


def check_cameras(request: RenderRequest, caller: str) -> None:
    """ValueError for a camera that cannot be: one broken number there blanks the whole image."""
    for name, tensor in (("viewmats", request.viewmats), ("Ks", request.Ks)):
        _expect(caller, name, tensor, torch.isfinite(tensor), "a finite number")
    focal = torch.diagonal(request.Ks, dim1=-2, dim2=-1)[:, :2]
    _expect(caller, "the focal lengths of Ks", focal, focal > 0, "a positive number")


def check_values(request: RenderRequest, caller: str) -> None:
    """Debug mode: ValueError that names the tensor, the first bad index and the value found there."""
    check_cameras(request, caller)
    for name, tensor in _tensors(request).items():
        _expect(caller, name, tensor, torch.isfinite(tensor), "a finite number")
    _expect(caller, "scales", request.used_scales, request.used_scales > 0, "a positive number")
    inside = (request.opacities >= 0) & (request.opacities <= 1)
    _expect(caller, "opacities", request.opacities, inside, "a number in [0, 1]")
    lengths = request.quats.norm(dim=-1)
    _expect(caller, "the length of quats", lengths, lengths > 0, "a positive number")
    rotations = request.viewmats[:, :3, :3]
    products = rotations @ rotations.transpose(1, 2)
    identity = torch.eye(3, dtype=products.dtype, device=products.device).expand_as(products)
    orthonormal = (products - identity).abs() <= ORTHONORMAL_TOLERANCE
    _expect(caller, "R R^T of viewmats", products, orthonormal, "the identity (the rotation is not orthonormal)")
    handedness = torch.linalg.det(rotations)
    _expect(caller, "det R of viewmats", handedness, handedness > 0, "a positive number (the rotation mirrors)")
    last_rows = request.viewmats[:, 3]
    expected = last_rows.new_tensor([0.0, 0.0, 0.0, 1.0]).expand_as(last_rows)
    _expect(caller, "the last row of viewmats", last_rows, last_rows == expected, "0, 0, 0, 1")


@contextlib.contextmanager
def memory_errors(request: RenderRequest, caller: str) -> Iterator[None]:
    """MemoryError that says what was to be rendered, where torch could not allocate on the CPU."""
    try:
        yield
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        images = f"{len(request.viewmats)} images of {request.width}x{request.height} pixels"
        raise MemoryError(f"{caller}: {images} with {request.channels} channels do not fit into memory") from error


def watch_gradients(caller: str, **outputs: Tensor) -> None:
    """Debug mode: let backward raise ValueError where the loss hands a gradient back that is not finite."""

    def look(name: str, gradient: Tensor | None) -> None:
        if gradient is not None:  # None: the loss does not read this output
            what = f"the gradient of {name}"
            _expect(caller, what, gradient, torch.isfinite(gradient), "a finite number")

    for name, output in outputs.items():
        if output.requires_grad:
            output.register_hook(functools.partial(look, name))


def _tensors(request: RenderRequest) -> dict[str, Tensor]:
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
    tensors = {name: getattr(request, name) for name in names}
    return {**tensors, "scales": request.used_scales}


def _expect(caller: str, name: str, values: Tensor, good: Tensor, expected: str) -> None:
    if bool(good.all()):
        return
    index = torch.nonzero(~good)[0].tolist()
    count = int((~good).sum())
    value = values.detach()[tuple(index)].item()
    raise ValueError(f"{caller}: {name}{index} is {value}, expected {expected} ({count} such in all)")
