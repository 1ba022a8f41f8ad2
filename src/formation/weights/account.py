"""What was read, for what, and how long somebody waited for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from formation.weights.layout import Key


class ReadEvent(NamedTuple):
    """One use: `bytes` were read from disk for it (0 from the cache), and the caller waited `seconds`."""

    key: Key
    tier: str  # "disk" or "cache"
    bytes: int
    seconds: float


@dataclass(frozen=True)
class ReadAccount:
    """What happened since the last account. Bytes are those the file system gave: whole pages, padding and gaps included.

    Over a stream's life disk_bytes = used + pinned + row + unused bytes + what was read ahead and still waits for its use.
    """

    disk_bytes: int = 0
    mirror_bytes: int = 0  # of the disk bytes, those that a mirror gave
    disk_uses: int = 0
    cache_uses: int = 0
    used_bytes: int = 0  # read for a use, counted at that use
    pinned_bytes: int = 0
    row_bytes: int = 0
    unused_bytes: int = 0  # read ahead, or failed, and dropped without a use
    guessed_bytes: int = 0  # of the used bytes, those read on a guess
    guessed_unused_bytes: int = 0  # of the unused bytes, those read on a guess
    seconds_waited: float = 0.0


class Tally:
    """A running ReadAccount. Not locked."""

    def __init__(self) -> None:
        self._now = ReadAccount()

    def add(self, *, seconds_waited: float = 0.0, **amounts: int) -> None:
        """Add to the fields of these names."""
        sums = {name: getattr(self._now, name) + amount for name, amount in amounts.items()}
        self._now = replace(self._now, seconds_waited=self._now.seconds_waited + seconds_waited, **sums)

    def take(self) -> ReadAccount:
        """The account since the last call."""
        taken, self._now = self._now, ReadAccount()
        return taken
