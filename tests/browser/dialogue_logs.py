"""Logs of dialogues as small as a test needs them, or as long: every line is one that events.py takes."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from formation.dialogue.events import FIRST, Course
from formation.ledger import canonical

LN2 = math.log(2)
STOP = 3


def said(text: bytes, nats: float = -0.5, *, id: int = 7, **more: Any) -> dict[str, Any]:
    """A token that a checkpoint said, sampled at temperature 1 with nothing cut off; `more` replaces parts of what was measured."""
    model = {
        "score": 1.5, "logprob_nats": nats, "logprob_bits": nats / LN2, "rank_low": 1 + int(-nats), "rank_high": 1 + int(-nats), "zero": "POSITIVE",
        "entropy_nats": 0.25, "varentropy": 0.5, "top_masses": [0.5, 0.75, 1], "support": 100,
    }  # fmt: skip
    measured = {
        "method": "sample", "model": model, "edited": "model", "tempered": "model", "sampler": "model", "kept_mass": 1, "truncated_mass": 0,
        "draw": 0.25, "low": 0, "high": 0.5,
    }  # fmt: skip
    return token(text, id, position=4, measured=measured | more, reported={"absent": "checkpoint"})


def reported(text: bytes, nats: float | None, zero: str, top: Sequence[tuple[bytes, float]] = ()) -> dict[str, Any]:
    """A token that a server said"""
    number = {"absent": "not reported"} if nats is None else nats
    names = [{"bytes": spelt(each), "logprob_nats": logprob} for each, logprob in top]
    found = {"logprob_nats": number, "zero": zero, "top": names}
    return token(text, {"absent": "not reported"}, position={"absent": "server"}, measured={"absent": "server"}, reported=found)


def token(text: bytes, id: Any, **more: Any) -> dict[str, Any]:
    return {"bytes": spelt(text), "id": id, **more}


def spelt(text: bytes) -> str:
    return base64.b64encode(text).decode()


def a_side(name: str, server: bool = False) -> dict[str, Any]:
    local: Any = {"absent": "server"}
    return {
        "name": name, "source": "server" if server else "checkpoint", "model": "a model", "checkpoint_sha256": local if server else "ab" * 32,
        "url": "http://localhost:1/v1" if server else {"absent": "checkpoint"}, "capabilities": [] if server else {"absent": "checkpoint"},
        "template_sha256": local if server else "cd" * 32, "system": "", "thinking": local if server else "default",
        "today": {"absent": "not told"},
        "context": {"policy": "full", "limit": 0}, "sampler": {"method": "greedy"}, "most_tokens": 9, "stop_ids": [STOP],
        "edits": {"repetition": 1, "presence": 0, "frequency": 0, "bias": [], "masks": []},
    }  # fmt: skip


@dataclass
class Log:
    """Grows line by line; `course` refuses what may not follow."""

    sides: tuple[dict[str, Any], dict[str, Any]]
    lines: list[bytes] = field(default_factory=list)
    course: Course = field(default_factory=Course)
    turns: int = 0

    def event(self, kind: str, body: dict[str, Any]) -> None:
        line = canonical.encode({"event": self.course.number, "kind": kind, "previous": self.course.previous, "body": body})
        self.course.take(line)
        self.lines.append(line)

    def begin(self) -> Log:
        assert FIRST == self.course.previous
        head = {"format": "formation-dialogue/1", "formation": "0.1.0", "contract": "f32x16/1", "sides": list(self.sides), "first": 0}
        self.event("dialogue", head | {"kickoff": {"how": "empty", "text": ""}, "stops": ["3 messages"]})
        return self

    def turn(self, tokens: Iterable[dict[str, Any]], reason: str = "end of turn", fault_after: int | None = None) -> Log:
        """`fault_after`: so many tokens the turn begins anew"""
        side, self.turns = self.turns % 2, self.turns + 1
        given = {"turn": self.turns, "side": side, "prompt_tokens": 4, "prompt_sha256": "00" * 32, "left_out": 0}
        self.event("turn", given)
        own = list(tokens)
        if fault_after is not None:
            self.tokens(own[:fault_after])
            self.event("fault", {"turn": self.turns, "attempt": 1, "then": "again", "sentence": "the server hung up"})
        self.tokens(own)
        text = b"".join(base64.b64decode(each["bytes"]) for each in own if each["id"] != STOP).decode("utf-8", "replace")
        self.event("turn_end", {"turn": self.turns, "reason": reason, "tokens": len(own), "text": text})
        return self

    def tokens(self, own: Iterable[dict[str, Any]]) -> None:
        for index, each in enumerate(own):
            self.event("token", {"turn": self.turns, "index": index, **each})

    def end(self, spans: Sequence[tuple[int, int, int]] = ()) -> Log:
        seen = [{"message": message, "start": start, "end": end} for message, start, end in spans]
        amounts = [{"what": "messages", "amount": self.turns}]
        evidence = {"rule": "3 messages", "after": self.turns, "within": False, "spans": seen, "amounts": amounts}
        self.event("dialogue_end", {"messages": self.turns, "evidence": evidence})
        return self

    @property
    def data(self) -> bytes:
        return b"".join(line + b"\n" for line in self.lines)


def log(*names: str, server: bool = False) -> Log:
    """Begun, with the sides of these names; `server`: the second is one"""
    return Log((a_side(names[0]), a_side(names[1], server))).begin()
