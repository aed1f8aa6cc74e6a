"""The weight-free refiner: the colours of real photographs, at the frequencies that photographs can hold.

Up close, a photograph's pixel covers ``s`` pixels of the view in each direction (s is about the zoom), so its warped
colour is *blurrier* than the render: pasting it would throw detail away (research/quality.md, "On those pixels the
warped real colour is worse than the render"). What it does know is the colour at its own scale. So the render is
looked at as the photographs would see it, blurred to their footprint; what differs is the render's error at that
scale, and only that is taken back into the render (iterative back-projection: Irani and Peleg 1991). High frequencies
stay the render's, and nothing is invented.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.refine.imaging.filters import edge_distance, gaussian_blur, masked_blur, opened
from closeup_ns.refine.protocol import RefinedView, RefineRequest
from closeup_ns.views.reliability import ReliablePixels
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View
from closeup_ns.views.warp import backproject

FOOTPRINT_SAMPLES = 16384
"""Points per view at which the footprint is measured; it varies too smoothly to need every pixel."""
MIN_SUPPORT = 2
"""A pixel is corrected where at least this many photographs agree with the model's geometry there: one alone agrees
by chance."""
MAX_RESIDUAL = 0.3
"""Largest believable difference (0 to 1, worst channel) between the photographs and the render as a photograph would
see it. Beyond it one of the two shows something else (a leak past an occluder), and the render is kept."""
FEATHER = 4.0
"""Pixels over which the correction fades in from the edge of the known region (more where a photograph's pixel covers
more than that)."""


def source_footprint(
    view: View, depth: Float[Tensor, "H W"], known: Bool[Tensor, "H W"], references: list[View]
) -> float:
    """How many pixels of ``view`` one pixel of a typical reference covers, in each direction.

    The size of a pixel on the surface is z / f, so the ratio is (z_r / f_r) / (z_v / f_v) (papers.md, 1.5): about the
    zoom where the reference looks at what the view sees. References that have a point in their image count by the
    inverse of their footprint's area, as in the blend of their colours, so the blend's variance is n / sum(1/s^2); the
    result is the median over the known pixels, and 1 when there are none (nothing is corrected then).

    Args:
        view: the close-up.
        depth: its z-depth, world units.
        known: the pixels that count.
        references: cameras of the real photographs.
    """
    step = max(1, math.ceil(math.sqrt(depth.numel() / FOOTPRINT_SAMPLES)))
    thinned = torch.zeros_like(known)
    thinned[::step, ::step] = True
    chosen = known & thinned if bool((known & thinned).any()) else known
    chosen = chosen & (depth > 0)
    if not references or not bool(chosen.any()):
        return 1.0
    points = backproject(view, depth)[chosen]
    matrices = torch.stack([reference.viewmat for reference in references]).to(points)
    intrinsics = torch.stack([reference.K for reference in references]).to(points)
    sizes = torch.tensor([(r.width, r.height) for r in references]).to(points)
    in_camera = torch.einsum("rij,pj->rpi", matrices[:, :3, :3], points) + matrices[:, None, :3, 3]
    z = in_camera[..., 2]
    pixels = torch.einsum("rij,rpj->rpi", intrinsics, in_camera)[..., :2] / z.clamp_min(1e-8)[..., None]
    seen = (z > 1e-6) & (pixels >= 0).all(-1) & (pixels < sizes[:, None]).all(-1)
    if not bool(seen.any()):
        return 1.0
    size_here = depth[chosen] / _focal(view.K)
    ratio = z / _focal(intrinsics)[:, None] / size_here
    sharpness = torch.where(seen, ratio.clamp_min(1e-6) ** -2, torch.zeros_like(ratio)).sum(0)
    covered = sharpness > 0
    return float((seen.sum(0)[covered] / sharpness[covered]).sqrt().median())


def _focal(intrinsics: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Geometric mean of the two focal lengths, pixels."""
    return (intrinsics[..., 0, 0] * intrinsics[..., 1, 1]).sqrt()


def photograph_sigma(footprint: float) -> float:
    """Standard deviation (view pixels) of the blur between the close-up and a photograph warped into it.

    A photograph's pixel averages a box of ``s`` view pixels, variance s^2/12, of which the view's own pixel has 1/12
    already; bilinear sampling convolves with a triangle, s^2/6. Together (s^2 - 1)/4 up to the last sixth, and exactly
    nothing at s = 1, where the photograph is as sharp as the view and passes through unchanged.
    """
    return 0.5 * math.sqrt(max(footprint**2 - 1.0, 0.0))


def hit_probability(support: Tensor, footprint: float) -> Float[Tensor, "H W"]:
    """Chance that a pixel was met by at least one real sample: 1 - (1 - 1/s^2)^n (papers.md, 1.4).

    ``support`` photographs each put one sample into s x s pixels of the view. Near one in the first round, a few
    percent at 27x (research/quality.md, point 3).
    """
    missed = 1.0 - 1.0 / max(footprint, 1.0) ** 2
    return 1.0 - torch.pow(torch.as_tensor(missed, device=support.device), support.float())


class ReliableRefiner:
    """Takes the colour error that real photographs can see out of the render, and leaves the rest as it is."""

    name = "reliable"
    generates = False
    frames = 1

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        """One corrected render per view. Uses no randomness. Results are on the render's device, in its dtype."""
        references = [observation.view for observation in request.references]
        with torch.no_grad():
            return [
                self._refine_one(view, render, mask, references)
                for view, render, mask in zip(request.views, request.renders, request.masks, strict=True)
            ]

    def close(self) -> None:
        """Nothing was loaded."""

    def _refine_one(self, view: View, render: Rendered, mask: ReliablePixels, references: list[View]) -> RefinedView:
        rendered = torch.nan_to_num(render.color).clamp(0, 1).permute(2, 0, 1)
        photographs = mask.blended.to(rendered)
        finite = photographs.isfinite().all(0)
        known = mask.dense & finite & (mask.support >= MIN_SUPPORT)
        footprint = source_footprint(view, render.depth, known, references)
        sigma = photograph_sigma(footprint)
        photographs = torch.where(known, photographs, rendered)
        residual = photographs - gaussian_blur(rendered, sigma)
        trusted = opened(known & (residual.abs().amax(0) <= MAX_RESIDUAL))
        # One step of back-projection, smoothed at the photographs' scale: seams between blended photographs are sharper
        # than any photograph and must not be drawn into the view. A second step gained nothing at 3x and 9x on an
        # analytic scene (30.0 and 29.3 dB for either) and cost 2 dB where the render was right.
        correction = masked_blur(residual, trusted, sigma)
        fade = _fade(trusted, sigma).to(rendered)
        image = (rendered + fade * correction).clamp(0, 1)
        residual_mean = float(residual.abs().mean(0)[trusted].mean()) if bool(trusted.any()) else 0.0
        return RefinedView(
            image=image.permute(1, 2, 0).contiguous(),
            real=trusted & (fade >= 0.5),
            weight=fade * hit_probability(mask.support, footprint).to(fade),
            notes={
                "known_share": float(known.float().mean()),
                "corrected_share": float(trusted.float().mean()),
                "footprint_px": footprint,
                "residual_before": residual_mean,
            },
        )


def _fade(trusted: Bool[Tensor, "H W"], sigma: float) -> Float[Tensor, "H W"]:
    """0 outside, rising smoothly to 1 over the feather's width inside the trusted region."""
    width = max(1, math.ceil(max(FEATHER, 2.0 * sigma)))
    linear = edge_distance(trusted, width).float() / width
    return linear * linear * (3.0 - 2.0 * linear)
