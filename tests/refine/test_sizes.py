"""Padding, tiles and their blend: round trips at any size."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from closeup_ns.refine.sizes import Tile, blend, cut, fit_long_side, pad_to, resized, tiles

SIDES = st.integers(1, 1500)
TILINGS = st.tuples(SIDES, SIDES, st.sampled_from([64, 128, 512]), st.integers(0, 511)).filter(
    lambda case: case[3] <= case[2] - 8
)


def picture(seed: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), SIDES, SIDES, st.sampled_from([1, 8, 64]), st.sampled_from(["reflect", "replicate"]))
def test_padding_comes_off_again(seed: int, height: int, width: int, multiple: int, mode: str) -> None:
    image = picture(seed, height, width)
    padded, crop = pad_to(image, multiple, mode)  # type: ignore[arg-type]
    assert padded.shape[1] % multiple == padded.shape[2] % multiple == 0
    assert 0 <= padded.shape[1] - height < multiple and 0 <= padded.shape[2] - width < multiple
    assert torch.equal(crop(padded), image)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_padding_is_that_of_torch_where_torch_can(mode: str, generator: torch.Generator) -> None:
    image = torch.rand(3, 40, 50, generator=generator)
    expected = torch.nn.functional.pad(image, (0, 14, 0, 24), mode=mode)
    assert torch.equal(pad_to(image, 64, mode)[0], expected)  # type: ignore[arg-type]
    before = torch.nn.functional.pad(image, (7, 0, 9, 0), mode=mode)
    assert torch.equal(cut(image, Tile(-9, -7, 49, 57), mode), before)  # type: ignore[arg-type]


def test_a_line_that_is_shorter_than_its_padding_is_mirrored_back_and_forth() -> None:
    line = torch.tensor([[1, 2, 3]])
    assert pad_to(line[None], 8)[0][0, 0].tolist() == [1, 2, 3, 2, 1, 2, 3, 2]
    assert pad_to(line[None], 8, "replicate")[0][0, 0].tolist() == [1, 2, 3, 3, 3, 3, 3, 3]
    assert pad_to(torch.tensor([[True]]), 4)[0].all()


@settings(max_examples=150, deadline=None)
@given(TILINGS)
def test_tiles_cover_the_picture_and_overlap_as_asked(case: tuple[int, int, int, int]) -> None:
    height, width, size, overlap = case
    assume((height / (size - overlap - 7)) * (width / (size - overlap - 7)) < 10_000)
    windows = tiles(height, width, size, overlap)
    assert windows == sorted(windows, key=lambda tile: (tile.top, tile.left)) and len(set(windows)) == len(windows)
    for side, spans in ((height, {(t.top, t.height) for t in windows}), (width, {(t.left, t.width) for t in windows})):
        ordered = sorted(spans)
        assert all(count % 64 == 0 and count <= size for _, count in ordered)
        assert ordered[0][0] == 0
        if side > size:
            assert 0 <= sum(ordered[-1]) - side < 8, "next to nothing is padded where the picture has pixels"
            assert all(count == size and start % 8 == 0 for start, count in ordered)
            step = (size - overlap) // 8 * 8
            assert (len(ordered) - 2) * step + size < side, "no more than are needed"
        else:
            assert len(ordered) == 1 and 0 <= ordered[0][1] - side < 64
        for (start, count), (following, _) in itertools.pairwise(ordered):
            assert start + count - following >= overlap
    assert len(windows) == len({t.top for t in windows}) * len({t.left for t in windows})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), TILINGS, st.none() | st.integers(0, 600))
def test_tiles_of_a_picture_give_the_picture_back(
    seed: int, case: tuple[int, int, int, int], feather: int | None
) -> None:
    height, width, size, overlap = case
    assume((height / (size - overlap - 7)) * (width / (size - overlap - 7)) < 100)
    image = picture(seed, height, width)
    windows = tiles(height, width, size, overlap)
    back = blend(windows, [cut(image, tile) for tile in windows], height, width, feather)
    torch.testing.assert_close(back, image, atol=1e-6, rtol=0)


def test_the_change_from_tile_to_tile_is_smooth_and_within_the_feather() -> None:
    windows = tiles(64, 200, 128, 32)
    assert [tile.left for tile in windows] == [0, 72]
    shades = [torch.full((1, tile.height, tile.width), float(index)) for index, tile in enumerate(windows)]
    line = blend(windows, shades, 64, 200, feather=20)[0, 10]
    middle = (72 + 128) // 2
    assert (line[: middle - 10] == 0).all() and (line[middle + 10 :] == 1).all()
    assert (line.diff() >= 0).all() and float(line.diff().max()) < 1.6 / 20
    torch.testing.assert_close(line[middle - 10 : middle + 10], 1 - line[middle - 10 : middle + 10].flip(0))
    whole = blend(windows, shades, 64, 200)[0, 10]
    assert float(whole.diff().max()) < 1.6 / 56 and 0 < float(whole[73]) < 0.01


def test_order_of_the_tiles_does_not_matter(generator: torch.Generator) -> None:
    windows = tiles(150, 170, 64, 16)
    images = [torch.rand(3, 64, 64, generator=generator) for _ in windows]
    forth = blend(windows, images, 150, 170)
    back = blend(windows[::-1], images[::-1], 150, 170)
    torch.testing.assert_close(forth, back)


def test_what_cannot_be_tiled_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        tiles(100, 100, 100, 10)
    with pytest.raises(ValueError, match="cannot overlap"):
        tiles(100, 100, 64, 57)
    with pytest.raises(ValueError, match="cannot tile"):
        tiles(0, 100, 64, 0)
    with pytest.raises(ValueError, match="gap"):
        blend([Tile(0, 0, 64, 64), Tile(0, 70, 64, 64)], [torch.zeros(1, 64, 64)] * 2, 64, 134)
    with pytest.raises(ValueError, match="unknown padding"):
        pad_to(torch.zeros(1, 4, 4), 8, "zeros")  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 600), st.booleans())
def test_a_picture_is_never_squashed(height: int, width: int, size: int, enlarge: bool) -> None:
    image = torch.full((1, height, width), 0.25)
    assume(size / max(height, width) * min(height, width) >= 0.5)
    fitted = fit_long_side(image, size, enlarge)
    if max(height, width) <= size and not enlarge:
        assert fitted is image
        return
    factor = size / max(height, width)
    assert max(fitted.shape[1:]) == size
    assert abs(fitted.shape[1] - height * factor) <= 0.5 and abs(fitted.shape[2] - width * factor) <= 0.5
    torch.testing.assert_close(fitted, torch.full_like(fitted, 0.25))


def test_shrinking_averages_instead_of_leaving_out() -> None:
    stripes = (torch.arange(96) % 2).float().expand(1, 96, 96)
    inner = resized(stripes, 32, 32)[0, 4:-4, 4:-4]
    assert (inner - 0.5).abs().max() < 0.05
    sharp = torch.rand(1, 50, 50, generator=torch.Generator().manual_seed(0)).round()
    assert float(resized(sharp, 37, 37).min()) >= 0 and float(resized(sharp, 131, 131).max()) <= 1
