"""What attentions have in common: a cache of what they keep of every position, and softmax weights shown to whoever wants to see them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from formation.kernels import ops
from formation.kernels.tensor import F32, I64
from formation.model.moe import chunks
from formation.model.sequences import Piece
from formation.model.taps import Site, Tap

WATCHED_BYTES = 64 << 20  # of softmax weights, made at once for whoever wants to see them


class KeyCache:
    """What attention keeps of every position of one layer, `width` values each: in latent attention the normalised latent and the rotated key."""

    def __init__(self, capacity: int, width: int) -> None:
        self.capacity = capacity
        self.width = width
        self.values = ops.new_cache(capacity, width)

    @staticmethod
    def nbytes(capacity: int, width: int) -> int:
        return -(-capacity // 16) * 16 * width * 4

    def store(self, first: int, keys: F32) -> None:
        ops.cache_store(self.values, first, keys)


def keep(entries: F32, layer: int, pieces: Sequence[Piece]) -> None:
    """Puts what is kept of each row [T, width] into the cache of its sequence"""
    for rows, positions, cache, probe in pieces:
        cache.store(int(positions[0]), entries[rows])
        probe(Site(Tap.CACHE_ENTRY, layer), positions, entries[rows])


Attend = Callable[[slice, KeyCache, I64, F32 | None], F32]  # rows, whose keys, their positions, where softmax weights go


def watched(attend: Attend, heads: int, layer: int, pieces: Sequence[Piece]) -> F32:
    """What `attend` gives for the rows of each sequence, all together                                                      [T, heads, width]"""
    mixed = [part for piece in pieces for part in _watched(attend, heads, layer, piece)]
    return mixed[0] if len(mixed) == 1 else np.concatenate(mixed)


def _watched(attend: Attend, heads: int, layer: int, piece: Piece) -> Iterator[F32]:
    """When the probe wants the softmax weights, they are made in parts of WATCHED_BYTES at most, or of one position."""
    rows, positions, cache, probe = piece
    if not probe.wants(Tap.ATTENTION_WEIGHTS):
        yield attend(rows, cache, positions, None)
        return
    for part in chunks(len(positions), max(1, WATCHED_BYTES // (4 * heads * (int(positions[-1]) + 1)))):
        weights = np.empty((part.stop - part.start, heads, int(positions[part][-1]) + 1), np.float32)
        yield attend(slice(rows.start + part.start, rows.start + part.stop), cache, positions[part], weights)
        probe(Site(Tap.ATTENTION_WEIGHTS, layer), positions[part], weights)
        del weights  # before the next are made


class KeepsKeys(ABC):
    """An attention to its decoder: what it is called, and what it keeps of every position."""

    kind: ClassVar[str] = "attention"
    name: ClassVar[str] = "self_attn"

    @property
    @abstractmethod
    def cache_width(self) -> int:
        """Values kept of a position"""

    def new_cache(self, capacity: int) -> KeyCache:
        return KeyCache(capacity, self.cache_width)

    def cache_bytes(self, capacity: int) -> int:
        return KeyCache.nbytes(capacity, self.cache_width)
