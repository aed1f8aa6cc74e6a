"""Mitsuba as the demo's world: light on the surfaces once, then radiance and distances along any rays.

Every surface is Lambertian, so its light does not depend on the viewpoint: it is computed once per surface (a window,
a lamp and the sky, with soft shadows) and multiplied into the texture. A photograph then costs one ray per sample and
carries no lighting noise. ``scalar_rgb`` is the variant used everywhere: the LLVM variants need a shared library that a
bare machine lacks, and with some LLVM versions (15) they abort the process instead of raising an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from closeup_ns.data.demo.layout import Points, Surface
from closeup_ns.errors import CloseupError
from closeup_ns.views.view import View

try:
    import drjit
    import mitsuba
except ImportError as missing:
    raise CloseupError(
        f"the demo renders its scene with Mitsuba: pip install 'closeup-ns[demo]' ({missing})"
    ) from missing

FloatImage = NDArray[np.float32]

_SKY = 0.30


def srgb_to_linear(value: FloatImage) -> FloatImage:
    """IEC 61966-2-1, decoding: sRGB in [0, 1] to linear light."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(value: FloatImage) -> FloatImage:
    """IEC 61966-2-1, encoding: linear light in [0, 1] to sRGB; out-of-range values are clipped first."""
    value = np.clip(value, 0.0, 1.0)
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055).astype(np.float32)


mi: Any = mitsuba  # its stubs describe another variant than the one chosen at run time


class World:
    """The lit scene. ``light_samples``, a square number, is per place on a surface."""

    def __init__(self, surfaces: Sequence[Surface], light_samples: int) -> None:
        mi.set_variant("scalar_rgb")
        drjit.set_thread_count(2)
        self._surfaces = list(surfaces)
        white = mi.load_dict({"type": "diffuse", "reflectance": {"type": "rgb", "value": 1.0}})
        dark: dict[str, Any] = {"type": "scene", **_lights()}
        for surface in self._surfaces:
            dark[surface.name] = _mesh(surface, {"bsdf": white})
        self._geometry: Any = mi.load_dict(dark)
        self._light = [_light_on(self._geometry, surface, light_samples) for surface in self._surfaces]
        self._lit: tuple[float, Any] = (0.0, None)

    def radiance(self, view: View, finest: float, samples: int, seed: int) -> FloatImage:
        """Linear RGB [H, W, 3] that reaches each pixel of ``view``, averaged over the pixel's area.

        ``finest`` (metres) is the detail below which textures are averaged beforehand; ``samples`` per pixel must be
        a square number (they are stratified). Without skew; the principal point must be the centre of the image.
        """
        sensor = {
            "type": "perspective",
            "fov": math.degrees(2 * math.atan(view.width / (2 * float(view.K[0, 0])))),
            "fov_axis": "x",
            "near_clip": 1e-3,
            "far_clip": 100.0,
            # Mitsuba's cameras look along +z with x to the left and y up; ours have x to the right and y down.
            "to_world": mi.ScalarTransform4f(view.c2w.double().numpy() * np.array([-1.0, -1.0, 1.0, 1.0])),
            **_film(view.width, view.height, samples),
        }
        scene = self._scene_for(finest)
        return np.asarray(mi.render(scene, sensor=mi.load_dict(sensor), seed=seed), np.float32)

    def distance(self, origins: Points, directions: Points) -> NDArray[np.float64]:
        """Distance [N] along each unit ray to the first surface; infinity where there is none."""
        scene, result = self._geometry, np.full(len(origins), np.inf)
        for i, (origin, direction) in enumerate(zip(origins.tolist(), directions.tolist(), strict=True)):
            hit = scene.ray_intersect_preliminary(mi.Ray3f(origin, direction))
            result[i] = hit.t if hit.is_valid() else np.inf
        return result

    def _scene_for(self, finest: float) -> Any:
        """The scene with emission instead of light, textures reduced to about ``finest``. The last one is kept."""
        if self._lit[0] != finest:
            content: dict[str, Any] = {"type": "scene", "integrator": {"type": "path", "max_depth": 1}}
            content["sky"] = {"type": "constant", "radiance": {"type": "rgb", "value": _SKY}}
            for surface, light in zip(self._surfaces, self._light, strict=True):
                emitted = mi.Bitmap(_emission(surface, light, finest))
                bitmap = {"type": "bitmap", "bitmap": emitted, "raw": True, "wrap_mode": "clamp"}
                content[surface.name] = _mesh(surface, {"glow": mi.load_dict({"type": "area", "radiance": bitmap})})
            self._lit = (finest, mi.load_dict(content))
        return self._lit[1]


def _film(width: int, height: int, samples: int) -> dict[str, Any]:
    return {
        "film": {
            "type": "hdrfilm",
            "width": width,
            "height": height,
            "pixel_format": "rgb",
            "component_format": "float32",
            "rfilter": {"type": "box"},
        },
        "sampler": {"type": "stratified", "sample_count": samples},
    }


def _lights() -> dict[str, Any]:
    """A window on the left, a weaker warm lamp on the right, and the sky all round."""

    def panel(origin: list[float], target: list[float], size: float, colour: list[float]) -> dict[str, Any]:
        frame = mi.ScalarTransform4f().look_at(origin, target, [0, 0, 1]) @ mi.ScalarTransform4f().scale(size)
        return {
            "type": "rectangle",
            "to_world": frame,
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": colour}},
        }

    return {
        "sky": {"type": "constant", "radiance": {"type": "rgb", "value": _SKY}},
        "window": panel([-1.6, -1.8, 2.0], [0, 0, 0.1], 0.45, [5.2, 5.4, 5.9]),
        "lamp": panel([1.9, -1.3, 1.5], [0, 0, 0.1], 0.3, [3.6, 3.1, 2.5]),
    }


def _mesh(surface: Surface, children: dict[str, Any]) -> Any:
    """Two triangles per cell; u runs along the cells and v from top to bottom, as a bitmap's rows do."""
    columns, cells = len(surface.bottom), len(surface.bottom) - 1
    properties = mi.Properties()
    for name, child in children.items():
        properties[name] = child
    mesh = mi.Mesh(surface.name, 2 * columns, 2 * cells, has_vertex_texcoords=True, props=properties)
    vertices = np.stack([surface.bottom, surface.top], 1).reshape(-1, 3)
    u = np.repeat(np.linspace(0, 1, columns), 2)
    v = np.tile([1.0, 0.0], columns)
    first = 2 * np.arange(cells)[:, None]
    faces = np.concatenate([first + [0, 2, 3], first + [0, 3, 1]])
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = vertices.astype(np.float32).ravel().tolist()
    parameters["vertex_texcoords"] = np.stack([u, v], 1).astype(np.float32).ravel().tolist()
    parameters["faces"] = faces.ravel().tolist()
    parameters.update()
    return mesh


def _light_on(scene: Any, surface: Surface, samples: int) -> FloatImage:
    """Light [rows, cells * columns, 3] that a white surface would reflect, row 0 at the top.

    Each cell is looked at from just above it by a camera without perspective, so what it sees is the cell itself.
    """
    integrator = mi.load_dict({"type": "direct", "emitter_samples": 2, "bsdf_samples": 1, "hide_emitters": True})
    columns, rows = surface.light_pixels
    strips = []
    for i in range(len(surface.bottom) - 1):
        right = surface.bottom[i + 1] - surface.bottom[i] + surface.top[i + 1] - surface.top[i]
        up = surface.top[i] - surface.bottom[i] + surface.top[i + 1] - surface.bottom[i + 1]
        centre = (surface.bottom[i] + surface.bottom[i + 1] + surface.top[i] + surface.top[i + 1]) / 4
        across, along = np.linalg.norm(right) / 2, np.linalg.norm(up) / 2
        normal = np.cross(right, up)
        normal /= np.linalg.norm(normal)
        level = np.cross(up / (2 * along), normal)
        frame = np.eye(4)
        frame[:3, :3] = np.stack([-level * across / 2, up / 4 * columns / rows, -normal], 1)
        frame[:3, 3] = centre + 2 * surface.light_height * normal
        sensor = {
            "type": "orthographic",
            "near_clip": surface.light_height,
            "far_clip": 1.0,
            "to_world": mi.ScalarTransform4f(frame),
            **_film(columns, rows, samples),
        }
        strip = mi.render(scene, sensor=mi.load_dict(sensor), integrator=integrator, seed=i)
        strips.append(np.asarray(strip, np.float32))
    light = np.concatenate(strips, axis=1)
    return gaussian_filter(light, (0.7 * (rows > 1), 0.7 * (light.shape[1] > 1), 0)).astype(np.float32)


def _emission(surface: Surface, light: FloatImage, finest: float) -> FloatImage:
    """Texture times light, linear, with texels as large as ``finest`` (metres) allows: averaged in linear light."""
    colour = srgb_to_linear(np.arange(256, dtype=np.float32) / 255)[surface.texture]
    width = float(np.linalg.norm(np.diff(surface.bottom, axis=0), axis=1).sum())
    while width / colour.shape[1] * 2 <= finest and min(colour.shape[:2]) >= 2:
        even = colour[: colour.shape[0] // 2 * 2, : colour.shape[1] // 2 * 2]
        colour = (even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]) / 4
    size = (colour.shape[1], colour.shape[0])
    for channel in range(3):
        smooth = Image.fromarray(light[..., channel]).resize(size, Image.Resampling.BILINEAR)
        colour[..., channel] *= np.asarray(smooth)
    return np.ascontiguousarray(colour)
