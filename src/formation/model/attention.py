"""What attentions have in common: a cache of what they keep of every position, and softmax weights shown to whoever wants to see them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from formation.kernels import ops
from formation.kernels.tensor import F32, I64
from formation.model.moe import chunks
from formation.model.taps import Probe, Site, Tap

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


def watched(attend: Callable[[slice, F32 | None], F32], heads: int, layer: int, positions: I64, probe: Probe) -> F32:
    """What `attend` gives for a part of positions [T], all together                                                        [T, heads, width]

    When the probe wants the softmax weights, they are made in pieces of WATCHED_BYTES at most, or of one position.
    """
    if not probe.wants(Tap.ATTENTION_WEIGHTS):
        return attend(slice(0, len(positions)), None)
    mixed, rows = [], max(1, WATCHED_BYTES // (4 * heads * (int(positions[-1]) + 1)))
    for part in chunks(len(positions), rows):
        weights = np.empty((part.stop - part.start, heads, int(positions[part][-1]) + 1), np.float32)
        mixed.append(attend(part, weights))
        probe(Site(Tap.ATTENTION_WEIGHTS, layer), positions[part], weights)
        del weights  # before the next are made
    return np.concatenate(mixed)


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
