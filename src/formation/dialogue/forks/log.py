"""branches.jsonl of a fork: canonical lines, the first what was asked for, then one for each branch, on disk when it is whole.

A line that was cut off is dropped by who goes on; a whole line that is not what must follow is refused. So a fork that was killed goes on with the
branch it was at, to the same bytes.
"""

from __future__ import annotations

import fcntl
import os
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from formation.dialogue.conduct import difference
from formation.dialogue.event_table import EventRefusal, check
from formation.dialogue.events import FLAGS, write_all
from formation.errors import EnvironmentFault, EvidenceError
from formation.ledger import canonical
from formation.ledger.reader import disk_fault
from formation.ledger.store import make_folder, sync_folder

NAME = "branches.jsonl"
LIMITS = canonical.Limits(size_bytes=1 << 26, depth=16)  # of one line
Line = dict[str, Any]


Shape = Any  # a type, a tuple of types, [shape of each item], {name: shape}
NUMBER = (int, float)


def fits(value: Any, shape: Shape) -> bool:
    """Whether a value that was read is of this shape; an object has exactly these names, but for those that end in "?" """
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    if not isinstance(shape, dict):
        return isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
    if not isinstance(value, dict):
        return False
    known = {name.removesuffix("?"): inner for name, inner in shape.items()}
    due = {name for name in shape if not name.endswith("?")}
    return due <= set(value) <= set(known) and all(fits(value[name], known[name]) for name in value)


class BranchLog:
    def __init__(self, path: Path, descriptor: int, found: list[Line]) -> None:
        self.path, self.found, self._descriptor = path, found, descriptor

    def append(self, line: Mapping[str, Any]) -> Line:
        """It is on disk when this returns. Raises EnvironmentFault."""
        data = canonical.encode(dict(line), limits=LIMITS)
        try:
            write_all(self._descriptor, data + b"\n")
            os.fsync(self._descriptor)
        except OSError as error:
            raise disk_fault(self.path.parent, f"write {NAME} of", error) from error
        self.found.append(canonical.decode(data, limits=LIMITS))
        return self.found[-1]

    def lead(self, head: Mapping[str, Any]) -> None:
        """The first line, or what it must be. Raises EvidenceError for that of another fork, which it names."""
        if not self.found:
            self.append(head)
        elif wrong := difference(self.found[0], canonical.decode(canonical.encode(dict(head), limits=LIMITS), limits=LIMITS)):
            hint = "ask for the same, or choose another --out"
            raise EvidenceError(f"{self.path}: expected {wrong[0]}, as the fork there was begun with, got {wrong[1]}", hint=hint)


TOKEN: Shape = {"id": int, "bytes": str, "kind": str, "measured": dict}


def check_line(path: Path, number: int, line: Line, shape: Shape) -> None:
    """Of a log that was there: line `number`, from 0, which may be anybody's. Raises EvidenceError."""
    try:
        if not fits(line, shape):
            raise EventRefusal("expected the fields of such a line, got others")
        for token in line.get("tokens", []):
            check(token["measured"], "measured", "measured")
            b64decode(token["bytes"], validate=True)
    except ValueError as refusal:  # EventRefusal is one
        raise EvidenceError(f"{path}: line {number + 1}: {refusal}") from None


@contextmanager
def opened(folder: Path, *, done: str) -> Iterator[BranchLog]:
    """The log in `folder`, which is made if missing. Raises EnvironmentFault where the file `done` says that it is whole, or another process
    writes it."""
    make_folder(folder)
    if (folder / done).exists():
        raise EnvironmentFault(f"expected no fork in {folder}, got {done}", hint="choose another folder")
    try:
        descriptor = os.open(folder / NAME, FLAGS | os.O_CREAT, 0o644)
    except OSError as error:
        raise disk_fault(folder, f"open {NAME} of", error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sync_folder(folder)
        yield BranchLog(folder / NAME, descriptor, read(folder / NAME, descriptor))
    except BlockingIOError:
        raise EnvironmentFault(f"{folder / NAME}: expected to be alone, got another process that writes it") from None
    finally:
        os.close(descriptor)


def read(path: Path, descriptor: int) -> list[Line]:
    """Its whole lines; what lies behind them is cut off"""
    data, found = path.read_bytes(), []
    end = data.rfind(b"\n") + 1
    for number, line in enumerate(data[:end].split(b"\n")[:-1], 1):
        try:
            value = canonical.decode(line, limits=LIMITS)
        except canonical.CanonicalRefusal as refusal:
            raise EvidenceError(f"{path}: line {number}: {refusal}") from None
        if not isinstance(value, dict):
            raise EvidenceError(f"{path}: line {number}: expected an object, got {canonical.quoted(value)}")
        found.append(value)
    if end < len(data):
        os.ftruncate(descriptor, end)
    return found
