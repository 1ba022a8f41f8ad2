"""What host.json and io.jsonl may declare, and what not; the tests of Python and of the page share it.

Bundles are those of whole_bundles: three steps, and a ledger of 30 lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.evidence import whole_bundles

from formation.ledger import canonical

LINES = 30
Change = Callable[[bytes], bytes]
MACHINE = {name: value for name, value in whole_bundles.HOST.items() if name != "resumed"}


def went_on(*from_lines: Any) -> Callable[[dict[str, Any]], None]:
    """Of host.json: other machines went on at these lines"""
    return lambda host: host.update(resumed=[MACHINE | {"cores": 8 + n, "from_line": line} for n, line in enumerate(from_lines)])


def resumed(*from_lines: Any, **others: Any) -> Change:
    def change(data: bytes) -> bytes:
        host = canonical.decode(data, limits=canonical.DOCUMENT)
        went_on(*from_lines)(host)
        host["resumed"][-1].update(others)
        return canonical.encode(host, limits=canonical.DOCUMENT)

    return change


def step(**values: Any) -> Change:
    """Of the first line of io.jsonl"""

    def change(data: bytes) -> bytes:
        first, rest = data.split(b"\n", 1)
        return canonical.encode(canonical.decode(first, limits=canonical.LINE) | values) + b"\n" + rest

    return change


def part(**values: Any) -> dict[str, Any]:
    return {"part": "layer 1", "seconds_waited": 0.25, "disk_bytes": 64, "disk_uses": 1, "cache_bytes": 32, "cache_uses": 3} | values


RIGHT: Mapping[str, tuple[int, ...]] = {"one machine": (), "two": (1,), "three": (7, 20), "one that only closed the recording": (LINES,)}
WRONG: Mapping[str, tuple[str, Change]] = {
    "a number of cores below 0": ("host.json", lambda data: data.replace(b'"cores":2', b'"cores":-2')),
    "another field": ("host.json", lambda data: data.replace(b'"cores"', b'"corer"')),
    "no word on mirrors": ("host.json", lambda data: data.replace(b'"mirrors":[],', b"")),
    "a mirror that is a path": ("host.json", lambda data: data.replace(b'"mirrors":[]', b'"mirrors":["/mnt"]')),
    "a machine that went on before the first line": ("host.json", resumed(0)),
    "two machines at one line": ("host.json", resumed(5, 5)),
    "machines in another order": ("host.json", resumed(20, 7)),
    "a machine that went on behind the last line": ("host.json", resumed(LINES + 1)),
    "a line that is no number": ("host.json", resumed("7")),
    "a machine of no type": ("host.json", resumed(7, cores="8")),
    "a machine with a field more": ("host.json", resumed(7, resumed=[])),
    "machines that are no list": ("host.json", lambda data: data.replace(b'"resumed":[]', b'"resumed":{}')),
    "a step without account": ("io.jsonl", lambda data: data.split(b"\n", 1)[1]),
    "an account too many": ("io.jsonl", lambda data: data + data.split(b"\n", 1)[0] + b"\n"),
    "no LF at the end": ("io.jsonl", lambda data: data[:-1]),
    "text for a number": ("io.jsonl", step(seconds="0.5")),
    "more from mirrors than was read": ("io.jsonl", step(mirror_bytes=97)),
    "more on right guesses than was used": ("io.jsonl", step(parts=[part(), part(disk_bytes=1)], guessed_bytes=66)),
    "right guesses of no part": ("io.jsonl", step(guessed_bytes=1)),
    "more on wrong guesses than was dropped": ("io.jsonl", step(guessed_unused_bytes=17)),
    "a pass that served nobody": ("io.jsonl", step(shared_by=0)),
    "a part without its uses": ("io.jsonl", step(parts=[{name: value for name, value in part().items() if name != "disk_uses"}])),
}
