"""Damage at random: whatever bytes a capture's files hold, reading them ends in a DataError or a usable capture."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.errors import DataError
from tests.data import folders


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pristine")
    folders.make_llff(root / "llff", n=2, images_bin=True)
    folders.make_transforms(root / "transforms", n=2)
    return {
        **{name: root / "llff/sparse/0" / name for name in ("cameras.bin", "images.bin", "points3D.bin")},
        "poses_bounds.npy": root / "llff/poses_bounds.npy",
        "transforms.json": root / "transforms/transforms.json",
        "sparse_pc.ply": root / "transforms/sparse_pc.ply",
    }


@pytest.mark.parametrize(
    "name", ["cameras.bin", "images.bin", "points3D.bin", "poses_bounds.npy", "transforms.json", "sparse_pc.ply"]
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_damaged_bytes_end_in_data_error_or_in_a_usable_capture(
    name: str, pristine: dict[str, Path], data: st.DataObject
) -> None:
    path = pristine[name]
    whole = path.read_bytes()
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, min(len(broken), 400) - 1))] = data.draw(st.integers(0, 255))
    del broken[data.draw(st.one_of(st.just(len(broken)), st.integers(0, len(broken)))) :]
    root = path.parent if name in ("transforms.json", "sparse_pc.ply", "poses_bounds.npy") else path.parents[2]
    try:
        path.write_bytes(broken)
        outputs = CloseupDataParserConfig(data=root).setup().get_dataparser_outputs()
        assert outputs.cameras.camera_to_worlds.isfinite().all()
        if "points3D_xyz" in outputs.metadata:
            assert len(outputs.metadata["points3D_xyz"]) == len(outputs.metadata["points3D_rgb"])
    except DataError:
        pass
    finally:
        path.write_bytes(whole)
