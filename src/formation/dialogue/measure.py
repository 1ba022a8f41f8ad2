"""All that is measured of one token of a dialogue: what it is under each distribution, and how it was chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from formation.dialogue.chain import Chain
from formation.dialogue.event_table import NO_PROBABILITY, NOT_SAMPLED, VIEWS
from formation.kernels.tensor import F32
from formation.ledger import canonical
from formation.ledger.fields import TOPS, absent
from formation.ledger.zero import LN2, Zero
from formation.run.distributions import Distribution, distributions
from formation.run.sample import Choice

METHODS = ("sample", "greedy", "forced", "replayed")


@dataclass(frozen=True)
class View:
    """A token under one distribution. `score` is its logit; under tempered and sampler the logit over the temperature, less the largest. What a
    token without probability does not have is None: `zero` says why. The last four are of the distribution."""

    score: float
    logprob_nats: float | None
    rank_low: int | None
    rank_high: int | None
    zero: Zero
    entropy_nats: float
    varentropy: float
    top_masses: tuple[float, ...]  # of TOPS
    support: int  # tokens that have a probability

    @property
    def logprob_bits(self) -> float | None:
        return None if self.logprob_nats is None else self.logprob_nats / LN2


@dataclass(frozen=True)
class Measurement:
    """Of the token `id`. A view that is another one's object is of the same distribution. `draw`, `low` and `high` are None unless it was sampled:
    the draw, and the interval of draws that give this token."""

    id: int
    method: str
    model: View
    edited: View
    tempered: View
    sampler: View
    kept_mass: float
    truncated_mass: float
    draw: float | None = None
    low: float | None = None
    high: float | None = None


def measure(
    chain: Chain, logits: F32, choice: Choice, method: str, history: Sequence[int] = (), *, threads: int = 1
) -> Measurement:  # fmt: skip
    """Of the token `choice` at a step with raw logits [V]; `history` as it was given to `chain.choose`. Raises EvidenceError if a draw is not one of
    this distribution, and UsageError as `chain.edited` does."""
    if method not in METHODS or not 0 <= choice.id < len(logits):
        raise ValueError(f"expected a method of {', '.join(METHODS)} and a token of the vocabulary, got {method!r} and {choice.id}")
    found = distributions(chain.sampler, logits, chain.edited(logits, history), threads=threads)
    if choice.draw:
        found.check(choice.draw)
    views: dict[int, View] = {}
    model, edited, tempered, sampler = (
        views.setdefault(id(each), views.get(id(each)) or view(each, choice.id))
        for each in (found.model, found.edited, found.tempered, found.sampler)
    )  # fmt: skip
    if sampler.zero != (zero := found.zero(choice.id)):  # no draw gives it
        sampler = replace(sampler, zero=zero)
    drawn = (choice.draw.draw, choice.draw.low, choice.draw.high) if choice.draw else ()
    return Measurement(choice.id, method, model, edited, tempered, sampler, found.kept_mass, found.truncated_mass, *drawn)


def view(distribution: Distribution, token: int) -> View:
    low, high = distribution.ranks(token) or (None, None)
    return View(
        float(distribution.scores[token]), distribution.logprob_nats(token), low, high, distribution.zero(token), distribution.entropy_nats,
        distribution.varentropy, distribution.top_masses(TOPS), len(distribution.left),
    )  # fmt: skip


# ---- as events.jsonl has it


def document(measured: Measurement) -> dict[str, Any]:
    """A view that is another's stands as that one's name."""
    shown: dict[str, Any] = {}
    for place, name in enumerate(VIEWS):
        own = getattr(measured, name)
        same = next((earlier for earlier in VIEWS[:place] if getattr(measured, earlier) is own), None)
        shown[name] = same or view_document(own)
    drawn = {name: number(getattr(measured, name), NOT_SAMPLED) for name in ("draw", "low", "high")}
    masses = {name: number(getattr(measured, name), NOT_SAMPLED) for name in ("kept_mass", "truncated_mass")}
    return {"method": measured.method, **shown, **masses, **drawn}


def view_document(own: View) -> dict[str, Any]:
    free = {name: number(getattr(own, name), NO_PROBABILITY) for name in ("score", "logprob_nats", "logprob_bits", "rank_low", "rank_high")}
    return {
        **free, "zero": str(own.zero), "entropy_nats": canonical.number(own.entropy_nats), "varentropy": canonical.number(own.varentropy),
        "top_masses": [canonical.number(mass) for mass in own.top_masses], "support": own.support,
    }  # fmt: skip


def number(value: float | None, reason: str) -> Any:
    return canonical.number(value) if value is not None and math.isfinite(value) else absent(reason)
