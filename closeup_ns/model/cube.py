"""Cameras that are no pinhole (equirectangular, fisheye, one eye of VR180), drawn by way of the faces of a cube."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from closeup_ns.errors import CloseupError
from closeup_ns.model.cameras import cameras_of, view_of
from closeup_ns.views.view import View
from closeup_ns.views.warp import project, sample

MARGIN = 1
"""Pixels that each face reaches over its edges, so that no pixel is interpolated with what lies outside."""


def render_by_cube(render: Callable[[Cameras], dict[str, Tensor]], camera: Cameras) -> dict[str, Tensor]:
    """What ``render`` shows of one camera (shape [1]) whose rays begin at one point, whatever their directions.

    The rays are nerfstudio's own. The faces of a cube around that point are rendered as pinhole pictures, as fine as
    the camera's middle, and sampled between their pixels.

    Args:
        render: renders one pinhole camera. Outputs that are [H, W, C] are images; the others are passed on.

    Returns:
        The same outputs with the camera's size. "depth" is the distance along the ray.

    Raises:
        CloseupError: the rays begin at different points, as those of omnidirectional stereo do.
    """
    rays = camera.generate_rays(camera_indices=0)
    origin, ahead = rays.origins[0, 0], -camera.camera_to_worlds[0, :, 2]
    if not torch.allclose(rays.origins, origin.expand_as(rays.origins), atol=1e-6):
        raise CloseupError(
            f"a camera of the type {CameraType(int(camera.camera_type)).name} cannot be rendered: its rays do not "
            "begin at one point. Make the path's camera_type perspective, fisheye, equirectangular or vr180"
        )
    # nerfstudio's fisheye divides by zero at the principal point, where the camera looks straight ahead.
    directions = torch.where(rays.directions.isnan().any(-1, keepdim=True), ahead, rays.directions)
    faces = _faces(view_of(camera, 0), origin, _face_size(directions))
    places, depths = zip(*(project(face, origin + directions) for face in faces))
    chosen = torch.stack(depths).argmax(0)
    outputs: dict[str, Tensor] = {}
    for index, (face, uv, z) in enumerate(zip(faces, places, depths, strict=True)):
        pixels = chosen == index
        if not pixels.any():
            continue
        for name, values in render(cameras_of(face)).items():
            if values.shape[:2] != (face.height, face.width):
                outputs[name] = values
                continue
            found = sample(values.permute(2, 0, 1), uv[pixels]).T
            whole = outputs.setdefault(name, values.new_zeros(*chosen.shape, values.shape[-1]))
            whole[pixels] = found / z[pixels][:, None] if name == "depth" else found
    return outputs


def _face_size(directions: Float[Tensor, "H W 3"]) -> int:
    """Pixels along a face whose middle is as fine as the middle row of the picture."""
    row = directions[len(directions) // 2]
    return max(math.ceil(2 / float((row[1:] - row[:-1]).norm(dim=-1).median())), 1)


def _faces(camera: View, origin: Float[Tensor, "3"], size: int) -> list[View]:
    """Views along the camera's six axes, each of 90 degrees and a margin."""
    width = size + 2 * MARGIN
    K = torch.tensor([[size / 2, 0, width / 2], [0, size / 2, width / 2], [0, 0, 1]]).to(camera.c2w)
    views = []
    for axis in range(3):
        for sign in (1.0, -1.0):
            forward, down = torch.zeros(3).to(camera.c2w), torch.zeros(3).to(camera.c2w)
            forward[axis], down[2 if axis == 1 else 1] = sign, 1.0
            turn = torch.stack([torch.linalg.cross(down, forward), down, forward], dim=1)
            c2w = camera.c2w.clone()
            c2w[:3, :3], c2w[:3, 3] = camera.c2w[:3, :3] @ turn, origin
            views.append(View(K, c2w, width, width))
    return views
