"""How fast a checkpoint's own disk is: random reads of its shards, with the block size and the depth of a run; and what decides about it here."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

from formation.weights.arena import Slot
from formation.weights.checkpoint import Checkpoint
from formation.weights.layout import ALIGN, BLOCK_BYTES, Block, Extent
from formation.weights.reader import Reader

SECONDS = 1.0
THREADS = 4


def measure_read_speed(checkpoint: Checkpoint, seconds: float = SECONDS, threads: int = THREADS) -> float:
    """Bytes per second. A small checkpoint is read over and over: where reads are buffered, that measures the page cache."""
    reader, began = Reader(checkpoint), time.monotonic()
    workers = [threading.Thread(target=_read_at_random, args=(checkpoint, reader, n, began + seconds)) for n in range(threads)]
    try:
        for worker in workers:
            worker.start()
    finally:
        for worker in workers:
            worker.join()
    elapsed, count = time.monotonic() - began, reader.bytes_read
    reader.close()
    return count / elapsed


def _read_at_random(checkpoint: Checkpoint, reader: Reader, seed: int, until: float) -> None:
    chosen, slot = random.Random(seed), Slot(BLOCK_BYTES)
    weights = [shard.identity.size for shard in checkpoint.shards]
    first = {entry.file: entry for entry in checkpoint.tensors.values()}
    while time.monotonic() < until:
        (shard,) = chosen.choices(checkpoint.shards, weights)
        last = max(0, shard.identity.size - BLOCK_BYTES) // ALIGN
        begin = chosen.randint(0, last) * ALIGN
        extent = Extent(shard.file, begin, begin + BLOCK_BYTES, 0, (first[shard.file],))
        reader.read(Block(extent, begin, BLOCK_BYTES, 0), slot.view)


def drop_page_cache(checkpoint: Checkpoint) -> str:
    """What this system offers, in words"""
    if not hasattr(os, "posix_fadvise"):
        return "kept: this system cannot drop it"
    for shard in checkpoint.shards:
        with shard.path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return "dropped with POSIX_FADV_DONTNEED on every shard"


def read_ahead_kb(folder: Path) -> int | None:
    """Of the folder's disk; None where the system does not say"""
    device = folder.stat().st_dev
    path = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/bdi/read_ahead_kb")
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
