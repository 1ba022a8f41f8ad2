"""What the chance was that an edit would have been found: a curve over how much was edited, never one number.

Challenges are drawn without replacement, so with n of N cells edited and k drawn none is hit with probability C(N - n, k) / C(N, k). That
holds wherever the edits are, because the draw is uniform and comes after them. A column finds every edit of its layer and none elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

FRACTIONS = (0.1, 0.05, 0.01, 0.001)
NEGLIGIBLE = 1e-18


@dataclass(frozen=True)
class Point:
    """With `edited` of `of` cells, or layers, changed, what was checked finds a change with this probability; `for_99` would find it with
    99 %."""

    edited: int
    of: int
    probability: float
    for_99: int


def found(population: int, edited: int, drawn: int) -> float:
    """Probability that `drawn` of `population`, without replacement, hit one of the `edited`."""
    missed, few, many = 1.0, *sorted((edited, drawn))
    for i in range(few):
        missed *= max(population - many - i, 0) / (population - i)
        if missed < NEGLIGIBLE:
            return 1.0
    return 1.0 - missed


def needed(population: int, edited: int, probability: float = 0.99) -> int:
    """The fewest draws without replacement that reach this probability; `edited` is at least 1."""
    low, high = 1, population
    while low < high:
        middle = (low + high) // 2
        if found(population, edited, middle) >= probability:
            high = middle
        else:
            low = middle + 1
    return low


def needed_of_many(fraction: float, probability: float = 0.99) -> int:
    """The same of so many cells that drawing some does not change the rest"""
    return ceil(log(1.0 - probability) / log(1.0 - fraction))


def cell_curve(cells: int, drawn: int) -> tuple[Point, ...]:
    """Of `cells` in all, from a tenth down to a single one"""
    counts = sorted({max(1, round(cells * fraction)) for fraction in FRACTIONS} | {1}, reverse=True)
    return tuple(Point(n, cells, found(cells, n, drawn), needed(cells, n)) for n in counts)


def column_curve(layers: int, drawn: int) -> tuple[Point, ...]:
    counts = sorted({max(1, layers // part) for part in (2, 5, 10, layers)}, reverse=True)
    return tuple(Point(n, layers, found(layers, n, drawn), needed(layers, n)) for n in counts)
