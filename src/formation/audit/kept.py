"""Rows that an audit computed and needs again later, outside memory: those that the bundle does not hold."""

from __future__ import annotations

import tempfile

import numpy as np

from formation.kernels.tensor import F32
from formation.probe.encode import little_endian


class KeptRows:
    """Rows [D] by name, position and layer, in an unnamed temporary file."""

    def __init__(self, hidden: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._row_bytes = 4 * hidden
        self._places: dict[tuple[str, int, int], int] = {}

    def put(self, name: str, position: int, layer: int, values: F32) -> None:
        place = self._places.setdefault((name, position, layer), len(self._places))
        self._file.seek(place * self._row_bytes)
        self._file.write(little_endian(values))

    def row(self, name: str, position: int, layer: int) -> F32 | None:
        """None if it was not put"""
        place = self._places.get((name, position, layer))
        if place is None:
            return None
        self._file.seek(place * self._row_bytes)
        return np.frombuffer(self._file.read(self._row_bytes), "<f4").astype(np.float32, copy=False)

    def close(self) -> None:
        self._file.close()
