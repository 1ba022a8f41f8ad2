"""Which positions of a run are steps: all from the end of its prompt on, or, where a given text is scored, those before each scored id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from formation.ledger.lines import STEP_SLOTS

Spans = Sequence[Sequence[int]]  # begin and end of each stretch of ids


@dataclass(frozen=True)
class Steps:
    """`spans` are ascending and apart; the run ends with its last step, unless it has none: `positions` counts all."""

    spans: tuple[range, ...]
    positions: int

    @property
    def first(self) -> int:
        return self.spans[0].start

    def __contains__(self, position: object) -> bool:
        return any(position in span for span in self.spans)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.spans)

    def __len__(self) -> int:
        return sum(map(len, self.spans))

    def before(self, position: int) -> int:
        """How many stand before this position"""
        return sum(min(max(position - span.start, 0), len(span)) for span in self.spans)

    def positions_with(self, count: int) -> int:
        """Positions up to the last of the first `count` steps"""
        return next(islice(self, count - 1, None)) + 1 if count else 0

    def lines(self, layers: int) -> int:
        """Of a ledger of all these positions, the first line too"""
        return 1 + self.positions * (layers + 1) + len(self) * len(STEP_SLOTS)


def generated(prompt: int, tokens: int) -> Steps:
    """After a prompt of so many ids"""
    end = prompt - 1 + tokens
    return Steps((range(prompt - 1, end),), end)


def scored(spans: Spans) -> Steps:
    """Where the ids of these spans are scored"""
    return Steps(tuple(range(begin - 1, end - 1) for begin, end in spans), spans[-1][1] - 1)


def spans_problem(spans: Spans, ids: int) -> str:
    """Why these are no spans of so many ids, each whole, the last at their end; empty if they are. The first id has nothing before it."""
    if not spans:
        return "expected at least one span of scored ids, got none"
    after = 0
    for begin, end in spans:
        if not after < begin < end <= ids:
            return f"expected ascending spans of ids from 1 to {ids}, apart from each other, got {begin} to {end}"
        after = end
    return "" if after == ids else f"expected the last span to end with the last of {ids} ids, got an end at {after}"
