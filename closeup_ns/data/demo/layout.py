"""The still life of the demo: which textured surfaces stand where.

World frame: metres, z up, the table top at z = 0, the wall at y = 0.45; cameras stand at negative y. The printed sheet
leans on a box in the middle, its label is the target; a pencil holder and a plant stand in front of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from closeup_ns.data.demo import textures
from closeup_ns.data.demo.textures import LABEL_MM, SHEET_MM, Texture

Points = NDArray[np.float64]

SHEET_CENTRE = (0.0, 0.05, 0.225)
SHEET_LEAN_DEGREES = 12.0
LABEL_ON_SHEET_MM = (90.0, 131.0)
"""Upper left corner of the label on the sheet, from the sheet's upper left corner."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A band of flat cells with one texture wrapped over them: one cell is a plane, many are a tube."""

    name: str
    bottom: Points
    """[N + 1, 3] lower corners of the N cells, left to right as seen from outside."""
    top: Points
    """[N + 1, 3] upper corners."""
    texture: Texture
    light_pixels: tuple[int, int] = (16, 16)
    """Columns and rows at which the light on each cell is computed."""
    light_height: float = 1e-4
    """Metres above the surface at which its light is measured: above whatever is stuck onto it."""


def plane(
    name: str,
    corner: Points,
    right: Points,
    up: Points,
    texture: Texture,
    light_pixels: tuple[int, int] = (16, 16),
) -> Surface:
    """A parallelogram with its lower left corner at ``corner``; it faces ``right x up``."""
    bottom = np.stack([corner, corner + right])
    return Surface(name, bottom, bottom + up, texture, light_pixels)


def tube(
    name: str, foot: Points, head: Points, radius: float, texture: Texture, cells: int, head_radius: float | None = None
) -> Surface:
    """A cylinder or cone from ``foot`` to ``head``, its texture wrapped once around."""
    axis = (head - foot) / np.linalg.norm(head - foot)
    across = np.cross(axis, [1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    turn = np.linspace(0, 2 * np.pi, cells + 1)[:, None]
    ring = np.cos(turn) * across + np.sin(turn) * np.cross(axis, across)
    return Surface(
        name, foot + radius * ring, head + (radius if head_radius is None else head_radius) * ring, texture, (2, 8)
    )


def box(name: str, low: Points, size: Points, faces: dict[str, Texture]) -> list[Surface]:
    """The named faces ("front", "left", "right", "top") of an upright box; what the cameras never see is left out."""
    x, y, z = np.diag(size)
    frames = {
        "front": (low, x, z),
        "left": (low + y, -y, z),
        "right": (low + x, y, z),
        "top": (low + z, x, y),
    }
    surfaces = []
    for face, texture in faces.items():
        corner, right, up = frames[face]
        surfaces.append(plane(f"{name}-{face}", corner, right, up, texture))
    return surfaces


def sheet_frame() -> tuple[Points, Points, Points]:
    """Upper left corner of the sheet and its unit vectors to the right and down, in the world."""
    lean = np.deg2rad(SHEET_LEAN_DEGREES)
    right, down = np.array([1.0, 0.0, 0.0]), np.array([0.0, -np.sin(lean), -np.cos(lean)])
    half = np.asarray(SHEET_MM) / 2000
    return np.asarray(SHEET_CENTRE) - half[0] * right - half[1] * down, right, down


def on_sheet(x_mm: float, y_mm: float, lift: float = 0.0) -> Points:
    """World position of a place on the printed sheet, ``lift`` metres in front of the paper."""
    corner, right, down = sheet_frame()
    return corner + x_mm / 1000 * right + y_mm / 1000 * down + lift * np.cross(down, right)


def target_point() -> Points:
    """World position that the close-ups look at: on the label, between the portrait and the fine print."""
    return on_sheet(LABEL_ON_SHEET_MM[0] + 0.42 * LABEL_MM[0], LABEL_ON_SHEET_MM[1] + 0.48 * LABEL_MM[1], _LABEL_LIFT)


_LABEL_LIFT = 4e-4


def _room(rng: np.random.Generator) -> list[Surface]:
    courses = np.rot90(textures.photograph("brick.png"))
    brick = textures.tinted(np.tile(courses, (3, 9, 1)), (1.3, 1.02, 0.86))
    wall = plane("wall", np.array([-2.6, 0.45, 0.0]), np.array([5.2, 0, 0]), np.array([0, 0, 1.7]), brick, (128, 48))
    table = plane(
        "table",
        np.array([-2.6, -1.0, 0.0]),
        np.array([5.2, 0, 0]),
        np.array([0, 1.45, 0]),
        textures.wood(2000, 840, 9, rng),
        (192, 64),
    )
    pictures = [
        ("hubble_deep_field.jpg", -0.86, 0.46, 0.40, 0.36),
        ("rocket.jpg", 0.30, 0.55, 0.44, 0.30),
        ("moon.png", 0.88, 0.30, 0.34, 0.34),
        ("astronaut.png", -0.34, 0.52, 0.32, 0.32),
    ]
    hung = [
        plane(
            Path(name).stem, np.array([x, 0.44, z]), np.array([w, 0, 0]), np.array([0, 0, h]), textures.photograph(name)
        )
        for name, x, z, w, h in pictures
    ]
    return [wall, table, *hung]


def _sheet() -> list[Surface]:
    corner, right, down = sheet_frame()
    w, h = np.asarray(SHEET_MM) / 1000
    page = plane("sheet", corner + h * down, w * right, -h * down, textures.printed_sheet(), (48, 64))
    # The label is thinner than a light pixel is wide: without this, its place on the paper would be a smeared shadow.
    page = replace(page, light_height=1.5 * _LABEL_LIFT)
    lw, lh = np.asarray(LABEL_MM) / 1000
    label_corner = on_sheet(LABEL_ON_SHEET_MM[0], LABEL_ON_SHEET_MM[1] + LABEL_MM[1], _LABEL_LIFT)
    label = plane("label", label_corner, lw * right, -lh * down, textures.printed_label())
    back = 0.012 * np.cross(right, -down)
    board_corner = corner + (h + 0.01) * down - 0.01 * right - back
    board = textures.cloth((92, 66, 44), 300, 400, np.random.default_rng(1))
    return [page, label, plane("board", board_corner, (w + 0.02) * right, -(h + 0.02) * down, board, (32, 40))]


def _objects(rng: np.random.Generator) -> list[Surface]:
    gravel, grass = textures.photograph("gravel.png"), textures.photograph("grass.png")
    stone = textures.tinted(gravel, (1.0, 0.95, 0.85))
    green = textures.tinted(grass, (0.75, 1.1, 0.6))
    blue, red = textures.cloth((58, 84, 140), 400, 120, rng), textures.cloth((150, 52, 48), 400, 120, rng)
    surfaces = box(
        "crate", np.array([-0.46, 0.08, 0.0]), np.array([0.26, 0.2, 0.22]),
        {"front": textures.photograph("astronaut.png"), "left": stone, "right": stone, "top": green},
    )  # fmt: skip
    surfaces += box(
        "book-low", np.array([0.19, 0.0, 0.0]), np.array([0.27, 0.2, 0.05]),
        {"front": blue, "left": blue, "right": blue, "top": blue},
    )  # fmt: skip
    surfaces += box(
        "book-high", np.array([0.21, 0.02, 0.05]), np.array([0.24, 0.17, 0.045]),
        {"front": red, "left": red, "right": red, "top": textures.photograph("coffee.png")},
    )  # fmt: skip
    surfaces += box(
        "stone", np.array([-0.34, -0.30, 0.0]), np.array([0.09, 0.09, 0.06]),
        {"front": stone, "left": stone, "right": green, "top": stone},
    )  # fmt: skip
    mug = np.array([0.33, 0.10, 0.095])
    surfaces.append(tube("mug", mug, mug + [0, 0, 0.1], 0.042, textures.photograph("coffee.png"), 32))
    inside = np.full((8, 8, 3), (58, 38, 26), np.uint8)
    surfaces.append(_lid("mug-inside", mug + [0, 0, 0.094], 0.04, inside))
    return surfaces


def _lid(name: str, centre: Points, radius: float, texture: Texture) -> Surface:
    """A horizontal disc: a cone of no height."""
    return tube(name, centre, centre + [0, 0, 1e-4], radius, texture, 24, head_radius=1e-4)


def _occluders(rng: np.random.Generator) -> list[Surface]:
    """What stands between the far cameras and the sheet: pencils on the left, a plant on the right."""
    holder = np.array([-0.15, -0.13, 0.0])
    surfaces = [
        tube("holder", holder, holder + [0, 0, 0.1], 0.036, textures.photograph("rocket.jpg"), 32),
        _lid("holder-inside", holder + [0, 0, 0.09], 0.035, np.full((8, 8, 3), 30, np.uint8)),
    ]
    colours = ((214, 160, 32), (178, 44, 40), (40, 96, 160), (52, 128, 72), (226, 226, 220), (30, 30, 34))
    for i, colour in enumerate(colours):
        foot = holder + [*(0.014 * rng.uniform(-1, 1, 2)), 0.01]
        lean = np.array([0.020 * (i - 1.2) + 0.008 * rng.uniform(-1, 1), 0.03 * rng.uniform(-1, 1), 0.0])
        head = holder + lean + [0, 0, rng.uniform(0.16, 0.22)]
        surfaces.append(tube(f"pencil-{i}", foot, head, 0.0038, textures.banded(colour, (60, 50, 44)), 10))
    for i, (x, y, z) in enumerate(((0.045, 0.02, 0.30), (0.085, -0.03, 0.37))):
        # Knitting needles: long and thin enough to cross the label in the far views from the left.
        needle = textures.banded((176, 180, 188), (90, 40, 60))
        foot = holder + [-0.01 + 0.015 * i, 0.01 * (-1) ** i, 0.01]
        surfaces.append(tube(f"needle-{i}", foot, holder + [x, y, z], 0.0026, needle, 8))
    pot = np.array([0.16, -0.14, 0.0])
    clay = textures.tinted(textures.photograph("gravel.png"), (1.3, 0.75, 0.55))
    surfaces.append(tube("pot", pot, pot + [0, 0, 0.075], 0.036, clay, 32, head_radius=0.046))
    surfaces.append(_lid("soil", pot + [0, 0, 0.066], 0.043, textures.tinted(clay, (0.45, 0.5, 0.5))))
    for i, turn in enumerate(np.linspace(0, 2 * np.pi, 7, endpoint=False) + 0.4):
        surfaces += _twig(f"twig-{i}", pot + [0, 0, 0.066], turn, rng)
    return surfaces


def _twig(name: str, root: Points, turn: float, rng: np.random.Generator) -> list[Surface]:
    """A stem with five two-sided rhombic leaves."""
    out = np.array([np.cos(turn), 0.6 * np.sin(turn), 0.0])
    tip = root + (0.035 + 0.05 * rng.random()) * out + [0, 0, rng.uniform(0.12, 0.30)]
    stem = textures.banded((92, 122, 58), (92, 122, 58))
    surfaces = [tube(f"{name}-stem", root, tip, 0.0022, stem, 6)]
    green = textures.leaf(96, 96, rng)
    for k, where in enumerate((0.35, 0.52, 0.7, 0.85, 1.0)):
        base = root + where * (tip - root)
        heading = turn + 2.4 * k + 0.5 * rng.standard_normal()
        along = np.array([np.cos(heading), 0.6 * np.sin(heading), rng.uniform(0.0, 0.7)])
        along *= 0.045 / np.linalg.norm(along)
        across = np.cross(along, [0.0, 0.3, 1.0])
        across *= 0.016 / np.linalg.norm(across)
        one, other = along / 2 + across, along / 2 - across
        surfaces.append(plane(f"{name}-leaf-{k}", base, one, other, green, (1, 1)))
        surfaces.append(plane(f"{name}-leaf-{k}-back", base, other, one, green, (1, 1)))
    return surfaces


def still_life(seed: int = 0) -> list[Surface]:
    """All surfaces of the demo scene. ``seed`` moves the pencils and the plant and regrows the wood."""
    rng = np.random.default_rng([seed, 1])
    return [*_room(rng), *_sheet(), *_objects(rng), *_occluders(rng)]
