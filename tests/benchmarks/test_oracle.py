"""The generator that knows the truth: it shows the demo's own close-ups; its imperfect kinds are imperfect as said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from benchmarks import oracle
from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.eval_cameras import read_cameras
from closeup_ns.model.cameras import to_model_frame
from tests.data.demo_small import small_demo


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(np.square((first - second) / 255.0).mean()))


def test_it_sees_what_the_true_close_ups_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo, _ = small_demo()
    monkeypatch.setattr(oracle, "LIGHT_SAMPLES", 4)  # as the small demo is lit
    (tmp_path / "renders").mkdir()
    parsed = CloseupDataParserConfig(data=demo / "capture").setup().get_dataparser_outputs("train")
    views, truths = [], {}
    for shot in read_cameras(demo / "truth" / "cameras.json")[::3]:
        name = f"{shot.name}.png"
        with Image.open(shot.truth) as image:
            truths[name] = np.asarray(image, dtype=np.float64)
        Image.new("RGB", (shot.view.width, shot.view.height)).save(tmp_path / "renders" / name)
        camera = to_model_frame(shot.view, parsed.dataparser_transform.double(), parsed.dataparser_scale).to_dict()
        views.append({"name": shot.name, "render": f"renders/{name}", "output": name, "camera": camera})
    (tmp_path / "request.json").write_text(json.dumps({"seed": 3, "views": views}))
    (tmp_path / "answer").mkdir()
    oracle.main([str(demo), str(tmp_path), str(tmp_path / "answer")])
    for name, expected in truths.items():
        answer = np.asarray(Image.open(tmp_path / "answer" / name), dtype=np.float64)
        assert psnr(answer, expected) > 38, name  # its random samples differ


def test_the_imperfect_kinds_are_imperfect_as_said() -> None:
    """A generator's picture is the truth but for bends and colours; detail from elsewhere leaves the large shapes."""
    rng = np.random.default_rng(0)
    truth = 128 + 60 * gaussian_filter(rng.standard_normal((120, 160, 3)), (1.5, 1.5, 0)) * 5
    render = gaussian_filter(truth, (6, 6, 0))
    bent = oracle.as_a_generator(truth, render, rng)
    assert not np.array_equal(bent, oracle.as_a_generator(truth, render, rng)), "each view is bent in its own way"
    coarse = gaussian_filter(bent - truth, (12, 12, 0))
    assert 1 < coarse.std() < 2 * oracle.CAST_LEVELS
    moved = oracle.from_elsewhere(truth, render, rng)
    assert np.abs(gaussian_filter(moved - render, (12, 12, 0)))[40:-30, 40:-30].max() < 3  # not where it rolls in
    fine = [picture - gaussian_filter(picture, (3, 3, 0)) for picture in (truth, moved)]
    assert fine[1].std() > 0.8 * fine[0].std()
    assert abs(np.corrcoef(fine[0].ravel(), fine[1].ravel())[0, 1]) < 0.3
