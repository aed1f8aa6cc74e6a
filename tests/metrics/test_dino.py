"""The score's arithmetic with a stub encoder, and the loading with a tiny random DINOv2 in the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from closeup_ns.metrics.dino import CROP, MEAN, STD, DinoScore, prepare
from closeup_ns.metrics.metric import MetricOptions
from closeup_ns.metrics.suite import build_metrics
from closeup_ns.metrics.weights import sha256_of


def mean_color(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.mean((2, 3))


def test_identical_is_one_and_opposite_is_minus_one():
    metric = DinoScore(mean_color)
    white, black = torch.ones(300, 400, 3), torch.zeros(300, 400, 3)
    assert metric(white, white) == pytest.approx(1.0, abs=1e-6)
    assert metric(white, black) == pytest.approx(-1.0, abs=0.05)  # ImageNet's mean lies near the middle


def test_what_lies_outside_the_centre_crop_does_not_count():
    image = torch.full((256, 512, 3), 0.5)
    framed = image.clone()
    framed[:, :100] = 1.0
    assert torch.allclose(prepare(framed), prepare(image), atol=1e-5)
    assert prepare(image).shape == (1, 3, CROP, CROP)


def test_the_resize_is_antialiased_as_pillows():
    """A pattern of single pixels must become grey, not moire."""
    checker = ((torch.arange(1024)[:, None] + torch.arange(1024)) % 2).float()[..., None].expand(-1, -1, 3)
    assert float(prepare(checker).std(dim=(2, 3)).max()) < 0.05
    noise = torch.rand(600, 800, 3, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray((noise.numpy() * 255 + 0.5).astype(np.uint8)).resize((341, 256), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.asarray(picture)[16:240, 58:282].astype(np.float32) / 255)
    own = prepare(noise)[0].permute(1, 2, 0) * torch.tensor(STD) + torch.tensor(MEAN)
    assert torch.allclose(own, expected, atol=0.02)


@pytest.fixture(scope="module")
def tiny_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dino") / "tiny"
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=CROP, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    return folder


def test_a_backbone_from_a_folder_is_loaded_named_and_hashed(tiny_dino: Path):
    metrics, missing = build_metrics(["dino"], MetricOptions(weights={"dino": str(tiny_dino)}))
    assert not missing
    image, other = torch.rand(2, 240, 300, 3, generator=torch.Generator().manual_seed(1))
    assert metrics[0](image, image) == pytest.approx(1.0, abs=1e-5)
    assert metrics[0](image, other) < 1.0
    assert metrics[0].provenance.backbone == "tiny"
    assert metrics[0].provenance.sha256 == sha256_of(tiny_dino / "model.safetensors")


def test_without_a_backbone_it_is_missing_with_its_name():
    _, missing = build_metrics(["dino"], MetricOptions(weights={"dino": "facebook/dinov2-nowhere"}))
    assert "facebook/dinov2-nowhere" in missing["dino"] and "local folder" in missing["dino"]


def test_weights_that_lack_a_layer_are_refused(tiny_dino: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    state = load_file(tiny_dino / "model.safetensors")
    lost = next(key for key in state if "layer.1" in key and key.endswith("weight"))
    save_file({key: value for key, value in state.items() if key != lost}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((tiny_dino / "config.json").read_text())
    _, missing = build_metrics(["dino"], MetricOptions(weights={"dino": str(tmp_path)}))
    assert "lack" in missing["dino"] and "layer.1" in missing["dino"]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    _, missing = build_metrics(["dino"], MetricOptions(weights={"dino": str(tmp_path)}))
    assert "dino" in missing
