"""Tiles and their blend: round trips at any size."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from closeup_ns.refine.imaging.sizes import Tile, blend, cut, resized, tiles

SIDES = st.integers(64, 1500)
TILINGS = st.tuples(SIDES, SIDES, st.sampled_from([64, 128, 512]), st.integers(0, 511)).filter(
    lambda tiling: tiling[3] <= tiling[2] - 8 and min(tiling[0], tiling[1]) >= tiling[2]
)
"""Height, width, side of a square, overlap."""


def picture(seed: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_beyond_the_border_is_what_torch_pads_with(mode: str, generator: torch.Generator) -> None:
    image = torch.rand(3, 40, 50, generator=generator)
    after = torch.nn.functional.pad(image, (0, 14, 0, 24), mode=mode)
    assert torch.equal(cut(image, Tile(0, 0, 64, 64), mode), after)  # type: ignore[arg-type]
    before = torch.nn.functional.pad(image, (7, 0, 9, 0), mode=mode)
    assert torch.equal(cut(image, Tile(-9, -7, 49, 57), mode), before)  # type: ignore[arg-type]


def test_a_line_that_is_shorter_than_what_is_cut_is_mirrored_back_and_forth() -> None:
    line, tile = torch.tensor([[[1, 2, 3]]]), Tile(0, 0, 1, 8)
    assert cut(line, tile)[0, 0].tolist() == [1, 2, 3, 2, 1, 2, 3, 2]
    assert cut(line, tile, "replicate")[0, 0].tolist() == [1, 2, 3, 3, 3, 3, 3, 3]


@settings(max_examples=150, deadline=None)
@given(TILINGS)
def test_tiles_cover_the_picture_and_overlap_as_asked(tiling: tuple[int, int, int, int]) -> None:
    height, width, size, overlap = tiling
    assume((height / (size - overlap - 7)) * (width / (size - overlap - 7)) < 10_000)
    windows = tiles(height, width, size, overlap)
    assert windows == sorted(windows, key=lambda tile: (tile.top, tile.left)) and len(set(windows)) == len(windows)
    assert all(tile.height == tile.width == size for tile in windows)
    for side, starts in ((height, {tile.top for tile in windows}), (width, {tile.left for tile in windows})):
        ordered = sorted(starts)
        assert ordered[0] == 0 and all(start % 8 == 0 for start in ordered)
        assert 0 <= ordered[-1] + size - side < 8, "next to nothing is padded where the picture has pixels"
        step = (size - overlap) // 8 * 8
        assert len(ordered) == 1 or (len(ordered) - 2) * step + size < side, "no more than are needed"
        assert all(start + size - following >= overlap for start, following in itertools.pairwise(ordered))
    assert len(windows) == len({t.top for t in windows}) * len({t.left for t in windows})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), TILINGS, st.integers(0, 600))
def test_tiles_of_a_picture_give_the_picture_back(seed: int, tiling: tuple[int, int, int, int], feather: int) -> None:
    height, width, size, overlap = tiling
    assume((height / (size - overlap - 7)) * (width / (size - overlap - 7)) < 100)
    image = picture(seed, height, width)
    windows = tiles(height, width, size, overlap)
    back = blend(windows, [cut(image, tile) for tile in windows], height, width, feather)
    torch.testing.assert_close(back, image, atol=1e-6, rtol=0)


def test_the_change_from_tile_to_tile_is_smooth_and_within_the_feather() -> None:
    windows = tiles(128, 200, 128, 32)
    assert [tile.left for tile in windows] == [0, 72]
    shades = [torch.full((1, tile.height, tile.width), float(index)) for index, tile in enumerate(windows)]
    line = blend(windows, shades, 128, 200, feather=20)[0, 10]
    middle = (72 + 128) // 2
    assert (line[: middle - 10] == 0).all() and (line[middle + 10 :] == 1).all()
    assert (line.diff() >= 0).all() and float(line.diff().max()) < 1.6 / 20
    torch.testing.assert_close(line[middle - 10 : middle + 10], 1 - line[middle - 10 : middle + 10].flip(0))
    whole = blend(windows, shades, 128, 200, feather=128)[0, 10]
    assert float(whole.diff().max()) < 1.6 / 56 and 0 < float(whole[73]) < 0.01


def test_shrinking_averages_instead_of_leaving_out() -> None:
    stripes = (torch.arange(96) % 2).float().expand(1, 96, 96)
    inner = resized(stripes, 32, 32)[0, 4:-4, 4:-4]
    assert (inner - 0.5).abs().max() < 0.05
    sharp = torch.rand(1, 50, 50, generator=torch.Generator().manual_seed(0)).round()
    assert float(resized(sharp, 37, 37).min()) >= 0 and float(resized(sharp, 131, 131).max()) <= 1
