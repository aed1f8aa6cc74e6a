"""Finding the published files, and one message that lists all that is wrong with them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from closeup_ns.errors import RefinerError
from closeup_ns.refine.enhance.options import See3DSRConfig
from closeup_ns.refine.options import SEE3D_HUB, SEE3D_REVISION, See3DRefinerConfig
from closeup_ns.refine.see3d import layout
from closeup_ns.refine.see3d.tiny import write_tiny_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_weights(tmp_path_factory.mktemp("tiny"), torch.Generator().manual_seed(1), widths=(32, 32))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "weights"))


@pytest.fixture
def cache(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache with the pinned revision of the hub's repository in it; returns the snapshot."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--bruiiii--See3D" / "snapshots" / SEE3D_REVISION
    return Path(shutil.copytree(original, snapshot))


@pytest.mark.parametrize("below", ["", "checkpoint", "checkpoint/MVD_weights"])
def test_a_local_folder_is_found_from_three_places(original: Path, below: str) -> None:
    assert layout.find(original / below, SEE3D_REVISION) == original / "checkpoint" / "MVD_weights"
    assert layout.find(str(original / below), "anything") == original / "checkpoint" / "MVD_weights"


def test_a_home_folder_may_be_short(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(original.parent))
    assert layout.find(f"~/{original.name}", "") == original / "checkpoint" / "MVD_weights"


def test_the_hubs_files_are_found_in_the_cache_at_their_revision_only(cache: Path) -> None:
    assert layout.find(SEE3D_HUB, SEE3D_REVISION) == cache / "checkpoint" / "MVD_weights"
    with pytest.raises(RefinerError, match=r"revision 0000.*`closeup-gs weights see3d --revision 0000"):
        layout.find(SEE3D_HUB, "0" * 40)
    with pytest.raises(RefinerError, match=r"`closeup-gs weights see3d --repository someone/Else`"):
        layout.find("someone/Else", SEE3D_REVISION)


def test_a_snapshot_that_lacks_files_is_found_all_the_same(cache: Path) -> None:
    """So that the message can say which."""
    root = cache / "checkpoint" / "MVD_weights"
    (root / "scheduler" / "scheduler_config.json").unlink()
    assert layout.find(SEE3D_HUB, SEE3D_REVISION) == root
    assert layout.problems(root, ["sparse"]) == ["scheduler/scheduler_config.json (missing)"]


@pytest.mark.parametrize("source", ["no/such/folder", "/nowhere", "", "too/many/parts", "name"])
def test_what_is_neither_folder_nor_hub_id_is_refused(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefinerError, match=r"neither a folder|does not hold"):
        layout.find(source, SEE3D_REVISION)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(RefinerError, match="neither a folder"):
        layout.find(tmp_path / "weights.safetensors", SEE3D_REVISION)


def test_a_folder_of_something_else_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(RefinerError, match=r"does not hold.*`closeup-gs weights see3d --folder"):
        layout.find(tmp_path, SEE3D_REVISION)


def test_everything_that_is_wrong_is_listed_at_once(folder: Path) -> None:
    root = folder / layout.BELOW
    (root / "tokenizer" / "merges.txt").unlink()
    (root / "vae" / "config.json").write_text("")
    (root / "text_encoder" / "config.json").write_text("<html>")
    path = root / "text_encoder" / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    (root / "vae" / "diffusion_pytorch_model.safetensors").write_text(pointer)
    (root / layout.IMAGE_ENCODER / "model.safetensors").write_bytes(b"\0" * 64)
    (root / "unet" / "sparse" / "ema-checkpoint" / "diffusion_pytorch_model.safetensors").write_bytes(whole + b"\0")
    (root / "unet" / "single" / "ema-checkpoint" / "config.json").unlink()
    expected = [
        "tokenizer/merges.txt (missing)",
        "text_encoder/config.json (not JSON)",
        f"text_encoder/model.safetensors (cut off at {len(whole) - 1} of {len(whole)} bytes)",
        "vae/config.json (empty)",
        "vae/diffusion_pytorch_model.safetensors (a Git LFS pointer, not the file: run `git lfs pull` in that clone)",
        f"{layout.IMAGE_ENCODER}/model.safetensors (not a safetensors file (64 bytes))",
        "unet/sparse/ema-checkpoint/diffusion_pytorch_model.safetensors (1 bytes longer than its header says)",
    ]
    assert layout.problems(root, ["sparse"]) == expected
    with pytest.raises(RefinerError) as raised:
        layout.check(root, ["sparse"])
    assert all(line in str(raised.value) for line in [*expected, f"--folder {root}", str(root)])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("diffusion_pytorch_model.bin", ".bin is there: pickled files are not loaded)"),
        ("diffusion_pytorch_model.fp16.safetensors", ".fp16.safetensors is there: rename or merge it)"),
        ("diffusion_pytorch_model-00001-of-00002.safetensors", "-00001-of-00002.safetensors is there: rename"),
        ("something.else", "diffusion_pytorch_model.safetensors (missing)"),
    ],
)
def test_what_stands_in_a_missing_files_place_is_said(folder: Path, name: str, message: str) -> None:
    path = folder / layout.BELOW / layout.VAE / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_name(name))
    (fault,) = layout.problems(folder / layout.BELOW, ["sparse"])
    assert message in fault


def test_only_the_named_networks_are_wanted(folder: Path) -> None:
    root = folder / layout.BELOW
    shutil.rmtree(root / "unet" / "single")
    shutil.rmtree(root / "unet" / "SR")
    assert layout.problems(root, ["sparse"]) == []
    assert len(layout.problems(root, layout.UNETS)) == 4
    # Neither is needed: the pipeline class is ours, and the second copy of CLIP is read by nobody.
    (root / "model_index.json").unlink()
    assert layout.problems(root, ["sparse"]) == []


def test_options_that_can_run(folder: Path, cache: Path) -> None:
    for weights in (str(folder), SEE3D_HUB, "tiny"):
        assert See3DRefinerConfig(weights=weights).why_not(CPU) is None
        assert layout.why_not(See3DSRConfig(weights=weights), CPU) is None


def test_which_network_the_options_need(folder: Path) -> None:
    root = folder / layout.BELOW
    assert layout.needed_unet(See3DRefinerConfig(), root) == "sparse"
    assert layout.needed_unet(See3DRefinerConfig(unet="single"), root) == "single"
    assert layout.needed_unet(See3DSRConfig(), root) == "SR"
    shutil.rmtree(root / "unet" / "sparse")
    assert layout.needed_unet(See3DRefinerConfig(), root) == "single"
    assert layout.why_not(See3DRefinerConfig(weights=str(folder)), CPU) is None
    assert "unet/sparse" in str(layout.why_not(See3DRefinerConfig(weights=str(folder), unet="sparse"), CPU))
    shutil.rmtree(root / "unet" / "SR")
    reason = layout.why_not(See3DSRConfig(weights=str(folder)), CPU)
    assert reason is not None and "unet/SR/ema-checkpoint/config.json (missing)" in reason and "\n" not in reason


def test_another_models_weights_are_known_by_their_header(folder: Path) -> None:
    from safetensors.torch import save_file

    path = folder / layout.BELOW / layout.unet_folder("sparse") / "diffusion_pytorch_model.safetensors"
    save_file({"input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3), "out.2.weight": torch.zeros(4, 32, 3, 3)}, path)
    assert "reads 4 channels" in str(layout.why_not(See3DRefinerConfig(weights=str(folder)), CPU))
    assert layout.why_not(See3DRefinerConfig(weights=str(folder), unet="single"), CPU) is None


def test_auto_may_take_either_network_so_both_are_looked_at(folder: Path) -> None:
    single = folder / layout.BELOW / layout.unet_folder("single")
    (single / "config.json").write_text(json.dumps({"context_dim": 7}))
    assert "single/ema" in str(layout.why_not(See3DRefinerConfig(weights=str(folder)), CPU))
    assert layout.why_not(See3DRefinerConfig(weights=str(folder), unet="sparse"), CPU) is None
    (single / "config.json").unlink()  # then auto does not take it
    assert layout.why_not(See3DRefinerConfig(weights=str(folder)), CPU) is None


def test_a_scheduler_that_diverges_is_said_before_the_base_training(folder: Path) -> None:
    path = folder / layout.BELOW / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("v_prediction", "epsilon"))
    assert "prediction_type 'epsilon'" in str(layout.why_not(See3DRefinerConfig(weights=str(folder)), CPU))
    assert "prediction_type 'epsilon'" in str(layout.why_not(See3DSRConfig(weights=str(folder)), CPU))


def test_missing_packages_come_first_and_with_their_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else found(name))
    for weights in (str(tmp_path), "tiny"):
        reason = layout.why_not(See3DRefinerConfig(weights=weights), CPU)
        assert reason == "transformers not installed: pip install 'closeup-ns[see3d]'"
    with pytest.raises(RefinerError, match="needs transformers.*closeup-ns"):
        layout.require_packages()


def test_asking_loads_no_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "missing_packages", list)
    for name in ("diffusers", "transformers", "safetensors"):
        monkeypatch.setitem(sys.modules, name, None)
    assert layout.why_not(See3DRefinerConfig(weights=str(folder)), CPU) is None
