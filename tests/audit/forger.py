"""Someone who holds the right key and all of the project's own tools, and changes what a run has recorded.

Lines are written anew, digests of changed rows with everything else that follows from a row alone, and the bundle is sealed again.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from formation.evidence.keys import PrivateKey
from formation.evidence.seal import seal
from formation.kernels import readout
from formation.ledger import canonical, lines, reader
from formation.ledger.anchor import decode
from formation.ledger.blocks import file_name, first_of
from formation.ledger.fields import Field
from formation.ledger.sidecar import Reader
from formation.probe.encode import digest, number

Line = dict[str, Any]


class Forger:
    """A copy of the bundle `original` in `folder`, in which things are changed; `finish` writes and seals it."""

    def __init__(self, original: Path, folder: Path, key: PrivateKey | None = None) -> None:
        shutil.copytree(original, folder)
        self.folder, self.key = folder, key
        self.lines = [canonical.decode(line, limits=canonical.LINE) for line in reader.lines(folder)]
        self.run = lines.read_run(self.lines[0])

    def line(self, position: int, slot: str) -> Line:
        (found,) = [line for line in self.lines if (line["position"], line["slot"]) == (position, slot)]
        return found

    def anchor(self, **changes: Any) -> None:
        """Another anchor, whose run every line then is of"""
        path = self.folder / "anchor.json"
        other = replace(decode(path.read_bytes()), **changes)
        path.write_bytes(other.encode())
        for line in self.lines:
            line["run_id"] = other.run_id

    def cells(self) -> list[Line]:
        return [line for line in self.lines if lines.layer_of(line["slot"]) >= 0]

    def row(self, position: int, boundary: int, change: Callable[[np.ndarray], None]) -> None:
        """Changes a committed row of the residual, and what its line says of it."""
        values = self.patch("rows", position, "residual", boundary, change)
        measured = self.line(position, f"layer {boundary - 1}" if boundary else "embed")["measured"]
        measured["residual_sha256"] = digest(values)
        measured["residual_norm"] = number(readout.norms(values[None], threads=1)[0])
        if boundary:
            largest = int(np.abs(values).argmax())
            measured |= {"residual_largest": number(abs(values[largest])), "residual_largest_dimension": largest}

    def router_row(self, position: int, layer: int, tensor: str, change: Callable[[np.ndarray], None]) -> None:
        values = self.patch("router", position, tensor, layer - self.run.shape.dense_layers, change)
        self.line(position, f"layer {layer}")["measured"][f"router_{tensor}_sha256"] = digest(values)

    def patch(self, folder: str, position: int, tensor: str, index: int, change: Callable[[np.ndarray], None]) -> np.ndarray:
        """Changes a row beside the ledger, and nothing else. The row as it is then."""
        with Reader(self.folder / folder) as rows:
            offset, size = rows.layout.place(position, tensor, index)
        path = self.folder / folder / file_name(first_of(position))
        data = bytearray(path.read_bytes())
        values = np.frombuffer(data[offset : offset + size], "<f4").copy()
        change(values)
        data[offset : offset + size] = values.tobytes()
        path.write_bytes(data)
        return values

    def finish(self) -> Path:
        (self.folder / "ledger.jsonl").write_bytes(b"".join(canonical.encode(line) + b"\n" for line in self.lines))
        if self.key:
            for name in ("attestation.json", "tree-head.txt"):
                (self.folder / name).unlink(missing_ok=True)
            seal(self.folder, self.key)
        return self.folder


def one_ulp(dimension: int, towards: float = np.inf) -> Callable[[np.ndarray], None]:
    def change(values: np.ndarray) -> None:
        values[dimension] = np.nextafter(values[dimension], np.float32(towards))

    return change


def change(line: Line, field: Field) -> None:
    line[field.tag][field.name] = changed(field, line[field.tag][field.name])


def changed(field: Field, value: Any) -> Any:
    """Another value of the field's type that its line may hold; the least change where that has a meaning"""
    if field.dtype == "sha256":
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    if field.dtype == "text":
        return "POSITIVE" if value != "POSITIVE" else "UNDERFLOW of float16"
    if field.dtype == "f32[]":
        values = np.frombuffer(base64.b64decode(value), "<f4").copy()
        values[-1] = np.nextafter(values[-1], np.float32(np.inf))
        return base64.b64encode(values.tobytes()).decode()
    if field.dtype == "f64[]":
        return [*value[:-1], float(np.nextafter(value[-1], np.inf))]
    if field.dtype == "int[]":
        return [*value[:-2], value[-1], value[-2]]
    if field.dtype == "record[]":
        return [*value[:-1], value[-1] | {"weight": float(np.nextafter(np.float32(value[-1]["weight"]), np.float32(1)))}]
    if field.dtype == "int":
        return value - 1 if value else 1
    return float(np.nextafter(np.float32(value), np.float32(np.inf))) if field.dtype == "f32" else float(np.nextafter(value, np.inf))
