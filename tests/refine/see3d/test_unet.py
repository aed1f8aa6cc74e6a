"""The published UNet and its tensors' names. What is wrong with a file that is not it: test_weights.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from closeup_ns.refine.see3d import weights
from closeup_ns.refine.see3d.unet import CONFIG, WEIGHTS_FILE, key_map, load_unet
from tests.refine.see3d.ldm import LatentDiffusionUNet
from tests.refine.see3d.tiny import HEAD_CHANNELS, edit_tensors

CPU = torch.device("cpu")


@pytest.fixture
def original(tiny_weights: Path) -> Path:
    return tiny_weights / weights.BELOW / weights.unet_folder("sparse") / WEIGHTS_FILE


@pytest.fixture
def copied(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path))


def test_the_published_network_has_686_tensors_whose_names_are_one_to_one() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**CONFIG)
    names = key_map(unet)
    assert len(names) == 686 and sorted(names.values()) == sorted(unet.state_dict())
    # Written down from the official file (research dossier, section 6).
    expected = {
        "input_blocks.0.0.weight": "conv_in.weight",
        "input_blocks.3.0.op.bias": "down_blocks.0.downsamplers.0.conv.bias",
        "input_blocks.8.1.transformer_blocks.0.ff.net.0.proj.weight": (
            "down_blocks.2.attentions.1.transformer_blocks.0.ff.net.0.proj.weight"
        ),
        "output_blocks.2.1.conv.weight": "up_blocks.0.upsamplers.0.conv.weight",
        "output_blocks.5.2.conv.weight": "up_blocks.1.upsamplers.0.conv.weight",
        "output_blocks.11.0.skip_connection.weight": "up_blocks.3.resnets.2.conv_shortcut.weight",
        "middle_block.2.emb_layers.1.weight": "mid_block.resnets.1.time_emb_proj.weight",
        "out.2.weight": "conv_out.weight",
    }
    assert expected.items() <= names.items()


@torch.no_grad()
def test_the_network_is_the_published_one_executed_by_its_published_names(original: Path) -> None:
    """The oracle is written from the description of latent diffusion and knows nothing of diffusers."""
    generator = torch.Generator().manual_seed(3)
    sample = torch.randn(2, 9, 16, 24, generator=generator)
    context = torch.randn(2, 77, 32, generator=generator)
    state = load_file(original)
    expected = LatentDiffusionUNet(state, HEAD_CHANNELS)(sample, 981, context)
    unet = load_unet(original, torch.float32, CPU)
    told = unet(sample, 981, encoder_hidden_states=context).sample
    assert expected.std() > 0.05
    torch.testing.assert_close(told, expected, rtol=0, atol=1e-5)
    assert not unet.training and not any(value.requires_grad for value in unet.parameters())


def test_surplus_output_channels_are_cut_off(original: Path, copied: Path) -> None:
    def widen(tensors: dict[str, Tensor]) -> None:
        for name in ("out.2.weight", "out.2.bias"):
            tensors[name] = torch.cat([tensors[name], tensors[name] + 1])

    edit_tensors(copied, widen)
    unet, exact = load_unet(copied, torch.float32, CPU), load_unet(original, torch.float32, CPU)
    assert torch.equal(unet.conv_out.weight, exact.conv_out.weight)


def test_a_surplus_tensor_is_passed_over_with_a_warning(original: Path, copied: Path) -> None:
    edit_tensors(copied, lambda tensors: tensors.update(decay=torch.zeros(2), shadow=torch.zeros(1)))
    with pytest.warns(UserWarning, match="has no decay, shadow: not loaded"):
        unet = load_unet(copied, torch.float32, CPU)
    exact = load_unet(original, torch.float32, CPU).state_dict()
    assert all(torch.equal(value, exact[name]) for name, value in unet.state_dict().items())
