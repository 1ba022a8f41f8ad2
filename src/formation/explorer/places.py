"""Where each position begins in a ledger's file, so that a page can ask for the lines of one position and leave the rest where they are.

Found by the end of the line that begins a position, without reading what is in it. It is a hint, not evidence: a page holds every line that it
shows against the place that it should have.
"""

from __future__ import annotations

from typing import BinaryIO

from formation.ledger.reader import whole_lines

FIRST = b'"slot":"embed"}'  # canonical JSON sorts its names, so that the slot ends the line


def begins(ledger: BinaryIO) -> list[tuple[int, int]]:
    """(first byte, number of the first line) of each position, and at last (bytes, lines) of all whole lines"""
    found, at, number = [], 0, 0
    for number, line in enumerate(whole_lines(ledger), 1):
        if line.endswith(FIRST):
            found.append((at, number - 1))
        at += len(line) + 1
    return [*found, (at, number)]
