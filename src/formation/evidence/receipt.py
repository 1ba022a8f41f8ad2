"""A receipt: one line of a ledger, and the proof that it is in the tree whose head was signed (C2SP tlog-proof@v1).

    c2sp.org/tlog-proof@v1
    extra eyJsaW5lIjp7…               base64 of canonical JSON {"line": the line, "public_key": base64 of the signer's 32 bytes}
    index 41                          of the line, from 0
    gSKyXoYZUgZ6jduWYrkDOARinOMG…     inclusion path (RFC 9162, 2.1.3), one hash a line, the deepest first

    formation-ledger.dev/run/9f86…    the bundle's tree-head.txt as it is
    …

The leaf is the canonical JSON of the line. `extra` is not signed: the line is proven by its path, the key says only who is claimed to have
signed, and a reader must know that key from elsewhere. Narrower than C2SP: `extra` must be there, the head has one signature, and the line's
run_id is the origin's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formation.errors import EnvironmentFault, UsageError
from formation.evidence.keys import PublicKey
from formation.evidence.note import NOTE_BYTES, TreeHead, read_tree_head
from formation.evidence.strict import Refused, count, document, exactly, fields, from_base64, to_base64
from formation.ledger import canonical, merkle, reader
from formation.ledger.files import read_whole

FIRST_LINE = "c2sp.org/tlog-proof@v1"
EXTRA = canonical.Limits(size_bytes=canonical.LINE.size_bytes + 1024, depth=canonical.LINE.depth + 1)
LONGEST_PATH = 64
RECEIPT_BYTES = EXTRA.size_bytes * 2  # base64 takes 4/3; the rest is small
LINE_FIELDS = ("run_id", "position", "slot", "kind", "measured", "derived")
NOT_PROVEN = "it does not prove that the line is true (only an audit with the weights does), nor that the rest of the ledger holds"


@dataclass(frozen=True)
class Receipt:
    """A line that is in a ledger whose head `signer` signed. Whether the signer is to be trusted is another question."""

    line: dict[str, Any]
    index: int
    head: TreeHead
    signer: PublicKey

    @property
    def proves(self) -> str:
        where = f"{self.line['slot']} at position {self.line['position']}"
        return f"key {self.signer.fingerprint} signed a ledger of {self.head.size} lines of run {self.head.run_id}; line {self.index} is {where}"


def read(data: bytes) -> Receipt:
    """Strictly, everything verified. Raises Refused (checks `receipt`, `key`, `tree-head`, `inclusion`, `run-id`) and BadSignature."""
    extra, index, path, note = _parse(data)
    line, key = fields("receipt", "receipt, line", extra["line"], LINE_FIELDS), PublicKey.read(extra["public_key"])
    head = read_tree_head(note, key)
    try:
        merkle.verify_inclusion(merkle.leaf_hash(canonical.encode(line)), index, head.size, path, head.root)
    except (merkle.ProofRefusal, canonical.CanonicalRefusal) as refusal:
        raise Refused("inclusion", f"receipt: {refusal}") from None
    if line["run_id"] != head.run_id:
        raise Refused("run-id", f"receipt: expected a line of run {head.run_id}, got one of {canonical.quoted(line['run_id'])}")
    return Receipt(line, index, head, key)


def _parse(data: bytes) -> tuple[dict[str, Any], int, list[bytes], bytes]:
    if len(data) > RECEIPT_BYTES:
        raise Refused("receipt", f"receipt: expected at most {RECEIPT_BYTES} bytes, got {len(data)}")
    proof, found, note = data.partition(b"\n\n")
    try:
        lines = proof.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Refused("receipt", "receipt: expected ASCII before the tree head, got something else") from None
    if not found or not 3 <= len(lines) <= 3 + LONGEST_PATH:
        raise Refused("receipt", f"receipt: expected extra, index, at most {LONGEST_PATH} hashes, an empty line and a tree head, got something else")
    exactly("receipt", "receipt, first line", lines[0], FIRST_LINE)
    extra = document("receipt", "receipt, extra", from_base64("receipt", "extra", _after("extra", lines[1])), ("line", "public_key"), limits=EXTRA)
    index = count("receipt", "receipt, index", _after("index", lines[2]))
    return extra, index, [from_base64("receipt", "receipt, hash", line, merkle.HASH_BYTES) for line in lines[3:]], note


def _after(word: str, line: str) -> str:
    if not line.startswith(f"{word} "):
        raise Refused("receipt", f"receipt: expected a line that begins with '{word} ', got {canonical.quoted(line)}")
    return line[len(word) + 1 :]


# ---- making one


def make(folder: Path, index: int, key: PublicKey) -> bytes:
    """The receipt of line `index` of the sealed bundle in `folder`, signed by `key`; it is read back before it is returned.

    Raises EnvironmentFault if there is no such line, Refused if ledger and tree head do not belong together.
    """
    if not reader.find(folder).name == reader.NAME:
        raise EnvironmentFault(f"{folder}: expected a complete ledger, got an INCOMPLETE one", hint="formation record --resume")
    note = read_whole(folder / "tree-head.txt", canonical.Limits(NOTE_BYTES, 0))
    head = read_tree_head(note, key)
    line = next((data for at, data in enumerate(reader.lines(folder)) if at == index), None)
    if line is None:
        raise EnvironmentFault(f"{folder}: expected line {index} in a ledger of {head.size} lines, got none")
    try:
        path = merkle.inclusion_path(map(merkle.leaf_hash, reader.lines(folder)), index, head.size)
    except merkle.ProofRefusal as refusal:
        raise Refused("inclusion", f"{folder}: {refusal}") from None
    data = encode(canonical.decode(line, limits=canonical.LINE), index, path, note, key)
    read(data)
    return data


def encode(line: dict[str, Any], index: int, path: list[bytes], note: bytes, key: PublicKey) -> bytes:
    extra = canonical.encode({"line": line, "public_key": key.text}, limits=EXTRA)
    lines = [FIRST_LINE, f"extra {to_base64(extra)}", f"index {index}", *map(to_base64, path)]
    return "\n".join(lines).encode() + b"\n\n" + note


def find_line(folder: Path, position: int, slot: str) -> int:
    """The index of the line of `slot` at `position`. Raises UsageError if the ledger has none.

    Names of a canonical line are sorted, so it ends in its position, run_id and slot, and need not be decoded to be found.
    """
    wanted = re.compile(rb'"position":%d,"run_id":"[0-9a-f]{64}","slot":"%b"\}\Z' % (position, re.escape(slot.encode())))
    for index, tail in enumerate(_tails(folder)):
        if wanted.search(tail):
            return index
    raise UsageError(f"{folder}: expected a position and slot of the ledger, got none for {slot} at position {position}")


def step_of_token(folder: Path, token: int) -> int:
    """The position whose step formed the `token`-th token, from 1. Raises UsageError if there are fewer."""
    tokens = 0
    for tail in _tails(folder):
        if found := re.search(rb'"position":([0-9]+),"run_id":"[0-9a-f]{64}","slot":"token"\}\Z', tail):
            tokens += 1
            if tokens == token:
                return int(found[1])
    raise UsageError(f"{folder}: expected a token from 1 to {tokens}, got {token}")


def _tails(folder: Path) -> Iterator[bytes]:
    return (line[-200:] for line in reader.lines(folder))
