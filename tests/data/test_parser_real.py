"""The real captures through nerfstudio's own datamanager: do the points lie where the photographs say?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.dataset import CloseupDataset
from tests.conftest import shared_data
from tests.data import folders


def datamanager(path: Path, **options: int) -> FullImageDatamanager[CloseupDataset]:
    parser = CloseupDataParserConfig(data=path, **options)  # type: ignore[arg-type]
    config = FullImageDatamanagerConfig(dataparser=parser, cache_images_type="uint8")
    return FullImageDatamanager[CloseupDataset](config)


def colour_error(manager: FullImageDatamanager[CloseupDataset], index: int, shift: tuple[float, float]) -> float:
    """Mean difference, of 255, between the sparse points' colours and the pixels that they project to (+ shift)."""
    camera = manager.train_dataset.cameras[index]
    image = manager.cached_train[index]["image"][..., :3].float()
    metadata = manager.train_dataparser_outputs.metadata
    c2w = camera.camera_to_worlds
    local = (metadata["points3D_xyz"] - c2w[:, 3]) @ c2w[:, :3]
    u = camera.fx * local[:, 0] / -local[:, 2] + camera.cx + shift[0]
    v = -camera.fy * local[:, 1] / -local[:, 2] + camera.cy + shift[1]
    height, width = image.shape[:2]
    seen = (local[:, 2] < 0) & (u > 4) & (u < width - 4) & (v > 4) & (v < height - 4)
    grid = torch.stack([u[seen] / width * 2 - 1, v[seen] / height * 2 - 1], 1)[None, None]
    pixels = torch.nn.functional.grid_sample(image.permute(2, 0, 1)[None], grid, align_corners=False)[0, :, 0].T
    colours = metadata["points3D_rgb"][seen].float()
    return float((pixels - colours).abs().mean(1).clamp(max=60).mean())


@pytest.mark.parametrize(
    ("parts", "factor", "count"), [(("llff", "flower"), 8, (29, 5)), (("fox", "transforms_farclose.json"), 2, (26, 7))]
)
def test_points_agree_with_the_photographs_to_a_fraction_of_a_pixel(
    parts: tuple[str, ...], factor: int, count: tuple[int, int]
) -> None:
    """The agreement of colours is best with no shift at all and falls off evenly on all sides, so poses, principal
    point, undistortion, image order and the points' frame are right together."""
    manager = datamanager(shared_data(*parts), downscale_factor=factor)
    assert (len(manager.train_dataset), len(manager.eval_dataset)) == count
    for index in (0, 12, 25):
        errors = {shift: colour_error(manager, index, shift) for shift in ((0, 0), (-2, 0), (2, 0), (0, -2), (0, 2))}
        at_rest = errors.pop((0, 0))
        assert at_rest < 0.97 * min(errors.values()), (index, at_rest, errors)
    up = manager.train_dataset.cameras.camera_to_worlds[:, :, 1].mean(0)
    assert up[2] > 0.9


def test_flower_without_a_flag() -> None:
    outputs = CloseupDataParserConfig(data=shared_data("llff", "flower")).setup().get_dataparser_outputs()
    assert {path.parent.name for path in outputs.image_filenames} == {"images"}
    assert (outputs.cameras.width[0].item(), outputs.cameras.height[0].item()) == (1600, 1200)
    assert outputs.cameras.fx[0].item() == pytest.approx(3575.0586 * 1600 / 4032, rel=1e-5)
    assert outputs.cameras.distortion_params[0, 0].item() == pytest.approx(0.0251346, rel=1e-4)
    assert len(outputs.metadata["points3D_xyz"]) == 23477
    # The bounds are those of the points: LLFF takes the 0.1 and 99.9 percentiles of the visible points' depths.
    c2w = outputs.cameras.camera_to_worlds[0]
    depth = -((outputs.metadata["points3D_xyz"] - c2w[:, 3]) @ c2w[:, 2]).numpy()
    near, far = outputs.metadata["bounds"][0].tolist()
    assert near == pytest.approx(np.quantile(depth, 0.001), rel=0.15)
    assert far == pytest.approx(np.quantile(depth, 0.999), rel=0.35)


def test_one_line_says_what_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders.make_llff(tmp_path, n=9)
    parser = CloseupDataParserConfig(data=tmp_path).setup()
    parser.get_dataparser_outputs("train")
    parser.get_dataparser_outputs("test")
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 1
    for word in ("LLFF", "9 images (7 train, 2 test)", "images at 64x48", "max_image_size=1600", "12 points"):
        assert word in lines[0]
