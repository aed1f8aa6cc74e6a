"""The file: nerfstudio's own readers take the cameras from it."""

from __future__ import annotations

import json
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from nerfstudio.cameras.camera_paths import get_path_from_json

from closeup_ns.paths.document import camera_path
from closeup_ns.paths.options import Kind, PathOptions
from closeup_ns.paths.plan import plan_path
from tests.paths.rig import BALL, OPEN, TARGET, plan_dive, view_from
from tests.scenes import facing_views


@pytest.mark.parametrize(("long_side", "size"), [(0, (160, 120)), (99, (98, 74)), (321, (320, 240))])
def test_sizes_are_even(long_side: int, size: tuple[int, int]) -> None:
    dive = plan_dive(view_from(0, 0, 0), TARGET, OPEN, PathOptions(frames=5, check_steps=3, check_size=24))
    content = camera_path(dive, 30.0, long_side)
    assert (content["render_width"], content["render_height"]) == size


@pytest.mark.parametrize("kind", ["dive", "orbit", "pull-back"])
def test_the_render_tabs_spline_through_the_keyframes_stays_on_the_path(kind: Kind) -> None:
    """What "Load Path" does with the keyframes, by nerfstudio's own class; its slider stands at another field of view.

    The tab's tension is the file's smoothness_value only for its own files: it stays at 0.
    """
    from nerfstudio.viewer.render_panel import CameraPath, Keyframe
    from viser import transforms

    options = PathOptions(frames=121, degrees=150.0, check_steps=16, check_size=48)
    planned = plan_path(kind, view_from(0.5, -0.4, 0.0), TARGET, BALL, options)
    content = json.loads(json.dumps(camera_path(planned, fps=30.0)))
    panel = CameraPath(MagicMock(), MagicMock())
    panel.tension, panel.default_fov = 0.0, 1.3
    for frame in content["keyframes"]:
        pose = transforms.SE3.from_matrix(np.array(frame["matrix"]).reshape(4, 4))
        panel.add_camera(
            Keyframe(
                position=pose.translation() * 10.0,
                wxyz=(pose.rotation() @ transforms.SO3.from_x_radians(np.pi)).wxyz,
                override_fov_enabled=abs(frame["fov"] - content["default_fov"]) > 1e-3,
                override_fov_rad=frame["fov"] / 180.0 * np.pi,
                override_time_enabled=False,
                override_time_val=0.0,
                aspect=frame["aspect"],
                override_transition_enabled=frame["override_transition_enabled"],
                override_transition_sec=frame["override_transition_sec"],
            )
        )
    panel.update_spline()
    assert panel.compute_duration() == pytest.approx(120 / 30)
    for index, view in enumerate(planned.views):
        found = panel.interpolate_pose_and_fov_rad(index / 120)
        assert found is not None
        pose, fov = found[0], found[1]
        away = (view.position - TARGET).norm()
        assert np.linalg.norm(pose.translation() / 10.0 - view.position.numpy()) < 0.05 * float(away)
        gaze = pose.rotation().as_matrix()[:, 2]
        assert float(gaze @ view.forward.numpy()) > np.cos(np.radians(2.0))
        assert fov == pytest.approx(2 * np.arctan(60 / float(view.K[1, 1])), rel=0.08)


@pytest.mark.parametrize("kind", ["dive", "orbit", "pull-back"])
def test_every_kind_is_written_and_read_back_by_nerfstudio(kind: Kind) -> None:
    start = view_from(0.3, 0.1, 0.0)
    path = plan_path(
        kind,
        start,
        TARGET,
        BALL,
        PathOptions(frames=12, check_steps=5, check_size=24),
        reference_distance=5.0,
        known=facing_views(4),
    )
    content = json.loads(json.dumps(camera_path(path, fps=24)))
    assert content["closeup"]["kind"] == kind == path.kind and content["closeup"]["zoom"] == pytest.approx(path.zoom)
    assert path.zoom == pytest.approx(3.0 if kind == "orbit" else 27.0)
    assert content["fps"] == 24 and content["seconds"] == pytest.approx(0.5)
    cameras = get_path_from_json(content)
    assert (int(cameras.width[0]), int(cameras.height[0])) == (160, 120)
    assert len(cameras) == 12
    for index, view in enumerate(path.views):
        opengl = cameras.camera_to_worlds[index].double()
        torch.testing.assert_close(opengl[:, 3], view.position, atol=1e-6, rtol=0)
        torch.testing.assert_close(-opengl[:, 2], view.forward, atol=1e-6, rtol=0)
        torch.testing.assert_close(opengl[:, 1], -view.c2w[:3, 1], atol=1e-6, rtol=0)
        assert float(cameras.fy[index]) == pytest.approx(float(view.K[1, 1]), rel=1e-5)
