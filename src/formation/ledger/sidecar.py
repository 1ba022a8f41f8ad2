"""Rows beside the ledger, in a folder of files of 64 positions each (blocks.py has the format), written as they are observed.

A file grows as `NAME.part` and gets its name, after its header and an fsync, when its 64 positions are committed or the folder is closed.
Rows may come in any order within what is not committed yet: a layer-major pass brings them layer by layer. Memory does not depend on the
number of positions. The ledger's lock keeps a second writer out; a writer is not for several threads at once.

    with create(folder, row_tensors("boundaries", layers, hidden)) as writer:
        writer.put(0, "residual", 3, row)      # position, tensor, index, little-endian binary32
        writer.commit(1)                       # positions before 1 are on disk
        writer.close(1)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from formation.errors import EnvironmentFault, EvidenceError
from formation.ledger.blocks import POSITIONS, Layout, file_name, first_of
from formation.ledger.reader import disk_fault
from formation.ledger.sidecar_reader import Folder, Reader, check_names, file_names, listed, open_checked
from formation.ledger.store import Write, make_folder, sync_folder

__all__ = ["Reader", "Writer", "create", "resume"]

PART = ".part"
FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Writer(Folder):
    """Made by `create` and `resume`. `positions` are committed."""

    def __init__(self, folder: Path, layout: Layout, positions: int, write: Write) -> None:
        super().__init__(folder)
        self.layout = layout
        self.positions = positions
        self._reached = positions  # one more than the last position put
        self._rows = 0  # put and not committed; more than there are if a pass that failed was run again
        self._write = write

    def put(self, position: int, tensor: str, index: int, data: bytes) -> None:
        """One row. Raises EnvironmentFault, and ValueError for a row that does not exist or is committed."""
        offset, size = self.layout.place(position, tensor, index)
        if len(data) != size or position < self.positions:
            raise ValueError(f"expected {size} bytes of a position from {self.positions} on, got {len(data)} of {position}")
        self._attempt("write", lambda: self._push(position, data, offset))
        self._reached = max(self._reached, position + 1)
        self._rows += 1

    def commit(self, positions: int) -> None:
        """Everything of positions before `positions` is on disk when this returns. Raises EvidenceError if rows are missing."""
        if positions == self.positions:
            return
        self._check_whole(positions)
        self._attempt("sync", lambda: self._settle(positions, closing=False))

    def close(self, positions: int) -> None:
        """Commits, and finishes the last file however many positions it has; nothing can be put afterwards."""
        if positions != self._reached:
            raise EvidenceError(f"{self.path}: expected rows of positions 0 to {positions - 1}, got them up to {self._reached - 1}")
        self._check_whole(positions)
        self._attempt("close", lambda: self._settle(positions, closing=True))
        self.release()

    def _check_whole(self, positions: int) -> None:
        due = (positions - self.positions) * self.layout.rows
        if not self.positions <= positions <= self._reached or self._rows < due:
            raise EvidenceError(f"{self.path}: expected {due} rows of positions {self.positions} to {positions - 1}, got {self._rows}")

    def _settle(self, positions: int, *, closing: bool) -> None:
        for first in range(first_of(self.positions), positions, POSITIONS):
            if first + POSITIONS <= positions or closing:
                self._finish(first, min(positions - first, POSITIONS))
            else:
                os.fsync(self._part(first))
        if closing or first_of(self.positions - 1) != first_of(positions):  # a file was made or finished
            sync_folder(self.path)
        self._rows = 0 if positions == self._reached else self._rows - (positions - self.positions) * self.layout.rows
        self.positions = positions

    def _finish(self, first: int, count: int) -> None:
        descriptor = self._part(first)
        self._push(first, self.layout.header(first, count), 0)
        size = os.fstat(descriptor).st_size
        if size != self.layout.size(first, count):
            raise EvidenceError(f"{self.path / file_name(first)}: expected {self.layout.size(first, count)} bytes, got {size}")
        os.fsync(descriptor)
        self.release()
        (self.path / (file_name(first) + PART)).rename(self.path / file_name(first))

    def _part(self, first: int) -> int:
        return self._use(first, lambda: os.open(self.path / (file_name(first) + PART), FLAGS, 0o644))

    def _push(self, position: int, data: bytes, offset: int) -> None:
        descriptor = self._part(first_of(position))
        while data:
            written = self._write(descriptor, data, offset)
            data, offset = data[written:], offset + written

    def _attempt(self, verb: str, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self.release()
            raise disk_fault(self.path, verb, error) from error


def create(folder: Path, tensors: Mapping[str, tuple[int, int]], *, write: Write = os.pwrite) -> Writer:
    """Into an empty folder, which is made if missing. Raises EnvironmentFault if something is there."""
    make_folder(folder)
    if found := sorted(entry.name for entry in listed(folder)):
        raise EnvironmentFault(f"expected nothing in {folder}, got {found[0]}", hint="resume it, or record into another folder")
    return Writer(folder, Layout.of(tensors), 0, write)


def resume(folder: Path, tensors: Mapping[str, tuple[int, int]], positions: int, *, write: Write = os.pwrite) -> Writer:
    """Goes on at `positions`, which were committed, and drops what lies there and later; 0 starts anew. Raises EnvironmentFault if what was
    committed is not there, and SidecarRefusal if it is something else."""
    make_folder(folder)
    layout = Layout.of(tensors)
    names = file_names(folder)
    try:
        for first in sorted(names, reverse=True):
            if first >= positions:
                (folder / names.pop(first)).unlink()
        if positions % POSITIONS:
            reopen(folder, layout, positions, names.pop(first_of(positions), ""))
        check_finished(folder, layout, names, first_of(positions))
        sync_folder(folder)
    except OSError as error:
        raise disk_fault(folder, "resume", error) from error
    return Writer(folder, layout, positions, write)


def reopen(folder: Path, layout: Layout, positions: int, name: str) -> None:
    """The file that holds the last of `positions`, cut off behind it"""
    first = first_of(positions)
    part, size = folder / (file_name(first) + PART), layout.size(first, positions - first)
    if name == file_name(first):
        (folder / name).rename(part)
    if (found := part.lstat().st_size if part.exists() else 0) < size:
        raise EnvironmentFault(f"expected {size} bytes in {part}, got {found}", hint="the rows were changed after they were committed; record anew")
    descriptor = os.open(part, FLAGS)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_finished(folder: Path, layout: Layout, names: Mapping[int, str], end: int) -> None:
    if sorted(names) != list(range(0, end, POSITIONS)):
        raise EnvironmentFault(f"expected files of positions 0 to {end - 1} in {folder}, got {sorted(names.values())}", hint="record anew")
    if names:
        check_names(folder, names)
    for first in names:
        os.close(open_checked(folder, layout, first, POSITIONS))
