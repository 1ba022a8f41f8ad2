"""Blocks of shards into memory: direct reads where the file system allows them, buffered where not, and it says which.

A file is opened at its first read and stays open. It must be the file whose header was read (size, modification time, inode),
then and after every block: what changes during a run is a ReadError, never a number. Direct reads bypass the page cache, so
memory stays the budget's; buffered ones ask the kernel not to read ahead (POSIX_FADV_RANDOM) and leave its cache to it.

A shard with copies in mirrors is read from wherever a block can be expected first; a place whose disk fails is not asked again, and its
block is read elsewhere. The system call is an argument, so that tests can hand in a disk that fails.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from formation.errors import ReadError
from formation.weights.checkpoint import Checkpoint, Copy, Shard
from formation.weights.header import FileIdentity
from formation.weights.layout import ALIGN, Block

Preadv = Callable[[int, list[memoryview], int], int]
O_DIRECT: int = getattr(os, "O_DIRECT", 0)  # Linux only
NOT_DIRECT = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
CHANGED_HINT = "the checkpoint must not change during a run; start again"
DISK_HINT = "the disk or the network file system failed; look into the kernel's log, and compare the file's SHA-256"
BUFFERED_ADVICE = (
    "direct reads do not work on this file system: expect about half the speed, and memory filled with cached pages; use a local ext4 or xfs disk"
)


@dataclass(frozen=True)
class OpenFile:
    """A copy of a shard with its descriptor, and whether reads through it bypass the page cache."""

    copy: Copy
    descriptor: int
    direct: bool


class Got(NamedTuple):
    """How many bytes of a block came, and from which of the reader's places."""

    bytes: int
    place: int


class Place:
    """A folder that shards are read from. Not locked: the reader is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes_read = 0
        self.failure: str | None = None  # why it is not asked any more
        self._waiting = 0  # bytes asked for and not here yet
        self._speed = 0.0  # bytes a second; 0 before anything is known

    def seconds_for(self, length: int) -> float:
        """Until a block asked for now can be expected"""
        return (self._waiting + length) / self._speed if self._speed else 0.0

    def begin(self, length: int) -> int:
        """What is on the way now, this block included"""
        self._waiting += length
        return self._waiting

    def end(self, length: int, on_the_way: int, seconds: float) -> None:
        """By Little's law, what was on the way over the time that it took is the speed."""
        self._waiting -= length
        now = on_the_way / max(seconds, 1e-6)
        self._speed = now if not self._speed else 0.75 * self._speed + 0.25 * now


class Reader:
    """Fills aligned memory from shards; safe to call from several threads. `bytes_read` counts what the file systems gave."""

    def __init__(self, checkpoint: Checkpoint, *, preadv: Preadv = os.preadv, direct: bool = True) -> None:
        """`direct=False` reads through the page cache without trying. Opens the first shard, to know the mode."""
        self._shards = {shard.file: shard for shard in checkpoint.shards}
        self._preadv = preadv
        self._try_direct = direct and O_DIRECT != 0
        self._files: dict[Path, OpenFile] = {}
        self._lock = threading.Lock()
        self.places = tuple(Place(folder) for folder in (checkpoint.path, *checkpoint.mirrors))
        self._open(checkpoint.shards[0].everywhere[0])

    @property
    def bytes_read(self) -> int:
        return sum(place.bytes_read for place in self.places)

    @property
    def mode(self) -> str:
        """How the files opened so far are read: "direct", "buffered" or "mixed"."""
        kinds = {file.direct for file in self._files.values()}
        return "mixed" if len(kinds) == 2 else "direct" if True in kinds else "buffered"

    @property
    def advice(self) -> str | None:
        """What a user should know about how the files are read; None when all is well."""
        failed = [f"{place.folder} is not read any more: {place.failure}" for place in self.places if place.failure]
        return "; ".join([*failed, *([] if self.mode == "direct" else [BUFFERED_ADVICE])]) or None

    def read(self, block: Block, slot: memoryview) -> Got:
        """Fill the block's part of the slot and say how many bytes came, fewer than its length only where the file ends, and where from.

        Raises ReadError, which names the tensor, the file and the offset.
        """
        view = slot[block.slot_offset : block.slot_offset + block.length]
        while True:
            copy = self._nearest(self._shards[block.extent.file], block.length)
            try:
                return Got(self._read_from(copy, block, view), copy.place)
            except ReadError as error:
                if not isinstance(error.__cause__, OSError) or not self._elsewhere(copy, block, error):
                    raise

    def close(self) -> None:
        """Close the files. Calling it again does nothing."""
        with self._lock:
            files, self._files = list(self._files.values()), {}
        for file in files:
            os.close(file.descriptor)

    def _nearest(self, shard: Shard, length: int) -> Copy:
        with self._lock:
            copies = [copy for copy in shard.everywhere if not self.places[copy.place].failure] or shard.everywhere
            return min(copies, key=lambda copy: self.places[copy.place].seconds_for(length))

    def _elsewhere(self, copy: Copy, block: Block, error: ReadError) -> bool:
        """Whether this block can be had from another place, now that this one has failed."""
        with self._lock:
            self.places[copy.place].failure = str(error)
            return any(not self.places[other.place].failure for other in self._shards[block.extent.file].everywhere)

    def _read_from(self, copy: Copy, block: Block, view: memoryview) -> int:
        place, began, done = self.places[copy.place], time.perf_counter(), 0
        with self._lock:
            on_the_way = place.begin(block.length)
        try:
            done = self._fill(self._open(copy), block, view)
        finally:
            with self._lock:
                place.end(block.length, on_the_way, time.perf_counter() - began)
                place.bytes_read += done
        return done

    def _fill(self, file: OpenFile, block: Block, view: memoryview) -> int:
        wanted, done = min(block.length, file.copy.identity.size - block.offset), 0
        while done < wanted:
            got = self._call(file, view[done:], block, done)
            if got == 0:
                _refuse(file, block, done, f"expected {wanted - done} more bytes, got the end of the file", CHANGED_HINT)
            done = _continue_at(file, block, done, min(done + got, wanted), wanted)
        _check_same(file, block)
        return done

    def _call(self, file: OpenFile, view: memoryview, block: Block, done: int) -> int:
        try:
            return self._preadv(file.descriptor, [view], block.offset + done)
        except OSError as error:
            _refuse(file, block, done, f"expected bytes, got {error.strerror or error}", DISK_HINT, error)

    def _open(self, copy: Copy) -> OpenFile:
        with self._lock:
            file = self._files.get(copy.path)
            if file is None:
                file = self._files[copy.path] = _open_copy(copy, self._try_direct)
            return file


def _open_copy(copy: Copy, direct: bool) -> OpenFile:
    try:
        descriptor = _open_direct(copy.path) if direct else None
        file = OpenFile(copy, os.open(copy.path, os.O_RDONLY) if descriptor is None else descriptor, descriptor is not None)
    except OSError as error:
        raise ReadError(f"{copy.path}: expected a readable file, got {error.strerror}", hint=CHANGED_HINT) from error
    found = FileIdentity.of(os.fstat(file.descriptor))
    if found != copy.identity:
        os.close(file.descriptor)
        raise ReadError(f"{copy.path}: expected the file that was opened, {copy.identity}, got {found}", hint=CHANGED_HINT)
    if not file.direct and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    return file


def _open_direct(path: Path) -> int | None:
    """A descriptor through which a direct read has worked, or None where the file system refuses them."""
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDONLY | O_DIRECT)
        with contextlib.closing(mmap.mmap(-1, ALIGN)) as page:
            os.preadv(descriptor, [page], 0)
        return descriptor
    except OSError as error:
        if descriptor is not None:
            os.close(descriptor)
        if error.errno not in NOT_DIRECT:
            raise
        return None


def _continue_at(file: OpenFile, block: Block, before: int, now: int, wanted: int) -> int:
    """Where to go on after a short read: a direct read begins on a page, so it goes back to the last whole one."""
    if now == wanted or not file.direct:
        return now
    if now - before < ALIGN:
        _refuse(file, block, before, f"expected at least a page of {ALIGN} bytes, got {now - before}", DISK_HINT)
    return now // ALIGN * ALIGN


def _check_same(file: OpenFile, block: Block) -> None:
    found = FileIdentity.of(os.fstat(file.descriptor))
    if found != file.copy.identity:
        _refuse(file, block, 0, f"expected a file that stays as it was opened, {file.copy.identity}, got {found}", CHANGED_HINT)


def _refuse(file: OpenFile, block: Block, done: int, reason: str, hint: str, cause: OSError | None = None) -> NoReturn:
    offset, name = block.offset + done, file.copy.path if file.copy.place else block.extent.file
    raise ReadError(f"tensor {block.extent.tensor_at(offset)!r} in {name} at byte {offset}: {reason}", hint=hint) from cause


def reads_directly(path: Path) -> bool:
    """Whether this file can be read past the page cache. Raises OSError where it cannot be read at all."""
    descriptor = _open_direct(path) if O_DIRECT else None
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None
