"""Where a unit's tensors lie in its slot: extents of files, aligned for direct reads, adjacent ranges joined into one.

    file   ....|aaaaaaaa|bbb|....gap....|cccccc|.......      tensors a, b, c of one unit
    extent   [----------------------------------]            one read: the gap is at most MAX_GAP_BYTES
    slot     [----------------------------------][---- ...   extents one after the other, each a multiple of ALIGN

Nothing is copied: a tensor is a view into the slot, at whatever alignment its file offset gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from formation.errors import CheckpointError
from formation.kernels.tensor import Bytes, Tensor
from formation.weights.checkpoint import TensorEntry

ALIGN = 4096  # direct reads want memory, offset and length in multiples of this
BLOCK_BYTES = 4 * 2**20  # one system call; smaller blocks starve beside a thread that holds the interpreter lock
MAX_GAP_BYTES = 64 * 2**10  # read and thrown away rather than seeking over it

Key = tuple[str | int, ...]


class Unit(NamedTuple):
    """Tensors that are read and kept together. `rows` = (first, count) takes that slice of every one of them."""

    key: Key
    names: tuple[str, ...]
    rows: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes [begin, end) of a file, both multiples of ALIGN, at `slot_offset` of a slot. The file may end before `end`."""

    file: str
    begin: int
    end: int
    slot_offset: int
    entries: tuple[TensorEntry, ...]

    def tensor_at(self, offset: int) -> str:
        """Name of the tensor at this file offset or, in padding, of the next one."""
        return next((entry.name for entry in self.entries if offset < entry.end), self.entries[-1].name)


class Block(NamedTuple):
    """A part of an extent that one system call reads: `length` bytes from `offset` of its file to `slot_offset`."""

    extent: Extent
    offset: int
    length: int
    slot_offset: int


class Place(NamedTuple):
    """A tensor and where its bytes begin in the slot."""

    entry: TensorEntry
    slot_offset: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The plan of one slot of `slot_bytes`, a multiple of ALIGN."""

    slot_bytes: int
    extents: tuple[Extent, ...]
    places: tuple[Place, ...]

    def blocks(self) -> list[Block]:
        """The reads that fill the slot, in file order."""
        return [
            Block(extent, offset, min(BLOCK_BYTES, extent.end - offset), extent.slot_offset + offset - extent.begin)
            for extent in self.extents
            for offset in range(extent.begin, extent.end, BLOCK_BYTES)
        ]

    def tensors(self, slot: Bytes) -> list[Tensor]:
        """Views into a filled slot, in the order in which the entries were given."""
        return [Tensor(entry.name, entry.dtype, entry.shape, slot[offset : offset + entry.nbytes]) for entry, offset in self.places]


def entries_of(unit: Unit, tensors: Mapping[str, TensorEntry]) -> list[TensorEntry]:
    """The unit's tensors, sliced to its rows. Raises CheckpointError for a name that the checkpoint lacks."""
    for name in unit.names:
        if name not in tensors:
            raise CheckpointError(f"unit {unit.key}: expected tensor {name!r} in the checkpoint, got none of that name")
    entries = [tensors[name] for name in unit.names]
    return entries if unit.rows is None else [entry.rows(*unit.rows) for entry in entries]


def slot_bytes(unit: Unit, tensors: Mapping[str, TensorEntry]) -> int:
    """What the unit takes from a budget, before there is a stream: its tensors in whole pages. Raises CheckpointError."""
    runs = _runs(entries_of(unit, tensors), MAX_GAP_BYTES)
    return max(sum(_run_bytes(run) for run in runs), ALIGN)


def lay_out(entries: Sequence[TensorEntry], max_gap: int = MAX_GAP_BYTES) -> Layout:
    """The slot of these tensors. Slots of equal tensors have equal size, wherever in their pages the tensors begin."""
    extents: list[Extent] = []
    at: dict[tuple[str, int, str], int] = {}
    offset = 0
    for run in _runs(entries, max_gap):
        begin, end = run[0].begin, max(entry.end for entry in run)
        extents.append(Extent(run[0].file, begin // ALIGN * ALIGN, -(-end // ALIGN) * ALIGN, offset, tuple(run)))
        at |= {_place(entry): offset + entry.begin - extents[-1].begin for entry in run}
        offset += _run_bytes(run)
    places = tuple(Place(entry, at.get(_place(entry), 0)) for entry in entries)  # an empty tensor lies nowhere
    return Layout(max(offset, ALIGN), tuple(extents), places)


def _place(entry: TensorEntry) -> tuple[str, int, str]:
    return entry.file, entry.begin, entry.name


def _run_bytes(run: Sequence[TensorEntry]) -> int:
    """The pages that these bytes touch at worst, whatever the first one's place in its page."""
    length = max(entry.end for entry in run) - run[0].begin
    return (length + 2 * ALIGN - 2) // ALIGN * ALIGN


def _runs(entries: Iterable[TensorEntry], max_gap: int) -> list[list[TensorEntry]]:
    """Non-empty entries of one file that lie at most `max_gap` apart."""
    runs: list[list[TensorEntry]] = []
    for entry in sorted((entry for entry in entries if entry.nbytes), key=lambda entry: (entry.file, entry.begin)):
        if runs and runs[-1][-1].file == entry.file and entry.begin - runs[-1][-1].end <= max_gap:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs
