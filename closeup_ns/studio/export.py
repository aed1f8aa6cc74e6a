"""A finished model for other people's viewers, which draw Gaussians with a pixel of their own (issue 14.5).

closeup-gs draws with the pixel of the capture's camera (`closeup_ns.model.kernel`). A viewer adds 0.3 px^2 to each
projected Gaussian, with its opacity scaled so that its light stays the same (antialiased: gsplat, Brush, Spark) or not
(classic). A copy of the model is fine-tuned, with that pixel, to show what the photographs show, and in close-ups what
the run shows. PlayCanvas and SuperSplat count in half pixels: they add 0.075 px^2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from nerfstudio.models.splatfacto import RGB2SH
from torch import Tensor

from closeup_ns.atomic import atomic_path
from closeup_ns.model.model import CloseupModel
from closeup_ns.progress import track
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.rendering.ssim import ssim
from closeup_ns.rounds.run import EvalPhotograph, Run
from closeup_ns.rounds.schedule import ScheduleConfig
from closeup_ns.rounds.store.native import NativeStore
from closeup_ns.rounds.views import NativeView
from closeup_ns.views.psnr import mean_of_numbers, psnr
from closeup_ns.views.view import View, aim_at, move_closer

Viewer = Literal["antialiased", "classic", "supersplat"]
VARIANCE: dict[Viewer, float] = {"antialiased": 0.3, "classic": 0.3, "supersplat": 0.075}
"""What viewers add to each projected Gaussian, px^2."""
STEPS = 400
"""Of the fine-tuning; on the demo's quick run more bring less than 0.05 dB."""
FAR_SHARE = 0.6
"""Of those steps, on the photographs' views; the others on close-ups of the run's scales."""
RATES = {"scales": 0.01, "opacities": 0.05, "features_dc": 0.006, "features_rest": 0.0012}
"""Adam's learning rates, decaying to a tenth. Where Gaussians are, and how they lie, stays: freed, true close-ups lost
1 dB at 3x and 0.3 at 9x (demo)."""
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
        constant = model.features_dc if model.config.sh_degree > 0 else RGB2SH(model.features_dc.sigmoid())
        parts = (model.means, model.quats, model.scales, model.opacities, constant, model.features_rest)
        return Splats(*(part.detach().clone() for part in parts))

    def draw(self, view: View, background: Float[Tensor, "3"], viewer: Viewer) -> Float[Tensor, "H W 3"]:
        """What such a viewer shows from ``view``, differentiably."""
        colors = torch.cat([self.features_dc[:, None], self.features_rest], dim=1)
        image, alpha, _ = rasterization(
            self.means, self.quats, self.scales.exp(), self.opacities[:, 0].sigmoid(), colors, view.viewmat[None],
            view.K[None], view.width, view.height, eps2d=VARIANCE[viewer],
            rasterize_mode="classic" if viewer == "classic" else "antialiased",
            sh_degree=round(colors.shape[1] ** 0.5) - 1,
        )  # fmt: skip
        return (image[0] + (1 - alpha[0]) * background).clamp(0, 1)


def pictures_to_learn(
    run: Run, store: NativeStore, target: Float[Tensor, "3"]
) -> list[list[Callable[[], EvalPhotograph]]]:
    """What makes each picture: of the photographs, then, round by round, of its native views and of close-ups.

    All are at the model's own exposure. Close-ups are renders of the photographs' cameras, so many times nearer to
    ``target`` (world coordinates): a copy that learns from where photographs were taken alone draws those worse.
    """
    data, model = run.photographs, run.model
    names, views = data.photograph_names(), data.train_views()

    def photograph(index: int) -> EvalPhotograph:
        return views[index], model.unexposed(data.photograph(index), index), data.counted(index)

    def native(found: NativeView) -> EvalPhotograph:
        image, counted = data.native_image(found)
        return data.native_view(found), model.unexposed(image, found.photograph), counted

    groups: list[list[Callable[[], EvalPhotograph]]] = [[partial(photograph, index) for index in range(len(names))]]
    for number, close_ups in enumerate(renders_to_learn(model, views, target, run.settings.schedule)[1:], 1):
        groups.append([partial(native, found) for found in store.load(number, names)])
        groups.append(close_ups)
    return [group for group in groups if group]


def renders_to_learn(
    model: CloseupModel, views: Sequence[View], target: Float[Tensor, "3"], schedule: ScheduleConfig
) -> list[list[Callable[[], EvalPhotograph]]]:
    """What makes each picture of the model alone: renders of ``views``, then, round by round, of close-ups."""

    def render(view: View, zoom: float | None) -> EvalPhotograph:
        view = view if zoom is None else aim_at(move_closer(view, target, zoom), target)
        return view, model.render_view(view).color.clamp(0, 1), None

    zooms = [None, *(schedule.zoom**number for number in range(1, schedule.rounds + 1))]
    return [[partial(render, view, zoom) for view in views] for zoom in zooms]


def fit(
    splats: Splats,
    background: Float[Tensor, "3"],
    groups: Sequence[Sequence[Callable[[], EvalPhotograph]]],
    viewer: Viewer,
    generator: torch.Generator,
    steps: int = STEPS,
) -> Splats:
    """Fine-tune opacities, sizes and colours so that ``viewer`` shows what the pictures show.

    Args:
        groups: `pictures_to_learn`; the first is drawn ``FAR_SHARE`` of the time, the others alike.
        generator: decides which picture comes next.
    """
    learnt = {name: getattr(splats, name).clone().requires_grad_() for name in RATES}
    optimizer = torch.optim.Adam([{"params": [learnt[name]], "lr": rate} for name, rate in RATES.items()], eps=1e-15)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / max(steps, 1)))
    fitted = replace(splats, **learnt)
    for _ in track(range(steps), f"fitting to {viewer} viewers"):
        far = len(groups) == 1 or float(torch.rand((), generator=generator)) < FAR_SHARE
        group = groups[0 if far else int(torch.randint(1, len(groups), (), generator=generator))]
        view, wanted, counted = group[int(torch.randint(len(group), (), generator=generator))]()
        image = fitted.draw(view.to(splats.means.device, torch.float32), background, viewer)
        if counted is not None:
            image, wanted = image * counted[..., None], wanted * counted[..., None]
        loss = 0.8 * (image - wanted).abs().mean() + 0.2 * (1 - ssim(image, wanted))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return replace(splats, **{name: value.detach() for name, value in learnt.items()})


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
    comments = ["Generated by closeup-ns", "Vertical Axis: z", *["SplatRenderMode: mip"] * (viewer != "classic")]
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {comment}" for comment in comments)]
    lines += [f"element vertex {len(table)}", *(f"property float {name}" for name in columns), "end_header\n"]
    with atomic_path(path) as temporary:
        temporary.write_bytes("\n".join(lines).encode() + table.numpy().astype("<f4").tobytes())
    return len(table)


def _named(values: Float[Tensor, "N C"], *names: str) -> dict[str, Tensor]:
    return dict(zip(names, values.unbind(1), strict=True))
