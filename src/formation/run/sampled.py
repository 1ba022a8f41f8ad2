"""What the ledger says of a token that was sampled: the draw, and the distributions that it was drawn from."""

from __future__ import annotations

from typing import Any

from formation.kernels.tensor import F32
from formation.ledger.fields import TOPS
from formation.run.distributions import Distribution, distributions, unedited
from formation.run.sample import Choice, Forced, Given, Sample, Sampler


def sampled(sampler: Sampler, choice: Choice, logits: F32, *, threads: int = 1) -> dict[str, Any]:
    """By field of the slot `sampler`, but for the method; empty for a token that was not drawn. `choice` is the sampler's, from logits [V]. Raises
    EvidenceError if its draw is not one of this distribution."""
    by = sampler.by if isinstance(sampler, Given) else sampler.then if isinstance(sampler, Forced) else sampler
    draw = choice.draw
    if draw is None or not isinstance(by, Sample):
        return {}
    found = distributions(by, logits, unedited(logits), threads=threads)
    found.check(draw)
    low, high = found.tempered.ranks(choice.id) or (0, 0)
    return {
        "draw": draw.draw, "low": draw.low, "high": draw.high, "kept": draw.kept, "kept_mass": draw.kept_mass,
        "truncated_mass": found.truncated_mass, "tempered_rank_low": low, "tempered_rank_high": high,
        **of_scores("tempered", found.tempered, choice.id), **of_scores("sampler", found.sampler, choice.id),
    }  # fmt: skip


def of_scores(prefix: str, distribution: Distribution, token: int) -> dict[str, Any]:
    return {
        f"{prefix}_score": float(distribution.scores[token]) + 0.0,
        f"{prefix}_log_sum_exp": distribution.log_sum_exp + 0.0,
        f"{prefix}_mean": distribution.mean + 0.0,
        f"{prefix}_mean_square": distribution.mean_square,
        f"{prefix}_top_masses": list(distribution.top_masses(TOPS)),
    }
