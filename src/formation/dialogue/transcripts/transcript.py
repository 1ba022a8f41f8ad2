"""What two sides said to each other, in order, and what the header of their transcript states about it.

The facts of a header are kept as stated: `mismatches` holds them against the messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from formation.ledger import canonical

SIDE, PROMPT = "side", "prompt"
SOURCES = (SIDE, PROMPT)
LONGEST_NAME = 200
LIMITS = canonical.Limits(size_bytes=1 << 26, depth=8)  # of a transcript in any form
STAMP = "[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}"
NAME = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\u2028\u2029]+(?: [^\s\x00-\x1f\x7f-\x9f\u2028\u2029]+)*")


class TranscriptRefusal(ValueError):
    """Why something is no transcript, or none that a form can hold; callers add the file's name."""


@dataclass(frozen=True)
class Message:
    """`side` is 0 or 1. `source` is "side" for what that side said, "prompt" for what it was given by whoever conducts: a system prompt,
    a kick-off."""

    side: int
    text: str
    source: str = SIDE

    def __post_init__(self) -> None:
        if self.side not in (0, 1) or self.source not in SOURCES:
            raise TranscriptRefusal(f"expected side 0 or 1 and a source of {', '.join(SOURCES)}, got {self.side} and {self.source!r}")
        if surrogate := next((c for c in self.text if "\ud800" <= c <= "\udfff"), None):
            raise TranscriptRefusal(f"expected Unicode text in a message, got a lone surrogate {canonical.quoted(surrogate)}")


@dataclass(frozen=True)
class Transcript:
    """What the sides said is numbered from 1; a prompt has no number. What the header may state is None where it says nothing; times are of some
    clock that it does not name."""

    names: tuple[str, str]
    messages: tuple[Message, ...]
    started: datetime | None = None
    ended: datetime | None = None
    stated_messages: int | None = None

    def __post_init__(self) -> None:
        for name in self.names:
            if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
                raise TranscriptRefusal(f"expected a name of one line without spaces around it, got {canonical.quoted(name)}")
        for time in (self.started, self.ended):
            if time is not None and (time.microsecond or time.tzinfo):
                raise TranscriptRefusal(f"expected a time in whole seconds without a zone, got {time}")

    @property
    def said(self) -> tuple[tuple[int, Message], ...]:
        """What the sides said, with the number of each message"""
        return tuple(enumerate((message for message in self.messages if message.source == SIDE), 1))

    @property
    def counts(self) -> tuple[int, int]:
        """How many messages each side said"""
        sides = [message.side for _, message in self.said]
        return sides.count(0), sides.count(1)

    @property
    def duration_seconds(self) -> float | None:
        return (self.ended - self.started).total_seconds() if self.started and self.ended else None


@dataclass(frozen=True)
class Mismatch:
    """A fact that the messages, or another fact, do not bear out"""

    fact: str
    sentence: str


def mismatches(transcript: Transcript) -> list[Mismatch]:
    """Count, duration and order: empty if the header's facts hold, and the sides take turns, the first-named one first."""
    return list(found(transcript))


def found(transcript: Transcript) -> Iterator[Mismatch]:
    stated, said, seconds = transcript.stated_messages, transcript.said, transcript.duration_seconds
    if stated is not None and stated != len(said):
        yield Mismatch("count", f"expected {stated} messages, as the header states, got {len(said)}")
    if seconds is not None and seconds < 0:
        yield Mismatch("duration", f"expected an end after the start {transcript.started}, got {transcript.ended}")
    for place, (number, message) in enumerate(said):
        if message.side != place % 2:
            expected, got = transcript.names[place % 2], transcript.names[message.side]
            yield Mismatch("order", f"expected message {number} by {expected!r}, as the sides take turns, got one by {got!r}")
            return


def read_stamp(text: str) -> datetime:
    """YYYY-MM-DD HH:MM:SS, a time that a calendar has. Raises TranscriptRefusal."""
    if re.fullmatch(STAMP, text):
        with suppress(ValueError):
            time = datetime.fromisoformat(text)
            if show_stamp(time) == text:  # some versions of Python take 24:00 for the next day
                return time
    raise TranscriptRefusal(f"expected a time as 2026-01-31 23:59:59, got {canonical.quoted(text)}")


def show_stamp(time: datetime) -> str:
    return time.isoformat(sep=" ")
