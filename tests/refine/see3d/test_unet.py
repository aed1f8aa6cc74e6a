"""The published UNet: its tensors' names, and what is wrong with a file that is not it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from closeup_ns.errors import RefinerError
from closeup_ns.refine.see3d import weights
from closeup_ns.refine.see3d.loading import load_pipeline
from closeup_ns.refine.see3d.unet import CONFIG, WEIGHTS_FILE, key_map, load_unet
from tests.refine.see3d.ldm import LatentDiffusionUNet
from tests.refine.see3d.tiny import HEAD_CHANNELS

CPU = torch.device("cpu")
ENTRY = "input_blocks.0.0.weight"
QUERY = "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"


@pytest.fixture
def original(tiny_weights: Path) -> Path:
    return tiny_weights / weights.BELOW / weights.unet_folder("sparse") / WEIGHTS_FILE


@pytest.fixture
def copied(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path))


def change(path: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    edit(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


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

    change(copied, widen)
    unet, exact = load_unet(copied, torch.float32, CPU), load_unet(original, torch.float32, CPU)
    assert torch.equal(unet.conv_out.weight, exact.conv_out.weight)


def test_a_surplus_tensor_is_passed_over_with_a_warning(original: Path, copied: Path) -> None:
    change(copied, lambda tensors: tensors.update(decay=torch.zeros(2), shadow=torch.zeros(1)))
    with pytest.warns(UserWarning, match="has no decay, shadow: not loaded"):
        unet = load_unet(copied, torch.float32, CPU)
    exact = load_unet(original, torch.float32, CPU).state_dict()
    assert all(torch.equal(value, exact[name]) for name, value in unet.state_dict().items())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.update({ENTRY: torch.zeros(32, 4, 3, 3)}), r"conv_in.weight.*4, 3, 3.*9, 3, 3"),
        (lambda t: t.pop(QUERY), "Missing key.*down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"),
        (lambda t: t.update({QUERY: torch.zeros(32, 31)}), "size mismatch for down_blocks.0.attentions.0"),
        (lambda t: t.clear(), "Missing key"),
    ],
)  # fmt: skip
def test_a_wrong_tensor_is_named(copied: Path, edit: Callable[[dict[str, Tensor]], Any], message: str) -> None:
    change(copied, edit)
    root = copied.parent / "weights"
    (root / weights.SCHEDULER_FILE).parent.mkdir(parents=True)
    (root / weights.SCHEDULER_FILE).write_text('{"prediction_type": "v_prediction"}')
    path = root / weights.unet_folder("sparse") / WEIGHTS_FILE
    path.parent.mkdir(parents=True)
    copied.rename(path)
    with pytest.raises(RefinerError, match=message) as raised:
        load_pipeline(root, "sparse", torch.float16, CPU)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
