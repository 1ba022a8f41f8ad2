"""The format of `rows/` and `router/`: safetensors files of 64 positions, laid out position by position, so that they grow at the end.

    rows/00000064.safetensors    named by its first position; only the last file of a folder may hold fewer than 64
    8 bytes N, little endian     8 + N is a multiple of 4096 and depends on the first position and the shapes alone, not on how many positions follow
    N bytes                      canonical JSON of {"residual.64": {"data_offsets", "dtype": "F32", "shape"}, …}, filled up with spaces
    data                         position after position, each with its tensors in the order of `row_tensors` and `router_tensors`

A file has exactly one form for what it holds: `Layout.header` makes it, and a reader compares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from formation.errors import EvidenceError
from formation.ledger import canonical

POSITIONS = 64  # of a file
ALIGNMENT = 4096  # of the data, so that rows of whole pages stay whole
LARGEST_HEADER = 1 << 20
LARGEST_SIDE = 1 << 20  # so that no offset is beyond 2^53
MOST_TENSORS = 3
NAME = re.compile(r"([0-9]{8})\.safetensors(\.part)?")
TENSOR = re.compile(r"[a-z_]{1,40}")
NUMBER_BYTES = 4  # binary32


class SidecarRefusal(EvidenceError):
    """Why a folder of rows is not one. `reason`: folder, name, kind, missing block, header or size."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def row_tensors(mode: str, layers: int, hidden: int) -> dict[str, tuple[int, int]]:
    """What `rows/` holds of a position: boundary 0 is the embedding's row, boundary L the last."""
    writes = {"attention_write": (layers, hidden), "mlp_write": (layers, hidden)} if mode == "all" else {}
    return {"residual": (layers + 1, hidden), **writes}


def router_tensors(expert_layers: int, experts: int) -> dict[str, tuple[int, int]]:
    """What `router/` holds of a position: a row for each layer with experts, in order."""
    return {"logits": (expert_layers, experts), "selection": (expert_layers, experts)}


@dataclass(frozen=True)
class Layout:
    """`tensors`: name, rows and width of what each position has, in the order of its bytes. Raises SidecarRefusal for sides that no model has."""

    tensors: tuple[tuple[str, int, int], ...]

    def __post_init__(self) -> None:
        sides = [side for _, rows, width in self.tensors for side in (rows, width)]
        if not 1 <= len(self.tensors) <= MOST_TENSORS or not all(0 < side < LARGEST_SIDE for side in sides):
            raise SidecarRefusal("header", f"expected 1 to {MOST_TENSORS} tensors with sides from 1 to {LARGEST_SIDE - 1}, got {self.tensors[:4]}")

    @classmethod
    def of(cls, tensors: Mapping[str, tuple[int, int]]) -> Layout:
        return cls(tuple((name, rows, width) for name, (rows, width) in tensors.items()))

    @property
    def rows(self) -> int:
        """Of one position"""
        return sum(rows for _, rows, _ in self.tensors)

    @property
    def position_bytes(self) -> int:
        return sum(rows * width for _, rows, width in self.tensors) * NUMBER_BYTES

    def place(self, position: int, tensor: str, index: int) -> tuple[int, int]:
        """Where in its file the row lies, and its length in bytes. Raises ValueError if there is no such row."""
        at = self.size(first_of(position), position % POSITIONS)
        for name, rows, width in self.tensors:
            if name == tensor and 0 <= index < rows:
                return at + index * width * NUMBER_BYTES, width * NUMBER_BYTES
            at += rows * width * NUMBER_BYTES
        raise ValueError(f"expected a row of {', '.join(f'{name} [{rows}]' for name, rows, _ in self.tensors)}, got {tensor} {index}")

    def size(self, first: int, count: int) -> int:
        """Bytes of the file of `count` positions from `first`"""
        return data_start(self, first) + count * self.position_bytes

    def header(self, first: int, count: int) -> bytes:
        """All bytes before the data"""
        length = data_start(self, first) - 8
        return length.to_bytes(8, "little") + self.table(first, count).ljust(length)

    def table(self, first: int, count: int) -> bytes:
        entries: dict[str, Any] = {}
        begin = 0
        for position in range(first, first + count):
            for name, rows, width in self.tensors:
                end = begin + rows * width * NUMBER_BYTES
                entries[f"{name}.{position}"] = {"data_offsets": [begin, end], "dtype": "F32", "shape": [rows, width]}
                begin = end
        return canonical.encode(entries, limits=canonical.DOCUMENT)


@lru_cache(maxsize=4)
def data_start(layout: Layout, first: int) -> int:
    """Room for the header of a full file, whatever the file will hold when it ends"""
    return -(-(8 + len(layout.table(first, POSITIONS))) // ALIGNMENT) * ALIGNMENT


def first_of(position: int) -> int:
    return position - position % POSITIONS


def file_name(first: int) -> str:
    return f"{first:08}.safetensors"


# ---- from a header to the layout


def header_length(prefix: bytes, file: str) -> int:
    """Bytes before the data, as the first 8 say. Raises SidecarRefusal."""
    length = 8 + int.from_bytes(prefix, "little")
    if len(prefix) != 8 or length % ALIGNMENT or not 0 < length <= LARGEST_HEADER:
        raise SidecarRefusal("header", f"{file}: expected data at a multiple of {ALIGNMENT} up to {LARGEST_HEADER}, got {length}")
    return length


def read_layout(header: bytes, first: int, file: str) -> tuple[Layout, int]:
    """What the file that begins with `header` holds, and of how many positions. Raises SidecarRefusal."""
    try:
        table = canonical.decode(header[8:].rstrip(b" "), limits=canonical.DOCUMENT)
    except canonical.CanonicalRefusal as refusal:
        raise SidecarRefusal("header", f"{file}: header: {refusal}") from None
    own = {name.rpartition(".")[0]: entry for name, entry in table.items() if name.endswith(f".{first}")} if isinstance(table, dict) else {}
    tensors = sorted((read_tensor(name, entry, file) for name, entry in own.items()), key=lambda tensor: own[tensor[0]]["data_offsets"])
    try:
        layout = Layout(tuple(tensors))
    except SidecarRefusal as refusal:
        raise SidecarRefusal(refusal.reason, f"{file}: {refusal}") from None
    count = len(table) // len(own)
    check_header(layout, first, count, header, file)
    return layout, count


def read_tensor(name: str, entry: object, file: str) -> tuple[str, int, int]:
    if TENSOR.fullmatch(name) and isinstance(entry, dict) and pair(entry.get("data_offsets")) and pair(entry.get("shape")):
        rows, width = entry["shape"]
        return name, rows, width
    raise SidecarRefusal("header", f"{file}: expected tensors with a name, two sides and offsets, got {name[:40]!r}")


def pair(value: object) -> bool:
    return isinstance(value, list) and [type(item) for item in value] == [int, int]


def check_header(layout: Layout, first: int, count: int, header: bytes, file: str) -> None:
    """`header` is the one form that `count` positions from `first` have. Raises SidecarRefusal."""
    if not 1 <= count <= POSITIONS or layout.header(first, count) != header:
        raise SidecarRefusal("header", f"{file}: expected the header of positions from {first} in the one form they have, got another")
