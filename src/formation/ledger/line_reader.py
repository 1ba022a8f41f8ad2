"""Lines to values, fast: what lines.check_line and lines.values_of do, for all lines of one run.

A value is first looked at by a test made for its field. What that does not see to be good at once is left to `check_value`, which refuses it or
knows it for an absence: so a line is refused by the same sentence, and only what the tests accept must be shown to be right.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from math import isfinite
from struct import Struct
from typing import Any

from formation.ledger import canonical
from formation.ledger.fields import Field
from formation.ledger.lines import (
    Place,
    Run,
    check_names,
    check_value,
    envelope,
    kind_of_layer,
    place_of,
    reasons_at,
    sampler_place,
    slot_fields,
    value_of,
)  # fmt: skip
from formation.ledger.values import SHA256, bounds, length_of

MISS = object()  # not seen to be good
Test = Callable[[Any, Place], Any]  # a stored value and where it stands -> the value as formulas take it, or MISS
Plan = tuple[frozenset[str], tuple[tuple[Field, Test], ...]]
F32, LARGEST = Struct("<f"), canonical.LARGEST
NUMBERS = ({float}, {int}, {int, float})


class LineReader:
    """Reads the lines after the first; plans are kept by what decides which values a line has."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._plans: dict[tuple[str, str, bool, str, str], Plan] = {}

    def read(self, line: object) -> tuple[Place, dict[str, Any]]:
        """Where the line stands, and all its values by name. Raises LineRefusal."""
        checked = envelope(line)
        place = place_of(checked, self.run)
        slot = "layer" if place.layer >= 0 else place.slot
        check_names(checked, slot, self.run.level(place.kind), place)
        if slot == "sampler":
            place = sampler_place(checked, place)
        reasons, plan = self._plan(slot, place)
        values: dict[str, Any] = {}
        for field, test in plan:
            stored = checked[field.tag][field.name]
            value = test(stored, place)
            if value is MISS:
                check_value(field, stored, place, reasons)
                value = value_of(field, stored)
            values[field.name] = value
        return place, values

    def _plan(self, slot: str, place: Place) -> Plan:
        key = (slot, place.kind, place.layer < self.run.shape.dense_layers, kind_of_layer(place), place.method)
        if key not in self._plans:
            reasons = reasons_at(place)
            present = slot_fields(slot, self.run.level(place.kind))
            self._plans[key] = reasons, tuple((field, never if reasons & set(field.absent) else test_of(field, self.run)) for field in present)
        return self._plans[key]


def never(value: Any, place: Place) -> Any:
    """Of a field that must be absent here"""
    return MISS


def test_of(field: Field, run: Run) -> Test:
    kind = field.dtype.removesuffix("[]")
    if kind == "record":
        return of_records(field, run) if field.dtype.endswith("[]") else never
    bound = bounds(run.shape).get(field.unit, LARGEST + 1)
    if field.dtype == "f32[]":
        return of_vector(field, run)
    if field.dtype in ("int[]", "f64[]"):
        return of_integers(field, run, bound) if kind == "int" else of_doubles(field, run)
    return of_integer(bound) if kind == "int" else SCALARS.get(field.dtype, never)


# ---- numbers and digests


def of_double(value: Any, place: Place) -> Any:
    return value if type(value) is float and -LARGEST <= value <= LARGEST else MISS


def of_single(value: Any, place: Place) -> Any:
    return value if type(value) is float and -LARGEST <= value <= LARGEST and F32.unpack(F32.pack(value))[0] == value else MISS


def of_digest(value: Any, place: Place) -> Any:
    return value if type(value) is str and SHA256.fullmatch(value) else MISS


SCALARS: Mapping[str, Test] = {"f64": of_double, "f32": of_single, "sha256": of_digest}


def of_integer(bound: int) -> Test:
    return lambda value, place: value if type(value) is int and 0 <= value < bound else MISS


# ---- arrays


def of_vector(field: Field, run: Run) -> Test:
    """f32[]: base64 in its one form, so many values, all finite: their sum in binary64 is, exactly if all of them are"""
    form = Struct(f"<{length(field, run)}f")
    characters = -(-form.size // 3) * 4

    def test(value: Any, place: Place) -> Any:
        if type(value) is not str or len(value) != characters or not value.isascii():
            return MISS
        try:
            data = binascii.a2b_base64(value)
        except binascii.Error:
            return MISS
        if len(data) != form.size or binascii.b2a_base64(data, newline=False).decode() != value:
            return MISS
        values = form.unpack(data)
        return values if isfinite(sum(values)) else MISS

    return test


def of_integers(field: Field, run: Run, bound: int) -> Test:
    count = length(field, run)

    def test(value: Any, place: Place) -> Any:
        good = type(value) is list and len(value) == count and set(map(type, value)) == {int} and min(value) >= 0 and max(value) < bound
        return value if good else MISS

    return test


def of_doubles(field: Field, run: Run) -> Test:
    count = length(field, run)

    def test(value: Any, place: Place) -> Any:
        good = type(value) is list and len(value) == count and set(map(type, value)) in NUMBERS and -LARGEST <= min(value) and max(value) <= LARGEST
        return tuple(map(float, value)) if good else MISS

    return test


def length(field: Field, run: Run) -> int:
    """Of fields whose length no position decides"""
    return length_of(field.length, Place(run, 0, "generated", field.slot))


def of_records(field: Field, run: Run) -> Test:
    """Attention weights: head, position, weight"""
    if field.keys != (("head", "int"), ("position", "int"), ("weight", "f32")):
        return never
    heads = run.shape.heads

    def test(value: Any, place: Place) -> Any:
        if type(value) is not list or len(value) != length_of(field.length, place):
            return MISS
        for item in value:
            if type(item) is not dict or len(item) != 3:
                return MISS
            head, position, weight = item.get("head"), item.get("position"), item.get("weight")
            if type(head) is not int or type(position) is not int or not 0 <= head < heads or not 0 <= position <= place.position:
                return MISS
            if of_single(weight, place) is MISS:
                return MISS
        return value

    return test
