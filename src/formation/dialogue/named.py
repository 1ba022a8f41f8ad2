"""A token as a person names it, wherever a command asks for some: 317 and id:317 are the token with that id, anything else is a text, and text:317
says that it is one."""

from __future__ import annotations

from formation.errors import UsageError

ID, TEXT = "id", "text"
FORM = "ID or TEXT (id:7 and text:7 say which)"
IDS = 1 << 31


def read_named(word: str) -> int | str:
    """The id, or the text, which is never empty. Raises UsageError."""
    head, colon, rest = word.partition(":")
    if colon and head == ID:
        return read_number(word, rest, IDS)
    if colon and head == TEXT:
        word = rest
    elif word.isascii() and word.isdigit():
        return read_number(word, word, IDS)
    if not word:
        raise UsageError("token: expected an id or a text, got nothing")
    return word


def read_number(word: str, digits: str, limit: int) -> int:
    """Raises UsageError."""
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20 and int(digits) < limit):
        raise UsageError(f"{word[:40]!r}: expected a number below {limit}, got {digits[:40]!r}", hint="'text:…' says that it is text")
    return int(digits)


def check_id(token: int, vocabulary: int) -> None:
    """Raises UsageError."""
    if not 0 <= token < vocabulary:
        raise UsageError(f"token: expected an id from 0 to {vocabulary - 1}, got {token}")
