"""sd-x4 and sdxl: tiny random pipelines through the real loading path, any size, each refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from closeup_ns.errors import RefinerError
from closeup_ns.refine.enhance.enhancer import Enhancer
from closeup_ns.refine.enhance.options import EnhancerConfig, SDX4Config, SDXLConfig
from closeup_ns.refine.enhance.pictures import brought_back, in_tiles, planes
from closeup_ns.refine.enhance.single import SingleEnhancer
from tests.refine import stand_ins

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "sd-x4": stand_ins.upscaler(folder / "x4"),
        "refiner": stand_ins.sdxl(folder / "refiner", refiner=True),
        "base": stand_ins.sdxl(folder / "base", refiner=False),
    }


def config(kind: str, models: dict[str, Path]) -> SDX4Config | SDXLConfig:
    if kind == "sd-x4":
        return SDX4Config(model=str(models["sd-x4"]), steps=2, tile=64)
    return SDXLConfig(model=str(models[kind]), steps=4, strength=0.5, size=64)


def pictures(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [stand_ins.smooth(generator, *size) for size in sizes]


@pytest.mark.parametrize("kind", ["sd-x4", "refiner", "base"])
def test_a_published_pipeline_enhances_pictures_of_any_size(kind: str, models: dict[str, Path]) -> None:
    options = config(kind, models)
    assert options.why_not(CPU) is None
    enhancer = options.setup(CPU)
    assert isinstance(enhancer, Enhancer) and isinstance(enhancer, SingleEnhancer)
    assert (enhancer.frames, enhancer.guided) == (1, False)
    images = [*pictures((40, 52), (30, 90)), pictures((40, 52))[0].double()]
    made = enhancer.enhance(images, [], 5)
    for result, image in zip(made, images, strict=True):
        assert isinstance(result, torch.Tensor)
        assert result.shape == image.shape and result.dtype == image.dtype
        assert result.isfinite().all() and float(result.min()) >= 0 and float(result.max()) <= 1
        assert float((result - image).abs().mean()) > 0.01
    assert not torch.equal(torch.as_tensor(made[0]), torch.as_tensor(made[2]).float())  # each has its own noise
    enhancer.close()
    assert enhancer._pipeline is None
    with torch.random.fork_rng():
        torch.manual_seed(99)  # the global generator has no say
        again = enhancer.enhance(images[:1], [], 5)
    assert torch.equal(torch.as_tensor(again[0]), torch.as_tensor(made[0]))
    assert not torch.equal(torch.as_tensor(enhancer.enhance(images[:1], [], 6)[0]), torch.as_tensor(made[0]))


def test_half_precision_is_what_the_networks_are_in(models: dict[str, Path]) -> None:
    enhancer = SDXLConfig(model=str(models["base"]), dtype="bf16", steps=4, size=64).setup(CPU)
    assert isinstance(enhancer, SingleEnhancer)
    (made,) = enhancer.enhance(pictures((40, 52)), [], 0)
    assert isinstance(made, torch.Tensor) and made.dtype == torch.float32
    assert enhancer._pipeline.unet.dtype == enhancer._pipeline.text_encoder.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "options, says",
    [
        (SDX4Config(shrink=0.0), "--pipeline.refiner.enhance.sd-x4.shrink"),
        (SDX4Config(shrink=1.5), "at most 1"),
        (SDX4Config(noise_level=351), "noise-level must be from 0 to 350"),
        (SDX4Config(steps=0), "steps must be at least 1"),
        (SDX4Config(tile=100), "multiple of 64"),
        (SDXLConfig(strength=0.0), "--pipeline.refiner.enhance.sdxl.strength"),
        (SDXLConfig(strength=0.2, steps=4), "no step to take"),
        (SDXLConfig(size=0), "multiple of 64"),
    ],
)
def test_options_that_cannot_be_are_refused(options: Any, says: str) -> None:
    for line in (options.why_not(CPU), _error(options)):
        assert line is not None and says in line and "\n" not in line


def _error(options: Any) -> str:
    with pytest.raises(RefinerError) as caught:
        options.setup(CPU).enhance(pictures((8, 8)), [], 0)
    return str(caught.value)


def test_what_is_not_there_or_of_another_kind(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for options, says in [
        (SDX4Config(), "hf download stabilityai/stable-diffusion-x4-upscaler"),
        (SDXLConfig(revision="abc"), "hf download stabilityai/stable-diffusion-xl-refiner-1.0 --revision abc"),
        (SDX4Config(model=str(models["base"])), "is a StableDiffusionXLPipeline; it must be a StableDiffusionUpscale"),
        (SDXLConfig(model=str(models["sd-x4"])), "must be a StableDiffusionXLImg2ImgPipeline or StableDiffusionXLPip"),
    ]:
        for line in (options.why_not(CPU), _error(options)):
            assert line is not None and says in line and "\n" not in line


def test_weights_in_half_precision_alone_are_found(models: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(models["base"], folder)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        (weights,) = (folder / part).glob("*.safetensors")
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    options = SDXLConfig(model=str(folder), steps=4, strength=0.5, size=64)
    assert options.why_not(CPU) is None
    assert isinstance(options.setup(CPU).enhance(pictures((8, 8)), [], 0)[0], torch.Tensor)


def stubbed(options: SDX4Config | SDXLConfig, call: Any) -> SingleEnhancer:
    enhancer = options.setup(CPU)
    assert isinstance(enhancer, SingleEnhancer)
    enhancer._pipeline = type("Stub", (), {"__call__": staticmethod(call)})()
    return enhancer


def test_the_upscaler_is_shown_small_tiles_and_the_view_comes_back_in_place() -> None:
    shapes: list[Any] = []

    def call(image: torch.Tensor, **options: Any) -> Any:
        shapes.append(tuple(image.shape))
        assert (options["noise_level"], options["guidance_scale"], options["num_inference_steps"]) == (20, 4.0, 30)
        large = F.interpolate(image, scale_factor=4, mode="bicubic")
        return SimpleNamespace(images=large[0].movedim(0, -1).numpy()[None])

    images = pictures((150, 300))
    (made,) = stubbed(SDX4Config(tile=128), call).enhance(images, [], 0)
    assert shapes == [(1, 3, 128, 128)] * 2  # 75 x 150: one row of two
    assert float((torch.as_tensor(made) - images[0]).abs().max()) < 0.02
    stubbed(SDX4Config(tile=128, shrink=0.25), call).enhance(images, [], 0)
    assert shapes[2:] == [(1, 3, 64, 128)]


def test_sdxl_sees_small_views_enlarged_and_large_ones_in_tiles() -> None:
    shapes: list[Any] = []

    def call(image: torch.Tensor, strength: float, num_inference_steps: int, **options: Any) -> Any:
        assert (strength, num_inference_steps) == (0.25, 40)
        shapes.append(tuple(image.shape[2:]))
        return SimpleNamespace(images=image[0].movedim(0, -1).numpy()[None])

    enhancer = stubbed(SDXLConfig(size=128), call)
    images = pictures((50, 64), (100, 200))
    made = enhancer.enhance(images, [], 0)
    assert shapes == [(128, 128), (128, 128), (128, 128)]  # 100 x 128 enlarged and padded; 100 x 200 in two
    for result, image in zip(made, images, strict=True):
        assert float((torch.as_tensor(result) - image).abs().max()) < 0.02


@pytest.mark.parametrize(
    "answer, says",
    [
        (np.full((256, 256, 3), np.nan), "NaN"),
        (np.zeros((64, 64, 3)), "64 x 64 pixels where 256 x 256"),
        (None, "not RGB"),
    ],
)
def test_one_picture_that_fails_is_said_and_the_other_is_kept(answer: Any, says: str) -> None:
    calls: list[int] = []

    def call(image: torch.Tensor, **options: Any) -> Any:
        calls.append(1)
        good = np.full((4 * image.shape[2], 4 * image.shape[3], 3), 0.5)
        return SimpleNamespace(images=[answer if len(calls) == 1 else good])

    first, second = stubbed(SDX4Config(), call).enhance(pictures((60, 60), (60, 60)), [], 0)
    assert isinstance(first, str) and says in first and "\n" not in first
    assert torch.allclose(torch.as_tensor(second), torch.tensor(0.5))


def test_tiles_go_back_where_they_came_from() -> None:
    (image,) = pictures((150, 210))
    whole = in_tiles(planes(image), 64, 2, lambda tile: tile.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert isinstance(whole, torch.Tensor)
    assert torch.allclose(whole, planes(image).repeat_interleave(2, 1).repeat_interleave(2, 2), atol=1e-6)
    broken = image.double()
    broken[0, 0, 0] = float("nan")
    assert planes(broken).isfinite().all() and planes(broken).dtype == torch.float32
    back = brought_back(planes(image) * 3 - 1, image)
    assert float(back.min()) >= 0 and float(back.max()) <= 1


def test_no_watermark_is_drawn_into_the_scene(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    # With the package that draws it installed, diffusers' default is to draw it.
    module = "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img"
    monkeypatch.setattr(f"{module}.is_invisible_watermark_available", lambda: True)
    monkeypatch.setattr(f"{module}.StableDiffusionXLWatermarker", object, raising=False)
    enhancer = SDXLConfig(model=str(models["base"])).setup(CPU)
    assert isinstance(enhancer, SingleEnhancer)
    assert enhancer._loaded().watermark is None


def test_the_options_survive_yaml_and_name_the_kind() -> None:
    assert json.loads(json.dumps(EnhancerConfig(kind="sd-x4").kind)) == "sd-x4"
    assert isinstance(EnhancerConfig(kind="sd-x4").chosen(), SDX4Config)
    assert isinstance(EnhancerConfig(kind="sdxl").chosen(), SDXLConfig)
    assert EnhancerConfig().chosen() is None
