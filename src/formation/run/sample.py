"""How the next token is chosen from its logits: greedily, or by inverse CDF with a counter-based draw (contract rule 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from formation.errors import UsageError
from formation.kernels import ops
from formation.kernels.tensor import F32
from formation.ledger.steps import spans_problem


@dataclass(frozen=True)
class Choice:
    """The chosen id; `draw` says how, and is None for a greedy choice."""

    id: int
    draw: ops.Draw | None = None


class Sampler(Protocol):
    def choose(self, logits: F32, position: int) -> Choice:
        """The token at `position`, from the logits [V] of the step before it."""


@dataclass(frozen=True)
class Given:
    """The ids of a text that is scored: nothing is chosen. `scored` are the stretches of them that are, [begin, end). Where `by` is known, the
    sampler that once chose them, it is asked again, and must choose the same."""

    ids: tuple[int, ...]
    scored: tuple[tuple[int, int], ...]
    by: Greedy | Sample | None = None

    def __post_init__(self) -> None:
        if problem := spans_problem(self.scored, len(self.ids)):
            raise UsageError(f"scored ids: {problem}")

    def choose(self, logits: F32, position: int) -> Choice:
        return self.by.choose(logits, position) if self.by else Choice(self.ids[position])


@dataclass(frozen=True)
class Forced:
    """`ids` are given from position `first` on; after them `then` chooses."""

    ids: tuple[int, ...]
    first: int
    then: Sampler

    def choose(self, logits: F32, position: int) -> Choice:
        return Choice(self.ids[position - self.first]) if self.has(position) else self.then.choose(logits, position)

    def has(self, position: int) -> bool:
        return self.first <= position < self.first + len(self.ids)


@dataclass(frozen=True)
class Greedy:
    """The largest logit; ties go to the lower id."""

    def choose(self, logits: F32, position: int) -> Choice:
        return Choice(ops.argmax(logits))


@dataclass(frozen=True)
class Sample:
    """Temperature, then top-k (0: off), top-p (1: off), min-p (0: off); the draw depends only on seed, branch and position."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    branch: int = 0

    def __post_init__(self) -> None:
        limits = (
            ("temperature", 0.0 < self.temperature <= 1e6, "a number above 0 (without it the choice is greedy)"),
            ("top-k", self.top_k >= 0, "0 or more"),
            ("top-p", 0.0 < self.top_p <= 1.0, "a number above 0, at most 1"),
            ("min-p", 0.0 <= self.min_p <= 1.0, "a number from 0 to 1"),
            ("seed", 0 <= self.seed < 1 << 64, "an integer from 0 to 2^64 - 1"),
            ("branch", 0 <= self.branch < 1 << 64, "an integer from 0 to 2^64 - 1"),
        )
        for name, valid, expected in limits:
            if not valid:
                raise UsageError(f"{name}: expected {expected}, got {getattr(self, name.replace('-', '_'))}")

    def choose(self, logits: F32, position: int) -> Choice:
        u = ops.uniform(self.seed, self.branch, position)
        draw = ops.sample(logits, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p, draw=u)
        return Choice(draw.id, draw)


def method_of(sampler: Sampler, position: int) -> str:
    """How the token at `position` comes, as the ledger names it"""
    if isinstance(sampler, Forced):
        return "forced" if sampler.has(position) else method_of(sampler.then, position)
    if isinstance(sampler, Given):
        return method_of(sampler.by, position) if sampler.by else "forced"
    return "greedy" if isinstance(sampler, Greedy) else "sample"
