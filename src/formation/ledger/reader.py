"""Reading a ledger file: whole canonical lines in order, of a complete ledger or of what an accident left.

    folder/ledger.jsonl        complete
    folder/ledger.jsonl.part   INCOMPLETE: its lines up to the first that is torn or not canonical are readable

A line is a Merkle leaf: its canonical bytes without the LF. Memory does not depend on the number of lines.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from formation.errors import EnvironmentFault
from formation.ledger import canonical, merkle

NAME = "ledger.jsonl"
PART_NAME = "ledger.jsonl.part"


@dataclass(frozen=True)
class Commit:
    """A place between two lines, and the Merkle root of the lines before it."""

    lines: int
    size_bytes: int
    root: bytes


@dataclass(frozen=True)
class Survey:
    """What a ledger file holds: `readable` ends after the last line of the readable prefix, `dropped_bytes` lie behind it."""

    path: Path
    complete: bool
    readable: Commit
    dropped_bytes: int


def survey(folder: Path) -> Survey:
    """Reads the ledger in `folder` once. The readable prefix of an INCOMPLETE one ends before the first line that is torn or not canonical;
    in a complete one such a line is refused. Raises EnvironmentFault."""
    path = find(folder)
    complete = path.name == NAME
    tree, size_bytes = merkle.Tree(), 0
    with open_for_reading(path) as file:
        for line in canonical_lines(file):
            tree.append(merkle.leaf_hash(line))
            size_bytes += len(line) + 1
        dropped_bytes = os.fstat(file.fileno()).st_size - size_bytes
    if complete and dropped_bytes:
        raise EnvironmentFault(f"expected canonical lines in {path}, got something else in line {tree.size + 1}, at byte {size_bytes}")
    return Survey(path, complete, Commit(tree.size, size_bytes, tree.root()), dropped_bytes)


def find(folder: Path) -> Path:
    for name in (NAME, PART_NAME):
        if (folder / name).is_file():
            return folder / name
    raise EnvironmentFault(f"expected a ledger in {folder}, got neither {NAME} nor {PART_NAME}")


def lines(folder: Path, *, end: int | None = None) -> Iterator[bytes]:
    """The whole lines of the ledger in `folder` without their LF, in order, those before byte `end` only; not decoded.
    Bytes after the last LF are not a line: `survey` counts them."""
    position = 0
    with open_for_reading(find(folder)) as file:
        for line in whole_lines(file):
            position += len(line) + 1
            if end is not None and position > end:
                return
            yield line


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Ends at the first line that has no LF within the limit, so that a file without any LF costs no memory."""
    while (line := file.readline(canonical.LINE.size_bytes + 1)).endswith(b"\n"):
        yield line[:-1]


def canonical_lines(file: BinaryIO) -> Iterator[bytes]:
    for line in whole_lines(file):
        try:
            canonical.decode(line, limits=canonical.LINE)
        except canonical.CanonicalRefusal:
            return
        yield line


def open_for_reading(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise disk_fault(path, "open", error) from error


def disk_fault(path: Path, verb: str, error: OSError) -> EnvironmentFault:
    """About the file, or the folder of files, that could not be opened, written or read"""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "what was committed is safe: free space, then resume, or do it again"
        return EnvironmentFault(f"expected room on the disk for {path}, got a full disk", hint=hint)
    return EnvironmentFault(f"expected to {verb} {path}, got {error.strerror or error}")
