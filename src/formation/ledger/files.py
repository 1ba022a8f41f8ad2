"""Small files of a bundle: written whole or not at all, and read with a limit."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from formation.errors import EnvironmentFault
from formation.ledger import canonical
from formation.ledger.reader import disk_fault
from formation.ledger.store import sync_folder

UNFINISHED = ".part"  # of a file's name while it is written: .NAME.PID.part


def write_whole(path: Path, data: bytes) -> None:
    """All of `data` under the name `path`, or nothing new: a temporary file beside it, fsync, rename, fsync of the folder.
    Raises EnvironmentFault."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise disk_fault(path, "write", error) from error


def write_document(path: Path, value: canonical.Value) -> None:
    """The canonical JSON of `value`. Raises EnvironmentFault, and CanonicalRefusal for a value that has none."""
    write_whole(path, canonical.encode(value, limits=canonical.DOCUMENT))


def read_whole(path: Path, limits: canonical.Limits = canonical.DOCUMENT) -> bytes:
    """At most as many bytes as `limits` allow, and one: a file that is too large is refused by whoever decodes it. Raises EnvironmentFault."""
    try:
        with path.open("rb") as file:
            return file.read(limits.size_bytes + 1)
    except OSError as error:
        raise EnvironmentFault(f"{path}: expected a readable file, got {error.strerror}") from error


def read_document(path: Path) -> Any:
    """The value of a canonical JSON file. Raises EnvironmentFault."""
    try:
        return canonical.decode(read_whole(path), limits=canonical.DOCUMENT)
    except canonical.CanonicalRefusal as refusal:
        raise EnvironmentFault(f"{path}: {refusal}") from None


def sweep(folder: Path) -> None:
    """Removes what writers that were killed left in `folder`, which the caller holds alone."""
    for path in folder.glob(f".*.*{UNFINISHED}"):
        with suppress(OSError):
            path.unlink()
