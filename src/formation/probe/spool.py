"""Finished values of a long pass, on disk until its lines are written: a prefill of many positions need not fit in memory."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from formation.errors import EnvironmentFault
from formation.probe.encode import Values

IN_MEMORY_BYTES = 16 << 20  # beyond, an unnamed temporary file
LENGTH_BYTES = 8
NOWHERE = -1


class Spool:
    """One pair of value sets for each place (position, slot). Putting a place again replaces it; taking it removes it.
    In memory it keeps 8 bytes a place."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115
        self._first = 0  # the position that offsets begin with
        self._places: dict[str, array[int]] = {}  # slot -> offsets of positions
        self._held = 0

    def put(self, position: int, slot: str, measured: Values, derived: Values) -> None:
        data = json.dumps([measured, derived]).encode()  # floats keep every bit: Python writes the shortest text that reads back
        offsets, at = self._offsets(position, slot)
        with on_disk():
            place = self._file.seek(0, 2)
            self._file.write(len(data).to_bytes(LENGTH_BYTES, "little") + data)
        self._held += offsets[at] == NOWHERE
        offsets[at] = place

    def take(self, position: int, slot: str) -> tuple[Values, Values]:
        offsets, at = self._offsets(position, slot)
        with on_disk():
            self._file.seek(offsets[at])
            measured, derived = json.loads(self._file.read(int.from_bytes(self._file.read(LENGTH_BYTES), "little")))
        offsets[at] = NOWHERE
        self._held -= 1
        if not self._held:
            self._places.clear()
            self._file.seek(0)
            self._file.truncate()
        return measured, derived

    def _offsets(self, position: int, slot: str) -> tuple[array[int], int]:
        if not self._places:
            self._first = position
        offsets = self._places.setdefault(slot, array("q"))
        at = position - self._first
        offsets.extend([NOWHERE] * (at + 1 - len(offsets)))
        return offsets, at

    def close(self) -> None:
        with suppress(OSError):  # what it still holds for a full disk is of no use to anybody
            self._file.close()


@contextmanager
def on_disk() -> Iterator[None]:
    """Raises EnvironmentFault, which names the folder."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(
            f"expected to keep values of the prompt in {tempfile.gettempdir()}, got {error.strerror or error}",
            hint="free space there, or name a folder on another disk in TMPDIR, then resume",
        ) from error
