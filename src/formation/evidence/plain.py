"""Values of records as JSON has them, as a cell of a table of comma-separated values has them, where no text can do harm, and as people read them."""

from __future__ import annotations

import base64
import re
import unicodedata
from typing import Any

from formation.ledger import canonical
from formation.ledger.tables import RUN_ID, Absent, Column, Record

INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # control, format, surrogate, private, unassigned; separators of lines
QUOTED = ("text", "bytes")  # columns of a model's making
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
TAME = re.compile("[0-9A-Za-z][0-9A-Za-z_ ()]*")


def plain(value: Any) -> Any:
    """As JSON: bytes as base64, vectors as arrays, an absence as an object"""
    if isinstance(value, Absent):
        return {"absent": value.reason}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return list(value) if isinstance(value, tuple) else value


def plain_record(record: Record) -> dict[str, Any]:
    """As JSON, without the run_id, which is every record's"""
    return {column.name: plain(value) for column, value in record.items() if column is not RUN_ID}


def absences(record: Record) -> dict[str, list[str]]:
    """Reason -> columns, of what the capture level holds and yet is absent"""
    found: dict[str, list[str]] = {}
    for column in record.columns:
        stored = record.stored.get(column.name)
        if isinstance(stored, dict):
            found.setdefault(stored["absent"], []).append(column.name)
    return found


def cell_text(column: Column, value: Any) -> str:
    """One value in a cell: empty if absent, vectors and records as JSON. What a model wrote is a JSON string with its quotation marks, so
    that no spreadsheet takes it for a formula: none begins with = + - @ or white space."""
    if isinstance(value, Absent):
        return ""
    if isinstance(value, str | bytes):
        shown = str(plain(value))
        return inert(shown) if column.name in QUOTED or not TAME.fullmatch(shown) else shown
    return json_text(plain(value))


def json_text(value: Any) -> str:
    return canonical.encode(value, limits=canonical.DOCUMENT).decode()


def inert(text: str) -> str:
    """A JSON string in which everything invisible is escaped, so that text can neither hide, nor turn round, nor move a cursor"""
    return "".join(c if unicodedata.category(c) not in INVISIBLE else escaped(c) for c in json_text(text))


def escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))


# ---- for people


def number(value: Any, digits: int = 5) -> str:
    """Rounded; a dash for what is absent, text as it is"""
    if isinstance(value, Absent):
        return "–"
    return f"{value:.{digits}g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Decimal units, as disks are sold"""
    return next((f"{count / least:.3g} {unit}" for least, unit in UNITS if count >= least), counted(count, "byte"))


def capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
