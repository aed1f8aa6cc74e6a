"""2D Gaussian splatting on the CPU: a request rendered with the compiled kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from closeup_ns.rendering.cpu.gaussians import blended_features
from closeup_ns.rendering.cpu.projection import SURFELS, camera_floats, project
from closeup_ns.rendering.cpu.surfel_blend import BlendSurfels, SurfelBlendInput
from closeup_ns.rendering.kernels import Kernels, load_kernels
from closeup_ns.rendering.request import SurfelImages, SurfelRequest


def rasterize_cpu_2d(request: SurfelRequest, kernels: Kernels | None = None) -> SurfelImages:
    """Render a request with the compiled kernels.

    Computes in float32; the images come back in the dtype of ``means``. CloseupError where the kernels cannot be had.
    ``info["gradient_2dgs"]`` is a leaf of zeros whose ``.grad`` becomes what gsplat's strategies densify by.
    """
    kernels = kernels or load_kernels()
    projected = project(SURFELS, request, camera_floats(request), kernels)
    centers, covariances, perspective, means2d, normals, depths, opacities, radii, ray_transforms, whitening = projected
    features = blended_features(request, depths, radii, kernels)
    densify = torch.zeros_like(means2d, requires_grad=True)
    given = SurfelBlendInput(
        whitening, ray_transforms, depths.detach(), radii, request.width, request.height, request.has_depth,
        distortion=request.distloss,
        keep_lists=torch.is_grad_enabled() and (means2d.requires_grad or features.requires_grad), kernels=kernels,
    )  # fmt: skip
    images: tuple[Tensor | None, ...] = BlendSurfels.apply(
        centers, covariances, perspective, means2d, densify, opacities, features, normals, given
    )  # pyright: ignore[reportAssignmentType]
    dtype = request.means.dtype
    channels, alphas, normal_image, distort = (None if i is None else i.to(dtype) for i in images)
    assert channels is not None and alphas is not None and normal_image is not None
    info = {
        "means2d": means2d, "radii": radii, "depths": depths, "ray_transforms": ray_transforms, "normals": normals,
        "opacities": opacities, "gradient_2dgs": densify, "render_distort": distort,
    }  # fmt: skip
    return SurfelImages(channels, alphas, normal_image, distort, info)
