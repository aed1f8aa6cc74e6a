"""The border between nerfstudio's cameras (OpenGL axes) and our views (OpenCV axes). Crossed here and nowhere else."""

from __future__ import annotations

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from closeup_ns.views.opengl import flipped
from closeup_ns.views.view import View


def view_of(cameras: Cameras, index: int) -> View:
    """The view of ``cameras[index]``, on the cameras' device."""
    camera = cameras[index : index + 1]
    opengl = camera.camera_to_worlds[0]
    c2w = torch.eye(4, dtype=opengl.dtype, device=opengl.device)
    c2w[:3, :3] = flipped(opengl[:, :3])
    c2w[:3, 3] = opengl[:, 3]
    return View(
        K=camera.get_intrinsics_matrices()[0],
        c2w=c2w,
        width=int(camera.width.item()),
        height=int(camera.height.item()),
    )


def cameras_of(view: View) -> Cameras:
    """One view as nerfstudio ``Cameras`` of length one.

    It carries no ``cam_idx``, which is what keeps per-image parameters (camera optimizer, bilateral grid, exposure)
    away from generated views (DESIGN, "Injected views").
    """
    c2w = flipped(view.c2w[:3])
    K = view.K
    return Cameras(
        camera_to_worlds=c2w[None],
        fx=K[0, 0].reshape(1, 1),
        fy=K[1, 1].reshape(1, 1),
        cx=K[0, 2].reshape(1, 1),
        cy=K[1, 2].reshape(1, 1),
        width=torch.tensor([[view.width]], device=K.device),
        height=torch.tensor([[view.height]], device=K.device),
        camera_type=torch.tensor([[CameraType.PERSPECTIVE.value]], device=K.device),
    )


def to_model_frame(view: View, transform: Float[Tensor, "3 4"], scale: float) -> View:
    """``view`` of the capture's frame in nerfstudio's: ``transform``, then positions times ``scale``."""
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3] = transform.double().cpu() @ view.c2w.double().cpu()
    c2w[:3, 3] *= scale
    return View(view.K, c2w, view.width, view.height)


def from_model_frame(view: View, transform: Float[Tensor, "3 4"], scale: float) -> View:
    """The inverse of `to_model_frame`, in float64."""
    whole = torch.eye(4, dtype=torch.float64)
    whole[:3] = transform.double().cpu()
    c2w = view.c2w.double().cpu().clone()
    c2w[:3, 3] /= scale
    return View(view.K.double().cpu(), torch.linalg.inv(whole) @ c2w, view.width, view.height)
