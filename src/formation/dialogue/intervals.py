"""Intervals of what was counted and of a slope: Wilson's for a proportion, Student's for the coefficient of a line.

Wilson (1927): of k in n the proportions that a normal test would not reject, (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n). Student's quantile by
bisection of the finite series for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from formation.ledger.fields import absent

LEVEL = 0.95
Z = 1.959963984540054  # the normal quantile of (1 + LEVEL) / 2
TOO_FEW = "too few points"


@dataclass(frozen=True)
class Share:
    """`of` times it could have happened, `times` it did."""

    times: int
    of: int

    def interval(self) -> tuple[float, float]:
        """Wilson's; everything where nothing was seen"""
        if not self.of:
            return 0.0, 1.0
        p, n = self.times / self.of, self.of
        centre, half = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        low, high = (centre - half) / (1 + Z * Z / n), (centre + half) / (1 + Z * Z / n)
        return (0.0 if not self.times else max(low, 0.0)), (1.0 if self.times == self.of else min(high, 1.0))

    def document(self) -> dict[str, Any]:
        low, high = self.interval()
        return {"times": self.times, "of": self.of, "low": low, "high": high, "level": LEVEL}


@dataclass(frozen=True)
class Slope:
    """Of y = a + slope x, each series with an `a` of its own, by least squares. None where the points are too few to say."""

    slope: float | None
    low: float | None
    high: float | None
    points: int
    series: int

    @property
    def says(self) -> str:
        """In a word"""
        if self.slope is None or self.low is None or self.high is None:
            return "undetermined"
        return "more" if self.low > 0 else "less" if self.high < 0 else "undetermined"

    def document(self) -> dict[str, Any]:
        numbers = {name: absent(TOO_FEW) if getattr(self, name) is None else getattr(self, name) for name in ("slope", "low", "high")}
        return numbers | {"level": LEVEL, "points": self.points, "series": self.series, "says": self.says}


def slope(series: Sequence[Sequence[tuple[float, float]]]) -> Slope:
    """Of points (x, y); a series of one says nothing of a slope. The interval takes what is left over as independent and equally spread."""
    used = [each for each in series if len({x for x, _ in each}) > 1]
    points = [(x - mean([x for x, _ in each]), y - mean([y for _, y in each])) for each in used for x, y in each]
    if not points:
        return Slope(None, None, None, 0, 0)
    spread = math.fsum(x * x for x, _ in points)
    found = math.fsum(x * y for x, y in points) / spread
    free = len(points) - len(used) - 1
    if free < 1:
        return Slope(found, None, None, len(points), len(used))
    left = math.fsum((y - found * x) ** 2 for x, y in points) / free
    half = student_quantile((1 + LEVEL) / 2, free) * math.sqrt(left / spread)
    return Slope(found, found - half, found + half, len(points), len(used))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def student_quantile(p: float, free: int) -> float:
    """t with P(T <= t) = p, 1/2 < p < 1, of `free` degrees of freedom"""
    low, high = 0.0, 1.0
    while 0.5 + 0.5 * within(high, free) < p:
        low, high = high, 2 * high
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if 0.5 + 0.5 * within(middle, free) < p else (low, middle)
    return 0.5 * (low + high)


def within(t: float, free: int) -> float:
    """P(|T| <= t)"""
    angle = math.atan2(t, math.sqrt(free))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = free % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(3 if odd else 2, free + 1, 2):  # cos θ (1 + 2/3 cos² θ + …), or 1 + 1/2 cos² θ + …
        total += term
        term *= cosine * cosine * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
