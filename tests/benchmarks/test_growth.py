"""Exponents and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._growth import fit_exponent, growth
from benchmarks._scene import Case


@given(st.floats(-2, 3), st.floats(1e-3, 1e3))
def test_a_power_law_gives_its_exponent(exponent: float, factor: float) -> None:
    sizes = [1.0, 5.0, 30.0, 200.0]
    assert fit_exponent(sizes, [factor * size**exponent for size in sizes]) == pytest.approx(exponent, abs=1e-9)


def test_noise_is_averaged_on_the_logarithms() -> None:
    """Costs off by the same factor up and down at both ends cancel in the middle only: slope by hand."""
    assert fit_exponent([1, 10, 100], [2.0, 10.0, 50.0]) == pytest.approx((1.698970004336 - 0.301029995664) / 2)


@pytest.mark.parametrize("sizes, costs", [([1, 1], [1, 2]), ([1, 2], [1, 0]), ([1, 2], [1]), ([1], [1])])
def test_what_no_exponent_fits_is_refused(sizes: list[float], costs: list[float]) -> None:
    with pytest.raises(ValueError, match="no exponent fits"):
        fit_exponent(sizes, costs)


def test_growth_needs_three_cases_that_differ_in_one_size() -> None:
    """Cost = count^0.5 * pixels: every line of a grid says so, and lines of two points say nothing."""
    cases = [Case(count, side) for count in (100, 1000, 10_000) for side in (64, 128)] + [Case(100, 256)]
    fits = growth({case: case.count**0.5 * case.side**2 for case in cases})
    assert [(fit.what, fit.fixed, fit.points) for fit in fits] == [
        ("Gaussians", "64x64 pixels", 3),
        ("Gaussians", "128x128 pixels", 3),
        ("pixels", "100 Gaussians", 3),
    ]
    assert [fit.exponent for fit in fits] == pytest.approx([0.5, 0.5, 1.0])


@pytest.mark.parametrize("text, case", [("20000x256", Case(20_000, 256)), ("20kx64", Case(20_000, 64)),
                                        ("1Mx1024", Case(1_000_000, 1024)), ("0x0", Case(0, 0))])  # fmt: skip
def test_sizes_are_read(text: str, case: Case) -> None:
    assert Case.parse(text) == case


@pytest.mark.parametrize("text", ["20000", "x256", "20kx", "axb", "20k256", "-1x5"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        Case.parse(text)
