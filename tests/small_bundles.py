"""Bundles in a folder, of the small ledger that obeys every rule."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from formation.ledger import canonical
from formation.ledger.anchor import Anchor
from ledger.small_ledger import SHAPE, Line, Maker, edited, small_ledger

ANCHOR = Anchor((1,), "Say <b>", "12" * 32, "34" * 32, "f32x16/1", "56" * 32, {"method": "greedy"}, 3, ())
HOSTILE = "=cmd|' /C calc'!A0,\"\r\n</td><script>alert(1)</script>\u202e\x1b[2J"


def write_bundle(folder: Path, lines: Sequence[Line], *, complete: bool = True, tail: bytes = b"") -> Path:
    """A folder with the lines under the anchor's run_id; `tail` are bytes behind them"""
    folder.mkdir()
    (folder / "anchor.json").write_bytes(ANCHOR.encode())
    data = b"".join(canonical.encode({**line, "run_id": ANCHOR.run_id}) + b"\n" for line in lines)
    (folder / ("ledger.jsonl" if complete else "ledger.jsonl.part")).write_bytes(data + tail)
    return folder


def small_bundle(folder: Path) -> Path:
    return write_bundle(folder, small_ledger())


def with_bytes(lines: list[Line], spelled: bytes, position: int = 1) -> list[Line]:
    return edited(lines, position, "token", "bytes", lambda _: base64.b64encode(spelled).decode())


def long_ledger(tokens: int) -> Iterator[Line]:
    """As many generated tokens; the lines of one position stand again, at every position"""
    maker = Maker()
    yield maker.run()
    once: list[Any] = maker.position(SHAPE["layers"], "generated", "greedy")
    for line in maker.position(0, "generated", "greedy"):
        yield line
    for position in range(1, tokens):
        for line in once if position > 3 else maker.position(position, "generated", "greedy"):
            yield {**line, "position": position}
