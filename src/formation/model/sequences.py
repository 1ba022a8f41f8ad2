"""Several sequences in one pass: their rows lie one after the other, and only what mixes positions knows where one ends.

A row's place is number * SEQUENCE + position, the number being that of its sequence in the pass. With one sequence, places are positions. By the
contract a row's bits do not depend on the rows beside it, so a pass over several gives each what a pass of its own would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from formation.kernels.tensor import F32, I64
from formation.model.taps import SEQUENCE, Probe, Site, Tap

UNASKED = {Tap.ATTENTION_WEIGHTS: Tap.ATTENTION_WEIGHTS, Tap.DELTA_STATE: Tap.DELTA_STATE, Tap.DELTA_TAIL: Tap.DELTA_STATE}
"""What is made once any sequence's probe wants it, and the tap by which it is wanted"""


@dataclass(frozen=True)
class Several:
    """What a layer keeps of several sequences, by their numbers."""

    caches: Sequence[Any]


def places(number: int, first: int, count: int) -> I64:
    """Of consecutive positions from `first` on"""
    return number * SEQUENCE + np.arange(first, first + count, dtype=np.int64)


def stretches(places: I64) -> Iterator[tuple[int, slice]]:
    """The number of each sequence that has rows at these ascending places, and which rows"""
    begin = 0
    while begin < len(places):
        number = int(places[begin]) // SEQUENCE
        end = int(np.searchsorted(places, (number + 1) * SEQUENCE))
        yield number, slice(begin, end)
        begin = end


class Piece(NamedTuple):
    """What some rows have of one sequence: which of them, their positions, its cache, and a probe that is told positions and tells places."""

    rows: slice
    positions: I64
    cache: Any
    probe: Probe


def apart(places: I64, cache: Any, probe: Probe) -> list[Piece]:
    """The rows at these ascending places, by sequence"""
    if not isinstance(cache, Several):
        return [Piece(slice(0, len(places)), places, cache, probe)]
    return [
        Piece(rows, places[rows] - number * SEQUENCE, cache.caches[number], Placed(probe, number)) for number, rows in stretches(places)
    ]  # fmt: skip


def positions_of(pieces: Sequence[Piece]) -> I64:
    """Of all rows, each within its sequence                                                                          [T]"""
    return np.concatenate([piece.positions for piece in pieces])


@dataclass(frozen=True)
class Placed:
    """The probe of one sequence within that of a pass."""

    probe: Probe
    number: int

    def wants(self, tap: Tap) -> bool:
        return self.probe.wants(tap)

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        self.probe(site, positions + self.number * SEQUENCE, values)


@dataclass(frozen=True)
class Split:
    """The probe of a pass: shows each sequence's probe its own rows, by their positions."""

    probes: Sequence[Probe]

    def wants(self, tap: Tap) -> bool:
        return any(probe.wants(tap) for probe in self.probes)

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        """`positions` are places"""
        for number, rows in stretches(positions):
            probe, wanted = self.probes[number], UNASKED.get(site.tap)
            if wanted is None or probe.wants(wanted):
                probe(site, positions[rows] - number * SEQUENCE, values[rows])
