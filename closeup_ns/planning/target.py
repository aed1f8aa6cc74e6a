"""The centre of the object of interest (paper, section 4.1): given, picked in an image, or found from the cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import CloseupError, PlanningError
from closeup_ns.planning.survey import ALPHA, point_visibility, survey
from closeup_ns.reading import build
from closeup_ns.views.overlap import DepthViews, center_weights
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View
from closeup_ns.views.warp import inside, pixel_grid, project, unproject

WINDOW = 5
"""Side, in pixels, of the window whose median depth lifts a picked pixel."""
EDGE_REL = 0.2
"""Spread of depth in that window above which the pixel is reported as lying on an edge."""
EDGE_DEPTHS = 40
"""How many depths are tried there."""
EDGE_SIGMA = 0.02
"""How exactly a view's depth must fit to vote for one of them: standard deviation, as a share of the depth."""
WARN_BELOW = 0.5
"""Reliability below which a warning is given."""
SAMPLES_PER_SIDE = 24
"""Automatic target: surface points taken along a depth map's longer side."""
VOXEL = 0.1
"""Automatic target: side of the voxels in which surface points are counted, as a share of the median depth."""


@dataclass(frozen=True, eq=False)
class Target:
    """The point to come close to."""

    point: Float[Tensor, "3"]
    """World coordinates."""
    distance: float
    """d0: median distance of the known cameras that see it, in world units."""
    reliability: float
    """Share, 0 to 1, of the views that look at it without an obstacle and render a surface there."""
    source: str
    """How the point was found, as a message says it."""
    warnings: list[str] = field(default_factory=list)
    """What a user should know before relying on it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` is the inverse."""
        return vars(self) | {"point": self.point.tolist()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Target:
        """What `to_dict` wrote, on the CPU.

        Raises:
            CloseupError: it is not that, or its point or distance are no place to come close to.
        """
        try:
            target = build(cls, {**content, "point": torch.tensor(content.get("point"), dtype=torch.float32)})
        except (TypeError, ValueError, RuntimeError) as error:
            raise CloseupError(f"this is no saved Target: {error}") from error
        if target.distance <= 0:
            raise CloseupError(f"this is no saved Target: a distance of {target.distance:g}")
        return target


def target_from_xyz(
    point: Sequence[float] | Float[Tensor, "3"],
    known: Sequence[View],
    render: Renderer,
) -> Target:
    """A target at world coordinates ``point``.

    Raises:
        PlanningError: the numbers are not finite, or no known view sees the point.
    """
    xyz = torch.as_tensor(point, dtype=known[0].c2w.dtype, device=known[0].device)
    return _assess(xyz, "world coordinates", known, survey(known, render))


def target_from_pixel(
    view: View,
    column: float,
    row: float,
    render: Renderer,
    known: Sequence[View],
) -> Target:
    """The surface behind pixel (``column``, ``row``) of ``view``: the median rendered depth of a 5 x 5 window.

    On an edge a rendered depth is a mean of what is in front and what is behind, where nothing is: there it is the
    depth at which most known views show a surface.

    Column and row count from 0 at the top left, within the image; their pixel's centre is at +0.5.

    Raises:
        PlanningError: nothing is rendered there, or no known view sees the point.
    """
    rendered = render(view)
    half = WINDOW // 2
    rows = slice(max(0, int(row) - half), int(row) + half + 1)
    columns = slice(max(0, int(column) - half), int(column) + half + 1)
    depth = rendered.depth[rows, columns][rendered.alpha[rows, columns] > ALPHA].to(view.c2w)
    if depth.numel() == 0:
        raise PlanningError(
            f"nothing solid is rendered at column {column}, row {row}: pick a pixel on the object, or give coordinates"
        )
    uv = view.c2w.new_tensor([int(column) + 0.5, int(row) + 0.5])
    views, warnings, chosen = survey(known, render), [], depth.median()
    if float((depth.max() - depth.min()) / chosen) > EDGE_REL:
        equal_ratios = torch.logspace(0, 1, EDGE_DEPTHS, base=float(depth.max() / depth.min())).to(depth)
        chosen = _depth_of_most(view, uv, torch.stack([chosen, *(equal_ratios * depth.min())]), views)
        warnings.append(
            f"depth around column {column}, row {row} runs from {float(depth.min()):.4g} to {float(depth.max()):.4g}: "
            "the pixel lies on an edge; the target is where most views show a surface. Pick a pixel further inside the "
            "object if it is another"
        )
    source = f"pixel (column {column}, row {row}) at depth {float(chosen):.4g}"
    return _assess(unproject(view, uv, chosen), source, known, views, warnings)


def target_automatic(known: Sequence[View], render: Renderer) -> Target:
    """The surface that most known views have near their centre.

    Surface points of all views, weighted towards image centres and, where the optical axes meet well, towards their
    least-squares intersection, are counted in voxels; a voxel counts what *different* views put there.

    Raises:
        PlanningError: nothing solid is rendered from any known view.
    """
    views = survey(known, render)
    points, weight, owner = _surface_points(views)
    if points.shape[0] == 0:
        raise PlanningError("nothing solid is rendered from any known view: train longer, or give target coordinates")
    scale = float(views.depth[views.depth > 0].median())
    meeting, spread = _axes_meeting(views, scale)
    if spread < 1.0:
        weight = weight * torch.exp(-0.5 * ((points - meeting).norm(dim=1) / (0.25 * scale)).square())
    point = _densest(points, weight, owner, len(views), VOXEL * scale)
    source = "where the optical axes meet" if spread < 1.0 else "the surface most views are centred on"
    return _assess(_on_surface(point, views), source, known, views)


def require_in_frame(point: Float[Tensor, "3"], known: Sequence[View]) -> None:
    """Refuse what is in no known view's image; says nothing of what hides it, and needs no model.

    Raises:
        PlanningError: the numbers are not finite, or the point is in nobody's image.
    """
    if not bool(torch.isfinite(point).all()):
        raise PlanningError(f"a target is three finite world coordinates, not {point.tolist()}")
    if not any(bool(inside(view, *project(view, point.to(view.c2w)))) for view in known):
        place = ", ".join(f"{value:.4g}" for value in point.tolist())
        raise PlanningError(
            f"none of the {len(known)} known views has the target ({place}) in its image: it is behind or beside every "
            "camera. Check that it is in the model's coordinates (nerfstudio recentres and scales a scene), or pick a "
            "pixel"
        )


def _assess(
    point: Tensor, source: str, known: Sequence[View], views: DepthViews, warnings: Sequence[str] = ()
) -> Target:
    """Measure distance and reliability of ``point`` from the known views, and refuse what cannot be planned for."""
    require_in_frame(point, known)
    seen = point_visibility(views, point)
    place = ", ".join(f"{value:.4g}" for value in point.tolist())
    sees = seen.sees()
    if not bool(sees.any()):
        raise PlanningError(
            f"the target ({place}) is hidden behind other surfaces in all {int(seen.in_frame.sum())} known views that "
            "look there: it may lie inside the object; move it to the surface, or pick a pixel"
        )
    target = Target(
        point,
        float(seen.distance[sees].quantile(0.5)),
        float(seen.agrees()[sees].double().mean()),
        source,
        list(warnings),
    )
    if target.reliability < WARN_BELOW:
        target.warnings.append(
            f"a surface is rendered at the target ({place}) in only {target.reliability:.0%} of the {int(sees.sum())} "
            "known views that look there: it may float in empty space; pick a pixel on the object for a better one "
            "(--pipeline.target.pixel NAME:COLUMN:ROW)"
        )
    return target


def _depth_of_most(
    view: View, uv: Float[Tensor, "2"], depths: Float[Tensor, "d"], views: DepthViews
) -> Float[Tensor, ""]:
    """Of ``depths`` along the ray of a pixel, the one at which most views render a surface; the first of equals."""
    votes = []
    for depth in depths:
        seen = point_visibility(views, unproject(view, uv, depth))
        off = (seen.depth - seen.z) / (EDGE_SIGMA * seen.z)
        votes.append(torch.where(seen.in_frame & (seen.depth > 0), (-0.5 * off.square()).exp(), 0.0).sum())
    return depths[int(torch.stack(votes).argmax())]


def _surface_points(views: DepthViews) -> tuple[Tensor, Tensor, Tensor]:
    """Coarsely sampled surface points [m, 3] of all views, their centre weight [m] and their view's index [m]."""
    n, height, width = views.depth.shape
    stride = max(1, max(height, width) // SAMPLES_PER_SIDE)
    grid = pixel_grid(height, width, views.depth.device, views.depth.dtype)[::stride, ::stride].reshape(-1, 2)
    pixels = torch.nn.functional.pad(grid, (0, 1), value=1.0)
    depth = views.depth[:, ::stride, ::stride].reshape(n, -1)
    rays = torch.einsum("nij,pj->npi", torch.linalg.inv(views.K), pixels)
    points = torch.einsum("nij,npj->npi", views.c2w[:, :3, :3], rays * depth[..., None]) + views.c2w[:, None, :3, 3]
    weight = center_weights(views)[:, ::stride, ::stride].reshape(n, -1)
    owner = torch.arange(n, device=depth.device)[:, None].expand_as(depth)
    valid = (depth > 0) & (weight > 1e-3)
    return points[valid], weight[valid], owner[valid]


def _axes_meeting(views: DepthViews, scale: float) -> tuple[Tensor, float]:
    """Least-squares intersection of the optical axes, and how badly it is determined (below 1: usable).

    The spread compares the uncertainty along the worst direction with the scene's depth: parallel axes have none.
    """
    axis = views.c2w[:, :3, 2].double()
    origin = views.c2w[:, :3, 3].double()
    across = torch.eye(3, dtype=torch.float64, device=axis.device) - axis[:, :, None] * axis[:, None, :]
    system = across.mean(0)
    meeting = torch.linalg.lstsq(system, (across @ origin[..., None])[..., 0].mean(0)[:, None]).solution[:, 0]
    offset = meeting - origin
    ahead = (offset * axis).sum(1)
    miss = (offset - ahead[:, None] * axis).norm(dim=1).mean()
    weakest = torch.linalg.eigvalsh(system)[0].clamp_min(1e-12)
    spread = float(miss / weakest.sqrt()) / (0.5 * scale)
    # Axes that diverge meet behind the cameras: no object is there.
    if float((ahead > 0).double().mean()) < 0.5 or float(weakest) < 1e-4:
        spread = float("inf")
    return meeting.to(views.c2w), spread


def _densest(points: Tensor, weight: Tensor, owner: Tensor, views: int, voxel: float) -> Tensor:
    """Weighted mean of the surface points around the voxel that most different views have at their centre."""
    key = torch.floor((points - points.amin(0)) / voxel).long()
    voxels, inverse = torch.unique(key, dim=0, return_inverse=True)
    # Each view votes once per voxel, with its best weight: many pixels of one near view are not many views.
    votes = weight.new_zeros(voxels.shape[0] * views)
    votes.scatter_reduce_(0, inverse * views + owner, weight, "amax")
    best = votes.reshape(-1, views).sum(1).argmax()
    center = points.amin(0) + (voxels[best] + 0.5) * voxel
    close = (points - center).norm(dim=1) <= voxel
    share = weight[close] / weight[close].sum()
    return (points[close] * share[:, None]).sum(0)


def _on_surface(point: Tensor, views: DepthViews) -> Tensor:
    """Move ``point`` along the ray of the view that agrees best with it onto the surface rendered there."""
    seen = point_visibility(views, point)
    mismatch = ((seen.depth - seen.z).abs() / seen.z).masked_fill(~seen.in_frame | (seen.depth <= 0), torch.inf)
    best = int(mismatch.argmin())
    if not bool(torch.isfinite(mismatch[best])):
        return point
    origin = views.c2w[best, :3, 3]
    return origin + (point - origin) * (seen.depth[best] / seen.z[best])
