"""A safetensors header as hostile input: bytes in, a table of tensors with absolute file offsets out, or a HeaderError.

Format (safetensors README, "Format"): 8 bytes little endian N, then N bytes of UTF-8 JSON that begin with `{`, then the data.
The JSON maps a tensor's name to {dtype, shape, data_offsets: [begin, end)} relative to the data; `__metadata__` maps strings
to strings. Accepted here only if every byte of the data belongs to exactly one tensor and the file ends where the last one does.

It does not look at the data itself, and it does not say whether two shards agree: that is checkpoint.py.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from formation.errors import HeaderError, ReadError
from formation.kernels.tensor import DTYPE_BYTES
from formation.strict_json import JsonRefusal, parse_json

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
MAX_RANK = 64
MAX_DIMENSION = 2**63 - 1
FIELDS = frozenset(("dtype", "shape", "data_offsets"))
KNOWN_UNREAD = frozenset(("F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64", "C128", "I4", "U4"))
HINT = "the file is damaged or was not written by safetensors; download it again and compare its SHA-256 with the publisher's"


class Entry(NamedTuple):
    """One tensor of one file: bytes [begin, end) of the file, row-major, little endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class FileIdentity:
    """What tells, without reading it, that a file is still the one that was opened."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass(frozen=True)
class Header:
    """What one file says about itself: entries in the order of their bytes, and the identity of the file that said it."""

    file: str
    identity: FileIdentity
    entries: tuple[Entry, ...]


def read_header(path: str | Path) -> Header:
    """Read and check the header of one file. Raises HeaderError, or ReadError when the file system fails."""
    path = Path(path)
    data, identity = read_header_bytes(path)
    return Header(path.name, identity, parse_header(data, identity.size, path.name))


def read_header_bytes(path: Path) -> tuple[bytes, FileIdentity]:
    """The length and the JSON as they lie in the file, not parsed. Raises as `read_header`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not stop us
        try:
            return _read_open_header(handle, path.name)
        finally:
            os.close(handle)
    except OSError as error:
        raise ReadError(f"{path}: expected a readable file, got {error.strerror}", hint="check the path and its permissions") from error


def _read_open_header(handle: int, file: str) -> tuple[bytes, FileIdentity]:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise HeaderError(f"{file}: expected a regular file, got another kind", hint=HINT)
    data = _read_prefix(handle, LENGTH_BYTES)
    return _read_prefix(handle, _table_end(data, status.st_size, file)), FileIdentity.of(status)


def parse_header(data: bytes, file_size: int, file: str) -> tuple[Entry, ...]:
    """The tensors of a file whose first bytes are `data` (the length and the JSON at least) and whose size is `file_size`.

    Entries come in the order of their bytes. Raises HeaderError, which names `file` and the tensor, and nothing else.
    """
    end = _table_end(data, file_size, file)
    if len(data) < end:
        raise HeaderError(f"{file}: expected {end} header bytes, got {len(data)}", hint=HINT)
    table = _table(data[LENGTH_BYTES:end], file)
    _check_metadata(table.pop("__metadata__", {}), file)
    entries = sorted((_entry(name, fields, end, file) for name, fields in table.items()), key=attrgetter("begin", "end"))
    _check_tiling(entries, end, file_size, file)
    return tuple(entries)


def _read_prefix(handle: int, count: int) -> bytes:
    """The first `count` bytes, or fewer when the file is shorter."""
    prefix = bytearray()
    while len(prefix) < count and (chunk := os.pread(handle, count - len(prefix), len(prefix))):
        prefix += chunk
    return bytes(prefix)


def _table_end(data: bytes, file_size: int, file: str) -> int:
    """Where the JSON ends and the data begins, as an absolute offset."""
    if len(data) < LENGTH_BYTES:
        raise HeaderError(f"{file}: expected {LENGTH_BYTES} bytes of header length, got {len(data)}", hint=HINT)
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise HeaderError(f"{file}: expected a header of at most {MAX_HEADER_BYTES} bytes, got {length}", hint=HINT)
    if LENGTH_BYTES + length > file_size:
        raise HeaderError(f"{file}: expected {LENGTH_BYTES + length} bytes to hold the header, found {file_size}", hint=HINT)
    return LENGTH_BYTES + length


def _table(text: bytes, file: str) -> dict[str, Any]:
    if text[:1] != b"{":
        raise HeaderError(f"{file}: expected a header that begins with '{{', got {text[:1]!r}", hint=HINT)
    try:
        table = parse_json(text)
    except JsonRefusal as refusal:
        raise HeaderError(f"{file}: header: {refusal}", hint=HINT) from None
    assert isinstance(table, dict)  # it began with a brace
    return table


def _check_metadata(metadata: object, file: str) -> None:
    if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
        raise HeaderError(f"{file}: expected __metadata__ to map strings to strings, got something else", hint=HINT)


class _Lie(ValueError):
    """A field that cannot be true; `_entry` adds the names."""


def _entry(name: str, fields: Any, start: int, file: str) -> Entry:
    try:
        _check_name(name)
        if type(fields) is not dict or fields.keys() != FIELDS:
            got = ", ".join(fields)[:80] if type(fields) is dict else "no object"
            raise _Lie(f"expected exactly dtype, shape and data_offsets, got {got!r}")
        dtype = fields["dtype"]
        shape = _shape(fields["shape"])
        begin, end = _offsets(fields["data_offsets"])
        size = prod(shape) * _width(dtype)
        if end - begin != size:
            raise _Lie(f"expected {size} bytes for {dtype} {list(shape)}, got {end - begin}")
    except _Lie as lie:
        raise HeaderError(f"{file}: tensor {name!r}: {lie}", hint=HINT) from None
    return Entry(name, dtype, shape, start + begin, start + end)


def _check_name(name: str) -> None:
    if name.isascii():
        return
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise _Lie("expected a name in Unicode, got a lone surrogate") from None


def _width(dtype: object) -> int:
    """Bytes of one element."""
    width = DTYPE_BYTES.get(dtype) if type(dtype) is str else None
    if width is None:
        known = "a dtype we do not read" if type(dtype) is str and dtype in KNOWN_UNREAD else "an unknown dtype"
        raise _Lie(f"expected one of {' '.join(DTYPE_BYTES)}, got {known}, {str(dtype)[:40]!r}")
    return width


def _shape(shape: object) -> tuple[int, ...]:
    if type(shape) is not list or len(shape) > MAX_RANK:
        raise _Lie(f"expected a shape of at most {MAX_RANK} dimensions, got " + (f"{len(shape)}" if type(shape) is list else "no list"))
    for dimension in shape:
        if type(dimension) is not int or not 0 <= dimension <= MAX_DIMENSION:  # bool is a kind of int: excluded
            raise _Lie(f"expected dimensions from 0 to 2^63-1, got {str(dimension)[:40]}")
    return tuple(shape)


def _offsets(offsets: object) -> tuple[int, int]:
    if type(offsets) is not list or len(offsets) != 2 or type(offsets[0]) is not int or type(offsets[1]) is not int:
        raise _Lie("expected data_offsets to be two integers, got something else")
    begin, end = offsets
    if not 0 <= begin <= end:
        raise _Lie(f"expected 0 <= begin <= end, got {str(begin)[:40]} and {str(end)[:40]}")
    return begin, end


def _check_tiling(entries: Iterable[Entry], start: int, file_size: int, file: str) -> None:
    """Every data byte belongs to one tensor: no overlap, no hole, and the file ends where the last tensor does."""
    reached, last = start, "the header"
    for entry in entries:
        if entry.begin != reached:
            overlap = reached - entry.begin
            what = f"an overlap of {overlap} bytes with" if overlap > 0 else f"a hole of {-overlap} bytes after"
            raise HeaderError(f"{file}: tensor {entry.name!r}: expected to begin at byte {reached}, got {what} {last}", hint=HINT)
        reached, last = entry.end, f"tensor {entry.name!r}"
    if reached != file_size:
        trouble = "truncated" if file_size < reached else "bytes that belong to no tensor"
        raise HeaderError(f"{file}: expected {reached} bytes, where {last} ends, found {file_size}: {trouble}", hint=HINT)
