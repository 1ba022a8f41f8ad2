"""Where two ledgers that should be equal first differ: the line, the field and both values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from formation.ledger import canonical

END = b""  # no line is empty
SHOWN = 80  # characters of a value


@dataclass(frozen=True)
class Departure:
    """`position` is -1 in the run line, and where one of the ledgers ends."""

    line: int  # from 0
    position: int
    slot: str
    field: str
    expected: str
    got: str

    def __str__(self) -> str:
        where = f"{self.slot} at position {self.position}" if self.position >= 0 else self.slot
        return f"{where}, {self.field}: expected {self.expected}, got {self.got}"


def first_departure(expected: Iterable[bytes], found: Iterable[bytes]) -> Departure | None:
    """None if both hold the same lines; each is read as far as they agree."""
    for number, (ours, theirs) in enumerate(zip_longest(expected, found, fillvalue=END)):
        if ours != theirs:
            return explain(number, ours, theirs)
    return None


def explain(number: int, expected: bytes, found: bytes) -> Departure:
    """`expected` and `found` differ; neither is trusted to be an observation."""
    ours, theirs = read(expected), read(found)
    if ours is None or theirs is None:
        return Departure(number, -1, f"line {number + 1}", "line", named(expected, ours), named(found, theirs))
    position, slot = ours.get("position"), ours.get("slot")
    field, one, other = first_field(ours, theirs)
    where = canonical.quoted(slot)[1:-1] if isinstance(slot, str) else f"line {number + 1}"
    return Departure(number, position if type(position) is int else -1, where, field, shown(one), shown(other))


def read(line: bytes) -> dict[str, Any] | None:
    try:
        value = canonical.decode(line, limits=canonical.LINE)
    except canonical.CanonicalRefusal:
        return None
    return value if isinstance(value, dict) else None


def named(line: bytes, value: dict[str, Any] | None) -> str:
    if line == END:
        return "the end of the ledger"
    return "a line that is no observation" if value is None else f"{shown(value.get('slot'))} at position {shown(value.get('position'))}"


def first_field(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[str, Any, Any]:
    """The envelope first, then what was measured, then what was derived"""
    for name in ("run_id", "position", "slot", "kind"):
        if ours.get(name) != theirs.get(name):
            return name, ours.get(name), theirs.get(name)
    for tag in ("measured", "derived"):
        one, other = ours.get(tag), theirs.get(tag)
        if isinstance(one, dict) and isinstance(other, dict):
            for name in [*one, *other]:
                if canonical_text(one, name) != canonical_text(other, name):
                    return name, one.get(name, "nothing"), other.get(name, "nothing")
    return "line", "its bytes", "others"


def canonical_text(values: dict[str, Any], name: str) -> bytes:
    """Bytes, as 1 and true are equal to Python"""
    return canonical.encode(values[name]) if name in values else b""


def shown(value: Any) -> str:
    text = canonical.encode(value).decode()
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
