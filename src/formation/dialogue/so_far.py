"""What the events of a dialogue say so far: the turns that were ended, the one that is open, and the transcript of them.

The same while a dialogue goes on and when its log is read, so that one that was cut off goes on from what its log says and from nothing else.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from formation.dialogue.events import Event
from formation.dialogue.side import END_OF_TURN, MOST_TOKENS, Turn
from formation.dialogue.stops.conditions import Amounts
from formation.dialogue.transcripts.transcript import PROMPT, Message, Transcript
from formation.errors import EvidenceError

STOPPED, FAILED = "stopped", "failed"  # turn_end.reason of a turn that its side did not end
AGAIN, GIVEN_UP, CUT_OFF = "again", "given up", "cut off"  # fault.then


@dataclass(frozen=True)
class Ended:
    """A turn that was ended"""

    number: int
    side: int
    text: str
    reason: str
    ids: tuple[int, ...] | None  # None where they are not known

    @property
    def is_message(self) -> bool:
        """Not so where it was over before anything was said"""
        return bool(self.text) or self.reason in (END_OF_TURN, MOST_TOKENS)


@dataclass
class Open:
    """A turn that is being said. `tokens` are the events since the last fault, `faults` those events."""

    number: int
    side: int
    prompt: dict[str, Any]
    tokens: list[dict[str, Any]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)

    @property
    def last_fault(self) -> dict[str, Any] | None:
        """The fault that nothing has been said after"""
        return self.faults[-1] if self.faults and not self.tokens else None

    @property
    def is_given_up(self) -> bool:
        return self.last_fault is not None and self.last_fault["then"] == GIVEN_UP


@dataclass
class SoFar:
    head: dict[str, Any] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    open: Open | None = None
    end: dict[str, Any] | None = None  # the body of dialogue_end
    tokens: int = 0  # of turns that were ended
    errors: int = 0

    def take(self, event: Event) -> None:
        """Raises EvidenceError for an event that contradicts those before it."""
        getattr(self, f"_take_{event.kind}")(event.body)

    def _take_dialogue(self, body: dict[str, Any]) -> None:
        self.head = body

    def _take_turn(self, body: dict[str, Any]) -> None:
        if body["side"] != self.next_side:
            raise EvidenceError(f"turn {body['turn']}: expected side {self.next_side}, whose turn it is, got {body['side']}")
        self.open = Open(body["turn"], body["side"], {name: body[name] for name in ("prompt_tokens", "prompt_sha256", "left_out")})

    def _take_token(self, body: dict[str, Any]) -> None:
        self._turn.tokens.append(body)

    def _take_fault(self, body: dict[str, Any]) -> None:
        self._turn.faults.append(body)
        self._turn.tokens = []
        self.errors += body["then"] != CUT_OFF

    def _take_turn_end(self, body: dict[str, Any]) -> None:
        turn = self._turn
        if body["text"] != (text := self.text()):
            raise EvidenceError(f"turn {turn.number}: expected the text that its tokens spell, {text[:60]!r}, got {body['text'][:60]!r}")
        ids = [token["id"] for token in turn.tokens]
        known = tuple(ids) if all(type(each) is int for each in ids) else None
        self.ended.append(Ended(turn.number, turn.side, text, body["reason"], known))
        self.tokens += len(turn.tokens)
        self.open = None

    def _take_dialogue_end(self, body: dict[str, Any]) -> None:
        self.end = body

    @property
    def _turn(self) -> Open:
        assert self.open is not None  # events.py lets these kinds follow a turn only
        return self.open

    def text(self) -> str:
        """What the open turn says: the bytes of its tokens, without a last one that ends the turn"""
        turn = self._turn
        tokens, stop = turn.tokens, self.head["sides"][turn.side]["stop_ids"]
        said = tokens[:-1] if tokens and tokens[-1]["id"] in stop else tokens
        return b"".join(b64decode(token["bytes"]) for token in said).decode("utf-8", "replace")

    @property
    def next_side(self) -> int:
        return (int(self.head["first"]) + len(self.ended)) % 2

    def amounts(self, seconds: float | None = None, disk_bytes: int | None = None) -> Amounts:
        """`seconds` and bytes are of no event: whoever has them gives them"""
        open_tokens = len(self.open.tokens) if self.open else 0
        return Amounts(len(self.ended), self.tokens + open_tokens, seconds, disk_bytes, self.errors)

    def context(self, side: int) -> list[Turn]:
        """What was said before, to this side: the kick-off is the first one's only."""
        kickoff = self.head["kickoff"]
        given = [Turn(0, False, kickoff["text"])] if side == self.head["first"] and kickoff["how"] != "template" else []
        return given + [Turn(turn.number, turn.side == side, turn.text, turn.ids if turn.side == side else None) for turn in self.ended]

    # ---- the transcript

    def transcript(self, *, prompts: bool, started: datetime | None = None, ended: datetime | None = None) -> Transcript:
        """`prompts`: with what the sides were given, system prompts and the kick-off, before what they said"""
        names = tuple(side["name"] for side in self.head["sides"])
        said = tuple(Message(turn.side, turn.text) for turn in self.ended if turn.is_message)
        return Transcript(names, (*self._prompts(), *said) if prompts else said, started, ended, len(said))

    def _prompts(self) -> list[Message]:
        systems = [Message(place, side["system"], PROMPT) for place, side in enumerate(self.head["sides"]) if side["system"]]
        kickoff = self.head["kickoff"]
        return systems + ([Message(self.head["first"], kickoff["text"], PROMPT)] if kickoff["how"] == "text" else [])
