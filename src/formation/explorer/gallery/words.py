"""How a page without scripts says numbers and sizes."""

from __future__ import annotations

from typing import Any

from formation.ledger.tables import Absent

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def number(value: Any) -> str:
    """Rounded to four digits; text as it is"""
    if isinstance(value, Absent):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Decimal units, as disks are sold"""
    return next((f"{count / least:.3g} {unit}" for least, unit in UNITS if count >= least), counted(count, "byte"))


def capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
