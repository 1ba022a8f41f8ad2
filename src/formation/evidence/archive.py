"""A bundle in one ZIP file, of the one kind that no two readers can read differently.

Members are stored, never compressed or encrypted, and lie without a gap from the first byte on, in the order of the central directory, which
follows them and ends the file (PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16; no ZIP64, no data descriptors, no comments). So
members cannot overlap, hide behind each other or carry two names. CRC-32 is not looked at: every byte that counts is bound by SHA-256.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO, Self

from formation.evidence.container import FOLDERS, UNTRUSTED, ContainerRefusal, Contents, checked

LOCAL, CENTRAL, END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
DIRECTORY_LIMIT = 1 << 26  # of its bytes, which are held in memory
ASCII_OR_UTF8 = (0, 0x800)  # flags: every other bit changes what the bytes mean
REGULAR = (0, 4, 8)  # file types in the high bits of a Unix mode: unsaid, folder, file
TIMES_AND_OWNERS = (0x5455, 0x7875)  # extra fields that say nothing about name, size or place


@dataclass(frozen=True)
class Member:
    name: str
    size: int
    begin: int  # of its data


class Archive:
    """One ZIP file, held open by its descriptor."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._members: dict[str, Member] = {}

    def contents(self) -> Contents:
        self._members = {member.name: member for member in members(self._handle)}
        sizes = {name: member.size for name, member in self._members.items()}
        untrusted = tuple(sorted(name for name in sizes if name.startswith(f"{UNTRUSTED}/")))
        folders = [f"{name}/" for name in FOLDERS if sizes.get(f"{name}/") == 0]
        return checked({name: size for name, size in sizes.items() if name not in (*untrusted, *folders)}, untrusted)

    def open(self, name: str) -> BinaryIO:
        member = self._members[name]
        return io.BufferedReader(Slice(self._handle, member.begin, member.begin + member.size), 1 << 16)

    def close(self) -> None:
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Slice(io.RawIOBase):
    """Bytes `begin` to `end` of a file, independent of every other reader of it."""

    def __init__(self, handle: int, begin: int, end: int) -> None:
        self._handle, self._begin, self._at, self._end = handle, begin, begin, end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = min((self._begin, self._at, self._end)[whence] + offset, self._end)
        return self._at - self._begin

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self._handle, min(len(buffer), self._end - self._at), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def members(handle: int) -> list[Member]:
    """All members, in order. Raises ContainerRefusal."""
    size = os.fstat(handle).st_size
    count, directory_bytes, begin = end_record(handle, size)
    directory = os.pread(handle, directory_bytes, begin)
    found: list[Member] = []
    position = offset = 0
    for _ in range(count):
        header, position = central_header(directory, position)
        if header.begin != offset:
            raise refusal(f"member {ascii(header.name)[:80]} at byte {offset}, right behind the one before", f"byte {header.begin}")
        data = local_data(handle, header)
        found.append(Member(header.name, header.size, data))
        offset = data + header.size
    if (position, offset) != (directory_bytes, begin):
        raise refusal(f"{count} members up to byte {begin} and a directory of {directory_bytes} bytes", f"{offset} and {position}")
    names = [member.name for member in found]
    if len(set(names)) != count:
        raise refusal("each name once", f"{ascii(next(name for name in names if names.count(name) > 1))[:80]} twice")
    return found


def end_record(handle: int, size: int) -> tuple[int, int, int]:
    """How many members there are, the bytes of the directory, and where it begins"""
    data = os.pread(handle, END.size, max(size - END.size, 0))
    if len(data) != END.size:
        raise refusal("a ZIP file", f"{size} bytes")
    signature, disk, first_disk, here, count, directory_bytes, begin, comment = END.unpack(data)
    if signature != b"PK\x05\x06":
        raise refusal("a folder or a ZIP file that ends with its directory, without comment", "other bytes")
    if (disk, first_disk, comment) != (0, 0, 0) or here != count:
        raise refusal("one ZIP file without comment", "parts or a comment")
    if directory_bytes > DIRECTORY_LIMIT or begin + directory_bytes + END.size != size:
        raise refusal(f"a directory of at most {DIRECTORY_LIMIT} bytes right before the end", f"{directory_bytes} bytes at {begin} (or ZIP64)")
    return int(count), int(directory_bytes), int(begin)


@dataclass(frozen=True)
class Header:
    """What the directory says of one member; `fixed` must stand again before its data."""

    name: str
    size: int
    begin: int  # of its local header
    fixed: tuple[int, ...]
    spelled: bytes


def central_header(directory: bytes, position: int) -> tuple[Header, int]:
    """The header at `position` and where the next one begins"""
    if position + CENTRAL.size > len(directory):
        raise refusal("as many members as the directory says", "fewer")
    fields = CENTRAL.unpack_from(directory, position)
    signature, _, _, flags, method, time, date, crc, stored, size, name_bytes, extra_bytes, comment, disk, _, external, begin = fields
    position += CENTRAL.size
    spelled, extra = directory[position : position + name_bytes], directory[position + name_bytes : position + name_bytes + extra_bytes]
    name = ascii(spelled.decode("utf-8", "replace"))[1:-1]
    where = f"member {name[:80]}"
    if signature != b"PK\x01\x02" or len(spelled) + len(extra) != name_bytes + extra_bytes or comment or disk:
        raise refusal("a directory of members without comments", f"other bytes at {position - CENTRAL.size}")
    if method != 0 or stored != size or flags not in ASCII_OR_UTF8:
        raise refusal(f"{where} stored, neither compressed nor encrypted", f"method {method}, flags 0x{flags:x}, {stored} of {size} bytes")
    if external >> 28 not in REGULAR:
        raise refusal(f"{where} to be a regular file", f"mode 0o{external >> 16:o}")
    check_extra(extra, where)
    return Header(name, size, begin, (flags, method, time, date, crc, stored, size), spelled), position + name_bytes + extra_bytes


def local_data(handle: int, header: Header) -> int:
    """Where a member's data begins; its local header must say what the directory says"""
    data = os.pread(handle, LOCAL.size, header.begin)
    if len(data) != LOCAL.size or data[:4] != b"PK\x03\x04":
        raise refusal(f"a member at byte {header.begin}", "other bytes")
    _, _, flags, method, time, date, crc, stored, size, name_bytes, extra_bytes = LOCAL.unpack(data)
    after = os.pread(handle, name_bytes + extra_bytes, header.begin + LOCAL.size)
    if (flags, method, time, date, crc, stored, size) != header.fixed or after[:name_bytes] != header.spelled:
        raise refusal(f"member {header.name[:80]} to say the same in both its headers", "two readings")
    check_extra(after[name_bytes:], f"member {header.name[:80]}")
    return header.begin + LOCAL.size + int(name_bytes) + int(extra_bytes)


def check_extra(extra: bytes, where: str) -> None:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind not in TIMES_AND_OWNERS:
            raise refusal(f"{where} without extra fields but times and owners", f"0x{kind:04x}")
        at += 4 + length
    if at != len(extra):
        raise refusal(f"{where} with whole extra fields", f"{len(extra)} bytes")


def refusal(expected: str, got: str) -> ContainerRefusal:
    return ContainerRefusal(f"expected {expected}, got {got}")
