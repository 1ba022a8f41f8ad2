"""How near a bound is to what a model can do: the final state in which a token is least likely, looked for and measured.

ln Σ exp(z_j - z_i) is convex in the state n, and over a ball a convex function is largest on the sphere, so n ← √d ∇/|∇| never lowers it: no step
size, no chance. It begins where n points from the token's own row to the farthest, within ln V nats of the bound. What is reported is measured: the
state as a binary32 row, through the model's own norm and head. No text is known to lead the model into that state; it is what lm_head alone allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from formation.dialogue.certificate.bounds import Certificate, Pairwise, lengths
from formation.dialogue.certificate.lm_head import LmHead
from formation.kernels import ops, readout
from formation.kernels.ops import F64
from formation.kernels.tensor import F32
from formation.ledger import formulas

SCALE = 1024.0  # of the row that is measured: the norm's epsilon is nothing beside it


@dataclass(frozen=True, eq=False)
class Attained:
    """`state` [D] is a last residual row in which the token has this log probability."""

    token: int
    logprob_nats: float
    state: F32


def attained(head: LmHead, certificate: Certificate, pairs: Sequence[Pairwise], steps: int) -> list[Attained]:
    """Of each of these tokens the least that was found in `steps` passes over lm_head after the first"""
    own = head.rows([each.token for each in pairs]).astype(np.float64)
    directions = (head.rows([each.farthest for each in pairs]).astype(np.float64) - own) * certificate.norm
    best: list[Attained] = []
    for _ in range(steps + 1):
        states = row_of(directions)
        logprobs, mixed = look(head, states, [each.token for each in pairs])
        found = [Attained(pair.token, nats, state) for pair, nats, state in zip(pairs, logprobs, states, strict=True)]
        best = [min(two, key=lambda each: each.logprob_nats) for two in zip(best or found, found, strict=True)]
        directions = (mixed - own) * certificate.norm
    return best


def row_of(directions: F64) -> F32:
    """[K, D], each as long as a row whose mean square is SCALE²"""
    size = lengths(directions)[:, None]
    wanted = SCALE * np.sqrt(float(directions.shape[1]))
    states: F32 = (directions / np.where(size > 0, size, 1.0) * wanted).astype(np.float32)
    return states


def look(head: LmHead, states: F32, tokens: Sequence[int]) -> tuple[list[float], F64]:
    """ln p of each token in its state, and the rows of lm_head weighed by what is likely there                                [K], [K, D]"""
    normed = head.normed(states)
    logits = np.empty((len(states), head.vocabulary), np.float32)
    top, total, mixed = np.full(len(states), -np.inf), np.zeros(len(states)), np.zeros(states.shape)
    for block in head.blocks("states in which a token is unlikely"):
        here = block.logits(normed)
        logits[:, block.first : block.first + block.count] = here
        higher = np.maximum(top, here.max(axis=1))
        fade, weights = ops.exp64(top - higher), ops.exp64(here.astype(np.float64) - higher[:, None])
        mixed = mixed * fade[:, None] + block.mixed(weights.astype(np.float32))
        total, top = total * fade + np.add.accumulate(weights, axis=1)[:, -1], higher
    facts = readout.logit_statistics(logits, threads=head.threads)
    nats = [formulas.logprob(float(row[token]), float(sums)) for row, token, sums in zip(logits, tokens, facts.log_sum_exp, strict=True)]
    return nats, mixed / total[:, None]
