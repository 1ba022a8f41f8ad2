"""Receipts of every generated token: what it is, and how probable it was. All inclusion paths come from one pass over the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from formation.evidence import receipt
from formation.evidence.keys import PublicKey
from formation.evidence.note import NOTE_BYTES
from formation.ledger import canonical, merkle, reader
from formation.ledger.files import read_whole

FOLDER = "receipts"
SLOTS = ("token", "lm_head")
ENDS = {slot: f'"slot":"{slot}"}}'.encode() for slot in SLOTS}  # of a canonical line: its names are sorted


def name_of(token: int, slot: str) -> str:
    """In a gallery, of token number `token`, from 1"""
    return f"{FOLDER}/token-{token}{'' if slot == 'token' else f'-{slot}'}.tlog-proof"


def receipts(folder: Path, key: PublicKey) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each, as receipt.make gives them; each is read back before it is given. The ledger in `folder` is complete, its tree
    head signed by `key`. Raises Refused where line, tree head and key do not belong together."""
    tree = levels([merkle.leaf_hash(line) for line in reader.lines(folder)])
    note = read_whole(folder / "tree-head.txt", canonical.Limits(NOTE_BYTES, 0))
    numbers = {slot: count(1) for slot in SLOTS}
    for index, line in enumerate(reader.lines(folder)):
        for slot in SLOTS:
            if line.endswith(ENDS[slot]):
                data = receipt.encode(canonical.decode(line, limits=canonical.LINE), index, path(tree, index), note, key)
                receipt.read(data)
                yield name_of(next(numbers[slot]), slot), data


def levels(leaves: list[bytes]) -> list[list[bytes]]:
    """Of the tree over leaf hashes, from the leaves to the root. A hash without a sibling rises as it is: the trees of RFC 9162, from below."""
    found = [leaves]
    while len(row := found[-1]) > 1:
        found.append([merkle.node_hash(*row[at : at + 2]) if at + 1 < len(row) else row[at] for at in range(0, len(row), 2)])
    return found


def path(tree: Sequence[Sequence[bytes]], index: int) -> list[bytes]:
    """The siblings of leaf `index`, the deepest first"""
    places = [(row, index >> height ^ 1) for height, row in enumerate(tree[:-1])]
    return [row[sibling] for row, sibling in places if sibling < len(row)]
