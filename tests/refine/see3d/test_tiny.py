"""The tiny towers: published layout and names, the same bytes from the same generator, a network that listens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from closeup_ns.refine.see3d import layout
from closeup_ns.refine.see3d.loading import Components, load_components
from closeup_ns.refine.see3d.tiny import write_tiny_weights


@pytest.fixture(scope="module")
def components() -> Components:
    return load_components("tiny", "sparse")


def test_the_layout_is_the_published_one(tmp_path: Path, generator: torch.Generator) -> None:
    root = write_tiny_weights(tmp_path, generator) / layout.BELOW
    assert layout.problems(root, layout.UNETS) == []
    for unet in layout.UNETS:
        folder = root / "unet" / unet / "ema-checkpoint"
        tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        # The names and sizes that were read in the published code, at this width.
        width = config["model_channels"]
        assert tensors["input_blocks.0.0.weight"].shape == (width, 9, 3, 3)
        assert tensors["input_blocks.1.0.emb_layers.1.weight"].shape == (width, 4 * width)
        assert tensors["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"].shape == (
            width,
            config["context_dim"],
        )
        assert tensors["out.2.weight"].shape == (4, width, 3, 3)
        assert {"input_blocks.3.0.op.bias", "output_blocks.2.1.conv.weight", "output_blocks.5.2.conv.bias"} <= set(
            tensors
        )
        assert len(tensors) == 686 + 4
        assert "optimization_step" in config


def test_the_same_generator_writes_the_same_bytes(tmp_path: Path) -> None:
    written = [
        write_tiny_weights(tmp_path / name, torch.Generator().manual_seed(seed), unets=("single",))
        for name, seed in (("one", 3), ("two", 3), ("three", 4))
    ]
    files = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()} for root in written
    ]
    assert files[0] == files[1]
    assert files[0] != files[2] and files[0].keys() == files[2].keys()


def test_the_globals_generator_is_left_alone(tmp_path: Path, generator: torch.Generator) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    write_tiny_weights(tmp_path, generator, unets=("single",))
    load_components("tiny", "sparse")
    assert torch.equal(torch.rand(3), expected)


def test_the_empty_prompt_is_padded_as_sd2_does(components: Components) -> None:
    tokenizer = components.tokenizer
    tokens = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length)["input_ids"]
    size = len(tokenizer)
    assert tokens == [size - 2, size - 1] + [0] * 75


def test_every_input_reaches_the_output(components: Components, generator: torch.Generator) -> None:
    """Each of the nine channels and the text: a smoke test over dead weights would show nothing."""
    unet = components.unet
    sample, text = torch.randn(1, 9, 8, 8, generator=generator), torch.randn(1, 77, 32, generator=generator)
    before = unet(sample, 500, text).sample
    for channel in range(9):
        changed = sample.clone()
        changed[:, channel] += 1
        assert (unet(changed, 500, text).sample - before).abs().mean() > 0.05, channel
    assert (unet(sample, 500, text + 1).sample - before).abs().mean() > 0.01
    assert (unet(sample, 100, text).sample - before).abs().mean() > 0.01


def test_latents_and_images_are_of_the_real_ones_size(components: Components, generator: torch.Generator) -> None:
    vae = components.vae
    images = torch.rand(4, 3, 64, 64, generator=generator) * 2 - 1
    encoded = vae.encode(images).latent_dist
    assert encoded.mean.shape == (4, 4, 8, 8)
    assert encoded.std.max() < 1e-3
    latents = encoded.mean * vae.config["scaling_factor"]
    assert 0.2 < latents.std() < 3
    decoded = vae.decode(latents / vae.config["scaling_factor"]).sample
    assert decoded.shape == images.shape
    assert (decoded.abs() < 1).float().mean() > 0.9
