"""Pictures in the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from closeup_ns.refine.judging.footprint import as_photographed
from closeup_ns.report.facts import read_run
from closeup_ns.report.images import Embedded, embed, embed_mark
from tests.report.made_up import write_run
from tests.stored import a_view


def decoded(embedded: Embedded) -> np.ndarray:
    head, _, text = embedded.uri.partition(",")
    assert head.startswith("data:image/") and head.endswith(";base64")
    picture = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    assert picture.size == (embedded.width, embedded.height)
    return np.asarray(picture)


def smooth(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 255 * y / height, np.full((height, width), 80)], -1).astype(np.uint8)


def test_a_picture_keeps_its_colours_and_shape_and_large_ones_shrink(tmp_path: Path) -> None:
    truth = smooth(100, 40)
    Image.fromarray(truth).save(tmp_path / "a.png")
    assert np.abs(decoded(embed(tmp_path / "a.png", 200, 200)).astype(int) - truth).mean() < 2
    for small in (embed(tmp_path / "a.png", 50), embed(tmp_path / "a.png", 100, 20)):
        assert (small.width, small.height) == (50, 20)


def test_the_mark_covers_what_is_not_real_and_nothing_else(tmp_path: Path) -> None:
    real = np.zeros((20, 30), np.uint8)
    real[5:15, 3:20] = 255
    Image.fromarray(real).save(tmp_path / "real.png")
    assert ((decoded(embed_mark(tmp_path / "real.png", 640))[..., 3] > 0) == (real == 0)).all()


def test_quality_after_the_round_is_that_of_the_pictures_on_disk(tmp_path: Path) -> None:
    """Against the reliable colours of the stored view, at the photographs' scale, straight from the made-up tensors."""
    run = read_run(write_run(tmp_path, rounds=1))
    for index, view in enumerate(run.rounds[0].views):
        stored = a_view(index, 60, 42)
        after, mask = (1 - stored.render).double().permute(2, 0, 1), stored.reliable.sparse
        seen = as_photographed(after, stored.reliable.footprint.double())
        error = (seen - stored.reliable.color.double())[:, mask].square().mean()
        assert view.psnr_after == pytest.approx(-10 * float(error.log10()), abs=0.02)
        assert view.photographed == pytest.approx(float(stored.real.float().mean()))
