"""From a scene of a protocol to a case on disk: what may be trained on, where it is looked at, and the truth apart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.atomic import write_json
from closeup_ns.bench.case import Case, PreparedCase, read_case
from closeup_ns.bench.photographs import LoadedCapture, Photograph, load_photographs
from closeup_ns.bench.protocol import Scene
from closeup_ns.bench.splits import Split, closer_views, looked_at, point_at_pixel, split_by_distance, tiles
from closeup_ns.data.capture import PointCloud
from closeup_ns.data.demo_scene import write_demo_scene
from closeup_ns.data.demo_write import read_truth, read_views, write_photograph, write_points
from closeup_ns.data.eval_cameras import EvalCamera, write_cameras
from closeup_ns.errors import DataError
from closeup_ns.views.view import View

_OPENGL = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
FRONTIER = "frontier.json"


def prepare_case(protocol: str, scene: Scene, data: Path, folder: Path) -> PreparedCase:
    """The case of a scene below ``folder``; one that is there and was made with the same settings is kept.

    Raises:
        DataError: the scene's data is missing below ``data`` or cannot be split as the protocol says.
    """
    settings = {**asdict(scene.rule), "scales": list(scene.rule.scales), "data": scene.data, "pixel": scene.pixel}
    settings |= scene.settings
    try:
        found = read_case(folder)
        if found.case.made_with == settings:
            return found
    except DataError:
        pass  # not there, or unfinished: made anew
    if folder.exists():
        shutil.rmtree(folder)
    if scene.rule.kind == "rendered":
        case = _render(protocol, scene, folder)
    else:
        source = data / scene.data
        if not source.exists():
            raise DataError(
                f"scene {scene.name} of protocol {protocol} needs {source}; --data names the folder above it"
            )
        kinds = {"distance": _by_distance, "progressive": _progressive, "zoom": _zoom}
        case = kinds[scene.rule.kind](protocol, scene, source, folder)
    Case(**{**asdict(case), "made_with": settings, "notes": case.notes}).write(folder)
    return read_case(folder)


def _render(protocol: str, scene: Scene, folder: Path) -> Case:
    """The demo scene: photographs and truth are rendered."""
    made = {"seed": 0, "size": (512, 384), "far_photos": 34, "closeups": 4, **scene.settings}
    write_demo_scene(folder, int(made["seed"]), int(made["far_photos"]), tuple(made["size"]), int(made["closeups"]))
    capture = folder / "capture"
    held_out = set(json.loads((capture / "transforms.json").read_text(encoding="utf8"))["test_filenames"])
    cameras = []
    for frame, view in read_views(capture):
        if frame["file_path"] in held_out:
            path = folder / "truth" / Path(frame["file_path"]).name
            shutil.copyfile(capture / frame["file_path"], path)
            cameras.append(EvalCamera(path.stem, 1.0, view, path))
    cameras += [EvalCamera(t.name, float(t.scale), t.view, t.image_path) for t in read_truth(folder / "truth")]
    write_cameras(folder / "cameras.json", cameras)
    note = json.loads((folder / "demo.json").read_text(encoding="utf8"))
    click = note["click"]
    return Case(
        protocol, scene.name, f"{click['photo']}:{click['column']}:{click['row']}", tuple(note["target"]),
        scene.rule.scales, scene.rule.rounds, notes=["rendered: the truth is exact at every scale"],
    )  # fmt: skip


def _by_distance(protocol: str, scene: Scene, source: Path, folder: Path) -> Case:
    """Far photographs to train on, near ones to look at."""
    rule = scene.rule
    capture = load_photographs(source, rule.image_side)
    views = [photo.view for photo in capture.photographs]
    target = _target(scene, capture)
    if rule.split == "given":
        split = _given_split(capture, views, target, source)
    else:
        split = split_by_distance(views, target, rule.test_share, rule.threshold)
    far = split.train[:: rule.hold_out_every][1:] if rule.hold_out_every else []
    train = [index for index in split.train if index not in far]
    cameras = [_truth_camera(capture.photographs[i], 1.0, folder) for i in far]
    for index in split.test:
        nearer = split.distance / float((views[index].position - target).norm())
        cameras.append(_truth_camera(capture.photographs[index], max(round(2 * nearer) / 2, 1.5), folder))
    write_cameras(folder / "cameras.json", cameras)
    frontier = ""
    if rule.frontier == "test":
        frontier = FRONTIER
        write_cameras(folder / FRONTIER, [EvalCamera(c.name, c.scale, c.view) for c in cameras if c.scale > 1])
    keeps_points = rule.points == "given"
    _write_capture(folder, [capture.photographs[i] for i in train], capture.points if keeps_points else None)
    parts = (("train", train), ("far test", far), ("near test", split.test), ("left out", split.left_out))
    listed = {part: [capture.photographs[i].name for i in indices] for part, indices in parts}
    notes = [f"{part}: {len(names)} photographs: {', '.join(names)}" for part, names in listed.items()]
    if not keeps_points:
        notes.append("no seed points: the capture's may come from the near photographs")
    scales = tuple(sorted({camera.scale for camera in cameras if camera.scale > 1}))
    point = tuple(target.tolist())
    return Case(protocol, scene.name, scene.pixel, point, scales, rule.rounds, frontier, notes)


def _given_split(capture: LoadedCapture, views: Sequence[View], target: Tensor, source: Path) -> Split:
    if not capture.test or not capture.train:
        raise DataError(f"{source} has no lists of train and test photographs, which `split: given` asks for")
    distance = torch.stack([(view.position - target).norm() for view in views])
    train, test = sorted(capture.train), sorted(capture.test - capture.train)
    rest = [index for index in range(len(views)) if index not in train and index not in test]
    return Split(train, test, rest, float(distance[train].median()))


def _progressive(protocol: str, scene: Scene, source: Path, folder: Path) -> Case:
    """Everything is trained on; training views moved closer are looked at, and nobody knows the truth."""
    rule = scene.rule
    capture = load_photographs(source, rule.image_side)
    target = _target(scene, capture)
    views = [photo.view for photo in capture.photographs]
    cameras = [
        EvalCamera(f"{scale:g}x_{capture.photographs[index].name}", scale, view)
        for index, scale, view in closer_views(views, target, rule.scales, rule.views_per_scale)
    ]
    write_cameras(folder / "cameras.json", cameras)
    _write_capture(folder, capture.photographs, capture.points)
    notes = ["no photograph shows what the close-ups see: DINO and no-reference metrics only"]
    if not scene.pixel:
        wanted = f" ({scene.object})" if scene.object else ""
        notes.append(f"the object of interest{wanted} was not clicked: what the cameras look at is taken")
    return Case(protocol, scene.name, scene.pixel, tuple(target.tolist()), rule.scales, rule.rounds, notes=notes)


def _zoom(protocol: str, scene: Scene, source: Path, folder: Path) -> Case:
    """Small photographs to train on; at held-out poses, crops of the large ones to look at."""
    rule = scene.rule
    small = load_photographs(source, folder=rule.train_folder)
    large = load_photographs(source, folder=rule.test_folder)
    held_out = list(range(0, len(small.photographs), rule.hold_out_every)) if rule.hold_out_every else []
    if not held_out:
        raise DataError(f"protocol {protocol}: hold_out_every must be at least 1, or nothing is tested")
    cameras = []
    for index in held_out:
        photo, detailed = small.photographs[index], large.photographs[index]
        scale = round(detailed.view.width / photo.view.width, 2)
        if detailed.name != photo.name or scale < 1.5:
            raise DataError(
                f"{source}: {rule.test_folder} is not a larger set of the photographs of {rule.train_folder}"
            )
        cameras.append(_truth_camera(photo, 1.0, folder))
        for name, view, (x, y) in tiles(photo.view, detailed.view):
            crop = detailed.image[y : y + view.height, x : x + view.width]
            cameras.append(_truth_camera(Photograph(f"{photo.name}_{name}", view, crop), scale, folder))
    write_cameras(folder / "cameras.json", cameras)
    train = [photo for index, photo in enumerate(small.photographs) if index not in held_out]
    _write_capture(folder, train, small.points)
    target = _target(scene, small)
    scales = tuple(sorted({camera.scale for camera in cameras if camera.scale > 1}))
    notes = [f"every {rule.hold_out_every}th photograph is held out; {rule.train_folder} against {rule.test_folder}"]
    return Case(protocol, scene.name, scene.pixel, tuple(target.tolist()), scales, rule.rounds, notes=notes)


def _target(scene: Scene, capture: LoadedCapture) -> Float[Tensor, "3"]:
    """The object of interest in the capture's frame."""
    if not scene.pixel:
        points = None if capture.points is None else torch.from_numpy(capture.points.xyz).double()
        return looked_at([photo.view for photo in capture.photographs], points)
    try:
        name, column, row = scene.pixel.rsplit(":", 2)
        where = (float(column), float(row))
    except ValueError:
        raise DataError(f"scene {scene.name}: the pixel {scene.pixel!r} is not NAME:COLUMN:ROW") from None
    found = [photo for photo in capture.photographs if photo.name == Path(name).stem]
    if not found or capture.points is None:
        lacking = "no photograph is called " + name if not found else "the capture has no points to lift it with"
        raise DataError(f"scene {scene.name}: the pixel {scene.pixel!r} cannot be used: {lacking}")
    return point_at_pixel(found[0].view, *where, torch.from_numpy(capture.points.xyz).double())


def _truth_camera(photo: Photograph, scale: float, folder: Path) -> EvalCamera:
    path = folder / "truth" / f"{photo.name}.png"
    write_photograph(path, photo.image)
    return EvalCamera(photo.name, scale, photo.view, path)


def _write_capture(folder: Path, photographs: Sequence[Photograph], points: PointCloud | None) -> None:
    """capture/: the photographs that may be trained on, and nothing of the test.

    nerfstudio insists on evaluation photographs: they are a few of those trained on, and nobody reads their figures.
    """
    capture = folder / "capture"
    frames: list[dict[str, Any]] = []
    for photo in photographs:
        path = f"images/{photo.name}.png"
        write_photograph(capture / path, photo.image)
        K, view = photo.view.K, photo.view
        frames.append(
            {
                "file_path": path, "w": view.width, "h": view.height,
                "fl_x": float(K[0, 0]), "fl_y": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2]),
                "transform_matrix": (view.c2w * _OPENGL).tolist(),
            }
        )  # fmt: skip
    files = [frame["file_path"] for frame in frames]
    content: dict[str, Any] = {"camera_model": "PINHOLE", "train_filenames": files}
    content |= dict.fromkeys(("val_filenames", "test_filenames"), files[::8])
    if points is not None:
        write_points(capture / "sparse_pc.ply", points.xyz, points.rgb)
        content["ply_file_path"] = "sparse_pc.ply"
    write_json(capture / "transforms.json", {**content, "frames": frames})
