"""The lossless form of a transcript: canonical JSON lines, the header first, then one line for each message.

    {"kind":"formation-transcript/1","lines":2,"names":["A","B"],"started":"2026-01-31 23:59:59"}
    {"side":0,"text":"Hello."}
    {"side":1,"source":"prompt","text":"Answer in verse."}

`lines` counts the messages that follow, so that a file cut short is refused. `started`, `ended` and `stated_messages` stand where the header stated
them, `source` where a message was not said by its side.
"""

from __future__ import annotations

from typing import Any

from formation.dialogue.transcripts.transcript import LIMITS, SIDE, SOURCES, Message, Transcript, TranscriptRefusal, read_stamp, show_stamp
from formation.ledger import canonical

KIND = "formation-transcript/1"
BEGINNINGS = (b'{"ended":', b'{"kind":"formation-transcript/')  # in canonical order only `ended` can come before `kind`
HEADER, FREE = frozenset({"kind", "lines", "names"}), frozenset({"started", "ended", "stated_messages"})


def write(transcript: Transcript) -> bytes:
    """Raises TranscriptRefusal for what is too large."""
    try:
        lines = [canonical.encode(value, limits=LIMITS) for value in (header(transcript), *map(line, transcript.messages))]
    except canonical.CanonicalRefusal as refusal:
        raise TranscriptRefusal(str(refusal)) from None
    return b"".join(each + b"\n" for each in lines)


def header(transcript: Transcript) -> dict[str, Any]:
    stated = {
        "started": show_stamp(transcript.started) if transcript.started else None,
        "ended": show_stamp(transcript.ended) if transcript.ended else None,
        "stated_messages": transcript.stated_messages,
    }
    always = {"kind": KIND, "names": list(transcript.names), "lines": len(transcript.messages)}
    return always | {name: value for name, value in stated.items() if value is not None}


def line(message: Message) -> dict[str, Any]:
    return {"side": message.side, "text": message.text} | ({} if message.source == SIDE else {"source": message.source})


def read(data: bytes) -> Transcript:
    """Raises TranscriptRefusal, and nothing else, on any bytes."""
    first, *rest = values(data)
    head = read_header(first)
    if head["lines"] != len(rest):
        raise TranscriptRefusal(f"expected {head['lines']} messages, as the first line says, got {len(rest)}")
    return Transcript(
        tuple(head["names"]),
        tuple(read_line(number, value) for number, value in enumerate(rest, 2)),
        read_stamp(head["started"]) if "started" in head else None,
        read_stamp(head["ended"]) if "ended" in head else None,
        head.get("stated_messages"),
    )


def values(data: bytes) -> list[Any]:
    *whole, torn = data.split(b"\n")
    if torn or not whole:
        raise TranscriptRefusal(f"line {len(whole) + 1}: expected a line feed at its end, got the end of the file")
    found = []
    for number, each in enumerate(whole, 1):
        try:
            found.append(canonical.decode(each, limits=LIMITS))
        except canonical.CanonicalRefusal as refusal:
            raise TranscriptRefusal(f"line {number}: {refusal}") from None
    return found


def read_header(value: Any) -> dict[str, Any]:
    good = isinstance(value, dict) and value.keys() >= HEADER and value.keys() <= HEADER | FREE and value["kind"] == KIND
    good = good and all(is_count(value[name]) for name in ("lines", "stated_messages") if name in value)
    good = good and all(isinstance(value[name], str) for name in ("started", "ended") if name in value)
    if not (good and isinstance(value["names"], list) and [type(name) for name in value["names"]] == [str, str]):
        raise TranscriptRefusal(f"line 1: expected a header of kind {KIND} with two names, got {canonical.quoted(value)}")
    return dict(value)


def is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def read_line(number: int, value: Any) -> Message:
    good = isinstance(value, dict) and {"side", "text"} <= value.keys() <= {"side", "text", "source"}
    good = good and type(value["side"]) is int and value["side"] in (0, 1) and isinstance(value["text"], str)
    if not good or value.get("source", "prompt") == SIDE or value.get("source", SIDE) not in SOURCES:
        raise TranscriptRefusal(f"line {number}: expected a message with side, text and perhaps a source, got {canonical.quoted(value)}")
    return Message(value["side"], value["text"], value.get("source", SIDE))
