"""Captures with known cameras and dots: what comes out of the parser must land on the dots of the photographs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs, transform_poses_to_original_space
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.dataset import CloseupDataset
from tests.data import folders
from tests.data.folders import Scene

LAYOUTS: dict[str, Callable[[Path], Scene]] = {
    "llff": folders.make_llff,
    "llff-with-images-bin": partial(folders.make_llff, images_bin=True),
    "transforms": partial(folders.make_transforms, factors=(2,)),
    "colmap": partial(folders.make_colmap, factors=(2,)),
    "colmap-text": partial(folders.make_colmap, text=True, factors=(2,), llff_names=True),
    "colmap-old-folder": partial(folders.make_colmap, folder="colmap/sparse/0", factors=(2,)),
}


def parse(path: Path, split: str = "train", **options: object) -> DataparserOutputs:
    config = CloseupDataParserConfig(data=path, **options)  # type: ignore[arg-type]
    return config.setup().get_dataparser_outputs(split)


def project(cameras: Cameras, index: int, points: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(uv [P, 2], z-depth [P]) of ``points`` [P, 3] through one nerfstudio camera, written out from its definition."""
    c2w = cameras.camera_to_worlds[index].double()
    local = (points.double() - c2w[:, 3]) @ c2w[:, :3]  # OpenGL: x right, y up, z back
    depth = -local[:, 2]
    u = cameras.fx[index].double() * local[:, 0] / depth + cameras.cx[index].double()
    v = -cameras.fy[index].double() * local[:, 1] / depth + cameras.cy[index].double()
    return torch.stack([u, v], 1).numpy(), depth.numpy()


def scene_index(path: Path) -> int:
    """The photograph's number from its file name, whatever the naming."""
    return int("".join(character for character in path.stem if character.isdigit()))


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("factor", [1, 2])
def test_points_land_on_the_dots(make: Callable[[Path], Scene], factor: int, tmp_path: Path) -> None:
    scene = make(tmp_path)
    outputs = parse(tmp_path, train_on_all=True, downscale_factor=factor)
    dataset = CloseupDataset(outputs)
    assert len(dataset) == scene.n
    points, colours = outputs.metadata["points3D_xyz"], outputs.metadata["points3D_rgb"]
    assert points.dtype == torch.float32
    assert np.array_equal(colours.numpy(), scene.rgb)
    for index in range(scene.n):
        uv, depth = project(outputs.cameras, index, points)
        expected_uv, expected_depth = scene.project(scene_index(outputs.image_filenames[index]))
        np.testing.assert_allclose(uv, expected_uv / factor, atol=2e-3)
        np.testing.assert_allclose(depth / outputs.dataparser_scale, expected_depth, rtol=1e-4)
        image = dataset.get_numpy_image(index)
        assert image.shape == (scene.size[1] // factor, scene.size[0] // factor, 3)
        assert outputs.cameras.width[index].item() == image.shape[1]
        seen = image[uv[:, 1].astype(int), uv[:, 0].astype(int)].astype(int)
        assert np.abs(seen - scene.rgb.astype(int)).max() <= 1


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_cameras_stand_upright_in_the_unit_box_and_lead_back(make: Callable[[Path], Scene], tmp_path: Path) -> None:
    scene = make(tmp_path)
    outputs = parse(tmp_path, train_on_all=True)
    poses = outputs.cameras.camera_to_worlds
    assert poses[:, :, 1].mean(0)[2] > 0.99
    assert poses[:, :, 3].abs().max().item() == pytest.approx(1.0, abs=1e-6)
    original = transform_poses_to_original_space(
        poses, outputs.dataparser_transform, outputs.dataparser_scale, "opencv"
    )
    expected = np.stack([scene.c2w[scene_index(path)][:3] for path in outputs.image_filenames])
    np.testing.assert_allclose(original.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("text", [False, True])
def test_the_model_with_most_photographs_is_used(
    text: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """COLMAP numbers the parts of a capture that it cannot connect as it finds them."""
    scene = folders.make_colmap(tmp_path, folder="sparse/1", text=text)
    folders.write_model(tmp_path / "sparse/0", scene, ["IMG_0000.png", "IMG_0001.png"], text=text)
    assert len(parse(tmp_path, train_on_all=True).image_filenames) == 6
    printed = " ".join(capsys.readouterr().out.split())
    assert "sparse/1 has most images, 6" in printed and "sparse/0 (2 images)" in printed
    (tmp_path / "sparse/0").rename(tmp_path / "gone")
    assert len(parse(tmp_path, train_on_all=True).image_filenames) == 6
    assert "most images" not in capsys.readouterr().out


def test_names_with_blanks_in_colmaps_text(tmp_path: Path) -> None:
    scene = folders.make_colmap(tmp_path, n=3, images=False)
    names = [f"A map plan (4{index:02d}).png" for index in range(3)]
    for index, name in enumerate(names):
        folders.save_image(tmp_path / "images" / name, scene.photograph(index))
    shutil.rmtree(tmp_path / "sparse")
    folders.write_model(tmp_path / "sparse/0", scene, names, text=True)
    images = tmp_path / "sparse/0/images.txt"
    images.write_text("\ufeff" + images.read_text(), encoding="utf8")
    assert [path.name for path in parse(tmp_path, train_on_all=True).image_filenames] == names


def test_instant_ngps_fisheye(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    folders.edit_json(tmp_path / "transforms.json", camera_model=None, is_fisheye=True, k1=0.02, k5=0.0)
    assert (parse(tmp_path).cameras.camera_type == CameraType.FISHEYE.value).all()


def test_llff_bounds_are_scaled_with_the_world(tmp_path: Path) -> None:
    scene = folders.make_llff(tmp_path)
    outputs = parse(tmp_path, train_on_all=True)
    bounds = outputs.metadata["bounds"]
    assert bounds.shape == (scene.n, 2)
    for index in range(scene.n):
        depth = project(outputs.cameras, index, outputs.metadata["points3D_xyz"])[1]
        assert bounds[index, 0] == pytest.approx(depth.min() * 0.9, rel=1e-4)
        assert bounds[index, 1] == pytest.approx(depth.max() * 1.1, rel=1e-4)


@pytest.mark.parametrize("images_bin", [False, True])
def test_llff_takes_distortion_from_colmap(images_bin: bool, tmp_path: Path) -> None:
    folders.make_llff(tmp_path, k1=0.03, images_bin=images_bin)
    distortion = parse(tmp_path).cameras.distortion_params
    assert distortion is not None
    assert torch.allclose(distortion, torch.tensor([0.03, 0, 0, 0, 0, 0]))


def test_llff_without_a_model_still_works(tmp_path: Path) -> None:
    scene = folders.make_llff(tmp_path, sparse=False, images=False)
    outputs = parse(tmp_path, train_on_all=True)
    assert "points3D_xyz" not in outputs.metadata
    assert outputs.image_filenames[0].parent.name == "images_2"
    assert outputs.cameras.fx[0].item() == pytest.approx(scene.K[0, 0] / 2)
    assert torch.all(outputs.cameras.distortion_params == 0)


def test_llff_ignores_the_camera_of_another_reconstruction(tmp_path: Path) -> None:
    scene = folders.make_llff(tmp_path, k1=0.03)
    rows = np.load(tmp_path / "poses_bounds.npy")
    rows[:, 14] *= 1.5
    np.save(tmp_path / "poses_bounds.npy", rows)
    cameras = parse(tmp_path).cameras
    assert cameras.fx[0].item() == pytest.approx(scene.K[0, 0] * 1.5)
    assert torch.all(cameras.distortion_params == 0)


def test_llff_uses_the_registered_ones_of_more_images(tmp_path: Path) -> None:
    """COLMAP registers some of the images only; images.bin says which, also for images_N in sorted order."""
    scene = folders.make_llff(tmp_path, images_bin=True)
    for folder, name in (("images", "IMG_0002a.png"), ("images_2", "image0025.png")):
        folders.save_image(tmp_path / folder / name, np.zeros((24, 32, 3), np.uint8))
    outputs = parse(tmp_path, train_on_all=True, downscale_factor=2)
    stems = [path.name for path in outputs.image_filenames]
    assert stems == ["image000.png", "image001.png", "image002.png", "image003.png", "image004.png", "image005.png"]
    assert len(outputs.image_filenames) == scene.n


def test_transforms_agree_with_nerfstudios_own_parser(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path, n=12, per_frame=True)
    for split in ("train", "val", "test"):
        ours = parse(tmp_path, split)
        theirs = NerfstudioDataParserConfig(data=tmp_path).setup().get_dataparser_outputs(split)
        assert ours.image_filenames == theirs.image_filenames
        assert torch.allclose(ours.cameras.camera_to_worlds, theirs.cameras.camera_to_worlds, atol=1e-6)
        assert torch.allclose(ours.cameras.get_intrinsics_matrices(), theirs.cameras.get_intrinsics_matrices())
        assert torch.allclose(ours.dataparser_transform, theirs.dataparser_transform, atol=1e-6)
        assert ours.dataparser_scale == pytest.approx(theirs.dataparser_scale)


def test_colmap_agrees_with_nerfstudios_own_parser(tmp_path: Path) -> None:
    folders.make_colmap(tmp_path, n=9, k1=0.01)
    ours = parse(tmp_path, train_on_all=True)
    config = ColmapDataParserConfig(data=tmp_path, colmap_path=Path("sparse/0"), eval_mode="all")
    theirs = config.setup().get_dataparser_outputs("train")
    order = np.argsort([path.name for path in theirs.image_filenames]).tolist()  # they sort by image id
    assert ours.image_filenames == [theirs.image_filenames[i] for i in order]
    assert torch.allclose(ours.cameras.camera_to_worlds, theirs.cameras.camera_to_worlds[order], atol=1e-6)
    assert torch.allclose(ours.metadata["points3D_xyz"], theirs.metadata["points3D_xyz"], atol=1e-5)
    assert torch.equal(ours.metadata["points3D_rgb"], theirs.metadata["points3D_rgb"])
    assert torch.allclose(ours.cameras.distortion_params, theirs.cameras.distortion_params[order])


@pytest.mark.parametrize("make", [folders.make_llff, folders.make_colmap])
def test_every_eighth_image_by_name_is_held_out(make: Callable[..., Scene], tmp_path: Path) -> None:
    make(tmp_path, n=10)
    train, test = parse(tmp_path, "train"), parse(tmp_path, "test")
    assert [scene_index(path) for path in test.image_filenames] == [0, 8]
    assert [scene_index(path) for path in train.image_filenames] == [1, 2, 3, 4, 5, 6, 7, 9]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"train": [0, 2, 3, 4], "val": [5], "test": [1]}, {"train": [0, 2, 3, 4], "val": [5], "test": [1]}),
        ({"train": [0, 1, 2]}, {"train": [0, 1, 2], "val": [3, 4, 5], "test": [3, 4, 5]}),
        ({"test": [5]}, {"train": [0, 1, 2, 3, 4], "val": [5], "test": [5]}),
        ({"train": [0, 1], "val": [4]}, {"train": [0, 1], "val": [4], "test": [4]}),
    ],
)
def test_lists_of_file_names_decide_the_split_and_missing_ones_are_completed(
    lists: dict, expected: dict, tmp_path: Path
) -> None:
    folders.make_transforms(tmp_path)
    names = {f"{s}_filenames": [f"images/frame_{i:05d}.png" for i in members] for s, members in lists.items()}
    folders.edit_json(tmp_path / "transforms.json", **names)
    everything = parse(tmp_path, train_on_all=True).cameras.camera_to_worlds
    for split, members in expected.items():
        outputs = parse(tmp_path, split)
        assert [scene_index(path) for path in outputs.image_filenames] == members
        assert torch.equal(outputs.cameras.camera_to_worlds, everything[members])


def test_a_small_transforms_capture_keeps_something_to_evaluate_on(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path, n=4)
    assert len(parse(tmp_path, "test").image_filenames) == 1
    assert len(parse(tmp_path, "train").image_filenames) == 3


def test_a_json_file_as_data_is_the_one_that_is_read(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    other = tmp_path / "transforms_far.json"
    other.write_text((tmp_path / "transforms.json").read_text())
    folders.edit_json(other, train_filenames=["images/frame_00003.png", "images/frame_00004.png"])
    assert [scene_index(path) for path in parse(other).image_filenames] == [3, 4]


def test_frames_may_have_their_own_cameras(tmp_path: Path) -> None:
    """Two cameras, one of them of half the size: every frame keeps its own, also against the top of the file."""
    scene = folders.make_transforms(tmp_path, per_frame=True)
    meta = json.loads((tmp_path / "transforms.json").read_text())
    small = next(frame for frame in meta["frames"] if frame["file_path"].endswith("2.png"))
    folders.save_image(tmp_path / small["file_path"], scene.photograph(2), factor=2)
    for key in ("w", "h", "fl_x", "fl_y", "cx", "cy"):
        small[key] /= 2
    small["k1"] = 0.02
    meta |= {"fl_x": 1.0, "k1": 0.5, "k2": 0.1}
    (tmp_path / "transforms.json").write_text(json.dumps(meta))
    outputs = parse(tmp_path, train_on_all=True)
    assert outputs.cameras.width.flatten().tolist() == [64, 64, 32, 64, 64, 64]
    expected = torch.tensor([[0.5, 0.1]] * 2 + [[0.02, 0.0]] + [[0.5, 0.1]] * 3)  # a frame's own lens is all of it
    torch.testing.assert_close(outputs.cameras.distortion_params[:, :2], expected)
    uv = project(outputs.cameras, 2, outputs.metadata["points3D_xyz"])[0]
    np.testing.assert_allclose(uv, scene.project(2)[0] / 2, atol=2e-3)


def test_focal_length_from_the_angle_of_view(tmp_path: Path) -> None:
    scene = folders.make_transforms(tmp_path)
    changes = dict.fromkeys(("fl_x", "fl_y", "cx", "cy", "w", "h"))
    angle = 2 * np.arctan(scene.size[0] / 2 / scene.K[0, 0])
    folders.edit_json(tmp_path / "transforms.json", camera_angle_x=angle, **changes)
    cameras, focal = parse(tmp_path).cameras, scene.K[0, 0]
    found = [float(values[0]) for values in (cameras.fx, cameras.fy, cameras.cx, cameras.cy)]
    assert found == pytest.approx([focal, focal, 32, 24], rel=1e-6)


def test_seed_points_from_colmap_beside_a_transforms_file(tmp_path: Path) -> None:
    """An old ns-process-data folder without ply_file_path: nerfstudio would stop and ask; we read the model."""
    scene = folders.make_transforms(tmp_path, ply=False)
    applied = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]])
    original = folders.Scene((scene.xyz - applied[:, 3]) @ applied[:, :3], scene.rgb, scene.c2w, scene.K, scene.size)
    folders.write_model(tmp_path / "colmap/sparse/0", original, ["a.png"])
    outputs = parse(tmp_path, train_on_all=True)
    for index in range(scene.n):
        uv = project(outputs.cameras, index, outputs.metadata["points3D_xyz"])[0]
        np.testing.assert_allclose(uv, scene.project(index)[0], atol=2e-3)


def test_masks_come_along(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path, masks=True, factors=(2,))
    mask = np.zeros((24, 32), np.uint8)
    mask[:, :5] = 255
    folders.save_image(tmp_path / "masks_2/frame_00001.png", mask)
    outputs = parse(tmp_path, train_on_all=True, downscale_factor=2)
    assert outputs.mask_filenames is not None
    assert outputs.mask_filenames[1] == tmp_path / "masks_2/frame_00001.png"
    assert outputs.mask_filenames[2] == tmp_path / "masks/frame_00002.png"
    data = CloseupDataset(outputs).get_data(1, "uint8")
    assert data["image"].shape == (24, 32, 3)
    assert torch.equal(data["mask"][..., 0], torch.from_numpy(mask > 0))
    # The mask of full size is brought to the size of the image.
    assert CloseupDataset(outputs).get_data(2)["mask"].shape == (24, 32, 1)


def test_masks_folder_of_a_colmap_capture(tmp_path: Path) -> None:
    folders.make_colmap(tmp_path, n=3)
    for index in range(3):
        folders.save_image(tmp_path / "masks" / f"IMG_{index:04d}.png", np.full((48, 64), 255, np.uint8))
    outputs = parse(tmp_path, "test", masks_path=Path("masks"))
    assert outputs.mask_filenames == [tmp_path / "masks/IMG_0000.png"]
