"""exact32.exps and what it leans on: many values at once have the bits that one after the other has, operation by operation."""

from __future__ import annotations

from itertools import pairwise
from math import log, nextafter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from formation.exact32 import EXP, GRIDS, MAGIC64, SHIFTED, SPLIT, STEPS, exp, exps, f32, sigmoid, sigmoids

binary32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
wide = st.integers(1 << 52, (1 << 53) - 1)  # significands in binary64
REACH = 0.3467  # the largest |r|, a little more than ln(2) / 2


@given(st.lists(binary32 | st.floats(-90, 90, width=32), max_size=40))
def test_sigmoids_of_many_are_those_of_each(values: list[float]) -> None:
    assert [sigmoid(value) for value in values] == sigmoids(values)


@given(st.lists(st.floats(max_value=0, width=32, allow_infinity=False) | st.floats(-90, 0, width=32), max_size=40))
@example([0.0, -0.0, -(2.0**-149), -(2.0**-126), -(2.0**-63), -(2.0**-25), -80.0, nextafter(f32(-80.0), -81)])
def test_exponentials_of_many_are_those_of_each(values: list[float]) -> None:
    assert [exp(value) for value in values] == exps(values)


def test_exponentials_are_those_of_each_where_the_reduction_goes_to_the_next_power() -> None:
    edges = [f32(-(n + half) * log(2) * (1 + side * 2.0**-23)) for n in range(116) for half in (0.0, 0.5) for side in range(-4, 5)]
    values = [value for value in edges if -80.0 <= value <= 0.0]
    assert [exp(value) for value in values] == exps(values)


@given(wide, st.integers(-170, 70), st.sampled_from([None, 0, 1, -1]))
@example((1 << 53) - 1, 0, None)
@example((1 << 53) - (1 << 28), 0, 0)
def test_a_number_split_is_rounded_to_binary32_and_to_even_from_halfway(significand: int, exponent: int, beside_half: int | None) -> None:
    if beside_half is not None:
        significand = (significand >> 29 << 29) + (1 << 28) + beside_half
    t = significand * 2.0**exponent
    for each in (t, -t):
        c = SPLIT * each
        assert f32(each) == c - (c - each)


def test_sums_that_a_grid_rounds_stay_in_their_binade() -> None:
    """So the grid is that of their last bits, whatever r is; the ends of each sum are those of the sum before times the largest |r|"""
    reach = abs(EXP[0]) * REACH
    for constant, grid, shifted in zip(EXP[1:5], GRIDS, SHIFTED, strict=True):
        last = grid / MAGIC64
        low, high = (constant - reach) * (1 - 2.0**-20), (constant + reach) * (1 + 2.0**-20)
        assert 2.0**23 * last <= low < high < 2.0**24 * last
        assert shifted - grid == constant
        reach = high * REACH


def test_no_rest_of_the_reduction_is_larger_than_was_reckoned_with() -> None:
    """r grows with x between two powers: its ends are where they meet"""
    ends = [-80.0, *(f32(-(n + 0.5) * log(2) * (1 + side * 2.0**-22)) for n in range(115, -1, -1) for side in (2, 1, 0, -1, -2)), 0.0]
    for x in [x for pair in pairwise(ends) for x in pair if x >= -80.0]:
        n = f32(x * f32(1 / log(2))) + MAGIC64 - MAGIC64
        whole, low, power = STEPS[n]
        assert 2.0**n == power
        assert abs(x - whole - low) <= REACH


@pytest.mark.parametrize("n", [-116, -1, 0])
def test_every_power_that_can_be_reached_is_there(n: int) -> None:
    assert float(n) in STEPS
