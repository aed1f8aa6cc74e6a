"""See3D's SR stage as enhancer: tiny towers through the real path; what the pipeline is given, by a stub."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from closeup_ns.errors import RefinerError, RefinerOutOfMemory
from closeup_ns.refine.enhance.enhancer import Enhancer
from closeup_ns.refine.enhance.options import See3DSRConfig
from closeup_ns.refine.enhance.see3d_sr import See3DSREnhancer
from tests.refine import stand_ins

CPU = torch.device("cpu")


def enhancer(**options: Any) -> See3DSREnhancer:
    config = See3DSRConfig(**{"weights": "tiny", "size": 128, "steps": 4, **options})
    made = config.setup(CPU)
    assert isinstance(made, See3DSREnhancer) and isinstance(made, Enhancer)
    return made


def images(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [stand_ins.smooth(generator, *size) for size in sizes]


def test_tiny_towers_enhance_views_together() -> None:
    assert See3DSRConfig(weights="tiny").why_not(CPU) is None
    made = enhancer(size=64)
    assert (made.name, made.frames, made.guided) == ("see3d-sr", 8, True)
    given = [*images((40, 52), (40, 52), (52, 40))]
    guides = stand_ins.request().anchors
    first = made.enhance(given, guides, 3)
    for result, image in zip(first, given, strict=True):
        assert isinstance(result, torch.Tensor)
        assert result.shape == image.shape and result.isfinite().all()
        assert float((result - image).abs().mean()) > 0.01
    made.close()
    assert made._pipeline is None
    again = made.enhance(given[:2], guides, 3)
    assert torch.equal(torch.as_tensor(again[0]), torch.as_tensor(first[0]))
    alone = made.enhance(given[:1], guides, 3)
    assert not torch.equal(torch.as_tensor(alone[0]), torch.as_tensor(first[0]))  # they were looked at together
    assert not torch.equal(torch.as_tensor(made.enhance(given[:2], guides, 4)[0]), torch.as_tensor(first[0]))


def stubbed(call: Any, **options: Any) -> See3DSREnhancer:
    made = enhancer(**options)
    made._pipeline = call
    return made


def test_what_the_stage_is_given_and_how_it_comes_back() -> None:
    calls: list[Any] = []

    def call(references: Any, pictures: Any, masks: Any, *, steps: int, guidance: float, generator: Any) -> Any:
        assert masks.all() and (steps, guidance) == (4, 1.0)
        assert len(generator) == len(references) + len(pictures)
        calls.append((tuple(references.shape), tuple(pictures.shape), torch.randn(1, generator=generator[-1])))
        return SimpleNamespace(images=pictures)

    guides = stand_ins.request().anchors
    given = images((40, 52), (100, 220), (40, 52))
    made = stubbed(call).enhance(given, guides, 0)
    assert [call[:2] for call in calls] == [
        ((2, 3, 128, 128), (2, 3, 128, 128)),  # 98 x 128 when enlarged, then padded
        ((2, 3, 128, 128), (1, 3, 128, 128)),  # 100 x 220: two tiles
        ((2, 3, 128, 128), (1, 3, 128, 128)),
    ]
    assert not torch.equal(calls[1][2], calls[2][2])  # each tile has its own noise
    for result, image in zip(made, given, strict=True):
        assert float((torch.as_tensor(result) - image).abs().max()) < 0.02


def test_nan_costs_one_picture_and_memory_the_pass(tmp_path: Path) -> None:
    def broken(references: Any, pictures: Any, *rest: Any, **options: Any) -> Any:
        pictures = pictures.clone()
        pictures[1, 0, 0, 0] = float("nan")
        return SimpleNamespace(images=pictures)

    def crowded(*pictures: Any, **options: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    guides = stand_ins.request().anchors
    first, second, third = stubbed(broken).enhance(images((40, 52), (40, 52), (40, 52)), guides, 0)
    assert isinstance(first, torch.Tensor) and isinstance(third, torch.Tensor)
    assert isinstance(second, str) and "NaN" in second
    with pytest.raises(RefinerOutOfMemory, match="SR stage"):
        stubbed(crowded).enhance(images((40, 52)), guides, 0)

    def cramped(*pictures: Any, **options: Any) -> Any:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    with pytest.raises(RefinerOutOfMemory, match="SR stage"):
        stubbed(cramped).enhance(images((40, 52)), guides, 0)
    with pytest.raises(RefinerError, match="at least one reference"):
        enhancer().enhance(images((40, 52)), [], 0)
    for options, says in [
        ({"frames": 1}, "at least 2"),
        ({"size": 100}, "multiple of 64"),
        ({"weights": str(tmp_path)}, ""),
    ]:
        reason = See3DSRConfig(**{"weights": "tiny", **options}).why_not(CPU)
        assert reason is not None and says in reason
        with pytest.raises(RefinerError, match=says):
            enhancer(**options).enhance(images((40, 52)), guides, 0)
