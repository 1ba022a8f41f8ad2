"""A disk that counts, can be held back and can fail, and the small checkpoint that stream tests read from it."""

from __future__ import annotations

import errno
import os
import threading
import time

import numpy as np

from formation.weights.checkpoint import Checkpoint
from formation.weights.layout import entries_of, lay_out
from formation.weights.reader import Reader
from formation.weights.stream import Unit, WeightStream

EXPERTS, EXPERT_BYTES, CORES, CORE_BYTES = 8, 50_000, 3, 120_000
SLOT = 57_344  # what such an expert takes: its two tensors are neighbours, so one extent of at most 14 pages


class Disk:
    """The read call, counted; it can be held back, and it can fail for one file offset range."""

    def __init__(self) -> None:
        self.bytes = 0
        self.calls: list[tuple[int, int]] = []  # (inode, offset)
        self.open = threading.Event()
        self.open.set()
        self.fails_in: int | None = None  # inode
        self._lock = threading.Lock()

    def preadv(self, descriptor: int, views: list[memoryview], offset: int) -> int:
        assert self.open.wait(10)
        inode = os.fstat(descriptor).st_ino
        if inode == self.fails_in:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        got = os.preadv(descriptor, views, offset)
        with self._lock:
            self.bytes += got
            self.calls.append((inode, offset))
        return got


def units() -> list[Unit]:
    experts = [Unit(("expert", 0, e), (f"expert.{e}.a", f"expert.{e}.b")) for e in range(EXPERTS)]
    return experts + [Unit(("core", c), (f"core.{c}",)) for c in range(CORES)]


def new_stream(checkpoint: Checkpoint, budget: int, disk: Disk | None = None, **more: object) -> WeightStream:
    return WeightStream(checkpoint, units(), budget, reader=Reader(checkpoint, preadv=disk.preadv) if disk else None, **more)


def reading(stream: WeightStream) -> bool:
    """Whether a slot is being filled"""
    with stream._loader.lock:
        return stream._cache.reading


def until(condition: object, seconds: float = 10.0) -> None:
    """Wait for another thread; a test fails if it never comes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def expert(e: int) -> tuple[str, int, int]:
    return ("expert", 0, e)


def check(tensors: object, arrays: dict[str, np.ndarray]) -> None:
    for name, tensor in tensors.items():
        assert arrays[name].tobytes() == tensor.data.tobytes()
        assert (tensor.name, tensor.dtype, tensor.shape) == (name, "U8", arrays[name].shape)


def use_and_check(stream: WeightStream, key: tuple[object, ...], arrays: dict[str, np.ndarray]) -> None:
    with stream.use(key) as tensors:
        check(tensors, arrays)


def first_read(checkpoint: Checkpoint, key: tuple[object, ...]) -> tuple[int, int]:
    unit = next(unit for unit in units() if unit.key == key)
    block = lay_out(entries_of(unit, checkpoint.tensors)).blocks()[0]
    return identity(checkpoint, block.extent.file), block.offset


def identity(checkpoint: Checkpoint, file: str) -> int:
    return next(shard.identity.inode for shard in checkpoint.shards if shard.file == file)
