"""Attacks on the form of texts: other bytes of the same value, values that readers take differently, and texts that cost too much.

Every document is signed anew in each form by the right key, so that only the reader of that very document can refuse it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial

from formation.certify.attack import BUNDLE, KEY, Group, NotApplicable
from formation.certify.forgery import Forgery
from formation.ledger import canonical

GROUP = Group("text")
DOCUMENTS = {
    "anchor.json": "anchor", "contract.json": "contract", "checkpoint.json": "checkpoint", "attestation.json": "envelope", "parity.json": "parity",
    "host.json": "declarations", "io.jsonl": "declarations", "ledger.jsonl": "lines",
}  # fmt: skip
LINES = ("io.jsonl", "ledger.jsonl")
NUMBER = re.compile(rb"(?<=:)-?[0-9][0-9.e+-]*(?=[,}])")
NAME = re.compile(rb'"([a-z_0-9A-Z]+)":')
TEXT = re.compile(rb'(?<=:")[^"]+(?=")')


def number(data: bytes, other: bytes) -> bytes:
    return once(NUMBER, other, data)


def once(pattern: re.Pattern[bytes], other: bytes, data: bytes) -> bytes:
    if not pattern.search(data):
        raise NotApplicable("the document has none")
    return pattern.sub(lambda _: other, data, count=1)


def reversed_names(data: bytes) -> bytes:
    value = json.loads(data)
    if not isinstance(value, dict) or len(value) < 2:
        raise NotApplicable("the document has one field")
    names = list(value)[::-1]
    return b"{" + b",".join(canonical.encode(n) + b":" + canonical.encode(value[n], limits=canonical.DOCUMENT) for n in names) + b"}"


def repeated(data: bytes) -> bytes:
    name, value = next(iter(json.loads(data).items()))
    return b"{" + canonical.encode(name) + b":" + canonical.encode(value, limits=canonical.DOCUMENT) + b"," + data[1:]


def escaped_name(data: bytes) -> bytes:
    return NAME.sub(lambda m: b'"\\u%04x%b":' % (m[1][0], m[1][1:]), data, count=1)


def other_letter(data: bytes) -> bytes:
    """The first a, c, e or o of a name becomes the Cyrillic letter that looks the same"""
    letters = {ord("a"): "а", ord("c"): "с", ord("e"): "е", ord("o"): "о"}

    def change(match: re.Match[bytes]) -> bytes:
        return b'"' + "".join(letters.get(c, chr(c)) for c in match[1]).encode() + b'":'

    return NAME.sub(change, data, count=1)


FORMS: Mapping[str, Callable[[bytes], bytes]] = {
    "white space": lambda d: d[:1] + b" " + d[1:],
    "byte-order mark": lambda d: b"\xef\xbb\xbf" + d,
    "CR before the end": lambda d: d + b"\r",
    "a name twice": repeated,
    "names out of order": reversed_names,
    "an escaped name": escaped_name,
    "a name in look-alike letters": other_letter,
    "NaN": lambda d: number(d, b"NaN"),
    "minus zero": lambda d: number(d, b"-0"),
    "2^53": lambda d: number(d, b"9007199254740992"),
    "1e400": lambda d: number(d, b"1e400"),
    "a number with a point": lambda d: number(d, b"1.0"),
    "a number of 100,000 digits": lambda d: number(d, b"7" * 100_000),
    "nesting of 100,000": lambda d: number(d, b"[" * 100_000 + b"]" * 100_000),
    "a lone surrogate": lambda d: once(TEXT, b"\\ud800", d),
    "a byte that is no UTF-8": lambda d: once(TEXT, b"\xff", d),
    "NUL behind the end": lambda d: d + b"\0",
    "nothing": lambda d: b"",
    "null": lambda d: b"null",
    "an array": lambda d: b"[" + d + b"]",
}
NUMBERS = ("NaN", "minus zero", "2^53", "1e400", "a number with a point", "a number of 100,000 digits", "nesting of 100,000")
WITHOUT_NUMBERS = ("contract.json", "attestation.json")
VALID_LINES = ("null", "an array")  # which are canonical; that they are no lines of a ledger the census says


def write_form(f: Forgery, name: str, form: Callable[[bytes], bytes]) -> None:
    before = f.files[name]
    if name in LINES:
        first, rest = before.split(b"\n", 1)
        f.files[name] = form(first) + b"\n" + rest
    else:
        f.files[name] = form(before)
    if name != "attestation.json":
        f.seal()


def add_forms() -> None:
    for name, check in DOCUMENTS.items():
        for title, form in FORMS.items():
            if name in WITHOUT_NUMBERS and title in NUMBERS:
                continue
            expected = "run" if name == "ledger.jsonl" and title in VALID_LINES else check
            holder = BUNDLE if name == "attestation.json" else KEY
            what = f"{'the first line of ' if name in LINES else ''}{name} with {title}, everything else hashed and signed anew"
            GROUP.add(f"{name}: {title}", holder, what, expected, partial(write_form, name=name, form=form))


add_forms()


# ---- fields


def unknown_field(f: Forgery, name: str) -> None:
    f.edit(name, lambda value: value.update({"zz": 1}))
    f.seal()


def missing_field(f: Forgery, name: str) -> None:
    f.edit(name, lambda value: value.pop(max(value)))
    f.seal()


def add_fields() -> None:
    for name, check in DOCUMENTS.items():
        if name not in (*LINES, "attestation.json"):
            GROUP.add(f"{name}: unknown field", KEY, "a field more than the document has, signed", check, partial(unknown_field, name=name))
            GROUP.add(f"{name}: missing field", KEY, "a field less than the document has, signed", check, partial(missing_field, name=name))


add_fields()


def open_line(f: Forgery, name: str) -> None:
    """Signed, but for the ledger, whose root is of its whole lines in any case"""
    f.files[name] += b"{"
    if name != "ledger.jsonl":
        f.seal()


for name, check in (("ledger.jsonl", "lines"), ("io.jsonl", "declarations")):
    what = "bytes of a line that does not end, behind the last one"
    GROUP.add(f"{name}: no LF at the end", BUNDLE if check == "lines" else KEY, what, check, partial(open_line, name=name))
