"""The distributions that a token is chosen from, kept apart.

    model      softmax of the raw logits
    edited     of the logits after penalties, bias and masks
    tempered   of those divided by the temperature
    sampler    what the filters leave of it (top-k, top-p, min-p; greedy leaves one), renormalised: q
    selection  the choice itself: sampled with draw u, greedy, forced, replayed

A step that changes nothing makes no new distribution: `edited is model`, and so on. This describes what the contract's sampler does and draws nothing
itself; `Distributions.check` holds it against each draw, bit for bit. All in binary64, in the contract's functions; sums run in the order of ids.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from formation.errors import EvidenceError
from formation.exact64 import log64
from formation.kernels import ops, readout
from formation.kernels.choices import Draw
from formation.kernels.ops import F64
from formation.kernels.tensor import F32, I64
from formation.ledger import formulas
from formation.ledger.zero import NO_SUCH_TOKEN, UNSELECTABLE, Kind, Zero, of_logprob
from formation.run.sample import Greedy, Sample

U8 = NDArray[np.uint8]
DRAWS = 1 << 53  # the draws are multiples of 2^-53
FILTERS = (Zero(Kind.TRUNCATED, "top-k"), Zero(Kind.TRUNCATED, "top-p"), Zero(Kind.TRUNCATED, "min-p"), Zero(Kind.UNDERFLOW, "float64"))
GREEDY = (Zero(Kind.TRUNCATED, "greedy"),)


@dataclass(frozen=True, eq=False)
class Edited:
    """Logits [V] as the sampler is given them, and `out` [V]: 0 for a token that is left, else 1 + the place in `reasons` of what put it out."""

    logits: F32
    out: U8
    reasons: tuple[Zero, ...] = ()


@dataclass(frozen=True, eq=False)
class Distribution:
    """Log weights over the vocabulary, and what is known of them.

    scores [V] are logits; of tempered and sampler, logits over the temperature less the largest. `out` [V] is 0 for a token that has a
    probability, else 1 + the place in `reasons` of what took it away. The last three are of the scores under the distribution.
    """

    name: str
    scores: F64
    out: U8
    reasons: tuple[Zero, ...]
    log_sum_exp: float
    mean: float
    mean_square: float

    def zero(self, token: int) -> Zero:
        if not 0 <= token < len(self.scores):
            return NO_SUCH_TOKEN
        place = int(self.out[token])
        return self.reasons[place - 1] if place else of_logprob(self._logprob(token))

    def logprob_nats(self, token: int) -> float | None:
        """ln p, None for a token that has none: `zero` says why"""
        return None if not 0 <= token < len(self.scores) or self.out[token] else self._logprob(token)

    def _logprob(self, token: int) -> float:
        return formulas.logprob(float(self.scores[token]), self.log_sum_exp)

    @property
    def entropy_nats(self) -> float:
        return formulas.entropy_nats(self.log_sum_exp, self.mean)

    @property
    def varentropy(self) -> float:
        return formulas.varentropy(self.mean_square, self.mean)

    @cached_property
    def left(self) -> F64:
        """Scores of the tokens that have a probability, in id order                                             [K]"""
        left: F64 = self.scores[self.out == 0]
        return left

    def ranks(self, token: int) -> tuple[int, int] | None:
        """1 + how many tokens are more likely, and how many are not less likely; None for a token without probability"""
        if not 0 <= token < len(self.scores) or self.out[token]:
            return None
        own = self.scores[token]
        return 1 + int((self.left > own).sum()), int((self.left >= own).sum())

    def top_masses(self, counts: Sequence[int]) -> tuple[float, ...]:
        """Probability of the so many most likely tokens together, the most likely first in the sum"""
        rest = max(len(self.left) - max(counts), 0)
        best = np.sort(np.partition(self.left, rest)[rest:])[::-1]
        masses = np.add.accumulate(ops.exp64(np.ascontiguousarray(best - self.log_sum_exp)))
        return tuple(float(masses[min(count, len(masses)) - 1]) for count in counts)


@dataclass(frozen=True, eq=False)
class Distributions:
    """Of one step. The sampler can return `ids` [K], ascending, with the unnormalised `mass` [K] of a total of `everything` before its filters;
    `cut_mass` is what the filters cut off."""

    model: Distribution
    edited: Distribution
    tempered: Distribution
    sampler: Distribution
    ids: I64
    mass: F64
    everything: float
    cut_mass: float

    @property
    def kept_mass(self) -> float:
        """Probability of what the filters leave, in the tempered distribution"""
        return float(self.cumulative[-1]) / self.everything

    @property
    def truncated_mass(self) -> float:
        """Probability of what they cut off, summed on its own: 1 - kept_mass would lose its digits"""
        return self.cut_mass / self.everything

    @cached_property
    def cumulative(self) -> F64:
        return np.add.accumulate(self.mass)

    def interval(self, token: int) -> tuple[float, float] | None:
        """The draws that give this token lie in [low, high), up to rounding; None if none does"""
        place = int(np.searchsorted(self.ids, token))
        if place == len(self.ids) or self.ids[place] != token:
            return None
        total = float(self.cumulative[-1])
        return (float(self.cumulative[place - 1]) / total if place else 0.0), float(self.cumulative[place]) / total

    def zero(self, token: int) -> Zero:
        """In the sampler's distribution, to the last step: a token that no draw gives is none"""
        found = self.sampler.zero(token)
        return found if self.sampler.logprob_nats(token) is None or self.selectable(token) else UNSELECTABLE

    def selectable(self, token: int) -> bool:
        """Whether some draw k 2^-53 gives this token, by the sampler's own comparison: before <= draw * total < after"""
        if self.interval(token) is None:
            return False
        place, total = int(np.searchsorted(self.ids, token)), float(self.cumulative[-1])
        before, after = float(self.cumulative[place - 1]) if place else 0.0, float(self.cumulative[place])
        first = bisect_left(range(DRAWS), before, key=lambda k: k * 2.0**-53 * total)
        return first < DRAWS and first * 2.0**-53 * total < after

    def check(self, draw: Draw) -> None:
        """That the sampler drew from this very distribution. Raises EvidenceError."""
        ours = (self.interval(draw.id), len(self.ids), self.kept_mass)
        theirs = ((draw.low, draw.high), draw.kept, draw.kept_mass)
        if ours != theirs:
            raise EvidenceError(f"token {draw.id}: expected a draw with interval, tokens and mass kept of {ours}, got {theirs}")


def in_order(values: F64) -> float:
    """From +0, one after the other"""
    return float(np.add.accumulate(values)[-1]) if len(values) else 0.0


def unedited(logits: F32) -> Edited:
    return Edited(logits, np.zeros(len(logits), np.uint8))


def distributions(sampler: Greedy | Sample, logits: F32, edited: Edited, *, threads: int = 1) -> Distributions:
    """Of raw logits [V] and what edits made of them"""
    model = of_logits("model", logits, np.zeros(len(logits), np.uint8), (), threads)
    changed = edited.out.any() or not np.array_equal(edited.logits, logits)
    second = of_logits("edited", edited.logits, edited.out, edited.reasons, threads) if changed else model
    temperature = sampler.temperature if isinstance(sampler, Sample) else 1.0
    scores = centred(edited, temperature)
    weights = ops.exp64(scores)  # [V], the sampler's own
    third = second if temperature == 1.0 else of_scores("tempered", scores, weights, edited.out, edited.reasons)
    return filtered(sampler, edited, model, second, third, scores, weights)


def of_logits(name: str, logits: F32, out: U8, reasons: tuple[Zero, ...], threads: int) -> Distribution:
    """In the numbers of the ledger's lm_head: its log probability, entropy and varentropy have the same bits."""
    facts = readout.logit_statistics(np.ascontiguousarray(logits[out == 0])[None], threads=threads)
    numbers = (float(facts.log_sum_exp[0]), float(facts.mean[0]), float(facts.mean_square[0]))
    return Distribution(name, logits.astype(np.float64), out, reasons, *numbers)


def centred(edited: Edited, temperature: float) -> F64:
    """z / T less the largest of the tokens that are left, as the sampler computes it: 0 where they are equal, as both may be infinite      [V]"""
    with np.errstate(over="ignore", invalid="ignore"):
        x = edited.logits.astype(np.float64) / temperature
        top = x[edited.out == 0].max()
        return np.ascontiguousarray(np.where(x == top, 0.0, x - top))


def of_scores(name: str, scores: F64, weights: F64, out: U8, reasons: tuple[Zero, ...]) -> Distribution:
    """Scores are at most 0, one is 0: so the entropy is a sum of two numbers that are not negative."""
    w, x = weights[out == 0], scores[out == 0]
    x = np.where(w > 0, x, 0.0)  # a score of -infinity weighs nothing
    total = in_order(w)
    return Distribution(name, scores, out, reasons, log64(total), in_order(w * x) / total, in_order(w * x * x) / total)


def filtered(
    sampler: Greedy | Sample, edited: Edited, model: Distribution, second: Distribution, third: Distribution, scores: F64, weights: F64
) -> Distributions:  # fmt: skip
    left = np.flatnonzero(edited.out == 0)
    cut = cut_by(sampler, edited.logits[left], weights[left])  # [K]
    kept = left[cut == 0]
    last = third
    if cut.any():
        out = edited.out.copy()
        out[left[cut > 0]] = cut[cut > 0] + len(third.reasons)
        reasons = third.reasons + (GREEDY if isinstance(sampler, Greedy) else FILTERS)
        last = of_scores("sampler", scores, weights, out, reasons)
    return Distributions(
        model, second, third, last, kept, weights[kept], in_order(weights[left]), in_order(weights[left[cut > 0]])
    )  # fmt: skip


def cut_by(sampler: Greedy | Sample, logits: F32, mass: F64) -> U8:
    """For each token that is left: 0, or 1 + the place in FILTERS (or GREEDY) of what cuts it off                                     [K]"""
    if isinstance(sampler, Greedy):
        cut = np.ones(len(logits), np.uint8)
        cut[int(logits.argmax())] = 0  # the first on ties
        return cut
    cut = np.zeros(len(logits), np.uint8)
    order = np.arange(len(logits))
    if 0 < sampler.top_k < len(logits) or sampler.top_p < 1.0:
        order = np.argsort(-logits, kind="stable")
    if 0 < sampler.top_k < len(logits):
        cut[order[sampler.top_k :]] = 1
        order = order[: sampler.top_k]
    if sampler.top_p < 1.0:
        before = np.concatenate([[0.0], np.add.accumulate(mass[order])[:-1]])  # mass of the more likely ones
        cut[order[before >= sampler.top_p * in_order(mass[cut == 0])]] = 2
    cut[(cut == 0) & (mass < sampler.min_p)] = 3
    cut[(cut == 0) & (mass == 0.0)] = 4
    return cut
