"""Single rows of a big matrix (an embedding), through one small buffer: the matrix itself is never read."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from formation.errors import BudgetError
from formation.kernels.tensor import I64, Bytes, Tensor
from formation.weights.account import Tally
from formation.weights.arena import Slot
from formation.weights.cache import Cache
from formation.weights.checkpoint import TensorEntry
from formation.weights.layout import ALIGN, lay_out
from formation.weights.loader import Load, Loader

BUFFER_BYTES = 256 * 2**10


def row_buffer_bytes(entry: TensorEntry) -> int:
    """What reading rows of this matrix takes from the budget: room for a few rows, for one at least."""
    return max(_one_row_bytes(entry), min(BUFFER_BYTES, lay_out([entry]).slot_bytes))


def _one_row_bytes(entry: TensorEntry) -> int:
    return lay_out([entry.rows(0, min(1, entry.shape[0]))]).slot_bytes


class RowReader:
    """Rows by index, in the order asked for. The buffer is taken at the first call and stays."""

    def __init__(self, loader: Loader, cache: Cache, tally: Tally) -> None:
        self._loader = loader
        self._cache = cache
        self._tally = tally
        self._lock = threading.Lock()
        self._slot: Slot | None = None

    def read(self, entry: TensorEntry, indices: Sequence[int] | I64) -> Tensor:
        """A tensor [n, ...] of its own memory. Raises CheckpointError for a row outside the matrix, ReadError, BudgetError."""
        unique, places = np.unique(np.asarray(indices, np.int64), return_inverse=True)  # [u], [n]
        pieces = [entry.rows(int(row), 1) for row in unique]
        found = np.empty((len(pieces), pieces[0].nbytes if pieces else 0), np.uint8)  # [u, row_bytes]
        with self._lock:
            slot = self._buffer(entry)
            step = slot.size_bytes // _one_row_bytes(entry)
            for first in range(0, len(pieces), step):
                self._fill(slot, pieces[first : first + step], found[first : first + step])
        data = found[places.reshape(-1)].reshape(-1)  # [n * row_bytes]
        return Tensor(entry.name, entry.dtype, (len(places), *entry.shape[1:]), data)

    def _buffer(self, entry: TensorEntry) -> Slot:
        size = row_buffer_bytes(entry)
        if self._slot is None or self._slot.size_bytes < size:
            with self._loader.lock:
                self._slot = self._cache.fixed_slot(size)
        if self._slot is None:
            taken, budget = self._cache.locked_bytes, self._cache.arena.budget_bytes
            raise BudgetError(
                f"expected room for rows of {entry.name!r}: {size} bytes, got a budget of {budget} bytes with {taken} in use",
                hint=f"give at least {taken + size} bytes",
            )
        return self._slot

    def _fill(self, slot: Slot, pieces: Sequence[TensorEntry], found: Bytes) -> None:
        """Read `pieces` into the slot and copy them to the rows of `found`."""
        layout = lay_out(pieces, max_gap=ALIGN - 1)  # no wider: joined rows must not outgrow the slot
        load = Load(layout, slot)
        try:
            with self._loader.lock:
                self._loader.demand(load)
                self._loader.wait(load)
                self._tally.add(disk_bytes=load.bytes_read, mirror_bytes=load.mirror_bytes, row_bytes=load.bytes_read)
        except BaseException:
            self._slot = None  # bytes may still be landing in it: it is never used again
            raise
        if load.error is not None:
            raise load.error
        for row, tensor in zip(found, layout.tensors(slot.data), strict=True):
            row[:] = tensor.data
