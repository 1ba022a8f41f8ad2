"""What of a dialogue a side is given: all of it, its last messages, or as many of the last as fit into so many tokens."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from formation.errors import UsageError

T = TypeVar("T")
FULL, LAST, BUDGET = "full", "last_n", "token_budget"
MOST = 1 << 53


@dataclass(frozen=True)
class Context:
    """`limit` counts messages (last_n), or tokens of the whole prompt (token_budget); 0 for full."""

    policy: str = FULL
    limit: int = 0

    def __post_init__(self) -> None:
        if self.policy not in (FULL, LAST, BUDGET) or not (self.limit == 0 if self.policy == FULL else 1 <= self.limit <= MOST):
            raise UsageError(f"context: expected {FULL}, or {LAST} or {BUDGET} of 1 or more, got {self.policy} of {self.limit}")

    def __str__(self) -> str:
        return {FULL: "full", LAST: f"last {self.limit}", BUDGET: f"{self.limit} tokens"}[self.policy]

    def given(self, turns: Sequence[T], tokens: Callable[[Sequence[T]], int]) -> Sequence[T]:
        """The last of `turns`, at least one of them if there is one. `tokens` counts those of the prompt that some turns make; more turns make no
        fewer."""
        if self.policy == FULL:
            return turns
        if self.policy == LAST:
            return turns[-self.limit :]
        first = bisect_left(range(len(turns)), True, key=lambda place: tokens(turns[place:]) <= self.limit)
        return turns[min(first, max(len(turns) - 1, 0)) :]


def read_context(text: str) -> Context:
    """From "full", "last 6" or "4000 tokens". Raises UsageError."""
    if text == "full":
        return Context()
    words = re.fullmatch(r"last ([1-9][0-9]{0,15})|([1-9][0-9]{0,15}) tokens?", text)
    if words is None:
        raise UsageError(f"context: expected full, 'last 6' or '4000 tokens', got {text[:60]!r}")
    return Context(LAST, int(words[1])) if words[1] else Context(BUDGET, int(words[2]))
