"""All parts from the published layout through their stock loaders, and one error for whichever is broken."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from closeup_ns.errors import RefinerError, RefinerOutOfMemory
from closeup_ns.refine.options import SEE3D_HUB, SEE3D_REVISION
from closeup_ns.refine.see3d import layout, loading
from closeup_ns.refine.see3d.layout import IMAGE_ENCODER, UNETS, UNetName
from closeup_ns.refine.see3d.loading import Components, load_components
from closeup_ns.refine.see3d.tiny import write_tiny_weights

SMALL = {"widths": (32, 32), "vae_width": 4, "image_size": 28}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_weights(tmp_path_factory.mktemp("tiny"), torch.Generator().manual_seed(1), **SMALL)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "weights"))


def change_tensors(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def change_json(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def add_a_thousand(path: Path) -> None:
    """To the number of each entry of a vocabulary but of the one that pads."""
    entries = json.loads(path.read_text(encoding="utf8")).items()
    path.write_text(json.dumps({entry: number + 1000 * (entry != "!") for entry, number in entries}), encoding="utf8")


def all_tensors(components: Components) -> dict[str, Tensor]:
    parts = ("unet", "vae", "text_encoder", "image_encoder")
    return {f"{part}.{name}": value for part in parts for name, value in getattr(components, part).state_dict().items()}


@pytest.mark.parametrize("unet", UNETS)
def test_each_network_comes_with_its_own_tensors(original: Path, unet: UNetName) -> None:
    components = load_components(original, unet)
    root = original / layout.BELOW
    stored = load_file(root / layout.unet_folder(unet) / "diffusion_pytorch_model.safetensors")
    assert torch.equal(components.unet.state_dict()["conv_in.weight"], stored["input_blocks.0.0.weight"])
    assert components.scheduler_config == json.loads((root / "scheduler" / "scheduler_config.json").read_text())
    assert components.scheduler_config["timestep_scaling"] == "trailing"


def test_every_stored_tensor_is_in_a_part(original: Path) -> None:
    components, root = load_components(original, "sparse"), original / layout.BELOW
    vae = load_file(root / "vae" / "diffusion_pytorch_model.safetensors")
    text = load_file(root / "text_encoder" / "model.safetensors")
    clip = load_file(root / IMAGE_ENCODER / "model.safetensors")
    assert all(torch.equal(value, vae[name]) for name, value in components.vae.state_dict().items())
    loaded = {name.removeprefix("text_model."): v for name, v in components.text_encoder.state_dict().items()}
    assert all(torch.equal(loaded[name.removeprefix("text_model.")], value) for name, value in text.items())
    vision = components.image_encoder.state_dict()
    names = {name for name in clip if name.startswith(("vision_model.", "visual_projection."))}
    assert len(names) > 20
    assert all(torch.equal(vision[name], clip[name]) for name in names)


def test_precision_and_mode(original: Path) -> None:
    components = load_components(original, "sparse", dtype=torch.float16)
    dtypes = {part: getattr(components, part).dtype for part in ("unet", "vae", "text_encoder", "image_encoder")}
    assert dtypes == {**dict.fromkeys(dtypes, torch.float16), "image_encoder": torch.float32}
    models = (components.unet, components.vae, components.text_encoder, components.image_encoder)
    assert not any(model.training for model in models)
    assert not any(value.requires_grad for model in models for value in model.parameters())
    halved = load_components(original, "sparse", image_encoder_dtype=torch.bfloat16)
    assert halved.image_encoder.dtype == torch.bfloat16 and halved.unet.dtype == torch.float32


def test_tiny_is_the_same_each_time_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    one, two = load_components("tiny", "SR"), load_components("tiny", "SR")
    assert not list(tmp_path.iterdir())
    first, second = all_tensors(one), all_tensors(two)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_hubs_files_come_from_the_cache_and_never_from_the_network(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("reached for the network")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(RefinerError, match="not in the local Hugging Face cache"):
        load_components(SEE3D_HUB, "sparse")
    shutil.copytree(original, tmp_path / "hub" / "models--bruiiii--See3D" / "snapshots" / SEE3D_REVISION)
    cached, local = load_components(SEE3D_HUB, "sparse"), load_components(original, "sparse")
    assert torch.equal(cached.unet.conv_in.weight, local.unet.conv_in.weight)


def test_loading_says_nothing_and_leaves_the_libraries_as_talkative_as_they_were(
    original: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    load_components(original, "sparse")
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == ""
    assert before == (diffusers_logging.get_verbosity(), transformers_logging.get_verbosity())
    assert transformers_logging.is_progress_bar_enabled()


def test_a_vae_with_the_older_names_of_its_attention_loads(original: Path, folder: Path) -> None:
    """As in Stable Diffusion 2.1's own file."""
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if ".attentions." in name]:
            renamed = name
            for new, old in older.items():
                renamed = renamed.replace(f".{new}.", f".{old}.")
            tensors[renamed] = tensors.pop(name)

    change_tensors(folder / layout.BELOW / "vae" / "diffusion_pytorch_model.safetensors", rename)
    exact = load_components(original, "sparse").vae.state_dict()
    loaded = load_components(folder, "sparse").vae.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in exact.items())


def test_the_image_encoders_width_is_its_tensors_whatever_its_config_says(original: Path) -> None:
    config = json.loads((original / layout.BELOW / IMAGE_ENCODER / "config.json").read_text())
    assert config["vision_config"].get("projection_dim") != 32  # the trap is set
    assert load_components(original, "sparse").image_encoder.config.projection_dim == 32


def test_code_among_the_weights_is_not_run(folder: Path) -> None:
    for part in ("vae", "text_encoder", IMAGE_ENCODER, layout.unet_folder("sparse")):
        place = folder / layout.BELOW / part
        (place / "code.py").write_text("raise SystemExit('ran')\n")
        change_json(place / "config.json", auto_map={"AutoModel": "code.Model", "AutoConfig": "code.Config"})
    load_components(folder, "sparse")


@pytest.mark.parametrize(
    ("name", "break_it", "message"),
    [
        ("vae/config.json", lambda p: change_json(p, block_out_channels=[4, 4, 4, 8]), "vae cannot be loaded"),
        ("vae/config.json", lambda p: change_json(p, act_fn="no such"), "vae cannot be loaded"),
        (
            "vae/diffusion_pytorch_model.safetensors",
            lambda p: change_tensors(p, lambda t: t.pop("decoder.conv_in.weight")),
            "vae.* missing.*decoder.conv_in.weight",
        ),
        (
            "vae/diffusion_pytorch_model.safetensors",
            lambda p: change_tensors(p, lambda t: t.update(lora=torch.zeros(1))),
            "vae: unexpected tensor 'lora'",
        ),
        (
            "text_encoder/model.safetensors",
            lambda p: change_tensors(p, lambda t: t.pop("text_model.final_layer_norm.weight")),
            "text_encoder: missing tensor '.*final_layer_norm.weight'",
        ),
        (
            "text_encoder/config.json",
            lambda p: change_json(p, vocab_size=5),
            r"text_encoder: mismatched tensor '.*token_embedding.weight' \(stored as \[516, 32\], \[5, 32\] by the c",
        ),
        (
            f"{IMAGE_ENCODER}/config.json",
            lambda p: change_json(p, vision_config={**json.loads(p.read_text())["vision_config"], "patch_size": 7}),
            "CLIP-ViT-H.* mismatched tensor '.*patch_embedding.weight' .*and 1 more",
        ),
        ("vae/config.json", lambda p: change_json(p, scaling_factor=None), "vae has the scaling_factor None"),
        ("vae/config.json", lambda p: change_json(p, scaling_factor=0), "vae has the scaling_factor 0"),
        (
            f"{IMAGE_ENCODER}/preprocessor_config.json",
            lambda p: change_json(p, size=56, crop_size=56),
            r"CLIP-ViT-H.*preprocessor_config.json makes pictures of \[3, 56, 56\], .* reads \[3, 28, 28\]",
        ),
        ("tokenizer/vocab.json", add_a_thousand, "tokenizer: it makes token 1515, the text encoder knows 516"),
        (
            "tokenizer/tokenizer_config.json",
            lambda p: change_json(p, model_max_length=100),
            "tokenizer: it makes prompts of 100 tokens .* reads 77",
        ),
        (
            f"{IMAGE_ENCODER}/model.safetensors",
            lambda p: change_tensors(p, lambda t: t.pop("visual_projection.weight")),
            "CLIP-ViT-H.*'visual_projection.weight' is missing",
        ),
        (
            f"{IMAGE_ENCODER}/model.safetensors",
            lambda p: change_tensors(p, lambda t: t.pop("vision_model.post_layernorm.bias")),
            "CLIP-ViT-H.*missing tensor 'vision_model.post_layernorm.bias'",
        ),
        (f"{IMAGE_ENCODER}/preprocessor_config.json", lambda p: p.write_text("[]"), "CLIP-ViT-H.* cannot be loaded"),
        ("tokenizer/merges.txt", lambda p: p.write_bytes(b"#version\n\xff\xfe \xff\n"), "tokenizer cannot be loaded"),
        ("tokenizer/vocab.json", lambda p: p.write_text("[]"), "tokenizer cannot be loaded"),
        ("scheduler/scheduler_config.json", lambda p: p.write_text("3"), "scheduler_config.json holds no table"),
    ],
)
def test_a_broken_part_is_named_with_its_reason(
    folder: Path, name: str, break_it: Callable[[Path], Any], message: str
) -> None:
    break_it(folder / layout.BELOW / name)
    with pytest.raises(RefinerError, match=message) as raised:
        load_components(folder, "sparse")
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)


@pytest.mark.parametrize("part", ["load_unet", "_load_vae", "_load_text_encoder"])
@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory")]
)
def test_a_part_that_does_not_fit_is_for_want_of_memory(
    original: Path, monkeypatch: pytest.MonkeyPatch, part: str, error: Exception
) -> None:
    """So that the refiner fails its views, and an enhancer makes room, where RefinerError would end the training."""

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(loading, part, full)
    with pytest.raises(RefinerOutOfMemory, match="does not fit into memory"):
        load_components(original, "sparse")


def test_incomplete_files_are_listed_before_anything_is_loaded(folder: Path) -> None:
    root = folder / layout.BELOW
    (root / "vae" / "config.json").unlink()
    (root / "text_encoder" / "model.safetensors").write_bytes(b"")
    with pytest.raises(RefinerError, match=r"text_encoder/model.safetensors \(empty\); vae/config.json \(missing\)"):
        load_components(folder, "sparse")


@pytest.mark.parametrize(
    ("part", "sizes", "message"),
    [
        ("text_encoder", {"context": 64}, "text_encoder gives tokens 64 wide, the UNet reads tokens 32 wide"),
        (IMAGE_ENCODER, {"context": 64}, "CLIP-ViT-H.* gives tokens 64 wide, the UNet reads tokens 32 wide"),
    ],
)
def test_parts_that_do_not_belong_together(
    folder: Path, tmp_path: Path, generator: torch.Generator, part: str, sizes: dict[str, Any], message: str
) -> None:
    other = write_tiny_weights(tmp_path / "other", generator, unets=(), **{**SMALL, **sizes})
    shutil.rmtree(folder / layout.BELOW / part)
    shutil.copytree(other / layout.BELOW / part, folder / layout.BELOW / part)
    with pytest.raises(RefinerError, match=message):
        load_components(folder, "sparse")


def test_a_vae_of_another_scale_is_refused(folder: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    kinds: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    AutoencoderKL(**kinds, block_out_channels=(4, 4), norm_num_groups=4).save_pretrained(folder / layout.BELOW / "vae")  # type: ignore[arg-type]
    with pytest.raises(RefinerError, match=r"vae makes latents of 4 channels at 1/2 of the size"):
        load_components(folder, "sparse")


def test_missing_packages_are_said_with_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "missing_packages", lambda: ["diffusers"])
    with pytest.raises(RefinerError, match=r"diffusers: pip install 'closeup-ns\[see3d\]'"):
        load_components("tiny", "sparse")
