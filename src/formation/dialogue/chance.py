"""How often something happened, held against how often it was to be expected: trials with a probability each, the Poisson-binomial distribution."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Count:
    """`at_least` and `at_most`: the probability of as many as were observed, or more, and of as many or fewer."""

    trials: int
    observed: int
    expected: float
    at_least: float
    at_most: float


def count(probabilities: Iterable[float], observed: int) -> Count:
    """Exact but for the rounding of binary64: the distribution of the number of successes is built trial by trial, and every term is positive, so
    that a small tail keeps its digits. Raises ValueError for a probability outside 0 to 1 or a count that the trials cannot give."""
    chances = [float(p) for p in probabilities]
    if not all(0.0 <= p <= 1.0 for p in chances) or not 0 <= observed <= len(chances):
        raise ValueError(f"expected probabilities and a count of at most {len(chances)}, got {observed}")
    exactly = np.zeros(observed + 1)  # of so many successes so far
    exactly[0], more = 1.0, 0.0
    for p in chances:
        more += exactly[observed] * p
        exactly[1:] = exactly[1:] * (1.0 - p) + exactly[:-1] * p
        exactly[0] *= 1.0 - p
    return Count(len(chances), observed, float(sum(chances)), min(1.0, float(exactly[observed] + more)), min(1.0, float(exactly.sum())))
