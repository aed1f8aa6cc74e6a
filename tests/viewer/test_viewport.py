"""Cameras of viser against ours, and zoom against distances."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.viewer.utils import CameraState, get_camera

from closeup_ns.model.cameras import view_of
from closeup_ns.paths.geometry import vertical_fov
from closeup_ns.planning.target import Target
from closeup_ns.viewer.viewport import come_closer, pose_of, viewport_view, zoom_of
from tests.scenes import facing_views

TARGET = Target(torch.tensor([0.3, -0.2, 4.0]), 4.2, 0.9, "made up")


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_view_is_where_viser_shows_it_and_back(seed: int) -> None:
    view = facing_views(1, seed=seed)[0]
    again = viewport_view(*pose_of(view), vertical_fov(view), view.width / view.height, 160)
    assert (again.width, again.height) == (view.width, view.height)
    torch.testing.assert_close(again.c2w.double(), view.c2w, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.K.double(), view.K, atol=1e-3, rtol=0)


def test_the_viewport_is_what_nerfstudio_renders() -> None:
    """Against nerfstudio's own way from viser's camera to a rendered one (`Viewer.get_camera_state`, `get_camera`)."""
    import numpy as np
    import viser.transforms as vtf

    (wxyz, place), fov, aspect = pose_of(facing_views(1, seed=3)[0]), 0.8, 1.5
    rotation = (vtf.SO3(wxyz=np.array(wxyz)) @ vtf.SO3.from_x_radians(np.pi)).as_matrix()
    position = torch.tensor(place, dtype=torch.float64) / 10
    c2w = torch.cat([torch.tensor(rotation), position[:, None]], 1)
    state = CameraState(fov=fov, aspect=aspect, c2w=c2w, camera_type=CameraType.PERSPECTIVE)
    expected = view_of(get_camera(state, 80, 120).reshape((1,)), 0)
    got = viewport_view(wxyz, place, fov, aspect, 120)
    torch.testing.assert_close(got.c2w, expected.c2w, atol=1e-5, rtol=0)
    torch.testing.assert_close(got.K, expected.K, atol=1e-3, rtol=0)


@given(zoom=st.floats(0.2, 60.0), x=st.floats(-3, 3), y=st.floats(-3, 3))
@settings(max_examples=50, deadline=None)
def test_coming_closer_keeps_the_direction_and_reaches_the_zoom(zoom: float, x: float, y: float) -> None:
    position = torch.tensor([x, y, -1.0], dtype=torch.float64)
    moved = come_closer(position, TARGET, zoom)
    assert zoom_of(moved, TARGET) == pytest.approx(zoom, rel=1e-6)
    before, after = position - TARGET.point.double(), moved - TARGET.point.double()
    assert float(torch.dot(before, after) / before.norm() / after.norm()) == pytest.approx(1.0)


def test_from_the_target_itself_there_is_still_a_way_back() -> None:
    moved = come_closer(TARGET.point, TARGET, 2.0)
    assert math.isfinite(float(moved.sum())) and zoom_of(moved, TARGET) == pytest.approx(2.0)
