"""The one-step fixer: stock and custom pipelines through the real loading path, and each refusal."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from closeup_ns.errors import RefinerError
from closeup_ns.refine.color import low_frequencies
from closeup_ns.refine.difix import DifixRefiner
from closeup_ns.refine.guides import contained, guide_distances
from closeup_ns.refine.options import DifixRefinerConfig
from closeup_ns.refine.refiner import GuideImage, Refiner
from closeup_ns.refine.seeds import derived_seed, seeded
from closeup_ns.rendering.types import Rendered
from closeup_ns.views.reliability import Observation
from closeup_ns.views.view import View, aim_at
from tests.refine import stand_ins
from tests.refine.scene import camera

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Custom code is copied below the test's folder, not into the user's cache."""
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_ins.image_to_image(tmp_path_factory.mktemp("stock"))


def refiner(model: Path | str, **options: Any) -> DifixRefiner:
    made = DifixRefinerConfig(model=str(model), **options).setup(CPU)
    assert isinstance(made, DifixRefiner) and isinstance(made, Refiner)
    return made


def stubbed(call: Any, **options: Any) -> DifixRefiner:
    """A refiner whose pipeline is an object with ``call`` as its ``__call__``."""
    made = refiner("owner/model", **options)
    made._pipeline = type("Stub", (), {"__call__": staticmethod(call)})()
    return made


def test_a_stock_pipeline_fixes_and_keeps_colours_and_size(stock: Path) -> None:
    asked = stand_ins.request()
    assert DifixRefinerConfig(model=str(stock)).why_not(CPU) is None
    made = refiner(stock)
    assert (made.name, made.generates, made.frames) == ("difix", True, 1)
    results = made.refine(asked)
    for result, render in zip(results, asked.renders, strict=True):
        assert result.failure is None
        assert result.image.shape == render.color.shape and result.image.dtype == render.color.dtype
        assert (result.weight == 1).all() and not result.real.any()
        assert result.notes == {"network_size": "128 x 64"}
        difference = (result.image - render.color).permute(2, 0, 1)
        assert float(difference.abs().mean()) > 0.01  # it is a random network's picture
        assert float(low_frequencies(difference).abs().mean()) < 0.3 * float(difference.abs().mean())
    made.close()
    assert made._pipeline is None
    again = made.refine(dataclasses.replace(asked, **_only(asked, 1)))  # loads again; alone, the same noise
    assert torch.equal(again[0].image, results[1].image)
    other = made.refine(dataclasses.replace(asked, seed=1))
    assert not torch.equal(other[0].image, results[0].image)


def _only(asked: Any, index: int) -> dict[str, Any]:
    return {name: [getattr(asked, name)[index]] for name in ("views", "renders", "masks", "names")}


def test_a_pipeline_with_code_is_refused_until_it_is_allowed(tmp_path: Path) -> None:
    model = stand_ins.with_code(tmp_path / "fixer")
    for line in (DifixRefinerConfig(model=str(model)).why_not(CPU), _error(refiner(model))):
        assert line is not None and "\n" not in line
        assert "pipeline.py, net/tiny_net.py" in line
        assert "--pipeline.refiner.difix.trust-remote-code True" in line
    assert not (tmp_path / "modules").exists()  # nothing was so much as copied to be run
    (model / "pipeline.py").rename(model / "pipeline_tiny.py")  # as Difix calls its own
    allowed = DifixRefinerConfig(model=str(model), trust_remote_code=True)
    assert allowed.why_not(CPU) is None
    made = allowed.setup(CPU)
    asked = stand_ins.request()
    first, second = made.refine(asked)
    assert (first.notes["reference"], second.notes["reference"]) == ("train/0", "train/1")
    call = made._pipeline.seen[1]  # type: ignore[attr-defined]
    assert call["output_type"] == "np"  # PIL pictures would hide NaN
    assert not torch.equal(call["noise"], made._pipeline.seen[0]["noise"])  # type: ignore[attr-defined]
    assert (call["prompt"], call["timesteps"], call["num_inference_steps"], call["guidance_scale"]) == (
        "remove degradation", [199], 1, 0.0
    )  # fmt: skip
    assert call["image"].shape == call["ref_image"].shape == (64, 128, 3)
    shown = (asked.renders[1].color * 255).round().numpy()
    assert np.array_equal(call["image"][:50, :72], shown)
    assert np.array_equal(call["image"][50:, :72], shown[-2:-16:-1])  # mirrored, not stretched
    # A square beside a 72 x 50 render: 50 x 50, then mirrored.
    square = contained(asked.anchors[1].image.permute(2, 0, 1), 50, 50).permute(1, 2, 0)
    assert np.abs(call["ref_image"][:50, :50] - (square * 255).numpy()).max() < 1
    without = DifixRefinerConfig(model=str(model), trust_remote_code=True, use_reference=False).setup(CPU)
    (alone,) = without.refine(dataclasses.replace(asked, **_only(asked, 1)))
    assert "reference" not in alone.notes
    assert without._pipeline.seen[0]["ref_image"] is None  # type: ignore[attr-defined]


def _error(made: DifixRefiner) -> str:
    with pytest.raises(RefinerError) as caught:
        made.refine(stand_ins.request())
    return str(caught.value)


def _index(model: Path, **changes: Any) -> None:
    path = model / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_each_fault_of_the_files_is_one_line_that_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = stand_ins.with_code(tmp_path / "fixer")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def says(*parts: str, of: Path | str = model, **options: Any) -> None:
        options = {"trust_remote_code": True, **options}
        for line in (DifixRefinerConfig(model=str(of), **options).why_not(CPU), _error(refiner(of, **options))):
            assert line is not None and "\n" not in line, line
            assert all(part in line for part in parts), (parts, line)

    says("model is empty", "nvidia/difix_ref", "trust-remote-code", of="")
    says("neither a folder nor a hub id", of="/no/such/folder")
    says("hf download owner/model --revision abc", "Hugging Face cache", of="owner/model", revision="abc")
    says("no model_index.json", of=tmp_path)
    says("size must be at least 64", size=32)
    weights = model / "net" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(b"")
    says("net/diffusion_pytorch_model.safetensors is empty")
    weights.rename(model / "net" / "diffusion_pytorch_model.bin")
    (model / "net" / "diffusion_pytorch_model.bin").write_bytes(content)
    says("net/ has no .safetensors", "pickled")
    (model / "scheduler" / "scheduler_config.json").unlink()
    says("scheduler/ is missing")
    _index(model, _class_name="NoSuchPipeline")
    says("NoSuchPipeline, which diffusers", "pipeline.py")
    (model / "model_index.json").write_text("{")
    says("model_index.json cannot be read")
    monkeypatch.setattr("closeup_ns.refine.published.missing_packages", lambda: ["diffusers"])
    says("pip install 'closeup-ns[see3d]'")


def test_damage_that_only_loading_finds(tmp_path: Path) -> None:
    model = stand_ins.with_code(tmp_path / "fixer")
    weights = model / "net" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2])
    made = refiner(model, trust_remote_code=True)
    assert "cannot be loaded" in _error(made) and "\n" not in _error(made)
    # In diffusers' own layout for code the class is a pair.
    whole = stand_ins.with_code(tmp_path / "pair")
    _index(whole, _class_name=["pipeline", "TinyFixPipeline"])
    assert "pipeline.py" in (DifixRefinerConfig(model=str(whole)).why_not(CPU) or "")
    assert all(view.failure is None for view in refiner(whole, trust_remote_code=True).refine(stand_ins.request()))


def test_a_snapshot_in_the_cache_is_found_by_its_revision(
    stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "cache" / "models--owner--model"
    (home / "snapshots").mkdir(parents=True)
    (home / "snapshots" / commit).symlink_to(stock)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert DifixRefinerConfig(model="owner/model", revision=commit).why_not(CPU) is None
    assert "hf download" in (DifixRefinerConfig(model="owner/model", revision="f" * 40).why_not(CPU) or "")


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda image: np.full((*_size(image), 3), np.nan), "NaN"),
        (lambda image: np.zeros((64, 64, 3)), "64 x 64 for 128 x 64"),
        (lambda image: np.zeros((*_size(image), 4)), "not RGB"),
        (lambda image: 1 / 0, "division by zero"),
    ],
)
def test_a_view_that_goes_wrong_keeps_its_render_and_the_others_are_kept(answer: Any, says: str) -> None:
    calls: list[int] = []

    def call(image: Any, prompt: str) -> Any:
        calls.append(1)
        return SimpleNamespace(images=[answer(image) if len(calls) == 1 else image])

    asked = stand_ins.request()
    for render in asked.renders:
        render.color[3, 3] = float("nan")
    first, second = stubbed(call).refine(asked)
    assert first.failure is not None and says in first.failure and "\n" not in first.failure
    assert torch.equal(first.image, torch.nan_to_num(asked.renders[0].color)) and not first.weight.any()
    assert second.failure is None
    # The stub gives its 8-bit picture back.
    assert float((second.image - torch.nan_to_num(asked.renders[1].color)).abs().max()) < 1 / 255


def _size(image: Any) -> tuple[int, int]:
    return image.size[1], image.size[0]


def test_a_blanked_picture_and_too_little_memory_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def blanked(image: Any) -> Any:
        return SimpleNamespace(images=[image], nsfw_content_detected=[True])

    def crowded(image: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    assert "safety checker" in (stubbed(blanked).refine(stand_ins.request())[0].failure or "")
    assert "out of GPU memory at 128 x 64" in (stubbed(crowded).refine(stand_ins.request())[0].failure or "")
    with pytest.raises(RefinerError, match="takes no image="):
        stubbed(lambda prompt: None).refine(stand_ins.request())


@pytest.mark.parametrize("kind", ["pil", "tensor", "tuple"])
def test_whatever_form_a_pipeline_answers_in(kind: str) -> None:
    def call(image: Any) -> Any:
        if kind == "pil":
            return SimpleNamespace(images=[image])
        levels = torch.from_numpy(np.asarray(image).copy()).movedim(-1, 0) / 255
        return SimpleNamespace(images=levels[None]) if kind == "tensor" else ([levels], None)

    asked = stand_ins.request()
    for result, render in zip(stubbed(call).refine(asked), asked.renders, strict=True):
        assert float((result.image - render.color).abs().max()) < 1 / 255


def test_the_libraries_are_silent_while_they_are_asked() -> None:
    """SDXL's pipeline warns at every tile, of something that is none of the user's business."""
    from diffusers.utils import logging

    seen: list[int] = []

    def call(image: Any) -> Any:
        seen.append(logging.get_verbosity())
        return SimpleNamespace(images=[image])

    before = logging.get_verbosity()
    assert stubbed(call).refine(stand_ins.request(1))[0].failure is None
    assert seen == [logging.CRITICAL] and logging.get_verbosity() == before < logging.CRITICAL


def test_large_views_are_shrunk_in_proportion_and_brought_back() -> None:
    seen: list[Any] = []

    def call(image: Any) -> Any:
        seen.append(image.size)
        return SimpleNamespace(images=[image])

    asked = stand_ins.request(1, 300, 210)
    (result,) = stubbed(call, size=128).refine(asked)
    assert seen == [(128, 128)]  # 128 x 90, padded below
    assert result.image.shape == (210, 300, 3)
    assert result.notes["network_size"] == "128 x 128"
    assert float((result.image - asked.renders[0].color).abs().max()) < 0.02


def test_colours_are_held_where_photographs_back_them_and_mended_elsewhere() -> None:
    """A fixer that repaints half of the view, as it must where the render is mush or a hole."""
    asked = stand_ins.request(1, 192, 64)
    known = torch.zeros(64, 192, dtype=torch.bool)
    known[:, :96] = True
    asked = dataclasses.replace(asked, masks=[dataclasses.replace(asked.masks[0], dense=known)])
    made = asked.renders[0].color.clone()
    made[:, 96:] = torch.tensor([1.0, 0.0, 0.0])
    (result,) = stubbed(lambda image: SimpleNamespace(images=[made.permute(2, 0, 1)])).refine(asked)
    assert float((result.image - asked.renders[0].color)[:, :64].abs().max()) < 1e-3
    assert float((result.image - made)[:, 128:].abs().max()) < 0.02


def test_the_nearest_reference_looks_from_nearby_into_the_same_direction() -> None:
    view = camera(0, 0, 1)
    ones = torch.ones(2, 2)
    render = Rendered(torch.zeros(2, 2, 3), 3 * ones, ones)
    turned = aim_at(camera(0, 0, 1), torch.tensor([3.0, 0.0, 4.0]))  # by 45 degrees
    cameras = [camera(3, 0, 1), turned, camera(0, 0, 0), camera(0, 0.3, 1)]
    guides = [GuideImage("", there, torch.zeros(2, 2, 3), True) for there in cameras]
    expected = torch.tensor([[torch.pi / 4, torch.pi / 4, np.arctan(1 / 3), np.arctan(0.1)]], dtype=torch.float64)
    distances = guide_distances([view], [render], guides)
    assert torch.allclose(distances, expected, atol=1e-3)  # acos near 1 amplifies float32 poses
    # Twice the scene is the same scene; nothing opaque counts as a depth of one.
    double = View(view.K, view.c2w.clone(), 96, 72)
    double.c2w[:3, 3] *= 2
    for guide in guides:
        guide.view.c2w[:3, 3] *= 2
    again = guide_distances([double], [Rendered(render.color, 6 * ones, ones)], guides)
    assert torch.allclose(again, distances, atol=1e-3)
    empty = guide_distances([double], [Rendered(render.color, 0 * ones, 0 * ones)], guides)
    assert float(empty[0, 0]) == pytest.approx(np.arctan(6.0), abs=1e-3)
    guides[3].view.c2w[0, 3] = float("nan")
    assert int(guide_distances([double], [render], guides).argmin()) == 2


def test_without_anchors_the_photographs_are_the_references() -> None:
    seen: list[Any] = []

    def call(image: Any, ref_image: Any = None) -> Any:
        seen.append(ref_image)
        return SimpleNamespace(images=[image])

    asked = stand_ins.request(1)
    photograph = Observation(camera(0, 0, 0, 8, 8), torch.full((3, 8, 8), 0.2), torch.ones(8, 8))
    (result,) = stubbed(call).refine(dataclasses.replace(asked, anchors=[], references=[photograph]))
    assert result.notes["reference"] == "photograph 0"
    assert (np.asarray(seen[0]) == 51).all()
    stubbed(call).refine(dataclasses.replace(asked, anchors=[]))
    assert seen[1] is None


def test_a_guide_is_never_squashed(generator: torch.Generator) -> None:
    wide = torch.zeros(3, 20, 60)
    wide[:, 5:15, 25:35] = 1.0  # a square stays one
    inside = contained(wide, 40, 40)
    rows = (inside[0, :14].amax(1) > 0.5).sum()
    columns = (inside[0, :14].amax(0) > 0.5).sum()
    assert inside.shape == (3, 40, 40)
    assert abs(int(rows) - int(columns)) <= 1
    image = torch.rand(3, 9, 12, generator=generator)
    assert torch.equal(contained(image, 9, 12), image)
    assert contained(torch.rand(3, 1, 90, generator=generator), 8, 8).shape == (3, 8, 8)


def test_seeds_depend_on_names_alone() -> None:
    assert derived_seed(3, "a", "b") == derived_seed(3, "a", "b")
    different = {derived_seed(3, "a", "b"), derived_seed(3, "b", "a"), derived_seed(3, "ab"), derived_seed(4, "a", "b")}
    assert len(different) == 4
    assert all(0 <= seed < 2**63 for seed in different)
    assert torch.equal(torch.randn(4, generator=seeded(3, "a")), torch.randn(4, generator=seeded(3, "a")))
