"""What the small documents of a bundle must say, to the last field: anchor, contract, parity, host and io.jsonl, and the two later verdicts.

Each function reads bytes of hostile origin, returns what is checked elsewhere against the ledger, and raises Refused, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from formation.evidence.strict import Refused, digest, document, exactly, fields, is_count, text
from formation.ledger import anchor, canonical
from formation.ledger.anchor import Anchor

VECTORS = Path(__file__).parents[1] / "kernels" / "golden.json"  # of the contract that this version knows


# ---- anchor.json


def read_anchor(data: bytes) -> Anchor:
    """Beyond ledger/anchor.py: settings that a sampler can have, and stop ids in the one order"""
    try:
        found = anchor.decode(data)
    except (anchor.AnchorRefusal, canonical.CanonicalRefusal) as refusal:
        raise Refused("anchor", f"anchor.json: {refusal}") from None
    if any(a >= b for a, b in pairwise(found.stop_ids)) or found.tokens < 1:
        raise Refused("anchor", "anchor.json, stop: expected ascending ids and at least one token, got others")
    if found.sampler["method"] == "sample":
        for name, test in SETTINGS.items():
            if not test(found.sampler[name]):
                got = canonical.quoted(found.sampler[name])
                raise Refused("anchor", f"anchor.json, sampler: expected a setting in the range of {name}, got {got}")
    return found


def is_seed(value: str) -> bool:
    """64 bits as a decimal without leading zeroes"""
    return re.fullmatch("0|[1-9][0-9]{0,19}", value) is not None and int(value) < 1 << 64


SETTINGS: Mapping[str, Callable[[Any], bool]] = {
    "temperature": lambda v: 0 < v <= 1e6, "top_k": lambda v: v >= 0, "top_p": lambda v: 0 < v <= 1, "min_p": lambda v: 0 <= v <= 1,
    "seed": is_seed, "branch": is_seed,
}  # fmt: skip


# ---- contract.json


def check_contract(data: bytes, frozen: Anchor) -> None:
    """The document is of the anchor's contract, that one is known, and the digest is that of the vectors listed."""
    value = document("contract", "contract.json", data, ("name", "digest", "cases"))
    name, known = known_contract()
    exactly("contract", "contract.json, name", value["name"], frozen.contract)
    exactly("contract", "contract.json, digest", value["digest"], frozen.contract_digest)
    if (name, known) != (frozen.contract, frozen.contract_digest):
        got = canonical.quoted(f"{frozen.contract} {frozen.contract_digest}")
        raise Refused("contract", f"numerics contract: expected {name} with digest {known}, which this version knows, got {got}")
    exactly("contract", "digest of the cases", cases_digest(frozen.contract, value["cases"]), frozen.contract_digest)


def known_contract() -> tuple[str, str]:
    """Name, and digest of the golden vectors that are shipped with this version"""
    shipped = json.loads(VECTORS.read_bytes())
    return shipped["contract"], cases_digest(shipped["contract"], shipped["cases"])


def cases_digest(name: str, cases: Any) -> str:
    """SHA-256 over the contract's name and every case's digests, one a line, sorted by name"""
    if not isinstance(cases, dict):
        raise Refused("contract", f"contract.json, cases: expected an object, got {type(cases).__name__}")
    lines = [name]
    for case in sorted(cases):
        found = fields("contract", f"case {case}", cases[case], ("inputs", "outputs"))
        lines.append(f"{case} {digest('contract', case, found['inputs'])} {digest('contract', case, found['outputs'])}")
    return sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


# ---- parity.json


@dataclass(frozen=True)
class Census:
    """What a ledger holds, as far as parity counts it."""

    steps: int
    cells: int
    lines: int
    root: str


def read_parity(data: bytes, census: Census) -> str:
    """The outcome, `passed` or `not claimed`; everything that was compared is everything there is"""
    try:
        value = canonical.decode(data, limits=canonical.DOCUMENT)
    except canonical.CanonicalRefusal as refusal:
        raise Refused("parity", f"parity.json: {refusal}") from None
    if value == {"parity": "not claimed"}:
        return "not claimed"
    compared = {"cache_entries_compared": census.cells, "logits_compared": census.steps}
    expected: dict[str, Any] = {"parity": "passed", "method": "replay", **compared}
    if isinstance(value, dict) and value.get("method") == "full":
        off = {"capture": "off", **compared, "tokens_compared": census.steps}
        on = {"capture": "on", "lines_compared": census.lines, "root": census.root}
        expected = {"parity": "passed", "method": "full", "runs": [off, on, off, on]}
    if text_of(value) != text_of(expected):
        raise Refused("parity", f"parity.json: expected {text_of(expected)}, got {canonical.quoted(value)}")
    return "passed"


def text_of(value: canonical.Value) -> str:
    return canonical.encode(value, limits=canonical.DOCUMENT).decode()


# ---- host.json and io.jsonl


NUMBER: Callable[[Any], bool] = lambda v: type(v) in (int, float) and v >= 0  # noqa: E731
TEXT: Callable[[Any], bool] = lambda v: isinstance(v, str)  # noqa: E731
FLAG: Callable[[Any], bool] = lambda v: type(v) is bool  # noqa: E731
FILE_SYSTEM: Callable[[Any], bool] = lambda v: typed(v, {"kind": TEXT, "source": TEXT})  # noqa: E731
MACHINE: Mapping[str, Callable[[Any], bool]] = {
    "formation": TEXT, "python": TEXT, "system": TEXT, "kernels": TEXT, "cores": is_count, "threads": is_count, "memory_bytes": is_count,
    "memory_budget_bytes": is_count, "kv_cache": FLAG, "guess": FLAG, "file_system": FILE_SYSTEM,
    "mirrors": lambda v: isinstance(v, list) and all(map(FILE_SYSTEM, v)),
}  # fmt: skip
RESUMED = {**MACHINE, "from_line": is_count}
HOST = {**MACHINE, "resumed": lambda v: isinstance(v, list) and all(typed(each, RESUMED) for each in v)}
PART = {"part": TEXT, "seconds_waited": NUMBER} | dict.fromkeys(("disk_bytes", "disk_uses", "cache_bytes", "cache_uses"), is_count)
ACCOUNT: Mapping[str, Callable[[Any], bool]] = {
    "position": is_count, "seconds": NUMBER, "shared_by": lambda v: is_count(v) and v > 0, "disk_bytes": is_count, "mirror_bytes": is_count,
    "unused_bytes": is_count, "guessed_bytes": is_count, "guessed_unused_bytes": is_count,
    "parts": lambda v: isinstance(v, list) and all(typed(part, PART) for part in v),
    "shards": lambda v: isinstance(v, list) and all(map(TEXT, v)),
}  # fmt: skip


SHARES = {"mirror_bytes": "disk_bytes", "guessed_bytes": "parts", "guessed_unused_bytes": "unused_bytes"}  # bytes that are among others


def typed(value: Any, shape: Mapping[str, Callable[[Any], bool]]) -> bool:
    return isinstance(value, dict) and set(value) == set(shape) and all(test(value[name]) for name, test in shape.items())


def read_host(data: bytes, lines: int) -> dict[str, Any]:
    """The machines, declared, of a ledger that has so many lines: each that went on did so at a line, behind the one before"""
    value = document("declarations", "host.json", data, tuple(HOST))
    check_types(value, HOST, "host.json")
    begins = [0, *(each["from_line"] for each in value["resumed"])]
    if any(a >= b for a, b in pairwise(begins)) or begins[-1] > lines:
        got = canonical.quoted(begins[1:])
        raise Refused("declarations", f"host.json, resumed: expected ascending lines from 1 to {lines}, got {got}")
    return value


def check_types(value: Mapping[str, Any], shape: Mapping[str, Callable[[Any], bool]], file: str) -> None:
    for name, test in shape.items():
        if not test(value[name]):
            raise Refused("declarations", f"{file}, {name}: expected another type, got {canonical.quoted(value[name])}")


def check_account(line: bytes, position: int) -> None:
    """One line of io.jsonl, of the step at `position`"""
    value = document("declarations", "io.jsonl", line, tuple(ACCOUNT), limits=canonical.LINE)
    check_types(value, ACCOUNT, "io.jsonl")
    exactly("declarations", f"io.jsonl, position of the step at {position}", str(value["position"]), str(position))
    sums = {"disk_bytes": value["disk_bytes"], "unused_bytes": value["unused_bytes"], "parts": sum(part["disk_bytes"] for part in value["parts"])}
    for name, whole in SHARES.items():
        if value[name] > sums[whole]:
            due = f"at most the {sums[whole]} bytes of {whole}"
            raise Refused("declarations", f"io.jsonl, {name} of the step at {position}: expected {due}, got {value[name]}")


# ---- predicates of audit.json and certification.json


VERDICTS = ("passed", "failed")


def read_later(predicate: Mapping[str, Any], subjects: Mapping[str, str], *, tree_head: Mapping[str, Any], attestation: str, what: str) -> str:
    """`outcome` of a later verdict, which is about this tree head and this attestation and no other. Its `result` is for their own readers."""
    found = fields(what, f"{what}.json, predicate", dict(predicate), ("formation", "outcome", "result", "tree_head"))
    if found["tree_head"] != tree_head:
        raise Refused(what, f"{what}.json: expected tree head {text_of(dict(tree_head))}, got {canonical.quoted(found['tree_head'])}")
    if dict(subjects) != {"attestation.json": attestation}:
        raise Refused(what, f"{what}.json: expected this bundle's attestation.json, sha256 {attestation}, as its one subject, got another")
    text(what, f"{what}.json, formation", found["formation"])
    if found["outcome"] not in VERDICTS or not isinstance(found["result"], dict):
        raise Refused(what, f"{what}.json: expected an outcome of {', '.join(VERDICTS)} and a result, got {canonical.quoted(found['outcome'])}")
    return str(found["outcome"])
