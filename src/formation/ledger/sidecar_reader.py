"""Reading the rows beside a ledger: every deviation from the one form that blocks.py defines is refused, with a reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, TypeVar

from formation.ledger.blocks import NAME, POSITIONS, Layout, SidecarRefusal, check_header, file_name, first_of, header_length, read_layout
from formation.ledger.reader import disk_fault

FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO must not stop us
T = TypeVar("T")


class Folder:
    """A folder of sidecar files, one of which is open at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, int] | None = None  # first position, descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Closes what is open. Files that are not finished keep the name `.part`."""
        if self._open:
            os.close(self._open[1])
            self._open = None

    def _use(self, first: int, opened: Callable[[], int]) -> int:
        """The descriptor of the file of `first`"""
        if self._open is None or self._open[0] != first:
            self.release()
            self._open = first, opened()
        return self._open[1]


class Reader(Folder):
    """Rows of a complete folder, every file of which is checked when this is made. Raises SidecarRefusal for whatever is not in the one form
    that blocks.py defines, EnvironmentFault if the disk fails. `tensors` and `positions` say what is there: the caller holds them against
    the ledger's run line, and rows against its digests."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        names = file_names(folder)
        check_names(folder, names)
        self.layout, count = attempt(folder, lambda: layout_of(folder, 0))
        self.positions = max(names) + (attempt(folder, lambda: layout_of(folder, max(names)))[1] if len(names) > 1 else count)
        for first in names:
            self._checked(first)

    @property
    def tensors(self) -> dict[str, tuple[int, int]]:
        return {name: (rows, width) for name, rows, width in self.layout.tensors}

    def row(self, position: int, tensor: str, index: int) -> bytes:
        """Little-endian binary32. Raises ValueError if there is no such row."""
        if not 0 <= position < self.positions:
            raise ValueError(f"expected a position from 0 to {self.positions - 1}, got {position}")
        offset, size = self.layout.place(position, tensor, index)
        descriptor = self._checked(first_of(position))
        return attempt(self.path, lambda: read_exactly(descriptor, size, offset, self.path))

    def _checked(self, first: int) -> int:
        count = min(self.positions - first, POSITIONS)
        return self._use(first, lambda: attempt(self.path, lambda: open_checked(self.path, self.layout, first, count)))


def attempt(folder: Path, action: Callable[[], T]) -> T:
    try:
        return action()
    except OSError as error:
        raise disk_fault(folder, "read", error) from error


def open_checked(folder: Path, layout: Layout, first: int, count: int) -> int:
    """The descriptor of a file with exactly the header and the size of `count` positions from `first`"""
    path, size = folder / file_name(first), layout.size(first, count)
    descriptor = open_regular(path)
    try:
        check_header(layout, first, count, read_header(descriptor, path), file_name(first))
        if (found := os.fstat(descriptor).st_size) != size:
            raise SidecarRefusal("size", f"{path}: expected {size} bytes, got {found}")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def layout_of(folder: Path, first: int) -> tuple[Layout, int]:
    """What the file of `first` says it holds, and of how many positions"""
    path = folder / file_name(first)
    descriptor = open_regular(path)
    try:
        return read_layout(read_header(descriptor, path), first, path.name)
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> int:
    descriptor = os.open(path, FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SidecarRefusal("kind", f"{path}: expected a regular file, got another kind")
    return descriptor


def read_header(descriptor: int, path: Path) -> bytes:
    return read_exactly(descriptor, header_length(read_exactly(descriptor, 8, 0, path), path.name), 0, path)


def read_exactly(descriptor: int, size: int, offset: int, path: Path) -> bytes:
    data = os.pread(descriptor, size, offset)
    if len(data) != size:
        raise SidecarRefusal("size", f"{path}: expected {size} bytes at byte {offset}, got {len(data)}")
    return data


# ---- names


def listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise disk_fault(folder, "list", error) from error


def file_names(folder: Path) -> dict[int, str]:
    """{first position: name} of the files, finished or not. Raises SidecarRefusal for anything else in the folder."""
    if folder.is_symlink():
        raise SidecarRefusal("folder", f"{folder}: expected a folder, got a symbolic link")
    found: dict[int, str] = {}
    for entry in sorted(listed(folder), key=lambda entry: entry.name):
        match = NAME.fullmatch(entry.name)
        first = int(match[1]) if match else -1
        if first < 0 or first % POSITIONS or first in found:
            raise SidecarRefusal("name", f"{folder}: expected files named by every {POSITIONS}th position, once each, got {entry.name!r}")
        if not entry.is_file(follow_symlinks=False):
            raise SidecarRefusal("kind", f"{folder / entry.name}: expected a regular file, got another kind")
        found[first] = entry.name
    return found


def check_names(folder: Path, names: Mapping[int, str]) -> None:
    """A complete folder: at least one file, all finished, none missing"""
    if not names:
        raise SidecarRefusal("missing block", f"{folder}: expected {file_name(0)}, got no file")
    for due, first in enumerate(sorted(names)):
        if first != due * POSITIONS:
            raise SidecarRefusal("missing block", f"{folder}: expected {file_name(due * POSITIONS)}, got {names[first]} next")
        if names[first] != file_name(first):
            raise SidecarRefusal("name", f"{folder}: expected finished files, got {names[first]}")
