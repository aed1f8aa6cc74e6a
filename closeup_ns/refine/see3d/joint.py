"""One joint pass over views of one size, tile by tile: what the network is given, and what becomes of its answer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.refine.imaging.color import match_wavelet
from closeup_ns.refine.imaging.filters import opened
from closeup_ns.refine.imaging.sizes import VAE_SCALE_FACTOR, Tile, blend, cut, resized, tiles
from closeup_ns.refine.options import See3DRefinerConfig
from closeup_ns.refine.protocol import GuideImage
from closeup_ns.refine.see3d.references import reference_crops, surface_points
from closeup_ns.refine.see3d.stage import Stage
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View

LATENT_CHANNELS = 4
JointModel = Callable[..., Float[Tensor, "N 3 H W"]]
"""`closeup_ns.refine.see3d.pipeline.See3DPipeline`, or what is called as it is."""


@dataclass(frozen=True, eq=False)
class Target:
    """A view that is to be refined."""

    name: str
    view: View
    render: Rendered
    image: Float[Tensor, "3 H W"]
    """The render, finite and in [0, 1], in float32."""
    known: Bool[Tensor, "H W"]
    """What photographs back, opened."""

    @staticmethod
    def of(name: str, view: View, render: Rendered, dense: Bool[Tensor, "H W"]) -> Target:
        """From what a request holds."""
        image = torch.nan_to_num(render.color.float()).clamp(0, 1).permute(2, 0, 1).contiguous()
        return Target(name, view, render, image, opened(dense.to(image.device)))

    def enlarged(self, side: int) -> Target:
        """The same view with at least ``side`` pixels along both sides; itself where it has them."""
        shorter = min(self.view.width, self.view.height)
        if shorter >= side:
            return self
        height, width = (max(side, round(length * side / shorter)) for length in (self.view.height, self.view.width))
        depth, alpha, known = (_nearest(x, height, width) for x in (self.render.depth, self.render.alpha, self.known))
        image = resized(self.image, height, width)
        render = Rendered(image.permute(1, 2, 0), depth, alpha)
        return Target(self.name, self.view.scaled_to(width, height), render, image, known)


def _nearest(plane: Tensor, height: int, width: int) -> Tensor:
    """A depth map, opacity or mask at another size: without values that no pixel has."""
    return F.interpolate(plane[None, None].float(), (height, width), mode="nearest-exact")[0, 0].to(plane.dtype)


def refine_jointly(
    model: JointModel,
    targets: Sequence[Target],
    guides: Sequence[GuideImage],
    stage: Stage,
    config: See3DRefinerConfig,
    seed: int,
    progress: Callable[[int, int], None],
) -> tuple[list[Float[Tensor, "3 H W"] | None], int]:
    """Refine ``targets``, all of one size, with ``guides`` as references.

    The network is shown squares of the size that it was trained at: smaller views are enlarged, what is longer than a
    square is tiled, and each view comes back at its own size. Tile k of all targets is one call of the model. Tiles of
    a view start from one field of noise, so that they agree where they overlap; the noise of each picture comes from
    its name, so that it does not depend on the company.

    Args:
        progress: called with the denoising steps done and expected.

    Returns:
        The refined views in [0, 1], None where the network returned NaN or infinity; and the number of tiles of each.
    """
    size = targets[0].image.shape[1:]
    large = [target.enlarged(stage.side) for target in targets]
    height, width = large[0].image.shape[1:]
    windows = tiles(height, width, stage.side, stage.overlap)
    # The SR stage's condition is a whole picture; its mask says which of it photographs back (dossier, 2.8).
    unknown = config.unknown if stage.mixes_noise else "render"
    names = [guide.name for guide in guides] + [target.name for target in large]
    pieces: list[list[Tensor]] = [[] for _ in large]
    starts = [_start_noise(target.name, windows, seed) for target in large]
    for index, tile in enumerate(windows):
        points = torch.cat([surface_points(target.view, target.render, tile) for target in large])
        shown = [mask_picture(cut(target.image, tile), cut(target.known, tile), unknown) for target in large]
        images = model(
            reference_crops(guides, points, tile.height, tile.width),
            torch.stack([picture for picture, _ in shown]),
            torch.stack([mask for _, mask in shown]),
            latents=torch.stack([_of_tile(start, tile) for start in starts]).to(points.device),
            generators=[seeded(seed, name, f"tile {index}") for name in names],
            steps=stage.steps if config.steps is None else config.steps,
            progress=lambda done, total, before=index: progress(before * total + done, len(windows) * total),
        )
        for piece, target, image in zip(pieces, large, images.float(), strict=True):
            piece.append(image.to(target.image.device))
    whole = [_joined(piece, target, windows, stage.overlap) for piece, target in zip(pieces, large, strict=True)]
    return [None if image is None else resized(image, *size) for image in whole], len(windows)


def _joined(
    pieces: Sequence[Float[Tensor, "3 h w"]], target: Target, windows: Sequence[Tile], feather: int
) -> Float[Tensor, "3 H W"] | None:
    """The view from its tiles, in the render's colours; None where a pixel is not finite."""
    if not all(bool(piece.isfinite().all()) for piece in pieces):
        return None
    matched = _matched(pieces, target, windows)
    return blend(windows, matched, *target.image.shape[1:], feather=feather).clamp(0, 1)


def _matched(
    pieces: Sequence[Float[Tensor, "3 h w"]], target: Target, windows: Sequence[Tile]
) -> list[Float[Tensor, "3 h w"]]:
    """The tiles with the render's low frequencies where it is known, and elsewhere with each other's.

    Casts that differ from tile to tile would leave a seam, and a tile in which nothing is known has nothing to match
    with. So the tiles are matched one after the other, always the one that knows most; what was unknown in it is then
    known to its neighbours.
    """
    canvas, settled = target.image.clone(), target.known.clone()
    matched: dict[int, Tensor] = {}
    while len(matched) < len(windows):
        waiting = [index for index in range(len(windows)) if index not in matched]
        best = max(waiting, key=lambda index: float(_inside(settled[None], windows[index])[0].float().mean()))
        tile = windows[best]
        matched[best] = match_wavelet(pieces[best], cut(canvas, tile), trusted=cut(settled, tile))
        there, known = _inside(canvas, tile), _inside(settled[None], tile)
        there.copy_(torch.where(known, there, matched[best][:, : there.shape[1], : there.shape[2]].clamp(0, 1)))
        known.fill_(True)
    return [matched[index] for index in range(len(windows))]


def _inside(image: Tensor, tile: Tile) -> Tensor:
    """The part of the picture [C, H, W] that the tile covers, as a view that can be written to."""
    return image[:, tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]


def _start_noise(name: str, windows: Sequence[Tile], seed: int) -> Float[Tensor, "4 h w"]:
    """Normal noise for every latent pixel that the tiles of a view reach."""
    rows = max(tile.top + tile.height for tile in windows)
    columns = max(tile.left + tile.width for tile in windows)
    shape = (LATENT_CHANNELS, math.ceil(rows / VAE_SCALE_FACTOR), math.ceil(columns / VAE_SCALE_FACTOR))
    return torch.randn(shape, generator=seeded(seed, name, "start"))


def _of_tile(noise: Float[Tensor, "4 h w"], tile: Tile) -> Float[Tensor, "4 y x"]:
    """Tiles start at whole latent pixels (`closeup_ns.refine.imaging.sizes.tiles`)."""
    top, left = tile.top // VAE_SCALE_FACTOR, tile.left // VAE_SCALE_FACTOR
    return noise[:, top : top + tile.height // VAE_SCALE_FACTOR, left : left + tile.width // VAE_SCALE_FACTOR]


def known_latent_pixels(known: Bool[Tensor, "H W"], size: int = VAE_SCALE_FACTOR) -> Bool[Tensor, "H W"]:
    """Pixels whose whole block of ``size`` x ``size`` is known; the sides are multiples of ``size``.

    A latent pixel holds what its block shows together; called known for one pixel of it, it would pass what the others
    show for known as well. Hence the smallest value in each block before the mask is shrunk (papers.md 6.3, 16).
    """
    whole = ~(F.max_pool2d((~known).float()[None, None], size)[0, 0] > 0.5)
    return whole.repeat_interleave(size, 0).repeat_interleave(size, 1)


def mask_picture(
    render: Float[Tensor, "3 H W"], known: Bool[Tensor, "H W"], unknown: Literal["black", "render"]
) -> tuple[Float[Tensor, "3 H W"], Bool[Tensor, "H W"]]:
    """What the generator is shown of a picture, and what of it is called known, constant over each latent pixel.

    ``known`` is opened first: specks and threads of one or two pixels are chance agreements.

    Args:
        render: the picture, in [0, 1]; sides multiples of `VAE_SCALE_FACTOR`.
        known: the dense mask, of the same size; all known and nothing known are both legal.
        unknown: what is shown where nothing is known: black, as in See3D's training, or the render as it is. Black
            follows the pixels, not the latent ones: what is known of a mixed one is still shown.
    """
    clean = opened(known)
    shown = render if unknown == "render" else torch.where(clean, render, torch.zeros_like(render))
    return shown, known_latent_pixels(clean)


def seeded(seed: int, *names: str) -> torch.Generator:
    """A generator for what is called ``names``: a view that is refined once more gets the same noise.

    It is on the CPU: noise drawn there is the same for every device.
    """
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode("utf8")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
