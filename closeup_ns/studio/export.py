"""A finished model for other people's viewers, which draw Gaussians with a pixel of their own (issue 14.5).

closeup-gs draws with the pixel of the capture's camera (`closeup_ns.model.kernel`). A viewer adds 0.3 px^2 to each
projected Gaussian, with its opacity scaled so that its light stays the same (antialiased: gsplat, Brush, Spark) or not
(classic). A copy of the model is fine-tuned, with that pixel, to show what the run shows. PlayCanvas and SuperSplat
count in half pixels: they add 0.075 px^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.atomic import atomic_path
from closeup_ns.model.model import CloseupModel
from closeup_ns.progress import track
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.rendering.ssim import ssim
from closeup_ns.views.psnr import mean_of_numbers, psnr
from closeup_ns.views.view import View, aim_at, move_closer

Viewer = Literal["antialiased", "classic"]
VIEWER_VARIANCE = 0.3
"""What viewers add to each projected Gaussian, px^2: gsplat's and the original rasteriser's."""
STEPS = 400
"""Of the fine-tuning; on the demo's quick run more bring less than 0.05 dB."""
FAR_SHARE = 0.6
"""Of those steps, on the photographs' views; the others on close-ups of the run's scales."""
RATES = {"opacities": 0.02, "scales": 0.004, "features_dc": 0.0025, "features_rest": 0.0005}
"""Adam's learning rates, decaying to a tenth. Where Gaussians are, and how they lie, stays."""
INVISIBLE = -5.54
"""Logit of the opacity, 1/255, below which no viewer draws a Gaussian: those are not written."""


@dataclass(frozen=True, eq=False)
class Splats:
    """What a splat file holds, by the names of splatfacto's parameters: log scales, logit opacities, SH colours."""

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 3"]
    opacities: Float[Tensor, "N 1"]
    features_dc: Float[Tensor, "N 3"]
    features_rest: Float[Tensor, "N K 3"]

    @staticmethod
    def of(model: CloseupModel) -> Splats:
        """A copy of what ``model`` draws outside training."""
        model.eval()
        parts = (
            model.means, model.quats, model.scales, model.opacities, model.features_dc, model.features_rest,
        )  # fmt: skip
        return Splats(*(part.detach().clone() for part in parts))

    def draw(self, view: View, background: Float[Tensor, "3"], viewer: Viewer) -> Float[Tensor, "H W 3"]:
        """What such a viewer shows from ``view``, differentiably."""
        colors = torch.cat([self.features_dc[:, None], self.features_rest], dim=1)
        image, _, _ = rasterization(
            self.means, self.quats, self.scales.exp(), self.opacities[:, 0].sigmoid(), colors, view.viewmat[None],
            view.K[None], view.width, view.height, eps2d=VIEWER_VARIANCE, rasterize_mode=viewer,
            sh_degree=round(colors.shape[1] ** 0.5) - 1, backgrounds=background[None],
        )  # fmt: skip
        return image[0].clamp(0, 1)


def views_to_learn(views: Sequence[View], targets: Sequence[Tensor], zooms: Sequence[float]) -> list[list[View]]:
    """The photographs' views, and for each zoom the same cameras so many times nearer to each target.

    Args:
        targets: world coordinates [3].
    """
    closer = [
        [aim_at(move_closer(view, target, zoom), target) for target in targets for view in views] for zoom in zooms
    ]
    return [list(views), *closer]


def fit(
    splats: Splats,
    model: CloseupModel,
    groups: Sequence[Sequence[View]],
    viewer: Viewer,
    generator: torch.Generator,
    steps: int = STEPS,
) -> Splats:
    """Fine-tune opacities, sizes and colours so that ``viewer`` shows what ``model`` shows.

    Args:
        groups: `views_to_learn`; the first is drawn ``FAR_SHARE`` of the time. Each is shown with the pixel of its
            scale: of the photographs, and of each round's native views.
        generator: decides which view comes next.
    """
    device, background = splats.means.device, model.evaluation_background().to(splats.means.device)
    learnt = {name: getattr(splats, name).clone().requires_grad_() for name in RATES}
    fitted = Splats(splats.means, splats.quats, **learnt)
    optimizer = torch.optim.Adam([{"params": [learnt[name]], "lr": rate} for name, rate in RATES.items()], eps=1e-15)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / max(steps, 1)))
    for _ in track(range(steps), f"fitting to {viewer} viewers"):
        far = len(groups) == 1 or float(torch.rand((), generator=generator)) < FAR_SHARE
        scale = 0 if far else int(torch.randint(1, len(groups), (), generator=generator))
        group = groups[scale]
        view = group[int(torch.randint(len(group), (), generator=generator))].to(device, torch.float32)
        wanted = model.render_view(view, stream=scale).color.clamp(0, 1)  # photographs ring where they were shrunk
        image = fitted.draw(view, background, viewer)
        loss = 0.8 * (image - wanted).abs().mean() + 0.2 * (1 - ssim(image, wanted))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Splats(splats.means, splats.quats, **{name: value.detach() for name, value in learnt.items()})


@torch.no_grad()
def likeness(
    splats: Splats, background: Tensor, viewer: Viewer, pairs: Sequence[tuple[View, Tensor, Tensor | None]]
) -> float | None:
    """Mean PSNR in dB of what ``viewer`` shows against pictures [H, W, 3], on the pixels that count; None of none."""
    if not pairs:
        return None
    return mean_of_numbers(
        psnr(splats.draw(view.to(splats.means.device, torch.float32), background, viewer), image, counted)
        for view, image, counted in pairs
    )


def write_ply(splats: Splats, path: Path, viewer: Viewer) -> int:
    """Write the ``.ply`` that splat viewers read, in the model's frame. Returns how many Gaussians it holds.

    Antialiased viewers know by the comment ``SplatRenderMode: mip``. What no viewer draws is left out, and what is not
    finite.

    Raises:
        DiskError: the disk refuses the file.
    """
    rest = splats.features_rest.transpose(1, 2).flatten(1)  # channel by channel, as the original's files
    columns = {
        **_named(splats.means, "x", "y", "z"),
        **_named(torch.zeros_like(splats.means), "nx", "ny", "nz"),
        **_named(splats.features_dc, *(f"f_dc_{i}" for i in range(3))),
        **_named(rest, *(f"f_rest_{i}" for i in range(rest.shape[1]))),
        **_named(splats.opacities, "opacity"),
        **_named(splats.scales, *(f"scale_{i}" for i in range(3))),
        **_named(splats.quats, *(f"rot_{i}" for i in range(4))),
    }
    table = torch.stack(list(columns.values()), 1).float().cpu()
    table = table[table.isfinite().all(1) & (splats.opacities[:, 0].cpu() > INVISIBLE)]
    comments = ["Generated by closeup-ns", "Vertical Axis: z", *["SplatRenderMode: mip"] * (viewer == "antialiased")]
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {comment}" for comment in comments)]
    lines += [f"element vertex {len(table)}", *(f"property float {name}" for name in columns), "end_header\n"]
    with atomic_path(path) as temporary:
        temporary.write_bytes("\n".join(lines).encode() + table.numpy().astype("<f4").tobytes())
    return len(table)


def _named(values: Float[Tensor, "N C"], *names: str) -> dict[str, Tensor]:
    return dict(zip(names, values.unbind(1), strict=True))
