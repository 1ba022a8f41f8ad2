"""Bytes to values, or a refusal that says which check refused them. Every format of this package is read through here.

A text is accepted only if it is the one its value is written as, so that no bit of a file is without meaning.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

from formation.errors import EvidenceError
from formation.ledger import canonical

SHA256 = re.compile(r"[0-9a-f]{64}")


class Refused(EvidenceError):
    """Bytes that are not the evidence they claim to be; `check` is the stable short name of what they failed."""

    def __init__(self, check: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.check = check


def document(check: str, what: str, data: bytes, names: Sequence[str], *, limits: canonical.Limits = canonical.DOCUMENT) -> dict[str, Any]:
    """The canonical JSON object in `data`, which has exactly the fields `names`. Raises Refused, and nothing else, on any bytes."""
    try:
        value = canonical.decode(data, limits=limits)
    except canonical.CanonicalRefusal as refusal:
        raise Refused(check, f"{what}: {refusal}") from None
    return fields(check, what, value, names)


def fields(check: str, what: str, value: Any, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        got = canonical.quoted(", ".join(sorted(value))) if isinstance(value, dict) else type(value).__name__
        raise Refused(check, f"{what}: expected the fields {', '.join(sorted(names))}, got {got}")
    return value


def is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def exactly(check: str, what: str, value: Any, wanted: str) -> None:
    if value != wanted:
        raise Refused(check, f"{what}: expected {wanted!r}, got {canonical.quoted(value)}")


def text(check: str, what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Refused(check, f"{what}: expected text, got {type(value).__name__}")
    return value


def digest(check: str, what: str, value: Any) -> str:
    """A SHA-256 in lowercase hexadecimal"""
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise Refused(check, f"{what}: expected a SHA-256 in lowercase hexadecimal, got {canonical.quoted(value)}")
    return value


def count(check: str, what: str, value: str) -> int:
    """An ASCII decimal without leading zeroes, within what JSON numbers hold"""
    if not re.fullmatch(r"0|[1-9][0-9]{0,15}", value) or int(value) > canonical.LARGEST:
        raise Refused(check, f"{what}: expected a decimal number without leading zeroes, got {canonical.quoted(value)}")
    return int(value)


def from_base64(check: str, what: str, value: Any, size: int | None = None) -> bytes:
    """RFC 4648, section 4, in its one form: no white space, padding present, its spare bits zero; of `size` bytes, if given."""
    written = text(check, what, value)
    try:
        data: bytes | None = base64.b64decode(written)
    except (binascii.Error, ValueError):
        data = None
    if data is None or to_base64(data) != value:
        raise Refused(check, f"{what}: expected base64 in its one form, got other characters, padding or spare bits")
    if size is not None and len(data) != size:
        raise Refused(check, f"{what}: expected {size} bytes, got {len(data)}")
    return data


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
