"""What a step read: from which tier, for which layer, and how long the computation waited for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from formation.kernels.tensor import Tensor
from formation.weights.stream import ReadEvent, WeightStream


@dataclass(frozen=True)
class PartReads:
    """One layer, or "embedding" or "lm_head". Bytes are whole pages, as read, and counted at their use."""

    part: str
    disk_bytes: int = 0
    cache_bytes: int = 0
    disk_uses: int = 0
    cache_uses: int = 0
    seconds_waited: float = 0.0


@dataclass(frozen=True)
class Reads:
    """`disk_bytes` is what the disk gave during the step: it may include what later steps will use, read ahead.

    Over a run, disk_bytes = the parts' disk bytes + unused_bytes (read ahead and dropped) + what still waits for its use.
    `shards` are the files that the parts' disk bytes came from, sorted.
    """

    disk_bytes: int
    mirror_bytes: int  # of these, those that mirrors of the checkpoint gave
    unused_bytes: int
    guessed_bytes: int  # of the parts' disk bytes, those read on a guess that was right
    guessed_unused_bytes: int  # of the unused bytes, those of guesses that were wrong
    parts: tuple[PartReads, ...]
    shards: tuple[str, ...]

    @property
    def cache_bytes(self) -> int:
        return sum(p.cache_bytes for p in self.parts)

    @property
    def seconds_waited(self) -> float:
        return sum(p.seconds_waited for p in self.parts)


class ReadLog:
    """Listens to a stream's uses; `take` gives those since the last call."""

    def __init__(self, stream: WeightStream) -> None:
        self._stream = stream
        self._parts: dict[str, PartReads] = {}
        self._shards: set[str] = set()
        self._seconds_for_rows = 0.0
        stream.events = self._add

    def rows(self, name: str, indices: Sequence[int]) -> Tensor:
        """The stream's `rows`, with the wait for them measured."""
        began = time.perf_counter()
        rows = self._stream.rows(name, indices)
        self._shards.add(self._stream.checkpoint.tensors[name].file)
        self._seconds_for_rows += time.perf_counter() - began
        return rows

    def take(self) -> Reads:
        account = self._stream.take_accounting()
        rows = PartReads("embedding", disk_bytes=account.row_bytes, disk_uses=1, seconds_waited=self._seconds_for_rows)
        parts, shards = self._parts, self._shards
        self._parts, self._shards, self._seconds_for_rows = {}, set(), 0.0
        disk = (account.disk_bytes, account.mirror_bytes, account.unused_bytes, account.guessed_bytes, account.guessed_unused_bytes)
        return Reads(*disk, (rows, *parts.values()), tuple(sorted(shards)))

    def _add(self, event: ReadEvent) -> None:
        name = "lm_head" if event.key == ("head",) else f"layer {event.key[1]}"
        old = self._parts.get(name) or PartReads(name)
        if event.tier == "disk":
            new = replace(old, disk_bytes=old.disk_bytes + event.bytes, disk_uses=old.disk_uses + 1)
            self._shards |= self._stream.files_of(event.key)
        else:
            new = replace(old, cache_bytes=old.cache_bytes + self._stream.bytes_of(event.key), cache_uses=old.cache_uses + 1)
        self._parts[name] = replace(new, seconds_waited=old.seconds_waited + event.seconds)
