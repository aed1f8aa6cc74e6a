"""The model: splatfacto with the camera's own pixel, held from degenerating, on any device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.models.splatfacto import RGB2SH, SplatfactoModel, SplatfactoModelConfig, random_quat_tensor
from torch import Tensor, nn
from torch.nn import Parameter

from closeup_ns.model.cameras import cameras_of, view_of
from closeup_ns.model.cube import render_by_cube
from closeup_ns.model.exposure import PhotographExposure
from closeup_ns.model.kernel import KERNEL_SIZE, PixelKernel
from closeup_ns.model.lazy_lpips import lazy_lpips
from closeup_ns.model.losses import FusedSsim, PlainPsnr, injected_view_loss
from closeup_ns.model.regularize import finest_footprint, smooth_3d
from closeup_ns.model.strategy import NEVER, CloseupStrategy
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.rendering.request import RenderMode
from closeup_ns.views.opengl import flipped
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View

SUPERSAMPLE_FROM = 0.5
"""Share of the base phase after which supersampling starts; coarse Gaussians gain nothing from it."""
FOOTPRINT_EVERY = 100
"""Steps between two measurements of the finest pixel that sees each Gaussian."""


@dataclass
class CloseupModelConfig(SplatfactoModelConfig):
    """Splatfacto, made for close-ups."""

    _target: type = field(default_factory=lambda: CloseupModel)
    rasterize_mode: Literal["classic", "antialiased"] = "antialiased"
    """Antialiased keeps energy at every distance; classic grows needles up close."""
    pixel_variance: float = 0.2
    """How far a pixel of the capture blurs, in pixels squared: lens, sensor and resizing together. Where
    ``kernel_search`` is on, this is only the value training starts with. gsplat's own is 0.3, an ideal area 0.08."""
    eps2d: float = 0.1
    """The part of it, in squared pixels as rendered, that each Gaussian is widened by, as gsplat does; what is left
    blurs the composited image, as a lens does. 1 widens the Gaussians by all of it."""
    supersample: int = 2
    """Render this many times larger per axis, average, and compare: the pixel as an area and not a point."""
    scale_floor: float = 0.3
    """Smallest allowed size of a Gaussian's two longer axes, in widths of the finest pixel that sees it; 0 is off."""
    filter_3d: float = 0.0
    """Variance of Mip-Splatting's 3D filter in squared widths of the finest pixel (Mip-Splatting: 0.2); 0 is off."""
    exposure: Literal["auto", "on", "off"] = "auto"
    """Learn an exposure and white balance of each photograph; auto: where the photographs differ in them."""
    max_gaussians: int = 0
    """Most Gaussians that densification may reach in the base phase; 0 means no limit. Rounds: their own growth."""


class CloseupModel(SplatfactoModel):
    """A `SplatfactoModel`, so that the viewer, the exporter and depth compositing keep working."""

    config: CloseupModelConfig
    exposure: PhotographExposure
    screen_kernel: Tensor
    footprint: Tensor
    gaussians_at_start: Tensor

    def populate_modules(self) -> None:
        points = self.seed_points
        if points is not None:
            # Without colours the parent takes its branch that calls no .cuda(); the colours are set below.
            self.seed_points = (points[0], points[1][:0])
        with lazy_lpips():
            super().populate_modules()
        if points is not None and not self.config.random_init and len(points[1]):
            self.gauss_params["features_dc"].data.copy_(self._start_colors(points[1]))
        self.ssim, self.psnr = FusedSsim(), PlainPsnr()
        self.full_resolution = False  # rounds train at full resolution, whatever the base phase's schedule says
        self.base_steps = 0  # what "a share of the base phase" is a share of; the pipeline sets it
        self.register_buffer("screen_kernel", torch.zeros(KERNEL_SIZE))
        self.register_buffer("native_kernels", torch.zeros(0, KERNEL_SIZE))
        self.kernel = PixelKernel.of(self.config.pixel_variance, 1, self.config.eps2d)
        self.register_buffer("footprint", torch.zeros(0))  # [N] once measured: what the 3D filter was trained with
        self.footprint_views: list[View] = []
        self.register_buffer("gaussians_at_start", torch.tensor(0))
        """Number of Gaussians when the round under way began to grow them."""
        self.exposure = PhotographExposure(self.num_train_data)
        self.strategy = self.base_strategy()
        self.strategy_state = self.strategy.initialize_state(scene_scale=1.0)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    @torch.no_grad()
    def start_from(self, xyz: Float[Tensor, "N 3"], rgb: UInt8[Tensor, "N 3"]) -> None:
        """Replace the initial Gaussians by ones at ``xyz``, each as large as its distance to its three neighbours."""
        distances, _ = self.k_nearest_sklearn(xyz, 3)
        size = torch.from_numpy(distances).mean(-1, keepdim=True).clamp_min(1e-7).log().repeat(1, 3)
        start = {
            "means": xyz,
            "scales": size,
            "quats": random_quat_tensor(len(xyz)),
            "features_dc": self._start_colors(rgb),
            "features_rest": xyz.new_zeros(len(xyz), *self.features_rest.shape[1:]),
            "opacities": torch.logit(xyz.new_full((len(xyz), 1), 0.1)),
        }
        for name, values in start.items():
            self.gauss_params[name].data = values.to(self.device)

    def _start_colors(self, rgb: UInt8[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        colors = rgb.float() / 255
        return RGB2SH(colors) if self.config.sh_degree > 0 else torch.logit(colors, eps=1e-10)

    def base_strategy(self) -> CloseupStrategy:
        """The densification of the base phase: the parent's settings, with a ceiling."""
        settings = dict(vars(self.strategy))
        settings.update(verbose=False, max_gaussians=self.config.max_gaussians)
        if self.config.reset_alpha_every <= 0:
            settings["reset_every"] = NEVER
        return CloseupStrategy(**settings)

    # ---- the pixel kernel: belongs to the capture, is saved with the run, is used by every command

    @property
    def kernel(self) -> PixelKernel:
        """The pixel that this model was trained with."""
        return PixelKernel.from_tensor(self.screen_kernel)

    @kernel.setter
    def kernel(self, kernel: PixelKernel) -> None:
        self.screen_kernel.copy_(kernel.to_tensor())

    def kernel_of(self, stream: int) -> PixelKernel:
        """The pixel of a stream: 0 the photographs, t the native views of round t.

        Where round t has none it is the last earlier round's, whose pixels are native, too; else the photographs'.
        """
        known = [row for row in self.native_kernels[: max(stream, 0)] if bool(row.any())]
        return PixelKernel.from_tensor(known[-1]) if known else self.kernel

    def set_native_kernel(self, stream: int, kernel: PixelKernel) -> None:
        """Set the pixel of round ``stream``'s native views."""
        rows = max(stream, len(self.native_kernels))
        grown = self.native_kernels.new_zeros(rows, KERNEL_SIZE)
        grown[: len(self.native_kernels)] = self.native_kernels
        grown[stream - 1] = kernel.to_tensor()
        self.native_kernels = grown

    def start_supersampling(self) -> None:
        """From now on the pixel is an area."""
        self.kernel = PixelKernel.of(self.kernel.variance, self.config.supersample, self.config.eps2d)

    # ---- loading

    def load_state_dict(self, dict: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        """Load a closeup-gs or splatfacto checkpoint.

        Parameters are resized in place. The parent puts new ones in their stead, which orphans the optimizers:
        its resumed training changes nothing (nerfstudio issue 3554).
        """
        self.step = 30000
        count = dict["gauss_params.means"].shape[0]
        for parameter in self.gauss_params.values():
            parameter.data = parameter.data.new_zeros((count, *parameter.shape[1:]))
        for name in ("footprint", "native_kernels"):  # of sizes that training decides
            if name in dict:
                setattr(self, name, self.means.new_zeros(dict[name].shape))
        for name in ("footprint", "native_kernels", "gaussians_at_start"):
            dict.setdefault(name, getattr(self, name))
        return nn.Module.load_state_dict(self, dict, **kwargs)

    # ---- training hooks

    def _get_downscale_factor(self) -> int:
        return 1 if self.full_resolution else super()._get_downscale_factor()

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        groups = super().get_param_groups()
        groups["exposure"] = list(self.exposure.parameters())
        return groups

    def step_cb(self, optimizers: Any, step: int) -> None:
        super().step_cb(optimizers, step)
        if self.training and step % FOOTPRINT_EVERY == 0:
            self.measure_footprint()

    def step_post_backward(self, step: int) -> None:
        before = self.num_points
        super().step_post_backward(step)
        if self.num_points != before:
            self.measure_footprint()
        if self.config.scale_floor > 0 and len(self.footprint) == self.num_points:
            self._hold_scale_floor()

    @torch.no_grad()
    def measure_footprint(self) -> None:
        """Measure the finest pixel that sees each Gaussian, where an option needs it."""
        if (self.config.filter_3d > 0 or self.config.scale_floor > 0) and self.footprint_views:
            self.footprint = finest_footprint(self.means.detach(), self.footprint_views)

    @torch.no_grad()
    def _hold_scale_floor(self) -> None:
        floor = torch.log((self.config.scale_floor * self.footprint).clamp_min(1e-12))[:, None]
        scales = self.gauss_params["scales"].data
        x, y, z = scales.unbind(-1)
        x_shortest = (x <= y) & (x <= z)
        y_shortest = ~x_shortest & (y <= z)
        shortest = torch.stack([x_shortest, y_shortest, ~(x_shortest | y_shortest)], -1)
        # The normal of a flat disc may stay thin. (argmin says the same and takes 2 ms of each step.)
        scales.copy_(torch.where(shortest, scales, torch.maximum(scales, floor)))

    # ---- rendering

    @property
    def scales(self) -> Tensor:
        """Log scales [N, 3]. Outside training with the 3D filter in, so that ns-export writes what is rendered."""
        scales = self.gauss_params["scales"]
        return scales if self.training or not self._filters else torch.log(self.effective_gaussians()["scales"])

    @property
    def opacities(self) -> Tensor:
        """Logit opacities [N, 1]. Outside training with the 3D filter in, as `scales`."""
        opacities = self.gauss_params["opacities"]
        if self.training or not self._filters:
            return opacities
        return torch.logit(self.effective_gaussians()["opacities"], eps=1e-7)[:, None]

    @property
    def _filters(self) -> bool:
        return self.config.filter_3d > 0 and len(self.footprint) == self.num_points

    def effective_gaussians(self) -> dict[str, Tensor]:
        """What is rasterised: linear scales [N, 3], opacities [N] in (0, 1), with the 3D filter where it is on."""
        scales, opacities = self.gauss_params["scales"], self.gauss_params["opacities"]
        if self.config.filter_3d > 0 and len(self.footprint) != self.num_points:
            self.measure_footprint()
        if self._filters:
            scales, opacities = self._smooth(scales, opacities)
            return {"scales": scales, "opacities": opacities}
        return {"scales": torch.exp(scales), "opacities": torch.sigmoid(opacities[:, 0])}

    def _smooth(self, log_scales: Tensor, logit_opacities: Tensor) -> tuple[Tensor, Tensor]:
        return smooth_3d(log_scales, logit_opacities, self.footprint, self.config.filter_3d)

    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Any]:
        """Render ``camera`` (one camera) for ns-render and the viewer; what is no pinhole by the faces of a cube."""
        camera = camera.reshape((1,)).to(self.device)
        self.set_crop(obb_box)
        if camera.camera_type.item() != CameraType.PERSPECTIVE.value:
            return render_by_cube(self.get_outputs, camera)
        return self.get_outputs(camera)

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Float[Tensor, "H W 4"]:
        """``outputs`` without their background, for ns-render: colour (not premultiplied) and opacity."""
        alpha = outputs["accumulation"]
        color = (outputs[output_name] - (1 - alpha) * outputs["background"]) / alpha.clamp_min(1e-10)
        return torch.cat([color.clamp(0, 1), alpha], dim=-1)

    def get_outputs(self, camera: Cameras) -> dict[str, Any]:
        """Render ``camera`` (one camera, taken for a pinhole). Same keys as the parent's."""
        c2w = self.camera_optimizer.apply_to_camera(camera) if self.training else camera.camera_to_worlds
        view = view_of(camera.reshape((1,)) if camera.shape == () else camera, 0)
        factor = self._get_downscale_factor()
        if factor > 1:
            view = view.scaled_to(view.width // factor, view.height // factor)
        background = self._get_background_color().to(self.device)
        inside = None
        if self.crop_box is not None and not self.training:
            inside = self.crop_box.within(self.means).reshape(-1)
            if not inside.any():
                return self.get_empty_outputs(view.width, view.height, background)  # type: ignore[return-value]
        with_depth = self._wants_depth()
        viewmat = _viewmat_of(c2w[:1])
        kernel = self.kernel_of((camera.metadata or {}).get("stream", 0))
        render, alpha = self._rasterize(view, viewmat, "RGB+ED" if with_depth else "RGB", inside, kernel)
        rgb = self._as_photographed(render[..., :3] + (1 - alpha) * background, camera).clamp(0.0, 1.0)
        depth = None
        if with_depth:
            depth = render[..., 3:4]
            depth = torch.where(alpha > 0, depth, depth.detach().max())
        if not self.training:
            background = background.expand(view.height, view.width, 3)
        return {"rgb": rgb, "depth": depth, "accumulation": alpha, "background": background}

    def _as_photographed(self, rgb: Float[Tensor, "H W 3"], camera: Cameras) -> Float[Tensor, "H W 3"]:
        """The render as this photograph's exposure recorded it; generated views have no ``cam_idx`` and no exposure.

        Before it is clipped: a sensor clips what its exposure makes of the light.
        """
        index = (camera.metadata or {}).get("cam_idx")
        if not self.training or index is None:
            return rgb
        if self.config.use_bilateral_grid:
            rgb = self._apply_bilateral_grid(rgb[None].clamp(0.0, 1.0), index, *rgb.shape[:2])[0]
        return self.exposure(rgb, index)

    def _wants_depth(self) -> bool:
        """Whether the next render needs depth."""
        return self.config.output_depth_during_training or not self.training

    def _rasterize(
        self,
        view: View,
        viewmat: Float[Tensor, "1 4 4"],
        mode: RenderMode,
        inside: Tensor | None,
        kernel: PixelKernel,
    ) -> tuple[Float[Tensor, "H W C"], Float[Tensor, "H W 1"]]:
        width, height = view.width * kernel.supersample, view.height * kernel.supersample
        K = view.scaled_to(width, height).K.to(self.device)
        colors = torch.cat((self.features_dc[:, None, :], self.features_rest), dim=1)
        degree: int | None = min(self.step // self.config.sh_degree_interval, self.config.sh_degree)
        if self.config.sh_degree == 0:
            colors, degree = torch.sigmoid(colors).squeeze(1), None
        gaussians = {"means": self.means, "quats": self.quats, "colors": colors, **self.effective_gaussians()}
        if inside is not None:
            gaussians = {name: tensor[inside] for name, tensor in gaussians.items()}
        camera = {"viewmats": viewmat, "Ks": K[None], "width": width, "height": height, "eps2d": kernel.eps2d}
        render, alpha, self.info = self._draw({**gaussians, **camera, "sh_degree": degree, "render_mode": mode})
        if self.training and torch.is_grad_enabled():
            self.strategy.step_pre_backward(
                self.gauss_params, self.optimizers, self.strategy_state, self.step, self.info
            )
        # The adjoint of squeeze is a view; that of an index fills a whole image with zeros first.
        return kernel.gather(render.squeeze(0), alpha.squeeze(0))

    def _draw(self, scene: dict[str, Any]) -> tuple[Float[Tensor, "1 sH sW C"], Float[Tensor, "1 sH sW 1"], dict]:
        """Rasterise ``scene``, the arguments that all rasterisers share: channels, opacity, information."""
        absgrad = self.training and self.strategy.absgrad and self.strategy.gathers_gradients(self.step)
        return rasterization(**scene, absgrad=absgrad, rasterize_mode=self.config.rasterize_mode)

    def unexposed(self, photograph: Float[Tensor, "H W 3"], index: int) -> Float[Tensor, "H W 3"]:
        """Training photograph ``index`` (or a crop of it) brought to the model's own exposure."""
        return self.exposure.undo(photograph, index)

    def evaluation_background(self) -> Float[Tensor, "3"]:
        """What `render_view` shows where there is no Gaussian; training draws its own at random."""
        was_training, self.training = self.training, False
        try:
            return self._get_background_color()
        finally:
            self.training = was_training

    @torch.no_grad()
    def render_view(self, view: View, stream: int = 0) -> Rendered:
        """Render a view for planning, refinement or a report: no gradients, evaluation background.

        ``stream``: with the pixel of photographs (0) or of round t's native views (t).
        """
        was_training = self.training
        self.eval()
        camera = cameras_of(view)
        camera.metadata = {"stream": stream}
        outputs = self.get_outputs_for_camera(camera)
        self.train(was_training)
        alpha = outputs["accumulation"][..., 0]
        depth = torch.where(alpha > 0, outputs["depth"][..., 0], 0.0)
        return Rendered(color=outputs["rgb"], depth=depth, alpha=alpha)

    # ---- losses and metrics

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        if "injected" in batch:
            losses = injected_view_loss(outputs["rgb"], batch["injected"])
        else:
            losses = super().get_loss_dict(outputs, batch, metrics_dict)
            if self.exposure.on and self.training:
                losses["exposure"] = self.exposure.prior(int(batch["image_idx"]))
        return losses

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """The parent's metrics; one whose weights are missing is absent, never zero."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        return {name: value for name, value in metrics.items() if value == value}, images


def _viewmat_of(c2w: Float[Tensor, "1 3 4"]) -> Float[Tensor, "1 4 4"]:
    """World-to-camera in OpenCV axes of an OpenGL camera; differentiable, for the camera optimizer."""
    rotation = flipped(c2w[0, :, :3]).T
    upper = torch.cat([rotation, -rotation @ c2w[0, :, 3:]], dim=1)
    return torch.cat([upper, upper.new_tensor([[0.0, 0.0, 0.0, 1.0]])])[None]
