"""Prepares a scene on disk: training photographs, test cameras, and the truth in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.bench.scenes.photographs import LoadedCapture, Photograph, load_photographs
from closeup_ns.bench.scenes.prepared import PreparedScene, SceneRecord, read_scene
from closeup_ns.bench.scenes.protocol import Scene
from closeup_ns.bench.scenes.splits import Split, closer_views, looked_at, point_at_pixel, split_by_distance
from closeup_ns.data.capture import PointCloud
from closeup_ns.data.dataparser import CloseupDataParserConfig, load_capture
from closeup_ns.data.eval_cameras import EvalCamera, read_cameras, write_cameras
from closeup_ns.data.frames import write_transforms
from closeup_ns.data.pictures import write_picture
from closeup_ns.data.ply import write_points
from closeup_ns.errors import DataError
from closeup_ns.progress import bar
from closeup_ns.reading import read_json
from closeup_ns.views.view import View

FRONTIER = "frontier.json"


def prepare_scene(protocol: str, scene: Scene, data: Path, folder: Path) -> PreparedScene:
    """The prepared scene in ``folder``; one that is there and was made with the same settings is kept.

    Raises:
        DataError: the scene's data is missing below ``data`` or cannot be split as the protocol says.
    """
    settings = json.loads(json.dumps(asdict(scene)))
    with contextlib.suppress(DataError):  # not there, or unfinished: made anew
        found = read_scene(folder)
        if found.record.made_with == settings:
            return found
    if folder.exists():
        shutil.rmtree(folder)
    if scene.rule.kind == "rendered":
        record = _render(protocol, scene, folder)
    else:
        source = data / scene.data
        if not source.exists():
            raise DataError(
                f"scene {scene.name} of protocol {protocol} needs {source}; --data names the folder above it"
            )
        kinds = {"distance": _by_distance, "progressive": _progressive, "native": _native}
        record = kinds[scene.rule.kind](protocol, scene, source, folder)
    replace(record, made_with=settings).write(folder)
    return read_scene(folder)


def _render(protocol: str, scene: Scene, folder: Path) -> SceneRecord:
    """The demo scene: photographs and truth are rendered."""
    from closeup_ns.data.demo.scene import SCALES, DemoNote, write_demo_scene  # it needs Mitsuba, which others do not

    made = scene.rendered
    with bar("rendering the scene's pictures", made.far_photos + len(SCALES) * made.closeups) as advance:
        write_demo_scene(folder, made.seed, made.far_photos, made.size, made.closeups, made.finer, advance=advance)
    capture = folder / "capture"
    note = read_json(folder / "demo.json", DemoNote, f"Remove {folder}")
    cameras = []
    for camera in read_cameras(capture / "transforms.json"):
        if camera.truth is not None and camera.truth.name in note.held_out:
            truth = folder / "truth" / camera.truth.name
            shutil.copyfile(capture / f"images_{made.finer}" / truth.name, truth)
            cameras.append(replace(camera, view=camera.view.scaled_to(*made.size), truth=truth))
    cameras += read_cameras(folder / "truth" / "cameras.json")
    write_cameras(folder / "cameras.json", cameras)
    return SceneRecord(
        protocol, scene.name, f"{note.click.photo}:{note.click.column}:{note.click.row}", note.target,
        image_side=max(made.size), notes=["rendered: the truth is exact at every scale"],
    )  # fmt: skip


def _native(protocol: str, scene: Scene, source: Path, folder: Path) -> SceneRecord:
    """The data as it is: ns-eval holds photographs out, and cuts crops from their originals around the target."""
    side = scene.rule.image_side
    if not scene.pixel:
        raise DataError(
            f"scene {scene.name}: give it a pixel (NAME:COLUMN:ROW of a photograph with a long side of {side} pixels). "
            "Without one each row would be scored around a target of its own, where its own depth has it"
        )
    folder.mkdir(parents=True)
    (folder / "capture").symlink_to(source.resolve(), target_is_directory=True)
    point = _target(scene, load_photographs(source, side))
    xyz = tuple(_in_nerfstudios_world(point, source).tolist())
    notes = ["ns-eval holds out every eighth photograph; close-ups are crops of their originals around the target"]
    return SceneRecord(protocol, scene.name, scene.pixel, tuple(point.tolist()), xyz, side, "ns-eval", notes=notes)


def _in_nerfstudios_world(point: Float[Tensor, "3"], source: Path) -> Float[Tensor, "3"]:
    """A point of the capture's frame, as its photographs' views have it, where ns-train will see it.

    The parser's transform begins in the frame of the original files, before what COLMAP's frames are turned by.
    """
    config = CloseupDataParserConfig(data=source)
    (capture, _), parsed = load_capture(config), config.setup().get_dataparser_outputs("train")
    whole, applied = torch.eye(4, dtype=torch.float64), torch.from_numpy(capture.applied_transform)
    whole[:3] = parsed.dataparser_transform.double()
    moved = whole @ torch.linalg.inv(applied) @ torch.cat([point.double(), point.new_ones(1).double()])
    return moved[:3] * parsed.dataparser_scale / capture.applied_scale


def _by_distance(protocol: str, scene: Scene, source: Path, folder: Path) -> SceneRecord:
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
    return SceneRecord(protocol, scene.name, scene.pixel, tuple(target.tolist()), frontier=frontier, notes=notes)


def _given_split(capture: LoadedCapture, views: Sequence[View], target: Tensor, source: Path) -> Split:
    if not capture.test or not capture.train:
        raise DataError(f"{source} has no lists of train and test photographs, which `split: given` asks for")
    distance = torch.stack([(view.position - target).norm() for view in views])
    train, test = sorted(capture.train), sorted(capture.test - capture.train)
    rest = [index for index in range(len(views)) if index not in train and index not in test]
    return Split(train, test, rest, float(distance[train].median()))


def _progressive(protocol: str, scene: Scene, source: Path, folder: Path) -> SceneRecord:
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
    return SceneRecord(protocol, scene.name, scene.pixel, tuple(target.tolist()), notes=notes)


def _target(scene: Scene, capture: LoadedCapture) -> Float[Tensor, "3"]:
    """The object of interest in the capture's frame."""
    if not scene.pixel:
        points = None if capture.points is None else torch.from_numpy(capture.points.xyz).double()
        return looked_at([photo.view for photo in capture.photographs], points)
    name, column, row = scene.pixel.rsplit(":", 2)
    found = [photo for photo in capture.photographs if photo.name == Path(name).stem]
    if not found or capture.points is None:
        lacking = "no photograph is called " + name if not found else "the capture has no points to lift it with"
        raise DataError(f"scene {scene.name}: the pixel {scene.pixel!r} cannot be used: {lacking}")
    return point_at_pixel(found[0].view, float(column), float(row), torch.from_numpy(capture.points.xyz).double())


def _truth_camera(photo: Photograph, scale: float, folder: Path) -> EvalCamera:
    path = folder / "truth" / f"{photo.name}.png"
    write_picture(path, photo.image)
    return EvalCamera(photo.name, scale, photo.view, path)


def _write_capture(folder: Path, photographs: Sequence[Photograph], points: PointCloud | None) -> None:
    """capture/: the photographs that may be trained on, and nothing of the test.

    nerfstudio insists on evaluation photographs: they are a few of those trained on, and nobody reads their figures.
    """
    capture = folder / "capture"
    files = [f"images/{photo.name}.png" for photo in photographs]
    for path, photo in zip(files, photographs):
        write_picture(capture / path, photo.image)
    content: dict[str, Any] = {"train_filenames": files}
    content |= dict.fromkeys(("val_filenames", "test_filenames"), files[::8])
    if points is not None:
        write_points(capture / "sparse_pc.ply", points.xyz, points.rgb)
        content["ply_file_path"] = "sparse_pc.ply"
    frames = [({"file_path": path}, photo.view) for path, photo in zip(files, photographs)]
    write_transforms(capture / "transforms.json", frames, **content)
