"""Loading the UNet: built from its tensors, and every way in which they can be wrong is said with the tensor's name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from closeup_ns.errors import RefinerError
from closeup_ns.refine.see3d import keys, layout
from closeup_ns.refine.see3d.shape import read_shape
from closeup_ns.refine.see3d.tiny import write_tiny_weights
from closeup_ns.refine.see3d.unet import check_unet, load_unet
from tests.refine.see3d.test_keys import names_of

CPU = torch.device("cpu")
ENTRY = "input_blocks.0.0.weight"
QUERY = "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A UNet of two levels: everything that four have, in a tenth of the bytes."""
    root = write_tiny_weights(
        tmp_path_factory.mktemp("tiny"), torch.Generator().manual_seed(1), unets=("sparse",), widths=(32, 64)
    )
    return root / layout.BELOW / layout.unet_folder("sparse")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "unet"))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    path = folder / "diffusion_pytorch_model.safetensors"
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    change(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def change_config(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))


def with_slice(tensors: dict[str, Tensor], name: str, value: float) -> None:
    tensors[name].view(-1)[3] = value


def test_every_tensor_arrives_unchanged_under_its_new_name(original: Path) -> None:
    state = load_file(original / "diffusion_pytorch_model.safetensors")
    unet = load_unet(original, torch.float32, CPU)
    loaded = unet.state_dict()
    names = keys.to_diffusers(state)
    assert sorted(names.values()) == sorted(loaded)
    assert all(torch.equal(loaded[ours], state[theirs]) for theirs, ours in names.items())
    assert not unet.training and not any(value.requires_grad for value in unet.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tensors_are_cast_on_the_way(original: Path, dtype: torch.dtype) -> None:
    exact = load_unet(original, torch.float32, CPU).state_dict()
    loaded = load_unet(original, dtype, CPU).state_dict()
    assert all(torch.equal(loaded[name], value.to(dtype)) for name, value in exact.items())


def test_a_file_in_half_precision_and_diffusers_names_loads_as_well(original: Path, folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        names = keys.to_diffusers(tensors)
        renamed = {names[name]: tensors[name].half() for name in names}
        tensors.clear()
        tensors.update(renamed)

    change_tensors(folder, change)
    exact = load_unet(original, torch.float16, CPU).state_dict()
    loaded = load_unet(folder, torch.float16, CPU).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in exact.items())


def test_surplus_output_channels_are_cut_off(original: Path, folder: Path) -> None:
    def widen(tensors: dict[str, Tensor]) -> None:
        for name in ("out.2.weight", "out.2.bias"):
            tensors[name] = torch.cat([tensors[name], tensors[name] + 1])

    change_tensors(folder, widen)
    change_config(folder, out_channels=8)
    unet, exact = load_unet(folder, torch.float32, CPU), load_unet(original, torch.float32, CPU)
    assert unet.config["out_channels"] == 4
    assert torch.equal(unet.conv_out.weight, exact.conv_out.weight)


def test_stable_diffusions_shape_is_read_off_its_tensors() -> None:
    """The published sizes, from nothing but the tensors: config.json has not been seen."""
    shape = read_shape(names_of((320, 640, 1280, 1280), (True, True, True, False)), {})
    assert (shape.widths, shape.heads) == ((320, 640, 1280, 1280), (5, 10, 20, 20))
    assert (shape.attends, shape.layers, shape.depth) == ((True, True, True, False), 2, 1)
    assert (shape.context, shape.linear) == (1024, True)


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ({}, (5, 10)),
        ({"num_head_channels": 64, "num_heads": -1}, (5, 10)),
        ({"num_head_channels": 32}, (10, 20)),
        ({"num_head_channels": -1, "num_heads": 8}, (8, 8)),
        ({"attention_head_dim": [5, 10]}, (5, 10)),
    ],
)
def test_heads_are_the_one_thing_that_the_config_decides(config: dict[str, Any], heads: tuple[int, ...]) -> None:
    assert read_shape(names_of((320, 640), (True, False)), config).heads == heads


@pytest.mark.parametrize("settings", [{"optimization_step": 7, "colour": "red"}, {"image_size": 99, "camera_dim": 3}])
def test_settings_of_no_consequence_are_passed_over(folder: Path, settings: dict[str, Any]) -> None:
    change_config(folder, **settings)
    load_unet(folder, torch.float32, CPU)
    check_unet(folder)


def test_a_config_that_says_nothing_is_enough(folder: Path) -> None:
    (folder / "config.json").write_text('{"num_head_channels": 32}')
    load_unet(folder, torch.float32, CPU)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("in_channels", 8),
        ("out_channels", 8),
        ("model_channels", 320),
        ("channel_mult", [1, 2, 4, 4]),
        ("num_res_blocks", 3),
        ("attention_resolutions", [4, 2, 1]),
        ("transformer_depth", [1, 2]),
        ("context_dim", 768),
        ("context_dim", "wide"),
        ("num_head_channels", 48),
        ("ip_dim", 16),
        ("num_classes", 1000),
        ("block_out_channels", [320, 640]),
        ("attention_head_dim", [5, 10, 20, 20]),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused_with_both(folder: Path, setting: str, value: Any) -> None:
    change_config(folder, **{setting: value})
    for load in (lambda: load_unet(folder, torch.float32, CPU), lambda: check_unet(folder)):
        with pytest.raises(RefinerError, match=f"{setting} = .*the (tensors show|levels are)") as raised:
            load()
        assert repr(value) in str(raised.value) and str(folder) in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({ENTRY: torch.zeros(32, 4, 3, 3)}), f"{ENTRY}.* 4 channels"),
        (lambda t: t.update({ENTRY: torch.zeros(32, 5, 3, 3)}), f"{ENTRY}.* 5 channels"),
        (lambda t: t.update({"out.2.weight": torch.zeros(3, 32, 3, 3)}), "out.2.weight.* 3 channels"),
        (lambda t: t.pop(ENTRY), f"'{ENTRY}'. is missing"),
        (lambda t: t.pop(QUERY), f"'{QUERY}' is missing$"),
        (lambda t: [t.pop(QUERY), t.pop("out.0.bias")], "is missing .and 1 more.$"),
        (lambda t: t.update(adapter=torch.zeros(2)), "'adapter' is not one"),
        (lambda t: t.update({QUERY: torch.zeros(32, 31)}), rf"'{QUERY}' is of shape \(32, 31\) where \(32, 32\)"),
        (lambda t: t.update({QUERY: torch.zeros(32, 32, dtype=torch.int8)}), f"'{QUERY}' is of type I8"),
        (lambda t: with_slice(t, QUERY, torch.nan), f"'{QUERY}' holds NaN or infinity"),
        (lambda t: with_slice(t, "out.2.bias", -torch.inf), "'out.2.bias' holds NaN or infinity"),
        (lambda t: with_slice(t, QUERY, 1e6), f"'{QUERY}' overflows torch.float16"),
        (lambda t: t.update({"label_emb.0.0.weight": torch.zeros(2)}), "'label_emb.0.0.weight' belongs to"),
        (lambda t: [t.pop(name) for name in list(t)], f"'{ENTRY}'. is missing"),
    ],
)  # fmt: skip
def test_a_wrong_tensor_is_named(folder: Path, change: Callable[[dict[str, Tensor]], Any], message: str) -> None:
    change_tensors(folder, change)
    with pytest.raises(RefinerError, match=message) as raised:
        load_unet(folder, torch.float16, CPU)
    assert "diffusion_pytorch_model.safetensors" in str(raised.value)


def test_a_missing_tensor_of_a_file_in_diffusers_names_is_named_in_them(folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        renamed = {ours: tensors[theirs] for theirs, ours in keys.to_diffusers(tensors).items()}
        tensors.clear()
        tensors.update(renamed)
        del tensors["mid_block.resnets.1.conv2.weight"]

    change_tensors(folder, change)
    with pytest.raises(RefinerError, match="'mid_block.resnets.1.conv2.weight' is missing"):
        load_unet(folder, torch.float32, CPU)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_named(folder: Path, share: float) -> None:
    path = folder / "diffusion_pytorch_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    for load in (lambda: load_unet(folder, torch.float32, CPU), lambda: check_unet(folder)):
        with pytest.raises(RefinerError, match=r"diffusion_pytorch_model\.safetensors: (cut off|not a safetensors)"):
            load()


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_config_that_is_no_table_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(RefinerError, match=r"config\.json"):
        load_unet(folder, torch.float32, CPU)


def test_a_model_that_is_no_unet_is_refused(folder: Path) -> None:
    save_file({"encoder.weight": torch.zeros(3, 3)}, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(RefinerError, match="no UNet of See3D's"):
        check_unet(folder)
