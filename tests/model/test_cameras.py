"""The border between OpenGL and OpenCV axes, held against nerfstudio's own rays."""

from __future__ import annotations

import pytest
import torch

from closeup_ns.model.cameras import cameras_of, view_of
from closeup_ns.model.model import _viewmat_of
from closeup_ns.views.view import View
from closeup_ns.views.warp import backproject
from tests.scenes import facing_views, orbit_views


def views() -> list[View]:
    """Views with all four intrinsics different."""
    skewed = [view.to(dtype=torch.float32) for view in facing_views(4, size=(20, 14)) + orbit_views(3, size=(20, 14))]
    K = torch.tensor([[21.3, 0, 9.1], [0, 18.7, 7.9], [0, 0, 1]])
    return [View(K, view.c2w, view.width, view.height) for view in skewed]


@pytest.mark.parametrize("view", views())
def test_our_pixels_lie_on_nerfstudios_rays(view: View) -> None:
    cameras = cameras_of(view)
    back = view_of(cameras, 0)
    assert torch.equal(back.K, view.K) and torch.equal(back.c2w, view.c2w)
    assert (back.width, back.height) == (20, 14)
    rays = cameras.generate_rays(camera_indices=0)
    points = backproject(view, torch.full((14, 20), 2.5))
    directions = torch.nn.functional.normalize(points - view.position, dim=-1)
    torch.testing.assert_close(rays.directions, directions, atol=1e-5, rtol=0)
    torch.testing.assert_close(rays.origins, view.position.expand(14, 20, 3))
    torch.testing.assert_close(_viewmat_of(cameras.camera_to_worlds)[0], view.viewmat, atol=1e-5, rtol=1e-5)


def test_a_generated_camera_is_no_photographs() -> None:
    camera = cameras_of(views()[0])
    assert not camera.metadata or "cam_idx" not in camera.metadata
    assert len(camera) == 1
