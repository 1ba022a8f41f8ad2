"""A lower bound on the probability of every token in every context, from the final norm and lm_head alone: a certificate that none is zero.

A logit is z_i = w_i · (g ∘ n), where n is the last residual row under its norm and |n| ≤ √d whatever the row was. With c the mean row of lm_head and
ρ_i = |(w_i - c) ∘ g|, z_i - c·(g ∘ n) lies within √d ρ_i (Cauchy-Schwarz), so

    p_i  ≥  exp(-√d ρ_i) / Σ_j exp(√d ρ_j)            of all tokens: two passes over lm_head
    p_i  ≥  1 / Σ_j exp(√d |(w_i - w_j) ∘ g|)         of one token: another pass for it

The second is within ln V nats of what some state reaches: that in which n points from this row to the farthest. The model computes in binary32, so
both are widened by what its rounding can do, in the order that the contract fixes (u = 2^-24, γ(k) = k u / (1 - k u), M = ⌈d/16⌉ + 3 additions that
a term of a sum goes through; η: what a product loses below the normal range, at most 2^-150):

    radius   the norm's sum of squares is at least (1-u)^(M+1) of the true one; mean, + eps, square root and 1/x round once each (eps is far above
             what squares lose to η), the product x·r once more: |n| ≤ R = √d (1 + γ(⌈(M+1)/2⌉ + 5)); a sum that overflows gives n = 0, below it
    logit    of each term w·(g·n) two products and M additions: |z - exact| ≤ e_i = γ(M+2) R |w_i ∘ g| + 2^-149 d (1 + max|w|)

so R stands for √d, and R ρ + e for √d ρ (e_i + e_j between two tokens). Lengths and sums are in binary64, in an order that is fixed, and the result
is moved down by (d + V + 64) 2^-52 of itself, more than they can have lost. A row with an infinity or NaN ends a run before it has logits: nothing
is said of it. The softmax is the exact one of the logits; what a sampler does behind it is another distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from formation.dialogue.certificate.lm_head import Block, LmHead
from formation.errors import NonFiniteError
from formation.exact64 import log64
from formation.kernels import ops, readout
from formation.kernels.ops import F64
from formation.kernels.reference_lanes import LANES
from formation.kernels.tensor import F32
from formation.run.distributions import in_order

U = 2.0**-24
LOST = 2.0**-149
BYTES_OF_A_TOKEN = 8 * 8  # what all tokens together take, for each; and 8 more for each that is named
FORMULA_ALL = "-(A_i + ln sum_j exp A_j), A_j = R |(w_j - c) * g| + e_j"
FORMULA_PAIR = "-ln(1 + sum_{j != i} exp(R |(w_i - w_j) * g| + e_i + e_j))"


@dataclass(frozen=True)
class Rounding:
    """What binary32 may do to a norm and a head of this width, and binary64 to what is computed from them."""

    width: int
    vocabulary: int

    @property
    def additions(self) -> int:
        """That a term of a sum goes through, at most"""
        return -(-self.width // LANES) + 3

    @property
    def radius(self) -> float:
        """R: no row under the norm is longer, before it is multiplied by the norm's weight"""
        return math.sqrt(self.width) * (1.0 + gamma((self.additions + 2) // 2 + 5))

    @property
    def logit(self) -> float:
        """By how much of R |w ∘ g| a logit may be off"""
        return gamma(self.additions + 2)

    @property
    def slack(self) -> float:
        """By how much of itself a bound is moved down"""
        return (self.width + self.vocabulary + 64) * 2.0**-52


def gamma(k: int) -> float:
    return k * U / (1.0 - k * U)


@dataclass(frozen=True, eq=False)
class Certificate:
    """`reach` [V] is R ρ + e of every token, `margins` [V] its e alone, `centre` [D] the mean row; `log_sum` is ln Σ exp(reach)."""

    rounding: Rounding
    norm: F32
    centre: F64
    reach: F64
    margins: F64
    log_sum: float

    def floor_nats(self, token: int) -> float:
        """ln p of the token is at least this, in every context"""
        return self._down(float(self.reach[token]) + self.log_sum)

    @property
    def least(self) -> int:
        """The token of which the least is known; the first of several"""
        return int(self.reach.argmax())

    @property
    def floor_of_all_nats(self) -> float:
        return self.floor_nats(self.least)

    def _down(self, nats: float) -> float:
        return -(nats * (1.0 + self.rounding.slack))


@dataclass(frozen=True)
class Pairwise:
    """The bound of one token against every other, and the token whose row is farthest from its own."""

    token: int
    floor_nats: float
    farthest: int


def certify(head: LmHead) -> Certificate:
    """Two passes over lm_head. Raises ReadError, and NonFiniteError for a matrix that holds NaN or an infinity."""
    rounding, norm = Rounding(head.width, head.vocabulary), head.norm_weight()
    require_finite("the final norm's weight", norm)
    centre, largest = mean_row(head)
    spread, sizes = np.empty(head.vocabulary), np.empty(head.vocabulary)
    for block in head.blocks("distances from the mean row"):
        rows, own = block.rows().astype(np.float64), slice(block.first, block.first + block.count)
        spread[own], sizes[own] = lengths((rows - centre) * norm), lengths(rows * norm)
    margins = rounding.logit * rounding.radius * sizes + LOST * rounding.width * (1.0 + largest)
    reach = rounding.radius * spread + margins
    return Certificate(rounding, norm, centre, reach, margins, log_sum_exp(reach))


def mean_row(head: LmHead) -> tuple[F64, float]:
    """[D], and the largest number of the matrix without its sign"""
    sums, largest = np.zeros(head.width), 0.0
    for block in head.blocks("mean row"):
        rows = block.rows()
        require_finite(f"lm_head, rows {block.first} to {block.first + block.count - 1}", rows)
        readout.column_sums(rows, sums, threads=head.threads)
        largest = max(largest, float(np.abs(rows).max()))
    return sums / float(head.vocabulary), largest


def pairwise(head: LmHead, certificate: Certificate, tokens: Sequence[int]) -> list[Pairwise]:
    """Of some tokens: one more pass over lm_head, of D operations for each of them and each row"""
    own = head.rows(tokens).astype(np.float64)
    reach = np.empty((len(tokens), head.vocabulary))
    for block in head.blocks("distances from named tokens"):
        reach[:, block.first : block.first + block.count] = distances(block, own, certificate)
    return [pair(certificate, token, row) for token, row in zip(tokens, reach, strict=True)]


def distances(block: Block, own: F64, certificate: Certificate) -> F64:
    """|(w_i - w_j) ∘ g| of each of the rows own [n, D] with each of the block                                               [n, B]"""
    rows = block.rows().astype(np.float64)
    return np.stack([lengths((rows - each) * certificate.norm) for each in own]) if len(own) else np.empty((0, block.count))


def pair(certificate: Certificate, token: int, distance: F64) -> Pairwise:
    """`distance` [V]"""
    reach = certificate.rounding.radius * distance + (certificate.margins + certificate.margins[token])
    reach[token] = 0.0  # it is as likely as itself, whatever rounds
    return Pairwise(token, certificate._down(log_sum_exp(reach)), int(distance.argmax()))


def lengths(rows: F64) -> F64:
    """[B, D] -> [B], sums of squares in the order of rule 2"""
    missing = -rows.shape[1] % LANES
    squares = np.pad(rows * rows, ((0, 0), (0, missing))).reshape(len(rows), -1, LANES)
    lanes = np.add.accumulate(squares, axis=1)[:, -1]  # one after the other, each lane on its own
    for half in (8, 4, 2, 1):
        lanes = lanes[:, :half] + lanes[:, half : 2 * half]
    return np.sqrt(lanes[:, 0])


def log_sum_exp(values: F64) -> float:
    """ln Σ exp, from the first to the last"""
    top = float(values.max())
    return top + log64(in_order(ops.exp64(np.ascontiguousarray(values - top))))


def require_finite(what: str, values: F32) -> None:
    if not np.isfinite(values).all():
        raise NonFiniteError(f"{what}: expected finite numbers, got others", hint="the checkpoint is damaged")
