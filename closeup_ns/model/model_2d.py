"""The model with discs for Gaussians: 2D Gaussian Splatting (Huang et al. 2024), the base that the paper trains.

A disc is a Gaussian whose third axis is its normal. The rasteriser reads only the first two scales; the third is held
at a hundredth of the shorter of them, so that whatever else reads three of them (splitting, ``ns-export``, another
viewer) sees a thin disc.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from closeup_ns.model.kernel import PixelKernel
from closeup_ns.model.model import CloseupModel, CloseupModelConfig
from closeup_ns.model.regularize import smooth_3d
from closeup_ns.model.strategy import CloseupStrategy
from closeup_ns.model.surface import Surface, normal_consistency, normals_image
from closeup_ns.rendering.rasterize_2d import rasterization_2dgs

THICKNESS = 0.01
"""A disc's third scale, as a share of the shorter of its other two. Nothing that is rendered here depends on it."""


@dataclass
class Closeup2dgsModelConfig(CloseupModelConfig):
    """Discs instead of ellipsoids, held to a surface by 2DGS's two regularisers."""

    _target: type = field(default_factory=lambda: Closeup2dgsModel)
    rasterize_mode: Literal["classic", "antialiased"] = "classic"
    """2DGS has no antialiased mode: anything but classic is refused."""
    eps2d: float = 0.0
    """2DGS widens no Gaussian, so this must be 0 and all of ``pixel_variance`` blurs the composited image: that blur is
    what ``kernel_search`` searches. 2DGS's own screen filter (a disc covers at least a Gaussian of 0.5 squared pixels
    of the render) only keeps small discs from vanishing, and is always on."""
    use_absgrad: bool = False
    """2DGS has no absolute gradients: True is refused."""
    densify_grad_thresh: float = 0.0002
    """Threshold of the gradient of a disc's centre on the screen, above which it is densified. gsplat's and 2DGS's own;
    splatfacto's 0.0008 is for absolute gradients, which are larger."""
    cull_alpha_thresh: float = 0.05
    """Opacity below which a disc is removed when others are densified. gsplat's and 2DGS's own."""
    normal_weight: float = 0.05
    """Weight of the discs' agreement with the normals of the surface that their depth describes; 0 is off. 2DGS's and
    gsplat's own. It holds on every training view, photographs and close-ups alike. Smooth geometry costs colour where
    training is short: flower at 504 pixels after 600 steps, 24.4 dB with it, 25.3 dB without and with ellipsoids."""
    normal_from: float = 7000 / 30000
    """Share of the base phase after which it starts. 2DGS's own."""
    distortion_weight: float = 0.0
    """Weight of how far the discs of a pixel lie apart along its ray, in world units; 0 is off. gsplat's own where it
    is on is 0.01, and it is off by default there; 2DGS's 100 and 1000 are for depths mapped to [0, 1]."""
    distortion_from: float = 3000 / 30000
    """Share of the base phase after which it starts. 2DGS's own."""


DISCS_HAVE_NO = {
    "rasterize_mode": ("classic", "2DGS has no antialiased mode"),
    "eps2d": (0.0, "2DGS widens no Gaussian; pixel_variance blurs the image instead"),
    "use_absgrad": (False, "2DGS has no absolute gradients"),
    "use_scale_regularization": (False, "it punishes every disc for being flat"),
}
"""Options of the ellipsoids' model that mean nothing here: the value that is allowed, and why."""


class Closeup2dgsModel(CloseupModel):
    """`CloseupModel` with discs. Also renders "normals" and "surface_normals", those of the discs and of the depth."""

    config: Closeup2dgsModelConfig

    def populate_modules(self) -> None:
        for option, (allowed, why) in DISCS_HAVE_NO.items():
            if getattr(self.config, option) != allowed:
                raise ValueError(f"closeup-gs-2dgs: model.{option} must be {allowed!r}: {why}")
        super().populate_modules()
        self._surface: Surface | None = None  # of the last render, until get_outputs takes it
        self._hold_flat()

    def base_strategy(self) -> CloseupStrategy:
        strategy = super().base_strategy()
        strategy.key_for_gradient = "gradient_2dgs"
        return strategy

    # ---- the third axis is the normal

    def start_from(self, xyz: Float[Tensor, "N 3"], rgb: UInt8[Tensor, "N 3"]) -> None:
        super().start_from(xyz, rgb)
        self._hold_flat()

    def load_state_dict(self, dict: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        """Load a checkpoint; ellipsoids of splatfacto or closeup-gs are pressed flat along their shortest axis."""
        loaded = super().load_state_dict(dict, **kwargs)
        quats, scales = self.gauss_params["quats"].data, self.gauss_params["scales"].data
        for values, turned in zip((quats, scales), shortest_axis_last(quats, scales)):
            values.copy_(turned)
        self._hold_flat()
        self.kernel = self.kernel
        return loaded

    @CloseupModel.kernel.setter
    def kernel(self, kernel: PixelKernel) -> None:
        """Take a pixel; what it would widen Gaussians by joins the blur."""
        self.screen_kernel.copy_(kernel.unwidened().to_tensor())

    def step_post_backward(self, step: int) -> None:
        super().step_post_backward(step)
        self._hold_flat()

    @torch.no_grad()
    def _hold_flat(self) -> None:
        scales = self.gauss_params["scales"].data
        scales[:, 2] = scales[:, :2].amin(-1) + math.log(THICKNESS)

    def _smooth(self, log_scales: Tensor, logit_opacities: Tensor) -> tuple[Tensor, Tensor]:
        """The 3D filter in the disc's plane: across it, it would fade every disc to nothing."""
        plane, opacities = smooth_3d(log_scales[:, :2], logit_opacities, self.footprint, self.config.filter_3d)
        return torch.cat([plane, THICKNESS * plane.amin(-1, keepdim=True)], -1), opacities

    # ---- rendering

    def _is_on(self, weight: float, start: float) -> bool:
        """Whether a regulariser acts on this step; ``start`` is a share of the base phase."""
        return self.training and weight > 0 and self.step >= start * self.base_steps

    @property
    def _holds_normals(self) -> bool:
        return self._is_on(self.config.normal_weight, self.config.normal_from)

    @property
    def _holds_together(self) -> bool:
        return self._is_on(self.config.distortion_weight, self.config.distortion_from)

    def _wants_depth(self) -> bool:
        return super()._wants_depth() or self._holds_normals or self._holds_together

    def _draw(self, scene: dict[str, Any]) -> tuple[Tensor, Tensor, dict]:
        render, alpha, normals, from_depth, distortion, info = rasterization_2dgs(
            **scene, distloss=self._holds_together
        )
        if from_depth is not None:  # gsplat drops the dimension of cameras where there is one camera
            from_depth = from_depth.reshape(normals[0].shape)
        distortion = None if distortion is None else distortion[0]
        self._surface = Surface(normals[0], from_depth, alpha[0], distortion)
        return render, alpha, info

    def get_outputs(self, camera: Cameras) -> dict[str, Any]:
        """The parent's; in training the `Surface` beside them, outside of it the normals as images."""
        outputs = super().get_outputs(camera)
        surface, self._surface = self._surface, None
        if self.training:
            return {**outputs, "surface": surface}
        pictures = {} if surface is None else {"normals": surface.normals, "surface_normals": surface.from_depth}
        for name in ("normals", "surface_normals"):
            normals = pictures.get(name)
            nothing = normals is None  # a crop box around no disc, or a render without depth
            outputs[name] = (
                torch.zeros_like(outputs["rgb"]) if nothing else normals_image(normals, self.kernel.supersample)
            )
        return outputs

    # ---- losses

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        losses = super().get_loss_dict(outputs, batch, metrics_dict)
        if self._holds_normals:
            losses["normal_consistency"] = self.config.normal_weight * normal_consistency(outputs["surface"])
        if self._holds_together:
            losses["distortion"] = self.config.distortion_weight * outputs["surface"].distortion.mean()
        return losses


def shortest_axis_last(
    quats: Float[Tensor, "N 4"], log_scales: Float[Tensor, "N 3"]
) -> tuple[Float[Tensor, "N 4"], Float[Tensor, "N 3"]]:
    """The same Gaussians with their axes counted so that the shortest is the third. Where it is, the bits stay."""
    shortest = log_scales.argmin(-1, keepdim=True)
    order = (shortest + 1 + torch.arange(3, device=shortest.device)) % 3
    # Counting the axes from the second or the third is a third of a turn, one way or the other, about the diagonal.
    w, axis = quats[:, :1], quats[:, 1:]
    half = torch.where(shortest == 0, 0.5, -0.5).to(quats).expand_as(axis)
    turned_w = 0.5 * w - (half * axis).sum(-1, keepdim=True)
    turned = torch.cat([turned_w, w * half + 0.5 * axis + torch.linalg.cross(axis, half)], dim=-1)
    return torch.where(shortest == 2, quats, turned), log_scales.gather(-1, order)
