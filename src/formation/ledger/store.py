"""Writing the ledger file: one canonical line per observation, append-only, readable after any accident, resumed to the same bytes.

It grows as `ledger.jsonl.part` and gets its final name last, when every byte is on disk. `commit` makes what was appended durable and
returns where that is; the caller records it at the end of each pass, and `resume` goes back to it. One writer at a time holds the folder
(flock on the file, which the system drops when the process dies). Memory does not depend on the number of lines.
A writer is not for several threads at once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from formation.errors import EnvironmentFault
from formation.ledger import canonical, merkle
from formation.ledger.reader import NAME, PART_NAME, Commit, disk_fault, open_for_reading, whole_lines

BUFFER_BYTES = 1 << 18
FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW

Write = Callable[[int, bytes, int], int]  # os.pwrite: descriptor, bytes, offset -> bytes written


class Tail(NamedTuple):
    """Bytes that belong at `offset` of the file and are not written yet. Replaced as one, so that an interrupted flush can be repeated."""

    offset: int
    data: bytearray


class Writer:
    """Made by `create` and `resume`. Leaving a `with` block without `close` leaves an INCOMPLETE ledger that can be resumed."""

    def __init__(self, folder: Path, descriptor: int, tree: merkle.Tree, size_bytes: int, write: Write) -> None:
        self.folder = folder
        self._descriptor: int | None = descriptor
        self._tree = tree
        self._tail = Tail(size_bytes, bytearray())
        self._write = write

    @property
    def lines(self) -> int:
        return self._tree.size

    def append(self, observation: dict[str, Any]) -> bytes:
        """Adds one line, not yet durable, and returns its leaf hash. Raises CanonicalRefusal (nothing is added) and EnvironmentFault."""
        self._require_open()
        line = canonical.encode(observation)
        leaf = merkle.leaf_hash(line)
        self._tail.data.extend(line + b"\n")
        self._tree.append(leaf)
        if len(self._tail.data) >= BUFFER_BYTES:
            self._flush()
        return leaf

    def commit(self) -> Commit:
        """Everything appended is on disk when this returns. Raises EnvironmentFault, after which this writer is of no more use."""
        descriptor = self._require_open()
        self._flush()
        self._attempt("sync", lambda: os.fsync(descriptor))
        return Commit(self._tree.size, self._tail.offset, self._tree.root())

    def close(self) -> Commit:
        """Commits and gives the ledger its final name; nothing can be appended afterwards."""
        end = self.commit()
        self._attempt("rename", lambda: (self.folder / PART_NAME).rename(self.folder / NAME))
        self._attempt("sync", lambda: sync_folder(self.folder))
        self._release()
        return end

    def abandon(self) -> None:
        """Keeps what was appended, as far as the disk takes it, under the name of an INCOMPLETE ledger."""
        if self._descriptor is None:
            return
        try:
            self.commit()
        finally:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.abandon()

    def _require_open(self) -> int:
        if self._descriptor is None:
            raise EnvironmentFault(f"expected an open ledger in {self.folder}, got one that is closed or failed", hint="resume it")
        return self._descriptor

    def _flush(self) -> None:
        descriptor = self._require_open()
        while self._tail.data:
            self._attempt("write", lambda: self._push(descriptor))

    def _push(self, descriptor: int) -> None:
        offset, data = self._tail
        written = self._write(descriptor, bytes(data), offset)
        self._tail = Tail(offset + written, data[written:])

    def _attempt(self, verb: str, action: Callable[[], object]) -> None:
        """After a failed write or sync nobody knows what is on disk, so the writer ends there."""
        try:
            action()
        except OSError as error:
            self._release()
            raise disk_fault(self.folder / PART_NAME, verb, error) from error

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def create(folder: Path, *, write: Write = os.pwrite) -> Writer:
    """An empty ledger in `folder`, which is made if missing. Raises EnvironmentFault if a ledger, whole or INCOMPLETE, is there."""
    make_folder(folder)
    descriptor = open_locked(folder, os.O_CREAT)
    with closed_on_failure(descriptor, folder, "create"):
        if os.fstat(descriptor).st_size:
            raise EnvironmentFault(f"expected no ledger in {folder}, got an INCOMPLETE one", hint="resume it, or record into another folder")
        sync_folder(folder)
    return Writer(folder, descriptor, merkle.Tree(), 0, write)


def resume(folder: Path, at: Commit, *, write: Write = os.pwrite) -> Writer:
    """Goes on after commit `at` of an INCOMPLETE ledger and drops what lies behind it. Raises EnvironmentFault if its lines are not there."""
    descriptor = open_locked(folder, 0)
    with closed_on_failure(descriptor, folder, "resume"):
        tree = committed_tree(folder, at)
        os.ftruncate(descriptor, at.size_bytes)
        os.fsync(descriptor)
    return Writer(folder, descriptor, tree, at.size_bytes, write)


@contextmanager
def closed_on_failure(descriptor: int, folder: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise disk_fault(folder / PART_NAME, verb, error) from error
        raise


def committed_tree(folder: Path, at: Commit) -> merkle.Tree:
    tree, size_bytes = merkle.Tree(), 0
    with open_for_reading(folder / PART_NAME) as file:
        for line in whole_lines(file):
            if size_bytes >= at.size_bytes:
                break
            tree.append(merkle.leaf_hash(line))
            size_bytes += len(line) + 1
    if Commit(tree.size, size_bytes, tree.root()) != at:
        raise EnvironmentFault(
            f"expected {at.lines} lines with root {at.root.hex()} in the first {at.size_bytes} bytes of {folder / PART_NAME}, "
            f"got {tree.size} with root {tree.root().hex()} in {size_bytes}",
            hint="the file was changed after it was committed; record anew",
        )
    return tree


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_fault(folder, "create", error) from error


def open_locked(folder: Path, flags: int) -> int:
    """The unfinished file, held by this process alone"""
    path = folder / PART_NAME
    try:
        descriptor = os.open(path, FLAGS | flags, 0o644)
    except FileNotFoundError:
        found = "a complete one" if (folder / NAME).exists() else "none"
        raise EnvironmentFault(f"expected an INCOMPLETE ledger in {folder}, got {found}") from None
    except OSError as error:
        raise disk_fault(path, "open", error) from error
    with closed_on_failure(descriptor, folder, "lock"):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentFault(f"expected to be alone in {folder}, got another recorder that is writing its ledger") from None
        check_unfinished(folder, descriptor)
    return descriptor


def check_unfinished(folder: Path, descriptor: int) -> None:
    """Between opening and locking, another writer may have finished this very file."""
    if not (folder / NAME).exists():
        return
    if os.fstat(descriptor).st_size == 0:
        (folder / PART_NAME).unlink(missing_ok=True)  # made a moment ago by this call
    raise EnvironmentFault(f"expected no complete ledger in {folder}, got {NAME}", hint="record into another folder")


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
