"""The frames of capture and model, and runs that cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from closeup_ns.errors import CheckpointError
from closeup_ns.evaluation.run import open_run
from closeup_ns.model.cameras import from_model_frame, to_model_frame
from closeup_ns.views.warp import project
from tests.scenes import facing_views


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
    (tmp_path / "config.yml").write_text("a: 1")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        open_run(tmp_path / "config.yml")
    (tmp_path / "nerfstudio_models").mkdir()
    with pytest.raises(CheckpointError, match="nerfstudio_models holds no checkpoint"):
        open_run(tmp_path / "config.yml")
