"""The frames of capture and model, and runs that cannot be opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanagerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.pictures import to_bytes
from closeup_ns.errors import CheckpointError
from closeup_ns.evaluation.evaluate import EvaluationConfig, evaluate
from closeup_ns.evaluation.pictures import read_picture, render_cameras
from closeup_ns.evaluation.run import EvaluatedRun, open_run
from closeup_ns.model.cameras import from_model_frame, to_model_frame
from closeup_ns.studio.datamanager import CloseupDatamanagerConfig
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.warp import project
from tests.data import folders
from tests.scenes import facing_views
from tests.tiny import tiny_config


def test_views_go_to_nerfstudios_frame_and_back_and_keep_their_picture() -> None:
    """A point seen at a pixel is seen at the same pixel after both have moved, at a depth times the scale."""
    generator = torch.Generator().manual_seed(0)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    rotation = rotation * torch.linalg.det(rotation)
    transform = torch.cat([rotation, torch.tensor([[0.5], [-2.0], [1.0]], dtype=torch.float64)], 1)
    point, scale = torch.tensor([0.2, -0.1, 3.0], dtype=torch.float64), 0.37
    for view in facing_views(3):
        moved = to_model_frame(view, transform, scale)
        uv, z = project(view, point)
        moved_uv, moved_z = project(moved, scale * (transform[:, :3] @ point + transform[:, 3]))
        torch.testing.assert_close(moved_uv, uv)
        torch.testing.assert_close(moved_z, scale * z)
        torch.testing.assert_close(from_model_frame(moved, transform, scale).c2w, view.c2w)


def test_a_run_whose_checkpoint_is_gone_is_an_error_and_no_exit(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        open_run(tmp_path / "config.yml")
    (tmp_path / "config.yml").write_text(yaml.dump(tiny_config(tmp_path, tmp_path)))
    with pytest.raises(CheckpointError, match=r"no checkpoint .* in .*nerfstudio_models"):
        open_run(tmp_path / "config.yml")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.8, 0.95, 0.998])
def test_a_config_that_is_cut_short_is_named(tmp_path: Path, share: float) -> None:
    """What is left of it can be valid YAML, and even a whole pipeline. So can what never was a config."""
    whole, path = yaml.dump(tiny_config(tmp_path, tmp_path)).encode(), tmp_path / "config.yml"
    cut = [whole[: int(share * len(whole)) + extra] for extra in range(7)]
    for content in [*cut, b"a: 1", b"\xff\xfe", b"- 1", b"!!python/object/apply:os.system [exit 1]", b"{"]:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{path} cannot be read .*restore it from a copy"):
            open_run(path)


def a_run(capture: Path, ours: bool) -> EvaluatedRun:
    """A run of closeup-gs or splatfacto on ``capture``, without its model."""
    config: Any = FullImageDatamanagerConfig(dataparser=NerfstudioDataParserConfig(data=capture))
    if ours:
        config = CloseupDatamanagerConfig(dataparser=CloseupDataParserConfig(data=capture, max_image_size=64))
    data = config.setup(device="cpu")
    pipeline = SimpleNamespace(datamanager=data, device="cpu", model=None)
    outputs = data.train_dataparser_outputs
    return EvaluatedRun(
        None, pipeline, 0, capture, outputs.dataparser_transform.double(), float(outputs.dataparser_scale)
    )


@pytest.mark.parametrize("ours", [True, False])
def test_the_truth_is_what_training_sees(ours: bool, tmp_path: Path) -> None:
    """Undistorted, at the camera's size, before the background and with its mask, of any method's run."""
    scene = folders.make_transforms(tmp_path, n=12, size=(128, 96), masks=True)
    folders.edit_json(tmp_path / "transforms.json", k1=-0.1)
    mask = np.full((96, 128), 255, np.uint8)
    mask[:, 90:] = 0
    for index in range(scene.n):
        pixels = np.dstack([scene.photograph(index), np.where(np.arange(96)[:, None] < 20, 0, mask * 0 + 255)])
        folders.save_image(tmp_path / f"images/frame_{index:05d}.png", pixels.astype(np.uint8))
        folders.save_image(tmp_path / f"masks/frame_{index:05d}.png", mask)
    run = a_run(tmp_path, ours)
    held_out = run.held_out(tmp_path / "truth")
    assert len(held_out) == len(run.pipeline.datamanager.eval_dataset) > 0
    for camera, (view, image, counted) in zip(held_out, run.data.eval_photographs(), strict=True):
        assert camera.truth is not None and camera.mask is not None and counted is not None
        truth = read_picture(camera.truth)
        assert torch.equal(truth, to_bytes(image)) and truth.shape[:2] == (camera.view.height, camera.view.width)
        assert (truth.shape[1] < 64) == ours and (truth[:5] == 0).all()  # cropped by undistortion; what is transparent
        assert torch.equal(camera.view.K, view.K.double())
        assert torch.equal(read_picture(camera.mask)[..., 0] > 0, counted)
        assert 0.6 < counted.float().mean() < 0.8

    def wrong_where_hidden(view: Any) -> Rendered:
        index = next(i for i, camera in enumerate(held_out) if camera.view is view)
        _, image, counted = run.data.eval_photograph(index)
        assert counted is not None
        color = torch.where(counted[..., None], image, 1 - image)
        return Rendered(color, color[..., 0], color[..., 0])

    render_cameras(wrong_where_hidden, held_out, tmp_path / "renders")
    means = evaluate(held_out, tmp_path / "renders", EvaluationConfig(metrics=("psnr", "psnr_masked"))).means()["far"]
    assert means["psnr_masked"] == 100.0 and means["psnr"] < 10
    unmasked = [replace(camera, mask=None) for camera in held_out]
    scores = evaluate(unmasked, tmp_path / "renders", EvaluationConfig(metrics=("psnr", "psnr_masked")))
    assert set(scores.metrics) == {"psnr"} and not scores.missing


def test_two_cameras_of_a_rig_keep_their_names(tmp_path: Path) -> None:
    folders.make_colmap(tmp_path, n=2, images=False)
    scene = folders.make_scene(16)
    names = [f"{side}/{index:04d}.png" for side in ("left", "right") for index in range(8)]
    folders.write_model(tmp_path / "sparse/0", scene, names)
    for name in names:
        folders.save_image(tmp_path / "images" / name, np.zeros((48, 64, 3), np.uint8))
    run = a_run(tmp_path, ours=True)
    assert [camera.name for camera in run.held_out(tmp_path / "truth")] == ["left_0000", "right_0000"]
    run.write_photograph(3, tmp_path / "some" / "photograph.png")
    assert Image.open(tmp_path / "some" / "photograph.png").size == (64, 48)
