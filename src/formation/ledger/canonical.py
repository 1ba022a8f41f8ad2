"""Canonical JSON: each value has exactly one sequence of bytes, and every other sequence is refused (RFC 8785, strict profile).

The profile is narrower than the RFC, so that no two readers can differ about a text that both accept:
- numbers lie within ±(2^53 - 1): from 2^53 on, binary64 holds only integers, and no longer all of them; -0, NaN and infinities are refused
- names of objects are ASCII, so that the RFC's order by UTF-16 units is the order of their bytes
- size, depth and the number of commas have limits, checked before the parser runs; every check is linear in the size

A number is read as int when written without "." and "e", so 1.0 comes back as 1. Not done here: which fields an object may have.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from operator import ge
from typing import Any

Value = None | bool | int | float | str | list[Any] | dict[str, Any]

LARGEST = 2**53 - 1
MOST_COMMAS = 1 << 22  # in strings too: without that, a document of 64 MiB could make two gigabytes of empty lists
DEEPEST = 100  # far below the interpreter's own limit, wherever the caller stands
LONGEST_NUMBER = 25  # characters of -0.0000012345678901234567, the longest canonical number


@dataclass(frozen=True)
class Limits:
    """What a text may cost; `depth` counts nested arrays and objects, which reader and writer recurse into."""

    size_bytes: int
    depth: int

    def __post_init__(self) -> None:
        if not 0 <= self.depth <= DEEPEST:
            raise ValueError(f"expected a depth of at most {DEEPEST}, got {self.depth}")


LINE = Limits(size_bytes=1 << 20, depth=16)
DOCUMENT = Limits(size_bytes=1 << 26, depth=32)


class CanonicalRefusal(ValueError):
    """Why a value or a text has no place here; callers add the file's name."""


# ---- values to bytes


def encode(value: Value, *, limits: Limits = LINE) -> bytes:
    """The canonical bytes of `value`: str, int, float, bool, None, and lists and dicts of them; subclasses are refused.
    Raises CanonicalRefusal."""
    try:
        data = text_of(value, limits.depth).encode("utf-8")
    except UnicodeEncodeError as error:
        raise CanonicalRefusal(f"expected text, got a lone surrogate: {quoted(error.object[error.start])}") from None
    check_size(data, limits)
    return data


def check_size(data: bytes, limits: Limits) -> None:
    if len(data) > limits.size_bytes:
        raise CanonicalRefusal(f"expected at most {limits.size_bytes} bytes, got {len(data)}")
    if len(data) > MOST_COMMAS and (found := data.count(b",")) > MOST_COMMAS:
        raise CanonicalRefusal(f"expected at most {MOST_COMMAS} commas, got {found}")


def text_of(value: object, depth: int) -> str:
    if type(value) is str:
        return string_text(value)
    if type(value) is float:
        return bounded_number_text(value)
    if type(value) is int:
        return integer_text(value)
    if type(value) is dict:
        return "{" + ",".join(members(value, inner(depth))) + "}"
    if type(value) is list:
        below = inner(depth)
        return "[" + ",".join([text_of(item, below) for item in value]) + "]"
    if value is None or value is True or value is False:
        return "null" if value is None else "true" if value else "false"
    raise CanonicalRefusal(f"expected a JSON value, got {type(value).__name__}")


string_text = json.JSONEncoder(ensure_ascii=False).encode  # of a str: the escapes of RFC 8785, 3.2.2.2


def inner(depth: int) -> int:
    if depth <= 0:
        raise CanonicalRefusal("expected shallow JSON, got nesting beyond the limit")
    return depth - 1


def members(table: dict[str, Any], depth: int) -> Iterator[str]:
    for name in table:
        check_name(name)
    for name in sorted(table):
        yield string_text(name) + ":" + text_of(table[name], depth)


def check_name(name: object) -> None:
    if type(name) is not str or not name.isascii():
        raise CanonicalRefusal(f"expected names of objects in ASCII, got {quoted(name)}")


def integer_text(value: int) -> str:
    if not -LARGEST <= value <= LARGEST:
        raise CanonicalRefusal(f"expected integers within 2^53 - 1, got one of {value.bit_length()} bits")
    return str(value)


def bounded_number_text(x: float) -> str:
    if not -LARGEST <= x <= LARGEST:
        raise CanonicalRefusal(f"expected finite numbers within 2^53 - 1, got {x}")
    if x == 0.0 and math.copysign(1.0, x) < 0:
        raise CanonicalRefusal("expected 0, got -0")
    return number_text(x)


def number_text(x: float) -> str:
    """ECMAScript's Number::toString of a finite number: repr has its digits, the layout of exponents differs (RFC 8785, 3.2.2.3)."""
    text = repr(x)
    if "e" not in text:
        return text.removesuffix(".0") if x else "0"
    mantissa, _, exponent_text = text.partition("e")
    exponent = int(exponent_text)
    digits = mantissa.lstrip("-").replace(".", "")
    sign = "-" if x < 0 else ""
    if 0 <= exponent < 21:
        return sign + digits.ljust(exponent + 1, "0")
    if -7 < exponent < 0:
        return sign + "0." + "0" * (-exponent - 1) + digits
    return f"{mantissa}e{exponent:+d}"


def number(x: float) -> float:
    """`x` as a ledger scalar: -0 becomes 0. A binary32 value widened to binary64 keeps its exact value."""
    return x if x else 0.0


# ---- bytes to values


def decode(data: bytes, *, limits: Limits) -> Any:
    """The value whose canonical bytes are `data`. Raises CanonicalRefusal, and nothing else, on any bytes."""
    text = read_text(data, limits)
    if plain(text, limits.depth):
        with suppress(Unsure, CanonicalRefusal, json.JSONDecodeError):
            return PLAIN_DECODER.decode(text)
    return decode_slowly(data, text, limits)


def decode_slowly(data: bytes, text: str, limits: Limits) -> Any:
    """By the definition: what the value read is written as must be what was read"""
    check_depth(text, limits.depth)
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise CanonicalRefusal(f"expected JSON, got an error at character {error.pos}: {error.msg[:1].lower()}{error.msg[1:]}") from None
    canonical = encode(value, limits=limits)
    if canonical != data:
        raise CanonicalRefusal(f"expected canonical JSON, got {difference(canonical, data)}")
    return value


# ---- most texts, four times faster: canonical as far as each part of it is seen to be; all others are read slowly


class Unsure(ValueError):
    """Perhaps not canonical"""


NOT_BRACKETS = re.compile(r"[^][{}]+")
INNERMOST = re.compile(r"\[\]|\{\}")  # in one pass, which takes away one level
WHITE = re.compile(r"[ \t\n\r]")


def plain(text: str, depth: int) -> bool:
    """No escapes, so quotes alternate; outside of strings no white space; balanced brackets, not too deep"""
    if "\\" in text:
        return False
    outside = "".join(text.split('"')[::2])
    brackets = NOT_BRACKETS.sub("", outside)
    while brackets and depth:
        brackets, depth = INNERMOST.sub("", brackets), depth - 1
    return not brackets and WHITE.search(outside) is None


def plain_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if any(map(ge, names, names[1:])) or not "".join(names).isascii():
        raise Unsure
    return dict(pairs)


def plain_integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER or not -LARGEST <= (value := int(text)) <= LARGEST or text == "-0":
        raise Unsure
    return value


def plain_float(text: str) -> float:
    """Of most numbers repr is the canonical text"""
    value = float(text)
    if repr(value) == text and "e" not in text and text[-2:] != ".0" and -LARGEST <= value <= LARGEST:
        return value
    if len(text) > LONGEST_NUMBER or text != bounded_number_text(value):
        raise Unsure
    return value


def plain_constant(text: str) -> float:
    raise Unsure


PLAIN_DECODER = json.JSONDecoder(
    object_pairs_hook=plain_object, parse_int=plain_integer, parse_float=plain_float, parse_constant=plain_constant
)  # fmt: skip


# ---- every text


def read_text(data: bytes, limits: Limits) -> str:
    check_size(data, limits)
    if data.startswith(b"\xef\xbb\xbf"):
        raise CanonicalRefusal("expected JSON from the first byte, got a byte-order mark")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CanonicalRefusal(f"expected UTF-8, got byte 0x{data[error.start]:02x} at {error.start}") from None


# Whole strings, even unterminated ones, so that no character is visited twice; or one bracket.
STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[][{}]', re.DOTALL)


def check_depth(text: str, limit: int) -> None:
    """Before the parser, which recurses, sees the text."""
    if text.count("[") + text.count("{") <= limit:
        return
    depth = 0
    for match in STRING_OR_BRACKET.finditer(text):
        first = text[match.start()]
        if first in "[{":
            depth += 1
        elif first in "]}":
            depth -= 1
        if depth > limit:
            raise CanonicalRefusal(f"expected nesting of at most {limit}, got more at character {match.start()}")


def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        repeated, times = Counter(name for name, _ in pairs).most_common(1)[0]
        raise CanonicalRefusal(f"expected each name once, got {quoted(repeated)} {times} times")
    return table


def read_integer(text: str) -> int:
    """Python's int() takes quadratic time, and refuses thousands of digits: both are avoided by looking at the length first."""
    if len(text) > LONGEST_NUMBER:
        raise CanonicalRefusal(f"expected integers within 2^53 - 1, got one of {len(text)} characters")
    return int(text)


def read_float(text: str) -> float:
    if len(text) > LONGEST_NUMBER:
        raise CanonicalRefusal(f"expected canonical numbers, got one of {len(text)} characters")
    return float(text)


DECODER = json.JSONDecoder(object_pairs_hook=read_object, parse_int=read_integer, parse_float=read_float)  # NaN falls to `encode`


def difference(canonical: bytes, data: bytes) -> str:
    at = next((i for i, (a, b) in enumerate(zip(canonical, data, strict=False)) if a != b), min(len(canonical), len(data)))
    return f"another form of the same value, from byte {at}: {quoted(data[at : at + 16].decode('utf-8', 'replace'))}"


def quoted(value: object) -> str:
    """For a sentence: hostile text without control characters, cut short"""
    return ascii(value)[:60]


# ---- vectors


def encode_f32(data: bytes) -> str:
    """Little-endian binary32 values as one base64 string (RFC 4648, section 4). Raises CanonicalRefusal on NaN and infinities."""
    values_f32(data)
    return base64.b64encode(data).decode("ascii")


def decode_f32(text: str) -> bytes:
    """The bytes that `encode_f32` was given. One text for one vector: no white space, padding present, its spare bits zero."""
    try:
        data = base64.b64decode(text)
    except (binascii.Error, ValueError):
        raise CanonicalRefusal(f"expected base64, got {quoted(text[:40])}") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise CanonicalRefusal("expected base64 in its one canonical form, got other characters, padding or spare bits")
    values_f32(data)
    return data


def values_f32(data: bytes) -> tuple[float, ...]:
    if len(data) % 4:
        raise CanonicalRefusal(f"expected binary32 values of 4 bytes each, got {len(data)} bytes")
    values = struct.unpack(f"<{len(data) // 4}f", data)
    if not all(map(math.isfinite, values)):
        raise CanonicalRefusal("expected finite numbers, got NaN or infinity in a vector")
    return values
