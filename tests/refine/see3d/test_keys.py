"""The renaming of tensors: complete, reversible, and right about what each tensor does."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from closeup_ns.errors import RefinerError
from closeup_ns.refine.see3d import keys, layout
from closeup_ns.refine.see3d.shape import UNetShape
from closeup_ns.refine.see3d.tiny import write_tiny_weights
from closeup_ns.refine.see3d.unet import build, load_unet
from tests.refine.see3d.ldm import LatentDiffusionUNet

PUBLISHED_SHAPES = {
    "input_blocks.0.0.weight": (320, 9, 3, 3),
    "input_blocks.1.0.in_layers.2.weight": (320, 320, 3, 3),
    "input_blocks.1.0.emb_layers.1.weight": (320, 1280),
    "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": (320, 320),
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
    "input_blocks.1.1.transformer_blocks.0.ff.net.0.proj.weight": (2560, 320),
    "input_blocks.3.0.op.weight": (320, 320, 3, 3),
    "input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
    "middle_block.1.proj_in.weight": (1280, 1280),
    "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
    "output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
    "output_blocks.8.2.conv.weight": (640, 640, 3, 3),
    "out.0.weight": (320,),
    "out.2.weight": (4, 320, 3, 3),
    "time_embed.0.weight": (1280, 320),
    "time_embed.2.bias": (1280,),
}
"""Names and sizes that were read in the published code and files' descriptions."""


@cache
def names_of(widths: tuple[int, ...], attends: tuple[bool, ...]) -> dict[str, tuple[int, ...]]:
    """Names and sizes in diffusers' network."""
    heads = tuple(width // 32 for width in widths)
    unet = build(UNetShape(9, 4, widths, attends, heads, keys.RESNETS_DOWN, 1, 1024, True))
    return {name: tuple(value.shape) for name, value in unet.state_dict().items()}


def test_stable_diffusions_shape_has_686_tensors_under_the_published_names() -> None:
    sizes = names_of((320, 640, 1280, 1280), (True, True, True, False))
    published = keys.to_published(sizes)
    assert len(set(published.values())) == len(sizes) == 686
    found = {theirs: sizes[ours] for ours, theirs in published.items()}
    assert {name: found.get(name) for name in PUBLISHED_SHAPES} == PUBLISHED_SHAPES
    tops = {name.split(".")[0] for name in found}
    assert tops == {"time_embed", "input_blocks", "middle_block", "output_blocks", "out"}
    assert keys.to_diffusers(found) == {theirs: ours for ours, theirs in published.items()}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((32, 64, 96)), st.booleans()), min_size=1, max_size=4))
def test_there_and_back_is_where_it_started(levels: list[tuple[int, bool]]) -> None:
    sizes = names_of(tuple(width for width, _ in levels), tuple(attends for _, attends in levels))
    published = keys.to_published(sizes)
    assert len(set(published.values())) == len(sizes)
    assert not set(published.values()) & set(sizes)
    assert {published[ours]: ours for ours in sizes} == keys.to_diffusers(published.values())


def test_each_tensor_does_what_its_published_name_says(tmp_path: Path, generator: torch.Generator) -> None:
    """The stock network with renamed tensors against one that is executed by the published names."""
    folder = write_tiny_weights(tmp_path, generator, unets=("sparse",)) / layout.BELOW / layout.unet_folder("sparse")
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    # Zeros and ones would hide a bias or a norm that is taken for another.
    state = {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in state.items()}
    unet = load_unet(folder, torch.float32, torch.device("cpu"))
    names = keys.to_diffusers(state)
    unet.load_state_dict({names[name]: value for name, value in state.items() if name in names})
    sample = torch.randn(2, 9, 16, 24, generator=generator)
    context = torch.randn(2, 77, 32, generator=generator)
    expected = LatentDiffusionUNet(state, head_channels=32)(sample, 981, context)
    assert expected.std() > 0.1
    torch.testing.assert_close(unet(sample, 981, context).sample, expected, rtol=1e-3, atol=1e-4)


def test_names_that_are_diffusers_already_stay() -> None:
    sizes = names_of((32, 64), (True, False))
    assert keys.to_diffusers(sizes) == {name: name for name in sizes}


def test_camera_tensors_are_left_out_and_strangers_are_kept_for_the_loader_to_refuse() -> None:
    names = ["camera_embed.0.weight", "camera_embed.2.bias", "out.2.weight", "adapter.weight"]
    assert keys.to_diffusers(names) == {"out.2.weight": "conv_out.weight", "adapter.weight": "adapter.weight"}


@pytest.mark.parametrize(
    "name",
    [
        "image_embed.proj.weight",
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k_ip.weight",
        "input_blocks.1.1.transformer_blocks.0.attn2.to_v_ip.weight",
        "id_predictor.0.weight",
        "label_emb.0.0.weight",
    ],
)
def test_another_models_tensor_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(RefinerError, match=name.replace(".", r"\.")):
        keys.to_diffusers(["out.2.weight", name])


def test_two_tensors_under_one_name_are_both_named() -> None:
    with pytest.raises(RefinerError, match=r"conv_in\.weight.*input_blocks\.0\.0\.weight"):
        keys.to_diffusers(["conv_in.weight", "input_blocks.0.0.weight"])
