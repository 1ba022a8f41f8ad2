"""Values as the field table writes them in JSON, and lines filled up with the absences that the table allows."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from formation.kernels.tensor import F32
from formation.ledger import canonical, fields

Values = dict[str, Any]


class Observation(TypedDict):
    """One line of the ledger but for its run_id. Of `derived` it has what needs the weights; the rest follows from the ledger itself."""

    position: int
    slot: str
    kind: str
    measured: Values
    derived: Values


def plain(values: F32) -> memoryview:
    """The values as little-endian binary32, where they lie if they are that"""
    return np.ascontiguousarray(values).astype("<f4", copy=False).data


def little_endian(values: F32) -> bytes:
    return plain(values).tobytes()


def digest(values: F32) -> str:
    """SHA-256 of the values as little-endian binary32, lowercase hex"""
    return hashlib.sha256(plain(values)).hexdigest()


def vector(values: F32) -> str:
    """base64 of the values as little-endian binary32"""
    return canonical.encode_f32(little_endian(values))


def number(value: Any) -> float:
    """A binary32 or binary64 scalar as the binary64 number it is; -0 becomes 0"""
    return float(value) + 0.0


def doubles(values: Iterable[Any]) -> list[float]:
    return [number(value) for value in values]


def integers(values: NDArray[np.int64]) -> list[int]:
    return [int(value) for value in values]


def absent(reason: str) -> dict[str, str]:
    return {"absent": reason}


def complete(values: Mapping[str, Any], slot: str, level: str, tag: str, reasons: Collection[str]) -> Values:
    """Of `values` what a line of `slot` has at `level`. What is missing is absent for the first of the field's reasons that holds.

    Fields that are recomputed from the ledger are left to its writer. Raises KeyError for a field that should have had a value.
    """
    return {f.name: values[f.name] if f.name in values else absent(reason_for(f, reasons)) for f in wanted(slot, level, tag)}


@cache
def wanted(slot: str, level: str, tag: str) -> tuple[fields.Field, ...]:
    return tuple(f for f in fields.fields_of(slot, level) if f.tag == tag and f.recompute != "ledger")


def reason_for(field: fields.Field, reasons: Collection[str]) -> str:
    for reason in field.absent:
        if reason in reasons:
            return reason
    raise KeyError(f"{field.slot} {field.name}: expected a value or a reason of {field.absent}, got neither")
