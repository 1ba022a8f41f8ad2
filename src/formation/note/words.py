"""How a note says numbers and what a model wrote, in the characters that its typeface has."""

from __future__ import annotations

from typing import Any

from formation.evidence import plain
from formation.evidence.plain import cut, escaped, inert
from formation.ledger.tables import Absent, TokenRecord
from formation.note.marks import signed

TYPEFACE = (  # what DejaVu Sans Mono has, as ranges; no combining marks, which could pile up, and no space but the one
    (0x20, 0x7E), (0xA1, 0x1C3), (0x250, 0x2B9), (0x391, 0x3A1), (0x3A3, 0x3CE), (0x400, 0x45F), (0x2010, 0x2023), (0x2026, 0x2026),
    (0x20A0, 0x20B5), (0x2190, 0x2213), (0x2241, 0x2269), (0x2423, 0x2423), (0x2500, 0x262F), (0x270C, 0x2727),
)  # fmt: skip


def number(value: Any, digits: int = 5) -> str:
    """With a typographic minus sign"""
    return signed(plain.number(value, digits))


def shown(text: str, most: int = 0) -> str:
    """As a JSON string without its quotation marks: nothing invisible, nothing that the note's typeface lacks, cut at `most` characters"""
    told = "".join(c if in_typeface(c) else escaped(c) for c in inert(text)[1:-1])
    return cut(told, most) if most else told


def in_typeface(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in TYPEFACE)


def token_text(token: TokenRecord, most: int = 0) -> str:
    """What it spells, its spaces visible; bytes that are no UTF-8 in hexadecimal"""
    if isinstance(token.text, Absent):
        return shown(f"0x{token.bytes.hex()}", most)
    return shown(token.text, most).replace(" ", "␣") if token.text else "(no text)"
