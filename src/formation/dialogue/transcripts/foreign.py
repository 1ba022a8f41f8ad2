"""Transcripts in the forms of other programs: read, never written.

Chat JSON is that of ShareGPT ({"conversations": [{"from", "value"}]}) or of OpenAI ({"messages": [{"role", "content"}]}, or the list alone). A whole
file is one conversation. The user is the first side, the assistant the second; system prompts become prompts of the second. What has no place in a
dialogue of two (tools, images, a third role) is refused by name.

UniversalBackrooms logs begin each message with `### NAME N ###`, or `NAME N:` in older ones, where N is 1 or 2. The notes that the program adds
between rounds and at the end are no part of a message. A line that looks like a heading where it is not that side's turn makes a log
ambiguous: it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from formation.dialogue.transcripts.transcript import PROMPT, SIDE, Message, Transcript, TranscriptRefusal
from formation.ledger import canonical
from formation.strict_json import JsonRefusal, parse_json

USERS, ASSISTANTS, SYSTEMS = ("user", "human"), ("assistant", "gpt"), ("system", "developer")


# ---- chat JSON


def read_chat(data: bytes) -> Transcript:
    """Raises TranscriptRefusal, and nothing else, on any bytes."""
    try:
        value = parse_json(data)
    except JsonRefusal as refusal:
        raise TranscriptRefusal(str(refusal)) from None
    messages = [read_turn(number, turn) for number, turn in enumerate(turns_of(value), 1)]
    return Transcript(names_of(messages), tuple(Message(side, text, source) for _, side, text, source in messages))


def turns_of(value: Any) -> list[Any]:
    """The list of turns, out of the wrappings that these files have"""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and not {"role", "from"} & value[0].keys():
        value = value[0]
    if isinstance(value, dict):
        known = [name for name in ("messages", "conversations") if name in value]
        if len(known) != 1:
            raise TranscriptRefusal(f"expected an object with messages or conversations, got {canonical.quoted(sorted(value))}")
        value = value[known[0]]
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        raise TranscriptRefusal(f"expected a list of messages, got {canonical.quoted(value)}")
    if not {"role", "from"} & value[0].keys() and {"messages", "conversations"} & value[0].keys():
        raise TranscriptRefusal(f"expected one conversation, got {len(value)}")
    return value


Turn = tuple[str, int, str, str]  # the name that the file gives to whoever speaks, side, text, source


def read_turn(number: int, turn: dict[str, Any]) -> Turn:
    keys = ("from", "value") if "from" in turn else ("role", "content")
    role = turn.get(keys[0])
    for name, value in turn.items():
        if name not in (*keys, "name") and value not in (None, [], ""):
            raise TranscriptRefusal(f"message {number}: expected {keys[0]} and {keys[1]}, got {canonical.quoted(name)} too, which has no place here")
    if not isinstance(role, str) or role not in USERS + ASSISTANTS + SYSTEMS:
        raise TranscriptRefusal(f"message {number}: expected a {keys[0]} of {', '.join(USERS + ASSISTANTS + SYSTEMS)}, got {canonical.quoted(role)}")
    name, text = turn.get("name") or role, text_of(number, turn.get(keys[1]))
    if not isinstance(name, str):
        raise TranscriptRefusal(f"message {number}: expected a name of text, got {canonical.quoted(name)}")
    return name, 0 if role in USERS else 1, text, PROMPT if role in SYSTEMS else SIDE


def text_of(number: int, content: Any) -> str:
    """Text, or a list of parts that are text"""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not parts:
        raise TranscriptRefusal(f"message {number}: expected text, got {canonical.quoted(content)}")
    for part in parts:
        if not isinstance(part, dict) or set(part) != {"type", "text"} or part["type"] != "text" or not isinstance(part["text"], str):
            raise TranscriptRefusal(f"message {number}: expected parts of text only, got {canonical.quoted(part)}")
    return "".join(part["text"] for part in parts)


def names_of(messages: Sequence[Turn]) -> tuple[str, str]:
    """Of the two sides, the role of a side that says nothing"""
    found = [list(dict.fromkeys(name for name, side, _, source in messages if side == each and source == SIDE)) for each in (0, 1)]
    for names in found:
        if len(names) > 1:
            raise TranscriptRefusal(f"expected one name for each side, got {canonical.quoted(names)}")
    return (found[0] or ["user"])[0], (found[1] or ["assistant"])[0]


# ---- logs of UniversalBackrooms

HEADINGS = (re.compile(r"(?:\A|(?<=\n))### ([^\n]+ [0-9]+) ###\n"), re.compile(r"(?:\A|(?<=\n))([^\n]+ [0-9]+):\n"))
PREFACE = re.compile(r"(?:### Backrooms Run ###\n(?:[^\n#]+\n)*)?(?:\n### Round [0-9]+/[0-9]+\n)?\n?\Z")
NOTE = re.compile(
    r"### Round [0-9]+/[0-9]+|[^\n]+ has ended the conversation with \^C\^C\.|"
    r"Reached maximum number of turns \([0-9]+\)\. Conversation ended\."
)


def read_backrooms(data: bytes) -> Transcript:
    """Raises TranscriptRefusal, and nothing else, on any bytes."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TranscriptRefusal(f"expected UTF-8, got byte 0x{data[error.start]:02x} at {error.start}") from None
    headings = next((found for pattern in HEADINGS if (found := speakers(text, pattern))), [])
    if not headings or not PREFACE.match(text[: headings[0].start()]):
        raise TranscriptRefusal("line 1: expected a log that begins with the heading '### NAME 1 ###' or 'NAME 1:'")
    names = names_in_turn(text, headings)
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    bodies = (body(text, heading.end(), end) for heading, end in zip(headings, ends, strict=True))
    return Transcript(names, tuple(Message(place % 2, each) for place, each in enumerate(bodies)))


def speakers(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """Headings at the beginning, or after an empty line, whose name ends in a number"""
    return [match for match in pattern.finditer(text) if match.start() == 0 or text.endswith("\n", 0, match.start() - 1) or match.start() == 1]


def names_in_turn(text: str, headings: Sequence[re.Match[str]]) -> tuple[str, str]:
    first, second = headings[0][1], headings[1][1] if len(headings) > 1 else re.sub("1$", "2", headings[0][1])
    for place, heading in enumerate(headings):
        expected = (first, second)[place % 2]
        if heading[1] != expected or not expected.endswith(f" {place % 2 + 1}"):
            line = text.count("\n", 0, heading.start()) + 1
            raise TranscriptRefusal(f"line {line}: expected a heading of side {place % 2 + 1}, got {canonical.quoted(heading[1])}")
    return first, second


def body(text: str, start: int, end: int) -> str:
    """What stands between two headings, without the line feed that ends it, the empty line before the next heading, and the program's notes"""
    lines = (text[start:end].removesuffix("\n") if end < len(text) else text[start:end]).split("\n")
    while len(lines) > 2 and lines[-3] == lines[-1] == "" and NOTE.fullmatch(lines[-2]):
        del lines[-3:-1]
    return "\n".join(lines).removesuffix("\n")
