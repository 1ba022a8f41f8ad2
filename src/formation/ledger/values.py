"""What a value of each type is: its form, its length, its bounds. lines.py refuses a line by what stands here."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from formation.exact32 import f32
from formation.ledger import canonical
from formation.ledger.fields import Field

if TYPE_CHECKING:
    from formation.ledger.lines import Place, Shape

SHA256 = re.compile("[0-9a-f]{64}")


def item_problem(field: Field, kind: str, value: object, place: Place) -> str:
    """What `value` should have been, empty if it is"""
    if kind == "record":
        return record_problem(field, value, place)
    if not TYPES[kind](value):
        return PHRASES[kind]
    bound = bounds(place.run.shape).get(field.unit) if kind == "int" else None
    return f"below {bound}" if isinstance(value, int) and bound is not None and value >= bound else ""


@lru_cache(maxsize=8)
def bounds(shape: Shape) -> dict[str, int]:
    """By unit of an integer"""
    return {"expert": shape.experts, "token": shape.vocabulary, "layer": shape.layers, "dimension": shape.hidden}


def record_problem(field: Field, value: object, place: Place) -> str:
    names = [name for name, _ in field.keys]
    if not isinstance(value, dict) or set(value) != set(names):
        return f"an object of {', '.join(names)}"
    for name, dtype in field.keys:
        if dtype.endswith("]"):
            problem = f32_array_problem(value[name], length_of(dtype[4:-1], place))
        else:
            problem = "" if TYPES[dtype](value[name]) else PHRASES[dtype]
        if problem:
            return f"an object whose {name} is {problem}"
    outside = value.get("head", -1) >= place.run.shape.heads or (place.position >= 0 and value.get("position", -1) > place.position)
    return "of a head of the model and a position not after its own" if outside else ""


def f32_array_problem(value: object, length: int) -> str:
    expected = f"base64 of {length} finite binary32 values"
    if not isinstance(value, str):
        return expected
    try:
        return "" if len(canonical.decode_f32(value)) == 4 * length else expected
    except canonical.CanonicalRefusal:
        return expected


def length_of(length: str, place: Place) -> int:
    shape, run = place.run.shape, place.run
    if length.isdigit():
        return int(length)
    if length[0] == "S":
        return strongest(length, shape.heads, place.position + 1)
    if length[0] == "T":
        return min(int(length[1:]), shape.vocabulary)
    lengths = {"K": shape.chosen, "R": run.runners_up, "H": shape.heads, "E": shape.experts, "L": shape.layers}
    return (lengths | {"M": shape.layers - shape.dense_layers, "G": run.delta.heads if run.delta else 0})[length]


def strongest(length: str, heads: int, keys: int) -> int:
    return heads * min(3, keys) if length == "S3H" else min(int(length[1:]), heads * keys)


def is_number(value: object) -> bool:
    return type(value) in (int, float) and -canonical.LARGEST <= value <= canonical.LARGEST  # type: ignore[operator]


def is_sha256(value: object) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def is_base64(value: object) -> bool:
    try:
        return isinstance(value, str) and base64.b64encode(base64.b64decode(value, validate=True)).decode() == value
    except (binascii.Error, ValueError):
        return False


TYPES: dict[str, Callable[[Any], bool]] = {
    "f32": lambda v: is_number(v) and f32(v) == v,
    "f64": is_number,
    "int": lambda v: type(v) is int and 0 <= v <= canonical.LARGEST,
    "bool": lambda v: type(v) is bool,
    "text": lambda v: isinstance(v, str),
    "sha256": is_sha256,
    "bytes": is_base64,
}
PHRASES = {
    "f32": "a finite binary32 number", "f64": "a finite number", "int": "an integer from 0", "bool": "true or false", "text": "text",
    "sha256": "64 hexadecimal digits", "bytes": "base64",
}  # fmt: skip
