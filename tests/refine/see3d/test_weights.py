"""Where See3D's files are, what is missing of them, and the command that fetches them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from closeup_ns.cli.main import main
from closeup_ns.errors import RefinerError
from closeup_ns.refine.options import SEE3D_HUB
from closeup_ns.refine.see3d import weights
from closeup_ns.refine.see3d.loading import load_pipeline
from closeup_ns.refine.see3d.weights import SEE3D_REVISION, faults, weights_folder, why_not
from tests.refine.see3d.tiny import edit_tensors

CPU = torch.device("cpu")
UNET = "unet/sparse/ema-checkpoint/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
CLIP = f"{weights.IMAGE_ENCODER}/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_weights: Path, tmp_path: Path) -> Path:
    """MVD_weights of its own, without the network ``single``."""
    root = shutil.copytree(tiny_weights / weights.BELOW, tmp_path / "MVD_weights")
    shutil.rmtree(root / "unet/single")
    return Path(root)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def without(path: Path, part: str) -> None:
    edit_tensors(path, lambda tensors: [tensors.pop(name) for name in list(tensors) if part in name])


def test_a_folder_may_be_named_at_each_of_its_levels(tiny_weights: Path, folder: Path) -> None:
    root = tiny_weights / weights.BELOW
    assert {weights_folder(tiny_weights), weights_folder(root.parent), weights_folder(root)} == {root}
    assert why_not(str(folder), "sparse") is None and why_not(str(folder), "SR") is None


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / UNET).unlink(), f"not complete: {UNET} .missing"),
        (lambda root: cut(root / VAE), f"not complete: {VAE} .*(incomplete|not fully covered)"),
        (lambda root: (root / TEXT).write_bytes(b"version https://git-lfs"), f"not complete: {TEXT} "),
        (lambda root: (root / weights.SCHEDULER_FILE).write_text("{"), "scheduler_config.json cannot be read"),
        (lambda root: (root / weights.SCHEDULER_FILE).write_text("{}"), "prediction_type 'epsilon'"),
        (lambda root: shutil.rmtree(root / "unet"), "no unet in it"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_said_before_anything_is_trained(
    folder: Path, break_it: Callable[[Path], Any], message: str
) -> None:
    break_it(folder)
    reason = why_not(str(folder), "sparse")
    assert reason is not None and re.search(message, reason) and "\n" not in reason


@pytest.mark.parametrize("source", ["no/such/folder", "nobody/nothing"])
def test_what_is_neither_here_nor_in_the_cache(source: str) -> None:
    with pytest.raises(RefinerError, match="neither a folder nor in .* cache: `closeup-gs weights see3d` fetches"):
        weights_folder(source)


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PACKAGES", ("no_such_package",))
    assert why_not(SEE3D_HUB, "sparse") == "See3D needs no_such_package: pip install 'closeup-ns[see3d]'"


ENTRY, QUERY = "input_blocks.0.0.weight", "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
UNET_EDITS: list[tuple[Callable[[dict[str, Tensor]], Any], str]] = [
    (lambda t: t.update({ENTRY: torch.zeros(32, 4, 3, 3)}), r"conv_in.weight.*4, 3, 3.*9, 3, 3"),
    (lambda t: t.pop(QUERY), "Missing key.*down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"),
    (lambda t: t.update({QUERY: torch.zeros(32, 31)}), "size mismatch for down_blocks.0.attentions.0"),
    (lambda t: t.clear(), "Missing key"),
]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: without(root / TEXT, "layers.1.mlp.fc1.weight"), "text_encoder.*tensors are missing"),
        (lambda root: without(root / VAE, "decoder.conv_in.weight"), "vae.*tensors are missing"),
        (lambda root: without(root / CLIP, "visual_projection"), "CLIP.*missing"),
        (lambda root: cut(root / UNET), f"{UNET} cannot be loaded"),
        (lambda root: (root / "vae/config.json").write_text("{"), "vae cannot be loaded"),
        (lambda root: (root / "tokenizer/vocab.json").write_text("["), "tokenizer cannot be loaded"),
        *((lambda root, edit=edit: edit_tensors(root / UNET, edit), f"{UNET}.*{said}") for edit, said in UNET_EDITS),
    ],
)
def test_a_part_that_is_broken_is_named(folder: Path, break_it: Callable[[Path], Any], message: str) -> None:
    break_it(folder)
    with pytest.raises(RefinerError, match=message) as raised:
        load_pipeline(folder, "sparse", torch.float32, CPU)
    assert "\n" not in str(raised.value)


def test_parts_arrive_in_their_types_and_leave_the_callers_randomness_alone(folder: Path) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    pipeline = load_pipeline(folder, "sparse", torch.bfloat16, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    kinds = {name: getattr(pipeline, name).dtype for name in ("unet", "vae", "text_encoder", "image_encoder")}
    assert kinds == dict.fromkeys(kinds, torch.bfloat16) | {"image_encoder": torch.float32}
    stored = load_file(folder / TEXT)["text_model.encoder.layers.0.mlp.fc1.weight"]
    loaded = pipeline.text_encoder.state_dict()
    name = next(name for name in loaded if name.endswith("encoder.layers.0.mlp.fc1.weight"))
    assert torch.equal(loaded[name], stored.bfloat16())


class Hub:
    """In place of huggingface_hub.snapshot_download: a snapshot in a folder, or an error."""

    def __init__(self, folder: Path | Exception) -> None:
        self.folder = folder
        self.told: dict[str, Any] = {}

    def __call__(self, repository: str, **told: Any) -> str:
        self.told = {"repository": repository, **told}
        if isinstance(self.folder, Exception):
            raise self.folder
        return str(self.folder)


def test_the_command_fetches_the_pinned_commit_and_says_where_the_licence_is(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = Hub(tiny_weights)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    main(["weights", "see3d", "--unets", "sparse", "SR"])
    said = capsys.readouterr().out
    assert str(tiny_weights / weights.BELOW) in said and f"model card says: https://huggingface.co/{SEE3D_HUB}" in said
    assert (hub.told["repository"], hub.told["revision"]) == (SEE3D_HUB, SEE3D_REVISION)
    assert not hub.told["local_files_only"]
    wanted = hub.told["allow_patterns"]
    assert f"{weights.BELOW}/{UNET}" in wanted and not any("single" in name or name.endswith(".bin") for name in wanted)


def test_the_command_looks_at_a_folder_and_names_what_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["weights", "--folder", str(folder)])
    assert str(folder) in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["weights", "--folder", str(folder), "--unets", "single"])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "unet/single" in said and "(missing)" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "error", [OSError("No space left on device"), huggingface_hub.errors.OfflineModeIsEnabled("o")]
)
def test_a_hub_that_cannot_be_reached_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(error))
    with pytest.raises(SystemExit) as ended:
        main(["weights", "see3d"])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "cannot be fetched" in said and "goes on from there" in said
    assert said.count("\n") == 1


def test_training_never_downloads(monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> None:
    hub = Hub(tiny_weights)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert why_not("someone/copy", "SR") is None
    assert hub.told["local_files_only"] and hub.told["revision"] is None
    assert faults(tiny_weights / weights.BELOW, weights.UNETS) == []
