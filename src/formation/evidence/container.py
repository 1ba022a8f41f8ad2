"""A bundle as bytes: a folder, or one ZIP of stored members, read by allow-listed name and never extracted.

Whoever made the bundle may have made it to hurt. So a name that no bundle has is refused, whatever its file is; so is everything that is no
regular file (links, pipes, devices), everything over its limit, and a ZIP that two readers could read differently. Files are opened relative
to a folder held open and never through a link, and are read as streams: memory does not depend on their size.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from formation.errors import EnvironmentFault

REQUIRED = (
    "anchor.json", "attestation.json", "checkpoint.json", "contract.json", "host.json", "io.jsonl", "ledger.jsonl", "parity.json",
    "tree-head.txt",
)  # fmt: skip
TENSOR_DIGESTS, AUDIT, CERTIFICATION = "tensor-digests.json", "audit.json", "certification.json"
SEAL = ("attestation.json", "tree-head.txt")
OPTIONAL = (AUDIT, CERTIFICATION, TENSOR_DIGESTS)
FOLDERS = ("rows", "router")
UNTRUSTED = "views"
PART, PROGRESS = ".part", "progress.json"  # what grows or was cut off, and how far it came
SIDECAR = re.compile(r"(?:rows|router)/[0-9]{8}\.safetensors")
MOST_FILES = 1 << 20
LIMITS = dict.fromkeys((*REQUIRED, *OPTIONAL), 1 << 26) | {"ledger.jsonl": 1 << 40, "io.jsonl": 1 << 36, "tree-head.txt": 1 << 12}
SIDECAR_LIMIT = 1 << 36


class ContainerRefusal(ValueError):
    """Why a folder or a file is no container of a bundle."""


@dataclass(frozen=True)
class Contents:
    """What a container holds: size in bytes of every file that a bundle may have, sorted by name, and what is never trusted."""

    sizes: Mapping[str, int]
    untrusted: tuple[str, ...]

    @property
    def incomplete(self) -> bool:
        """A ledger that grows, or whose run was cut off"""
        return PROGRESS in self.sizes or any(name.endswith(PART) for name in self.sizes)


class Container(Protocol):
    """Of two kinds, folder and ZIP."""

    def contents(self) -> Contents:
        """Raises ContainerRefusal."""

    def open(self, name: str) -> BinaryIO:
        """A stream over one file named by `contents`, its size as it was then. Raises ContainerRefusal, EnvironmentFault."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def open_container(path: Path) -> Container:
    """Raises EnvironmentFault if nothing can be read there, ContainerRefusal if it is neither a folder nor a regular file."""
    from formation.evidence.archive import Archive

    try:
        found = path.stat()  # the user's own path may be a link
        if stat.S_ISDIR(found.st_mode):
            return Folder(path)
        if not stat.S_ISREG(found.st_mode):
            raise ContainerRefusal("expected a folder or a regular file, got neither")
        return Archive(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        raise EnvironmentFault(f"{path}: expected a bundle, got {error.strerror}", hint="give the folder NAME.ofb") from error


def read(container: Container, contents: Contents, name: str) -> bytes:
    """All of a small file; limits are in LIMITS. Raises ContainerRefusal."""
    size = contents.sizes[name]
    with container.open(name) as file:
        data = file.read(size + 1)
    if len(data) != size:
        raise ContainerRefusal(f"{name}: expected {size} bytes, got a file that changes")
    return data


def digest(container: Container, name: str) -> str:
    """SHA-256 of one file, in hexadecimal"""
    whole = sha256()
    with container.open(name) as file:
        while block := file.read(1 << 20):
            whole.update(block)
    return whole.hexdigest()


def checked(sizes: Mapping[str, int], untrusted: tuple[str, ...]) -> Contents:
    """Every file that a bundle must have is there, no other, and none is over its limit. Raises ContainerRefusal."""
    found = Contents(dict(sorted(sizes.items())), untrusted)
    for name, size in found.sizes.items():
        if not known(name):
            raise ContainerRefusal(f"expected only files of a bundle, got {ascii(name)[:80]}")
        if size > (limit := limit_of(name)):
            raise ContainerRefusal(f"{name}: expected at most {limit} bytes, got {size}")
    for name in REQUIRED:
        if name not in found.sizes and not found.incomplete:
            raise ContainerRefusal(f"expected {name}, got a bundle without it{': it was never sealed' if name in SEAL else ''}")
    return found


def known(name: str) -> bool:
    whole = name.removesuffix(PART)
    return whole in LIMITS or name == PROGRESS or SIDECAR.fullmatch(whole) is not None


def limit_of(name: str) -> int:
    return LIMITS.get(name.removesuffix(PART), SIDECAR_LIMIT)


# ---- a folder


class Folder:
    """A bundle as it is recorded. The folder is held open, so that no one can put another in its place."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def contents(self) -> Contents:
        sizes = dict(self._files())
        untrusted = (f"{UNTRUSTED}/",) if sizes.pop(f"{UNTRUSTED}/", None) is not None else ()
        return checked(sizes, untrusted)

    def _files(self) -> Iterator[tuple[str, int]]:
        """Name and size of everything; a folder that is not looked into ends in "/" """
        for name, found in entries(self._handle, ""):
            if not stat.S_ISDIR(found.st_mode):
                yield name, regular(name, found)
            elif name in FOLDERS:
                handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._handle)
                try:
                    yield from ((inside, regular(inside, entry)) for inside, entry in entries(handle, f"{name}/"))
                finally:
                    os.close(handle)
            else:
                yield f"{name}/", 0

    def open(self, name: str) -> BinaryIO:
        folder, _, last = name.rpartition("/")
        where = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._handle) if folder else self._handle
        try:
            handle = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=where)
        except OSError as error:
            raise ContainerRefusal(f"{name}: expected a readable file, got {error.strerror}") from error
        finally:
            if folder:
                os.close(where)
        file = os.fdopen(handle, "rb")
        regular(name, os.fstat(handle))
        return file

    def close(self) -> None:
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def entries(handle: int, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(handle) as found:
        for count, entry in enumerate(found):
            if count >= MOST_FILES:
                raise ContainerRefusal(f"expected at most {MOST_FILES} files, got more")
            yield prefix + entry.name, entry.stat(follow_symlinks=False)


def regular(name: str, found: os.stat_result) -> int:
    """Its size in bytes"""
    if not stat.S_ISREG(found.st_mode):
        kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
        kind = next((word for test, word in kinds if test(found.st_mode)), "a device")
        raise ContainerRefusal(f"{ascii(name)[1:-1][:80]}: expected a regular file, got {kind}")
    return found.st_size
