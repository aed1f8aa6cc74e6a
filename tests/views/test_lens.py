"""Lenses against OpenCV and nerfstudio, which have their own models."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from closeup_ns.views.lens import Lens

BROWN = (-0.21, 0.05, 0.01, 0.0, 0.003, -0.002)
FISHEYE = (0.03, -0.01, 0.004, -0.001, 0.0, 0.0)
FISHEYE624 = (0.03, -0.01, 0.004, -0.001, 0.0005, 0.0001, 0.002, -0.003, 0.001, 0.0005, -0.002, 0.0003)


def rays() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(200, 2, generator=generator, dtype=torch.float64) - 0.5) * 1.4


def in_space(xy: torch.Tensor) -> np.ndarray:
    return torch.cat([xy, torch.ones_like(xy[:, :1])], 1).numpy()[:, None]


def test_brown_is_opencvs() -> None:
    k1, k2, k3, _, p1, p2 = BROWN
    zero = np.zeros(3)
    expected, _ = cv2.projectPoints(in_space(rays()), zero, zero, np.eye(3), np.array([k1, k2, p1, p2, k3]))
    assert np.allclose(Lens("perspective", BROWN).distort(rays()).numpy(), expected[:, 0], atol=1e-12)


def test_fisheye_is_opencvs() -> None:
    zero = np.zeros((3, 1))
    expected, _ = cv2.fisheye.projectPoints(in_space(rays()), zero, zero, np.eye(3), np.array(FISHEYE[:4]))
    assert np.allclose(Lens("fisheye", FISHEYE).distort(rays()).numpy(), expected[:, 0], atol=1e-10)


def test_fisheye624_is_nerfstudios() -> None:
    from nerfstudio.cameras.camera_utils import fisheye624_project

    params = torch.tensor([[1.0, 1.0, 0.0, 0.0, *FISHEYE624]], dtype=torch.float64)
    expected = fisheye624_project(torch.from_numpy(in_space(rays())[None, :, 0]), params)[0]
    assert torch.allclose(Lens("fisheye624", FISHEYE624).distort(rays()), expected, atol=1e-10)


@pytest.mark.parametrize("lens", [Lens(), Lens("perspective", (0.0,) * 6)])
def test_without_distortion_a_pinhole_lens_is_the_identity(lens: Lens) -> None:
    assert torch.equal(lens.distort(rays()), rays())


@pytest.mark.parametrize("lens", [Lens("fisheye", FISHEYE), Lens("fisheye624", FISHEYE624)])
def test_the_axis_stays_where_it_is(lens: Lens) -> None:
    assert torch.equal(lens.distort(torch.zeros(1, 2)), torch.zeros(1, 2))
