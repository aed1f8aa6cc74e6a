"""Metrics against the photograph of the same camera: PSNR, SSIM, sharpness, and PSNR after colour correction."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from jaxtyping import Float
from torch import Tensor

from closeup_ns.metrics.metric import Metric, MetricOptions, MetricSpec, Provenance
from closeup_ns.metrics.sharpness import FINE, relative_sharpness
from closeup_ns.rendering.ssim import ssim as windowed_ssim
from closeup_ns.views.psnr import psnr


def ssim(image: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"]) -> float:
    """Structural similarity (Wang et al. 2004) on RGB: 11-tap window of sigma 1.5, no padding, mean over all.

    The convention of pytorch_msssim, so of nerfstudio. (pyiqa's ``ssim`` is on luma and reads higher.)
    """
    return float(windowed_ssim(image, truth))


def color_corrected_psnr(image: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"]) -> float:
    """PSNR after the quadratic colour map that best fits the render to the photograph (Mip-NeRF 360; nerfstudio).

    For captures with auto-exposure, where a right render differs by a gain that no camera parameter tells.
    """
    from nerfstudio.model_components.lib_bilagrid import color_correct

    try:
        corrected = color_correct(image, truth)
    except AssertionError:  # of an image without any contrast: the best that a colour map makes of it is the mean
        corrected = truth.mean(dim=(0, 1)).expand_as(truth)
    return psnr(corrected, truth)


FUNCTIONS: dict[str, tuple[Callable[[Tensor, Tensor], float], Provenance]] = {
    "psnr": (psnr, Provenance("closeup_ns.views.psnr", notes="8 bits, RGB, mean per image")),
    "ssim": (
        ssim,
        Provenance(
            "closeup_ns.rendering.ssim",
            notes="RGB, Gaussian window of 11 with sigma 1.5, no padding (as pytorch_msssim)",
        ),
    ),
    "cc_psnr": (
        color_corrected_psnr,
        Provenance(
            f"nerfstudio {version('nerfstudio')} lib_bilagrid.color_correct, then psnr",
            notes="quadratic colour map per image",
        ),
    ),
    "sharpness": (
        relative_sharpness,
        Provenance(
            "closeup_ns.metrics.sharpness.relative_sharpness",
            notes=f"amplitude from {FINE[0]} to {FINE[1]} cycles per pixel, as a share of the photograph's",
        ),
    ),
}
"""The metrics of this room that need no weights, by name."""


def function_metric(spec: MetricSpec, options: MetricOptions) -> Metric:
    """One of `FUNCTIONS` for the suite; what masks let count has the functions of whole images."""
    function, provenance = FUNCTIONS[spec.name.removesuffix("_masked")]
    return spec.metric(provenance, function)
