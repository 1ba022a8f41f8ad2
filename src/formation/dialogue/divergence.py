"""How far two distributions of a token are from each other, and from which: Kullback-Leibler and Jensen-Shannon, in binary64.

With t = ln r - ln p of a token, KL(p‖r) = Σ p φ(t) + (what r gives to tokens that p has not), φ(t) = exp t - 1 - t. No term is negative, so nothing
cancels: two distributions that are equal but for their last digits keep the digits of their divergence, and an error of both normalisations counts
squared. JS is the mean of KL(p‖m) and KL(r‖m), m = (p + r) / 2. KL is infinite if, and only if, p has a token that r has not; JS is at most ln 2.

With d = z - s, the difference of the logits, KL ≤ max d - min d, and by Hoeffding's lemma KL ≤ (max d - min d)² / 8. So two roundings of one and the
same distribution, whose logits are each off by at most δ, may show a divergence of 2 δ² that means nothing: the floor. Sums run in the order of
ids, in blocks of tokens that change no bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from formation.errors import UsageError
from formation.exact64 import INFINITY, log64
from formation.kernels import ops
from formation.kernels.ops import F64
from formation.ledger import canonical
from formation.ledger.fields import absent
from formation.ledger.zero import LN2
from formation.run.distributions import Distribution

BLOCK = 8192  # tokens at a time
NEAR = 0.5  # where φ is summed as a series
LOG_NEAR = 0.0625  # where ln((1 + exp t) / 2) is
LOG_COSH = (-691 / 935550, 31 / 14175, -17 / 2520, 1 / 45, -1 / 12, 1 / 2)  # of x^12, x^10 … x^2
HALF_AN_ULP = 2.0**-24  # of a logit in binary32, relative
WORK = 2.0**-49  # of the largest number in a log probability: what binary64 leaves of each, generously
SUPPORT, SUPPORTS = "a token of it has no probability in the reference", "not the same tokens have a probability"
Terms = Callable[[F64, F64, F64], F64]


@dataclass(frozen=True)
class Divergence:
    """Of `of` from `reference`, both named: a distribution "at message 5 token 2 of kimi" and "the same without the dialogue".

    `most_nats` is what KL cannot exceed, from the logits alone; `floor_nats` what rounding alone may show. Infinite KL is math.inf.
    """

    of: str
    reference: str
    kl_nats: float
    js_nats: float
    most_nats: float
    floor_nats: float

    @property
    def kl_bits(self) -> float:
        return self.kl_nats / LN2

    @property
    def js_bits(self) -> float:
        return self.js_nats / LN2

    @property
    def is_above_floor(self) -> bool:
        return self.kl_nats > self.floor_nats

    def document(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in ("kl_nats", "kl_bits", "js_nats", "js_bits", "most_nats", "floor_nats")}
        why = {"kl_nats": SUPPORT, "kl_bits": SUPPORT, "most_nats": SUPPORTS}
        shown = {name: canonical.number(value) if math.isfinite(value) else absent(why[name]) for name, value in numbers.items()}
        return {"of": self.of, "reference": self.reference, **shown, "is_above_floor": self.is_above_floor}


def divergence(p: Distribution, r: Distribution, *, of: str, reference: str, logit_error: float | None = None) -> Divergence:
    """KL(p‖r) and their JS. `logit_error` is by how much a logit of either may be off, in nats; unless it is known, half a unit in the last place of
    the largest in binary32. Raises UsageError for two vocabularies of different size."""
    if len(p.scores) != len(r.scores):
        raise UsageError(f"{of} and {reference}: expected one vocabulary, got {len(p.scores)} and {len(r.scores)} tokens")
    own, other = has(p), has(r)
    kl = INFINITY if (own & ~other).any() else total(p, r, kl_terms)
    return Divergence(of, reference, kl, min(total(p, r, js_terms), LN2), most(p, r, own, other), floor(p, r, logit_error))


def entropy_bounds(vocabulary: int) -> tuple[float, float]:
    """Nats that the entropy of any distribution over so many tokens lies between"""
    return 0.0, log64(float(vocabulary))


def has(distribution: Distribution) -> Any:
    """Which tokens have a probability                                                                                     [V] of bool"""
    return (distribution.out == 0) & np.isfinite(distribution.scores)


def most(p: Distribution, r: Distribution, own: Any, other: Any) -> float:
    """From max d - min d; a token that r has and p has not makes r smaller elsewhere, which no such bound knows"""
    if not np.array_equal(own, other):
        return INFINITY
    d = p.scores[own] - r.scores[own]
    spread = float(d.max() - d.min())
    return min(spread, spread * spread / 8.0)


def floor(p: Distribution, r: Distribution, logit_error: float | None) -> float:
    largest = max(float(np.abs(each.scores[has(each)]).max()) for each in (p, r))
    error = (HALF_AN_ULP * largest if logit_error is None else logit_error) + WORK * (largest + max(abs(p.log_sum_exp), abs(r.log_sum_exp)))
    return 2.0 * error * error


# ---- sums over the vocabulary


def total(p: Distribution, r: Distribution, terms: Terms) -> float:
    """From +0 in the order of ids: a block begins where the one before it ended"""
    found = 0.0
    for a, b in zip(logprobs(p), logprobs(r), strict=True):
        found = float(np.add.accumulate(np.concatenate([[found], terms(a, b, masses(a))]))[-1])
    return found


def logprobs(distribution: Distribution) -> Iterator[F64]:
    """ln p by blocks of tokens, -inf where there is none"""
    with np.errstate(invalid="ignore"):
        for first in range(0, len(distribution.scores), BLOCK):
            own = slice(first, first + BLOCK)
            yield np.where(distribution.out[own] == 0, distribution.scores[own] - distribution.log_sum_exp, -np.inf)


def masses(logprob: F64) -> F64:
    return ops.exp64(np.ascontiguousarray(logprob))


def kl_terms(a: F64, b: F64, p: F64) -> F64:
    """Of tokens with ln p = a and ln r = b: p φ(b - a), or r where p has none"""
    return excess(a, b, p, masses(b))


def js_terms(a: F64, b: F64, p: F64) -> F64:
    """Half of p φ(ln m/p) + r φ(ln m/r)"""
    r = masses(b)
    both = np.isfinite(a) & np.isfinite(b)
    t = np.where(both, np.where(both, b, 0.0) - np.where(both, a, 0.0), 0.0)
    up = mean_log(t)  # ln m/p
    known = 0.5 * (excess(a, a + up, p, 0.5 * (p + r)) + excess(b, b + (up - t), r, 0.5 * (p + r)))
    return np.where(both, known, 0.5 * LN2 * (p + r))  # a token that one of them has: m is half of it


def excess(a: F64, b: F64, p: F64, r: F64) -> F64:
    """p φ(b - a), with r = exp b; a token without p leaves r, one without r (of which nobody asks where p has it) nothing"""
    both = np.isfinite(a) & np.isfinite(b)
    t = np.where(both, np.where(both, b, 0.0) - np.where(both, a, 0.0), 0.0)
    near = np.abs(t) < NEAR
    series = p * (t * t * phi_series(np.where(near, t, 0.0)))
    return np.where(~both, r, np.where(near, series, np.maximum(r - p * (1.0 + t), 0.0)))


def phi_series(t: F64) -> F64:
    """(exp t - 1 - t) / t² = 1/2 + t/6 + t²/24 + …, |t| < NEAR"""
    found = np.full_like(t, 1.0 / math.factorial(16))
    for k in range(15, 1, -1):
        found = found * t + 1.0 / math.factorial(k)
    return found


def mean_log(t: F64) -> F64:
    """ln((1 + exp t) / 2) = t/2 + ln cosh(t/2)"""
    x = 0.5 * np.where(np.abs(t) < LOG_NEAR, t, 0.0)
    square = x * x
    series = np.zeros_like(t)
    for coefficient in LOG_COSH:
        series = series * square + coefficient
    far = np.maximum(t, 0.0) + (ops.log64(np.ascontiguousarray(1.0 + masses(-np.abs(t)))) - LN2)
    return np.where(np.abs(t) < LOG_NEAR, x + square * series, far)
