"""The detection curve: what drawing cells or columns would have found."""

from __future__ import annotations

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formation.audit import odds


@pytest.mark.parametrize(("fraction", "cells"), [(0.1, 44), (0.05, 90), (0.01, 459), (0.001, 4603)])
def test_cells_for_99_percent_of_many(fraction: float, cells: int) -> None:
    assert cells == odds.needed_of_many(fraction)
    many = 10_000_000
    assert abs(cells - odds.needed(many, round(many * fraction))) <= 2


def test_one_edited_cell_among_those_of_256_positions_needs_nearly_all() -> None:
    assert 15_460 == odds.needed(256 * 61, 1)


@pytest.mark.parametrize(("bad", "columns"), [(1, 61), (6, 32), (12, 18), (30, 7)])
def test_columns_for_99_percent_of_61_layers(bad: int, columns: int) -> None:
    assert columns == odds.needed(61, bad)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n))))
def test_the_probability_is_that_of_drawing_without_replacement(case: tuple[int, int, int]) -> None:
    population, edited, drawn = case
    assert 1 - comb(population - edited, drawn) / comb(population, drawn) == pytest.approx(odds.found(population, edited, drawn), abs=1e-12)


def test_drawing_everything_finds_everything_and_nothing_is_never_found() -> None:
    assert 1.0 == odds.found(50, 1, 50)
    assert 0.0 == odds.found(50, 0, 50)


def test_the_curves_go_from_much_to_a_single_one() -> None:
    assert [1562, 781, 156, 16, 1] == [point.edited for point in odds.cell_curve(15_616, 44)]
    assert 0.99 <= odds.cell_curve(15_616, 44)[0].probability < 0.991
    assert [30, 12, 6, 1] == [point.edited for point in odds.column_curve(61, 1)]
    assert pytest.approx(1 / 61) == odds.column_curve(61, 1)[-1].probability
