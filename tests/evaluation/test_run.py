"""The frames of capture and model, and runs that cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from closeup_ns.errors import CheckpointError
from closeup_ns.evaluation.run import open_run
from closeup_ns.model.cameras import from_model_frame, to_model_frame
from closeup_ns.views.warp import project
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
    """What is left of it can be valid YAML, and even a whole pipeline."""
    whole = yaml.dump(tiny_config(tmp_path, tmp_path)).encode()
    path = tmp_path / "config.yml"
    for length in (int(share * len(whole)) + extra for extra in range(7)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=f"{path} cannot be read .*restore it from a copy"):
            open_run(path)


@pytest.mark.parametrize("content", [b"a: 1", b"\xff\xfe", b"- 1", b"!!python/object/apply:os.system [exit 1]", b"{"])
def test_what_is_no_config_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yml").write_bytes(content)
    with pytest.raises(CheckpointError, match="config.yml cannot be read"):
        open_run(tmp_path / "config.yml")
