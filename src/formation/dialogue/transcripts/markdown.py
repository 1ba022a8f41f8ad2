"""The transcript as text, for people; what is read is written back to the same bytes.

    # A ↔ B
                                  then a blank line
    **Started:** YYYY-MM-DD HH:MM:SS
    **Ended:** YYYY-MM-DD HH:MM:SS
    **Messages:** N
                                  a blank line, ---, a blank line; then of each message
    ### A
                                  a blank line, the body, a blank line, ---, a blank line

A line of the header that states nothing may be missing. A heading counts only if its name is one of the title's two and the header or a separator
comes before it: everything else is body, other separators too, and every space of a body counts. A text that could be read in two ways is refused.
"""

from __future__ import annotations

import re
from dataclasses import replace

from formation.dialogue.transcripts.transcript import SIDE, STAMP, Message, Transcript, TranscriptRefusal, read_stamp, show_stamp
from formation.ledger import canonical

ARROW = " ↔ "
SEPARATOR = "---\n\n"
TITLE = re.compile(r"# ([^\n]+)\n\n")
FACTS = re.compile(rf"(?:\*\*Started:\*\* ({STAMP})\n)?(?:\*\*Ended:\*\* ({STAMP})\n)?(?:\*\*Messages:\*\* (0|[1-9][0-9]{{0,8}})\n)?\n{SEPARATOR}")


# ---- reading


def read(data: bytes) -> Transcript:
    """Raises TranscriptRefusal, and nothing else, on any bytes."""
    text = read_text(data)
    title = TITLE.match(text)
    names = tuple(title[1].split(ARROW)) if title else ()
    if title is None or len(names) != 2 or names[0] == names[1]:
        first = canonical.quoted(text.split("\n", 1)[0])
        raise TranscriptRefusal(f"line 1: expected a title of two different names, '# A ↔ B', then a blank line, got {first}")
    facts = FACTS.match(text, title.end())
    if facts is None:
        at = title.end()
        raise refusal(text, at, "expected the lines **Started:**, **Ended:** and **Messages:**, a blank line, --- and a blank line")
    started, ended, stated = facts.groups()
    return Transcript(
        (names[0], names[1]),
        read_messages(text, facts.end(), (names[0], names[1])),
        read_stamp(started) if started else None,
        read_stamp(ended) if ended else None,
        int(stated) if stated else None,
    )


def read_text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TranscriptRefusal(f"expected UTF-8, got byte 0x{data[error.start]:02x} at {error.start}") from None


def read_messages(text: str, start: int, names: tuple[str, str]) -> tuple[Message, ...]:
    """`start` is where the first heading stands, after the header's separator"""
    heading = re.compile(rf"(?<=\n{SEPARATOR})### ({'|'.join(map(re.escape, names))})(?=\n|\Z)")
    headings = list(heading.finditer(text, start))
    if (headings[0].start() if headings else len(text)) != start:
        raise refusal(text, start, f"expected the heading '### {names[0]}' or '### {names[1]}'")
    ends = [*(match.start() for match in headings[1:]), len(text)]
    return tuple(
        Message(names.index(match[1]), body(text, match.end(), end)) for match, end in zip(headings, ends, strict=False)
    )  # fmt: skip


def body(text: str, start: int, end: int) -> str:
    """Between a heading and the next, or the end: blank line, body, blank line, separator"""
    if text[start : start + 2] != "\n\n":
        raise refusal(text, start + 1, "expected a blank line after a heading")
    if end - start < 4 + len(SEPARATOR) or text[end - 2 - len(SEPARATOR) : end] != "\n\n" + SEPARATOR:
        raise refusal(text, end, "expected a blank line, --- and a blank line after a message")
    return text[start + 2 : end - 2 - len(SEPARATOR)]


def refusal(text: str, at: int, expected: str) -> TranscriptRefusal:
    got = canonical.quoted(text[at : at + 60].split("\n", 1)[0]) if at < len(text) else "the end"
    return TranscriptRefusal(f"line {text.count(chr(10), 0, at) + 1}: {expected}, got {got}")


# ---- writing


def write(transcript: Transcript) -> bytes:
    """Raises TranscriptRefusal for what this form cannot hold: the same name twice, prompts, a body that would be read as two messages."""
    for number, message in enumerate(transcript.messages, 1):
        if message.source != SIDE:
            raise TranscriptRefusal(f"expected messages of the two sides only, got a prompt as message {number}: write JSONL")
    data = (header(transcript) + "".join(map(section, names_of(transcript), transcript.messages))).encode()
    check_same(transcript, data)
    return data


def names_of(transcript: Transcript) -> list[str]:
    return [transcript.names[message.side] for message in transcript.messages]


def header(transcript: Transcript) -> str:
    facts = (
        ("Started", show_stamp(transcript.started) if transcript.started else None),
        ("Ended", show_stamp(transcript.ended) if transcript.ended else None),
        ("Messages", transcript.stated_messages),
    )
    stated = "".join(f"**{name}:** {value}\n" for name, value in facts if value is not None)
    return f"# {ARROW.join(transcript.names)}\n\n{stated}\n{SEPARATOR}"


def section(name: str, message: Message) -> str:
    return f"### {name}\n\n{message.text}\n\n{SEPARATOR}"


def check_same(transcript: Transcript, data: bytes) -> None:
    """What was written is read as what it was written from"""
    if is_read_as(transcript, data):
        return
    for number, message in enumerate(transcript.messages, 1):
        alone = replace(transcript, messages=(message,))
        if not is_read_as(alone, (header(alone) + section(transcript.names[message.side], message)).encode()):
            raise TranscriptRefusal(f"expected bodies without a separator and a heading in them, got one in message {number}: write JSONL")
    raise TranscriptRefusal(f"expected two different names without an arrow, got {canonical.quoted(transcript.names)}: write JSONL")


def is_read_as(transcript: Transcript, data: bytes) -> bool:
    try:
        return read(data) == transcript
    except TranscriptRefusal:
        return False
