"""Distortion that folds the image, against OpenCV's own projection walked along by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from closeup_ns.data.lenses import folds
from closeup_ns.views.lens import LensKind

SIZE = (640, 480)
K = np.array([[400.0, 0, 330], [0, 410.0, 230], [0, 0, 1]])


def folds_by_hand(kind: LensKind, distortion: np.ndarray) -> bool:
    """Walk outwards: does the image of a ray ever come back towards the centre before it is out?"""
    k1, k2, k3, k4, p1, p2 = distortion
    fisheye = kind == "fisheye"
    reach = np.tan(np.linspace(0, np.pi / 2, 2000)[1:-1]) if fisheye else np.linspace(0, 6, 2000)[1:]
    corners = [np.arctan2((v - 230) / 410, (u - 330) / 400) for u in (0, 640) for v in (0, 480)]
    for angle in np.arange(4) * np.pi / 2 if fisheye else [*corners, *np.linspace(0, 2 * np.pi, 40)]:
        rays = np.stack([reach * np.cos(angle), reach * np.sin(angle), np.ones_like(reach)], 1)[None]
        if fisheye:
            uv = cv2.fisheye.projectPoints(rays.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), K, distortion[:4])[0]
        else:
            uv = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), K, np.array([k1, k2, p1, p2, k3]))[0]
        uv = uv.reshape(-1, 2)
        out = ((uv < 0) | (uv > SIZE)).any(1)
        uv = uv[: out.argmax() + 1] if out.any() else uv
        if (np.diff(np.linalg.norm((uv - K[:2, 2]) / K.diagonal()[:2], axis=1)) < 0).any():
            return True
    return False


@pytest.mark.parametrize(
    ("kind", "spread"), [("perspective", [0.6, 0.3, 0.1, 0, 0, 0]), ("fisheye", [0.3, 0.1, 0.03, 0.01, 0, 0])]
)
def test_radial_distortion_folds_where_opencvs_does(kind: LensKind, spread: list[float]) -> None:
    generator = np.random.default_rng(3)
    results = []
    for _ in range(25):
        distortion = generator.normal(0, spread)
        near = {folds_by_hand(kind, distortion * factor) for factor in (0.97, 1.03)}
        if len(near) == 1:  # not at the very edge, where the steps of both walks decide
            results.append(near.pop())
            lens = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
            assert folds(kind, tuple(distortion), SIZE, lens) == results[-1], distortion
    assert 5 < sum(results) < len(results) - 5


@pytest.mark.parametrize(
    ("distortion", "expected"),
    [
        ((-0.25, 0.06, 0, 0, 0, 0), False),  # a wide action camera
        ((0.0578, -0.0805, 0, 0, -0.00098, 0.00016), False),  # a phone
        ((0, 0, 0, 0, 0.02, -0.02), False),
        ((0, 0, 0, 0, 5.0, 0), True),
        ((-1.5, 0, 0, 0, 0, 0), True),
    ],
)
def test_calibrations(distortion: tuple[float, ...], expected: bool) -> None:
    assert folds("perspective", distortion, SIZE, (400.0, 410.0, 330.0, 230.0)) == expected
