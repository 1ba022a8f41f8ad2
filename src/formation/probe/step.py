"""What can be derived once a step's token y is known: direct logit attribution and lens.

Attribution divides by the final norm's frozen scale r = sqrt(mean(x_L^2) + eps) and follows the direct path only. The lens uses each row's
own norm statistics: mixing the two is a known error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np

from formation.kernels import readout
from formation.kernels.ops import F64
from formation.kernels.tensor import F32
from formation.ledger.fields import NO_RUNNER_UP
from formation.probe.encode import Values, absent, doubles, integers, number, vector
from formation.probe.head import Head

LENS_TOP = 5
CENTRED, RUNNER_UP = "_centred", "_runner_up"


@dataclass(frozen=True)
class StepLayer:
    """Rows of one layer at one step: a, u, m, x' [D], the gated writes of the chosen experts [K, D] and of the shared one [D] where there are any."""

    a: F32
    u: F32
    m: F32
    after: F32
    writes: F32 | None
    shared: F32 | None


@dataclass(frozen=True)
class Target:
    """What attribution looks at: rows of lm_head to multiply with, by the infix of the fields, under the final norm.

    rows   "" y's row, "_centred" y's less the mean row, "_runner_up" y's less the runner-up's             [D] binary64 each
    """

    rows: Mapping[str, F64]
    norm_weight: F32
    scale: float

    def shares(self, components: F32 | F64) -> dict[str, F64]:
        """The share of each component [N, D] in the logit, by infix                                             [N]"""
        return {name: readout.attribute(row, self.norm_weight, components, self.scale, threads=1) for name, row in self.rows.items()}

    def lengths(self) -> dict[str, float]:
        """|d| by infix, where d = w g is what `shares` multiplies with"""
        weight = self.norm_weight.astype(np.float64)
        squares = {name: readout.attribute(row, self.norm_weight, (row * weight)[None], 1.0, threads=1)[0] for name, row in self.rows.items()}
        return {name: sqrt(float(square)) for name, square in squares.items()}


def target(head: Head, token: int, runner_up: int | None, mean: F64, scale: float) -> Target:
    own = head.rows([token])[0]
    widened = readout.remainder(own, np.empty((0, len(own)), np.float32))
    rows = {"": widened, CENTRED: widened - mean}
    if runner_up is not None:
        rows[RUNNER_UP] = readout.remainder(own, head.rows([runner_up]))
    return Target(rows, head.norm_weight(), scale)


def embed_attribution(x: F32, aim: Target) -> Values:
    """x_0 [D]"""
    found: Values = {f"dla{infix}": number(share[0]) for infix, share in aim.shares(x[None]).items()}
    return found if RUNNER_UP in aim.rows else found | {f"dla{RUNNER_UP}": absent(NO_RUNNER_UP)}


def head_attribution(x: F32, aim: Target) -> Values:
    """x_L [D], and the lengths that bound the rounding of every share"""
    lengths: Values = {f"direction_norm{infix}": number(length) for infix, length in aim.lengths().items()}
    if RUNNER_UP not in aim.rows:
        lengths[f"direction_norm{RUNNER_UP}"] = absent(NO_RUNNER_UP)
    return {"exact_logit": number(aim.shares(x[None])[""][0]), **lengths}


def layer_attribution(x: F32, layer: StepLayer, aim: Target) -> Values:
    """Shares of the writes and of what rounding added to their sums; x [D] is the row at the layer's start"""
    rows = [layer.a, layer.m]
    roundings = [readout.remainder(layer.u, np.stack([x, layer.a])), readout.remainder(layer.after, np.stack([layer.u, layer.m]))]
    experts = 0
    if layer.writes is not None:
        experts = len(layer.writes)
        parts = [*layer.writes, *([] if layer.shared is None else [layer.shared])]
        rows += parts
        roundings.append(readout.remainder(layer.m, np.stack(parts)))
    exact, rounded = aim.shares(np.stack(rows)), aim.shares(np.stack(roundings))
    found: Values = {}
    for infix in aim.rows:
        found |= named_shares(f"dla{infix}_", exact[infix], rounded[infix], experts)
    if RUNNER_UP not in aim.rows:
        names = named_shares(f"dla{RUNNER_UP}_", exact[""], rounded[""], experts)
        found |= dict.fromkeys(names, absent(NO_RUNNER_UP))
    return found


def named_shares(prefix: str, rows: F64, roundings: F64, experts: int) -> Values:
    """Of a, m, the experts' writes, the shared one; and of the roundings of u, x', m"""
    found: Values = {
        "attention": number(rows[0]), "mlp": number(rows[1]),
        "attention_rounding": number(roundings[0]), "mlp_rounding": number(roundings[1]),
    }  # fmt: skip
    if experts:
        found["experts"] = doubles(rows[2 : 2 + experts])
        found["combination_rounding"] = number(roundings[2])
    if len(rows) > 2 + experts:
        found["shared"] = number(rows[-1])
    return {prefix + name: value for name, value in found.items()}


@dataclass(frozen=True)
class Final:
    """The engine's logits of the step [V], y, and the other token with the largest logit."""

    logits: F32
    token: int
    runner_up: int | None


def lens_values(prefix: str, logits: F32, final: Final, *, threads: int) -> list[Values]:
    """The lens at each boundary: logits [B, V] of its row under the final norm and lm_head"""
    facts = readout.logit_statistics(logits, threads=threads)
    own = readout.logit_statistics(final.logits[None], threads=1).log_sum_exp[0]
    divergence = readout.divergences(final.logits, float(own), logits, facts.log_sum_exp, threads=threads)
    top = readout.largest(logits, min(LENS_TOP, logits.shape[1]), threads=threads)
    found: list[Values] = [
        {
            f"{prefix}_top": integers(top[b]),
            f"{prefix}_top_logits": vector(row[top[b]]),
            f"{prefix}_entropy": number(facts.log_sum_exp[b] - facts.mean[b]),
            f"{prefix}_kl": number(divergence[b]),
        }
        for b, row in enumerate(logits)
    ]
    for infix, token in (("", final.token), ("runner_up_", final.runner_up)):
        for values, more in zip(found, lens_of_token(f"{prefix}_{infix}", logits, facts.log_sum_exp, token, threads), strict=True):
            values |= more
    return found


def lens_of_token(prefix: str, logits: F32, lse: F64, token: int | None, threads: int) -> list[Values]:
    names = [f"{prefix}logit", f"{prefix}logprob", f"{prefix}rank"]
    if token is None:
        return [dict.fromkeys(names, absent(NO_RUNNER_UP)) for _ in logits]
    ranks = readout.ranks(logits, token, threads=threads).low
    rows = [(number(z[token]), number(float(z[token]) - lse[b]), int(ranks[b])) for b, z in enumerate(logits)]
    return [dict(zip(names, row, strict=True)) for row in rows]
