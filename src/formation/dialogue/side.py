"""What the conductor of a dialogue asks of a side, wherever it runs: who it is, and what it says next, piece by piece.

    with side:
        speech = side.speak(context, begun)      # the prompt is made, nothing is computed yet
        log speech.prompt
        for piece in speech: log piece.event     # each is one token
        speech.ended                             # why it speaks no further

The message is what the bytes of its tokens spell, without a last one whose id is of `stop_ids`.

`speak` depends on its arguments alone: a side may keep what it computed (caches of a common prefix, a connection), and must say the same without.
A side that fails raises SideFault; the conductor voids the turn and may ask for it again. Sides are made by `local.open_local(name, folder, manner,
…)` and `remote.side.connect(name, url, manner)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol, Self

from formation.dialogue.chain import Chain, documents
from formation.dialogue.context import Context
from formation.dialogue.event_table import NOT_TOLD
from formation.errors import EnvironmentFault, UsageError
from formation.ledger.fields import absent

END_OF_TURN, MOST_TOKENS, CONTEXT = "end of turn", "tokens", "context"  # why a side speaks no further: turn_end.reason


class SideFault(EnvironmentFault):
    """A side could not speak. `again`: the same may go well the next time (a connection that was dropped, a server that was busy)."""

    def __init__(self, message: str, *, again: bool = True, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.again = again


THINKING = {None: "default", True: "on", False: "off"}


@dataclass(frozen=True)
class Manner:
    """How a side speaks, wherever it runs: of `describe`, what the operator decides. `thinking` None leaves a template its own default; `today` is
    for those that ask which day it is."""

    system: str = ""
    thinking: bool | None = None
    context: Context = field(default_factory=Context)
    chain: Chain = field(default_factory=Chain)
    most_tokens: int = 256
    today: date | None = None

    def __post_init__(self) -> None:
        if self.most_tokens < 1:
            raise UsageError(f"tokens of a turn: expected 1 or more, got {self.most_tokens}")

    @property
    def opening(self) -> list[dict[str, str]]:
        """The messages before the dialogue"""
        return [{"role": "system", "content": self.system}] if self.system else []

    def document(self) -> dict[str, Any]:
        """The fields system, thinking, today, context, sampler, edits and most_tokens of the record `side`"""
        context, today = {"policy": self.context.policy, "limit": self.context.limit}, self.today.isoformat() if self.today else absent(NOT_TOLD)
        own = {"system": self.system, "thinking": THINKING[self.thinking], "today": today, "context": context, "most_tokens": self.most_tokens}
        return own | documents(self.chain)


@dataclass(frozen=True)
class Turn:
    """A message as a side is given it. Number 0 is the kick-off, said by nobody: `own` is then False.

    `ids` are the tokens that a local side said it in, the one that ended it too; None where there are none (a kick-off, a server).
    """

    number: int
    own: bool
    text: str
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Piece:
    """One token. `event` has the fields position, id, bytes, measured and reported of the event `token` (event_table.py), absent ones with their
    reason; the conductor adds turn and index."""

    event: dict[str, Any]
    disk_bytes: int = 0  # of weights, read for it


class Speech(Protocol):
    """One turn while it is being said. Iterating goes on where `begun` ends; closing the iterator gives up what is not said yet."""

    @property
    def prompt(self) -> dict[str, Any]:
        """prompt_tokens, prompt_sha256 and left_out of the event `turn`"""

    @property
    def ended(self) -> str:
        """Why it speaks no further, once the iterator has ended: END_OF_TURN, MOST_TOKENS or CONTEXT"""

    def __iter__(self) -> Iterator[Piece]:
        """Raises SideFault, and other errors of the tree, which end the dialogue."""


class Side(Protocol):
    @property
    def name(self) -> str:
        """As in the transcript"""

    @property
    def continues(self) -> bool:
        """Whether it can go on in the middle of a turn: a side that cannot is asked for the whole turn again after a cut"""

    def describe(self) -> dict[str, Any]:
        """The record `side` of the event table: all that decides what it says. The same bytes whenever it is asked, and nothing secret."""

    def speak(self, context: Sequence[Turn], begun: Sequence[dict[str, Any]] = ()) -> Speech:
        """The next turn after `context`, all that was said so far, which the side cuts to what its context policy gives it. `begun` are the
        `token` events of this turn that are on disk already; empty for a side that cannot continue. Raises SideFault."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
