"""What a dialogue can be asked while it goes on: conditions on what was said, and on amounts.

    Ends      a message has the end marker: bare, at its end, anywhere
    Same      a side repeats itself
    Nothing   a message of nothing but white space
    Cycle     the last messages go round
    AtLeast   so many messages, tokens, seconds, bytes read, errors

Conditions are values without memory, and their text is how they are written (words.py reads it). `Watcher`s remember what a condition needs, a
bounded part of the dialogue.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

MARKER = "[END]"
MOST_OF_CYCLE = 24  # messages that a cycle may have, if nobody says how many
MOST_TIMES = 1000  # that a condition may ask for: it remembers so many messages

Who = Literal["any", "each", "both", "A", "B"]
Place = Literal["bare", "last", "anywhere"]
What = Literal["messages", "tokens", "seconds", "bytes", "errors"]


@dataclass(frozen=True)
class Said:
    """A message that a side has ended; numbers are those of the transcript."""

    number: int
    side: int
    text: str


@dataclass(frozen=True)
class Amounts:
    """Of the whole dialogue so far; None for what nobody knows. `messages` are those that the sides have ended."""

    messages: int = 0
    tokens: int | None = None
    seconds: float | None = None
    bytes: int | None = None
    errors: int = 0


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end`, without it, of the text of a message"""

    message: int
    start: int
    end: int


@dataclass(frozen=True)
class Finding:
    """What a condition saw when it held"""

    spans: tuple[Span, ...] = ()
    amounts: tuple[tuple[str, float], ...] = ()


# ---- conditions on what was said


class Watcher(ABC):
    """What one condition remembers of one dialogue"""

    @abstractmethod
    def said(self, message: Said) -> Finding | None:
        """Told of each message once, in order: what the condition sees if it holds now"""


@dataclass(frozen=True)
class Ends:
    """`marker` in a message of `who`: the whole message (bare) or its end (last), white space aside, or anywhere.

    any, A, B: this side's last `times` messages. each: `times` messages of each side, in a row or not. both: the last `times` messages of
    each side, and nothing between them.
    """

    who: Who
    place: Place = "last"
    times: int = 1
    marker: str = MARKER

    def __str__(self) -> str:
        marker = "" if self.marker == MARKER else f' with "{self.marker}"'
        place = "" if self.place == "last" else f" {self.place}"
        return f"{self.who} {'end' if self.who == 'both' else 'ends'}{marker}{place}{how_often(self.times)}"

    def watch(self) -> Watcher:
        return SideWatcher(self.who, self.times, self._run, in_a_row=False)

    def _run(self, run: list[Span], message: Said) -> list[Span]:
        span = self.seen(message)
        return [*run, span][-self.times :] if span else []

    def seen(self, message: Said) -> Span | None:
        text, length = message.text, len(message.text.rstrip())
        start = {
            "bare": length - len(self.marker) if text[:length].lstrip() == self.marker else -1,
            "last": length - len(self.marker) if text[:length].endswith(self.marker) else -1,
            "anywhere": text.find(self.marker),
        }[self.place]
        return Span(message.number, start, start + len(self.marker)) if start >= 0 else None


@dataclass(frozen=True)
class Same:
    """A side says the same, to the character, `times` times in a row; `each`: each side has done so."""

    who: Who
    times: int = 2

    def __str__(self) -> str:
        return f"{self.who} {'say' if self.who == 'both' else 'says'} the same{how_often(self.times)}"

    def watch(self) -> Watcher:
        last: dict[int, str] = {}

        def run(so_far: list[Span], message: Said) -> list[Span]:
            again = last.get(message.side) == message.text
            last[message.side] = message.text
            return [*(so_far if again else []), whole(message)][-self.times :]

        return SideWatcher(self.who, self.times, run, in_a_row=True)


@dataclass(frozen=True)
class Nothing:
    """A side says nothing but white space; `who` and `times` as in Ends."""

    who: Who
    times: int = 1

    def __str__(self) -> str:
        return f"{self.who} {'say' if self.who == 'both' else 'says'} nothing{how_often(self.times)}"

    def watch(self) -> Watcher:
        def run(so_far: list[Span], message: Said) -> list[Span]:
            return [] if message.text.strip() else [*so_far, whole(message)][-self.times :]

        return SideWatcher(self.who, self.times, run, in_a_row=False)


def how_often(times: int) -> str:
    return "" if times == 1 else f" {times} times"


def whole(message: Said) -> Span:
    return Span(message.number, 0, len(message.text))


Run = Callable[[list[Span], Said], list[Span]]  # what counted in a row so far, and the next message -> what counts now


class SideWatcher(Watcher):
    """Counts, for each side, messages that a condition sees something in: those in a row, and for "each" the first `times` of all."""

    def __init__(self, who: Who, times: int, run: Run, *, in_a_row: bool) -> None:
        self._who, self._times, self._run, self._in_a_row = who, times, run, in_a_row
        self._runs: list[list[Span]] = [[], []]
        self._first: list[list[Span]] = [[], []]  # of "each": what has counted for a side
        self._order: deque[int] = deque(maxlen=2 * times)  # numbers of the last messages

    def said(self, message: Said) -> Finding | None:
        side = message.side
        self._order.append(message.number)
        self._runs[side] = self._run(self._runs[side], message)
        self._count(side)
        chosen = {"any": (side,), "A": (0,) if side == 0 else None, "B": (1,) if side == 1 else None}.get(self._who, (0, 1))
        if chosen is None:
            return None
        spans = [(self._first if self._who == "each" else self._runs)[each] for each in chosen]
        if any(len(own) < self._times for own in spans):
            return None
        seen = tuple(sorted((span for own in spans for span in own), key=lambda span: span.message))
        return None if self._who == "both" and [span.message for span in seen] != list(self._order) else Finding(seen)

    def _count(self, side: int) -> None:
        run, first = self._runs[side], self._first[side]
        if len(first) >= self._times or not run:
            return
        if not self._in_a_row:
            first.append(run[-1])
        elif len(run) >= self._times:
            first.extend(run)


@dataclass(frozen=True)
class Cycle:
    """The last messages are `times` times the same up to `most` messages, by whomever said: two sides that say one thing to each other go round
    too, in a cycle of one."""

    times: int = 3
    most: int = MOST_OF_CYCLE

    def __str__(self) -> str:
        return f"cycle{'' if self.most == MOST_OF_CYCLE else f' of at most {self.most} messages'}{how_often(self.times)}"

    def watch(self) -> Watcher:
        return CycleWatcher(self)


class CycleWatcher(Watcher):
    def __init__(self, cycle: Cycle) -> None:
        self._cycle = cycle
        self._texts: deque[str] = deque(maxlen=cycle.most)  # the newest last
        self._spans: deque[Span] = deque(maxlen=cycle.times * cycle.most)
        self._equal = [0] * (cycle.most + 1)  # by length of a cycle: how many of the last messages say what was said that long before

    def said(self, message: Said) -> Finding | None:
        for length in range(1, self._cycle.most + 1):
            same = length <= len(self._texts) and self._texts[-length] == message.text
            self._equal[length] = self._equal[length] + 1 if same else 0
        self._texts.append(message.text)
        self._spans.append(whole(message))
        for length in range(1, self._cycle.most + 1):
            if self._equal[length] >= (self._cycle.times - 1) * length:
                return Finding(tuple(self._spans)[-self._cycle.times * length :])
        return None


# ---- conditions on amounts


@dataclass(frozen=True)
class AtLeast:
    """`limit` of `what`, in the whole dialogue"""

    what: What
    limit: float

    def __str__(self) -> str:
        number = f"{self.limit:.6f}".rstrip("0").rstrip(".")
        return f"{number} {self.what if self.limit != 1 else self.what.removesuffix('s')}{' read' if self.what == 'bytes' else ''}"

    def finding(self, amounts: Amounts) -> Finding | None:
        """None too where nobody knows how much it is"""
        amount = getattr(amounts, self.what)
        return Finding(amounts=((self.what, amount),)) if amount is not None and amount >= self.limit else None


Condition = Ends | Same | Nothing | Cycle | AtLeast
