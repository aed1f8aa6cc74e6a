"""Where a photograph was really taken: Gauss-Newton on its pixels against renders of the scene (issue 11.4).

Poses from COLMAP are good to about a pixel of what COLMAP saw, which is several native pixels. A render tells for every
pixel which way it would move if the camera moved (dense direct alignment, as in LSD-SLAM and DVO); the motion that
explains the difference to the photograph best is solved for, with a gain and an offset per colour channel beside it, so
that an exposure of its own does not look like a motion. The renderer may be any that gives colour and depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.views.rendered import Rendered, Renderer
from closeup_ns.views.rotation import skew
from closeup_ns.views.view import View
from closeup_ns.views.warp import camera_rays, pixel_grid

LEVELS = (8, 8, 4, 4, 2, 2, 1)
"""Each iteration compares images whose pixels are as large as so many of the photograph's. Coarse ones catch
displacements of pixels, cost little, and bring the last one so near that a second of its kind gains nothing: flower's
held-out crops at 9x have 31.00 dB with (8, 4, 2, 1, 1), 30.37 with (1, 1), 31.10 with these."""
SMALLEST = 24
"""Shorter side in pixels below which a level says too little and is left out."""
TRANSLATION_RIDGE = 1e-2
"""How much a translation is held back, relative to what the pixels say: in a narrow view it looks like a rotation."""


@dataclass(frozen=True, eq=False)
class Registration:
    """What `register` found."""

    view: View
    """The view where the photograph fits best."""
    motion: Float[Tensor, "6"]
    """Rotation vector in radians and translation in world units, in the camera's axes: ``c2w @ exp(motion)``."""
    shift: float
    """Median distance in pixels that the view's pixels moved."""
    metric: Float[Tensor, "6 6"]
    """A further small motion m moves the view's pixels by m^T ``metric`` m squared pixels (mean over its surface)."""


@torch.no_grad()
def register(
    render: Renderer,
    view: View,
    photograph: Float[Tensor, "H W 3"],
    counted: Bool[Tensor, "H W"] | None = None,
) -> Registration:
    """Find the pose near ``view`` whose render fits ``photograph`` best.

    Args:
        render: the scene; colours in [0, 1] and z-depth.
        view: the pose as given, and the photograph's pinhole camera.
        photograph: its pixels, in [0, 1].
        counted: pixels that count; None: all.

    Returns:
        The pose as given where no motion made the error smaller.
    """
    weight = torch.ones_like(photograph[..., 0]) if counted is None else counted.to(photograph)
    motion = view.c2w.new_zeros(6, dtype=torch.float64)
    as_given = render(view)
    for level in LEVELS:
        if min(view.width, view.height) // level < SMALLEST:
            continue
        coarse = _coarser(moved(view, motion), level)
        whole = (_averaged(weight, level) == 1).to(weight)
        step = _solve(coarse, render(coarse), _averaged(photograph, level), whole)
        motion = _log(_exp(motion) @ _exp(step))
    before, after = (_fitted_error(shown, photograph, weight) for shown in (as_given, render(moved(view, motion))))
    if after >= before:
        motion = torch.zeros_like(motion)
    shift = displacement(view, motion, as_given.depth)
    return Registration(moved(view, motion), motion, shift, pixel_metric(view, as_given.depth))


def _coarser(view: View, level: int) -> View:
    """The view with pixels ``level`` times as large; what is left over at the border is dropped, as in `_averaged`."""
    K = view.K.clone()
    K[:2] /= level
    return View(K, view.c2w, view.width // level, view.height // level)


def moved(view: View, motion: Float[Tensor, "6"]) -> View:
    """``view`` moved by ``c2w @ exp(motion)``."""
    c2w = (view.c2w.double() @ _exp(motion.to(view.device, torch.float64))).to(view.c2w)
    return View(view.K, c2w, view.width, view.height)


def displacement(view: View, motion: Float[Tensor, "6"], depth: Float[Tensor, "H W"]) -> float:
    """Median distance in pixels that ``motion`` moves what ``view`` shows at z-depth ``depth``."""
    jacobian = _pixel_motion(view, depth)
    flow = (jacobian @ motion.to(jacobian)).norm(dim=-1)
    solid = flow[depth > 0]
    return float(solid.median()) if solid.numel() else 0.0


def pixel_metric(view: View, depth: Float[Tensor, "H W"]) -> Float[Tensor, "6 6"]:
    """`Registration.metric` of what ``view`` shows at z-depth ``depth``; 0 where it shows nothing."""
    flow = _pixel_motion(view, depth)[depth > 0].double()
    return torch.einsum("pci,pcj->ij", flow, flow) / max(len(flow), 1)


def _solve(
    view: View, rendered: Rendered, target: Float[Tensor, "H W 3"], weight: Float[Tensor, "H W"]
) -> Float[Tensor, "6"]:
    """One Gauss-Newton step: motion, and a gain and an offset for each channel that are not kept."""
    image, depth = rendered.color, rendered.depth
    weight = weight * (rendered.alpha > 0.5)
    dx, dy = _gradients(image)
    flow = _pixel_motion(view, depth.clamp_min(1e-6))  # [h, w, 2, 6]
    columns = -(dx[..., None] * flow[..., None, 0, :] + dy[..., None] * flow[..., None, 1, :])  # [h, w, 3, 6]
    eye = torch.eye(3, dtype=image.dtype, device=image.device)
    gain, offset = image[..., None] * eye, eye.expand(*image.shape[:2], 3, 3)
    system = torch.cat([columns, gain, offset], dim=-1).flatten(1, 2)  # [h, 3 w, 12]
    residual = (target - image).flatten(1)
    each = weight.repeat_interleave(3, dim=1)
    scale = _median_absolute(residual, each) * 3
    # Geman-McClure: occluders, highlights, moved leaves.
    each = each / (1 + (residual / scale.clamp_min(1e-3)).square())
    # Summed in the image's precision along each of its rows, and over them in float64.
    weighted = (each[..., None] * system).transpose(1, 2)
    normal = (weighted @ system).double().sum(0)
    right = (weighted @ residual[..., None]).double().sum(0).squeeze(1)
    normal = normal + 1e-9 * torch.diag(normal.diagonal()) + 1e-12 * torch.eye(12).to(normal)
    # Rotations in radians and translations in depths are alike in size; what both explain, the rotation does.
    middle = depth[depth > 0].double().median() if bool((depth > 0).any()) else depth.new_tensor(1.0).double()
    ridge = TRANSLATION_RIDGE * normal.diagonal()[:2].mean() / middle.square()
    normal[3:6, 3:6] += ridge * torch.eye(3).to(normal)
    return torch.linalg.solve(normal, right)[:6]


def _pixel_motion(view: View, depth: Float[Tensor, "H W"]) -> Float[Tensor, "H W 2 6"]:
    """How many pixels (column, row) the surface at each pixel moves per unit of rotation and translation."""
    view = view.to(depth.device, depth.dtype)
    x, y, _ = camera_rays(view, pixel_grid(view.height, view.width, depth.device, depth.dtype)).unbind(-1)
    near = 1 / depth.clamp_min(1e-6)
    zero = torch.zeros_like(x)
    across = torch.stack([x * y, -(1 + x * x), y, -near, zero, x * near], dim=-1) * view.K[0, 0]
    down = torch.stack([1 + y * y, -x * y, -x, zero, -near, y * near], dim=-1) * view.K[1, 1]
    return torch.stack([across, down], dim=-2)


def _averaged(image: Tensor, level: int) -> Tensor:
    """Means over blocks of ``level`` x ``level`` pixels; what is left over at the border is dropped."""
    if level == 1:
        return image
    channels = image[None, None] if image.ndim == 2 else image.permute(2, 0, 1)[None]
    small = F.avg_pool2d(channels, level)[0]
    return small[0] if image.ndim == 2 else small.permute(1, 2, 0)


def _gradients(image: Float[Tensor, "H W 3"]) -> tuple[Tensor, Tensor]:
    """Central differences along columns and rows, in colour per pixel."""
    padded = F.pad(image.permute(2, 0, 1)[None], (1, 1, 1, 1), mode="replicate")[0].permute(1, 2, 0)
    return (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2


def _median_absolute(residual: Tensor, weight: Tensor) -> Tensor:
    counted = residual[weight > 0]
    return counted.abs().median() if counted.numel() else residual.new_tensor(1.0)


def _fitted_error(rendered: Rendered, photograph: Tensor, weight: Tensor) -> float:
    """Weighted mean squared difference after the best gain and offset of each channel, where something is rendered."""
    weight = weight * (rendered.alpha > 0.5)
    total = weight.sum().clamp_min(1e-9)
    a, b, w = rendered.color.double(), photograph.double(), (weight / total).double()[..., None]
    mean_a, mean_b = (w * a).sum((0, 1)), (w * b).sum((0, 1))
    a, b = a - mean_a, b - mean_b
    gain = (w * a * b).sum((0, 1)) / (w * a * a).sum((0, 1)).clamp_min(1e-9)
    return float((w * (gain * a - b).square()).sum() / 3)


def _exp(motion: Float[Tensor, "6"]) -> Float[Tensor, "4 4"]:
    """The rigid motion of a twist (rotation vector, translation)."""
    twist = F.pad(torch.cat([skew(motion[:3]), motion[3:, None]], dim=1), (0, 0, 0, 1))
    return torch.linalg.matrix_exp(twist)


def _log(matrix: Float[Tensor, "4 4"]) -> Float[Tensor, "6"]:
    """The inverse of `_exp` for rotations well below half a turn."""
    rotation = matrix[:3, :3]
    axis = (rotation - rotation.T)[[2, 0, 1], [1, 2, 0]] / 2
    sine = axis.norm()
    angle = torch.atan2(sine, (rotation.trace() - 1) / 2)
    vector = axis * (angle / sine if float(sine) > 1e-12 else 1.0)
    turn = skew(vector)
    factor = 1 / 12 if float(angle) < 1e-4 else (1 / angle**2 - (1 + torch.cos(angle)) / (2 * angle * torch.sin(angle)))
    inverse = torch.eye(3).to(matrix) - turn / 2 + factor * (turn @ turn)
    return torch.cat([vector, inverse @ matrix[:3, 3]])


def compose(first: Float[Tensor, "6"], second: Float[Tensor, "6"]) -> Float[Tensor, "6"]:
    """The motion of ``exp(first) @ exp(second)``."""
    return _log(_exp(first) @ _exp(second))
