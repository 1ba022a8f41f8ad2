"""Intervals of counts and slopes, against what defines them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formation.dialogue.intervals import LEVEL, Share, Z, slope, student_quantile, within


@given(st.integers(0, 400), st.integers(1, 400))
def test_wilsons_bounds_are_the_shares_that_a_normal_test_just_does_not_reject(times: int, of: int) -> None:
    """|k/n - p| = z √(p (1 - p) / n) at both ends"""
    times = min(times, of)
    for bound in Share(times, of).interval():
        assert 0.0 <= bound <= 1.0
        if 0.0 < bound < 1.0:
            assert math.isclose(abs(times / of - bound), Z * math.sqrt(bound * (1 - bound) / of), rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("times", "of", "low", "high"), [(0, 10, 0.0, 0.2775328), (3, 10, 0.1077913, 0.6032219), (10, 10, 0.7224672, 1.0), (0, 0, 0.0, 1.0)]
)  # fmt: skip
def test_wilsons_interval_of_known_counts(times: int, of: int, low: float, high: float) -> None:
    assert pytest.approx((low, high), abs=1e-7) == Share(times, of).interval()


TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 9: 2.2622, 10: 2.2281, 30: 2.0423, 100: 1.9840}


@pytest.mark.parametrize("free", TABLE)
def test_students_quantile_is_that_of_the_table(free: int) -> None:
    assert pytest.approx(TABLE[free], abs=5e-5) == student_quantile((1 + LEVEL) / 2, free)


@pytest.mark.parametrize("free", [1, 2, 3, 7, 8])
def test_the_finite_series_is_the_integral_of_the_density(free: int) -> None:
    scale = math.exp(math.lgamma((free + 1) / 2) - math.lgamma(free / 2)) / math.sqrt(free * math.pi)
    t = np.linspace(-2.5, 2.5, 200001)
    assert pytest.approx(float(np.trapezoid(scale * (1 + t * t / free) ** (-(free + 1) / 2), t)), abs=1e-9) == within(2.5, free)


Points = st.lists(st.tuples(st.integers(0, 9).map(float), st.floats(-50, 50)), min_size=2, max_size=6)


@given(st.lists(Points, min_size=1, max_size=4))
def test_a_slope_is_that_of_least_squares_with_a_constant_for_each_series(series: list[list[tuple[float, float]]]) -> None:
    used = [each for each in series if len({x for x, _ in each}) > 1]
    found = slope(series)
    assert len(used) == found.series and sum(map(len, used)) == found.points
    if not used:
        assert (None, None, "undetermined") == (found.slope, found.low, found.says)
        return
    rows = [(x, *(float(n == place) for n in range(len(used)))) for place, each in enumerate(used) for x, _ in each]
    y = np.array([y for each in used for _, y in each])
    solved, *_ = np.linalg.lstsq(np.array(rows), y, rcond=None)
    assert found.slope is not None and math.isclose(float(solved[0]), found.slope, rel_tol=1e-7, abs_tol=1e-7)
    free = len(y) - len(used) - 1
    if free < 1:
        assert found.low is None
        return
    left = y - np.array(rows) @ solved
    spread = float(np.linalg.inv(np.array(rows).T @ np.array(rows))[0, 0])
    half = student_quantile((1 + LEVEL) / 2, free) * math.sqrt(float(left @ left) / free * spread)
    assert found.low is not None and found.high is not None
    assert math.isclose(half, (found.high - found.low) / 2, rel_tol=1e-6, abs_tol=1e-6)
    assert found.says == ("more" if found.low > 0 else "less" if found.high < 0 else "undetermined")


def test_a_slope_of_known_points() -> None:
    """Of (1, 1), (2, 3), (3, 4): 1.5; what is left over is 1/6 on one degree of freedom"""
    found = slope([[(1.0, 1.0), (2.0, 3.0), (3.0, 4.0)]])
    half = TABLE[1] * math.sqrt(1 / 6 / 2)
    assert pytest.approx((1.5, 1.5 - half, 1.5 + half), abs=1e-4) == (found.slope, found.low, found.high)
