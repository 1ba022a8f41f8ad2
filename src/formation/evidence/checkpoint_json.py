"""checkpoint.json: which files and which tensors, and that both are the anchor's.

    {"files": [{"path": …, "size": …, "sha256": …, "covers": …}, …],
     "tensor_table": [{"file": …, "name": …, "dtype": …, "shape": […], "begin": …, "end": …}, …], "tensor_table_root": …}

A very large model has 200,000 tensors. So there are two readers. `slowly` goes by the definition, and what is refused is refused by it, in its words.
`quickly` refuses nothing: it takes a document whose table it sees to be in order, many rows at a time, and leaves every other to `slowly`. While
it looks at the rows another process computes their root. Memory: the document, and the names in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from operator import le, lt
from typing import Any

from formation.evidence.strict import Refused, digest, document, exactly, fields, is_count, text
from formation.evidence.worker import Worker, processes
from formation.ledger import canonical, merkle
from formation.ledger.anchor import Anchor

CHECK, NAME = "checkpoint", "checkpoint.json"
FILE = ("path", "size", "sha256", "covers")
TENSOR = ("file", "name", "dtype", "shape", "begin", "end")
COVERS = ("file", "header")


@dataclass(frozen=True)
class Checkpoint:
    """What checkpoint.json names: how many files, and the tensors."""

    files: int
    tensors: tuple[str, ...]


def read(data: bytes, frozen: Anchor) -> Checkpoint:
    """The root of the tensor table is recomputed; it and the digest of the list of files are the anchor's.
    Raises Refused, check `checkpoint`, and EnvironmentFault if a process is killed."""
    return quickly(data, frozen) or slowly(data, frozen)


# ---- by the definition


def slowly(data: bytes, frozen: Anchor) -> Checkpoint:
    """Raises Refused."""
    value = document(CHECK, NAME, data, ("files", "tensor_table", "tensor_table_root"))
    files, table = rows(value["files"], "files"), rows(value["tensor_table"], "tensor_table")
    paths = check_files(files)
    names = ascending([check_tensor(row, paths) for row in table], "tensor_table")
    root = merkle.root_of(merkle.leaf_hash(canonical.encode(row, limits=canonical.DOCUMENT)) for row in table).hex()
    exactly(CHECK, f"{NAME}, tensor_table_root", value["tensor_table_root"], root)
    exactly(CHECK, "anchor.json, tensor_table_root", frozen.tensor_table_root, root)
    listed = sha256(canonical.encode(files, limits=canonical.DOCUMENT)).hexdigest()
    exactly(CHECK, "anchor.json, checkpoint sha256", frozen.checkpoint_sha256, listed)
    return Checkpoint(len(paths), tuple(names))


def rows(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise Refused(CHECK, f"{NAME}, {what}: expected a list, got {'an empty one' if value == [] else type(value).__name__}")
    return value


def ascending(names: list[str], what: str) -> list[str]:
    """By the bytes of the names, so each stands once"""
    for a, b in pairwise([name.encode() for name in names]):
        if a >= b:
            raise Refused(CHECK, f"{NAME}, {what}: expected names in ascending order, got {canonical.quoted(b.decode())}")
    return names


def check_files(files: list[Any]) -> frozenset[str]:
    """Their paths"""
    return frozenset(ascending([check_file(row) for row in files], "files"))


def check_file(row: Any) -> str:
    """Its path"""
    found = fields(CHECK, f"{NAME}, file", row, FILE)
    path = text(CHECK, f"{NAME}, path", found["path"])
    digest(CHECK, f"{NAME}, {canonical.quoted(path)}", found["sha256"])
    if found["covers"] not in COVERS or not is_count(found["size"]) or not is_plain(path):
        raise Refused(CHECK, f"{NAME}: expected a plain path, a size and {' or '.join(COVERS)}, got {canonical.quoted(row)}")
    return path


def check_tensor(row: Any, paths: frozenset[str]) -> str:
    """Its name"""
    found = fields(CHECK, f"{NAME}, tensor", row, TENSOR)
    name, file = (text(CHECK, f"{NAME}, tensor's {field}", found[field]) for field in ("name", "file"))
    shape, begin, end = found["shape"], found["begin"], found["end"]
    good = isinstance(shape, list) and all(map(is_count, shape)) and is_count(begin) and is_count(end) and begin <= end
    if not good or not isinstance(found["dtype"], str) or file not in paths:
        raise Refused(CHECK, f"{NAME}: expected a tensor's file, dtype, shape and range, got {canonical.quoted(row)}")
    return name


def is_plain(path: str) -> bool:
    """One part, of no special meaning"""
    return path not in ("", ".", "..") and not set(path) & {"/", "\\", "\0"} and path.isascii() and path.isprintable()


# ---- many rows at a time

HEAD, TABLE, ROOT, END = b'{"files":', b',"tensor_table":[', b'],"tensor_table_root":"', b'"}'
BETWEEN = b"},{"  # two rows: there are no braces in them
COUNT = "(?:[1-9][0-9]{0,14}+|0)"  # of 15 digits at most, which binary64 holds
TEXT = r"[ !#-\[\]-z|~]*+"  # without escapes, braces, or anything but ASCII
ROW = re.compile(
    rf'\{{"begin":({COUNT}),"dtype":"{TEXT}","end":({COUNT}),"file":"({TEXT})","name":"({TEXT})","shape":\[(?:{COUNT}(?:,{COUNT})*+)?\]\}}(?:,(?=\{{)|\Z)'
)  # fmt: skip
BLOCK = 1 << 16  # bytes, of about 300 rows
SUBTREE = 1 << 12  # leaves whose hashes are in memory, a whole subtree


class Unsure(Exception):
    """Perhaps not in order."""


def quickly(data: bytes, frozen: Anchor) -> Checkpoint | None:
    """None of a document that may not be in order. The parts of one that is are canonical, so it is; and they are the anchor's."""
    tail = ROOT + frozen.tensor_table_root.encode() + END
    at, end = data.find(TABLE), len(data) - len(tail)
    begin = at + len(TABLE)
    if not data.startswith(HEAD) or not data.endswith(tail) or not len(TABLE) < begin < end:
        return None
    listed = data[len(HEAD) : at]
    if sha256(listed).hexdigest() != frozen.checkpoint_sha256:
        return None
    try:
        canonical.check_size(data, canonical.DOCUMENT)
        paths = check_files(rows(canonical.decode(listed, limits=canonical.LINE), "files"))
        return Checkpoint(len(paths), tuple(sound_names(data, range(begin, end), paths, frozen)))
    except (canonical.CanonicalRefusal, Refused, Unsure):
        return None


def sound_names(data: bytes, table: range, paths: frozenset[str], frozen: Anchor) -> list[str]:
    """The names of the tensors, if all rows are in order and have the anchor's root. Raises Unsure."""
    with Worker(lambda: iter((root_of(blocks(data, table)),))) if processes(len(table)) > 1 else nullcontext() as other:
        names = names_of(blocks(data, table), paths)
        root = root_of(blocks(data, table)) if other is None else other.receive()
    if root.decode() != frozen.tensor_table_root:
        raise Unsure
    return names


def blocks(data: bytes, table: range) -> Iterator[bytes]:
    """Of whole rows; the comma between two blocks is in neither"""
    begin, end = table.start, table.stop
    while begin < end:
        at = data.find(BETWEEN, begin + BLOCK, end)
        stop = end if at < 0 else at + 1
        yield data[begin:stop]
        begin = stop + 1


def names_of(blocks: Iterable[bytes], paths: frozenset[str]) -> list[str]:
    """Raises Unsure unless every row is canonical, of a tensor, and its name comes after that of the row before."""
    names = [""]
    for block in blocks:
        text = block.decode("ascii", "replace")
        found = ROW.findall(text)
        if text[:1] != "{" or text.count("{") != len(found):  # a row begins wherever one may: at once, and where the row before ends
            raise Unsure
        begins, ends, files, new = zip(*found, strict=True)
        in_order = all(map(lt, (names[-1], *new), new)) and all(map(le, map(int, begins), map(int, ends)))
        if not in_order or not paths.issuperset(files):
            raise Unsure
        names += new
    return names[1:]


def root_of(blocks: Iterable[bytes]) -> bytes:
    """In hexadecimal, of the rows as leaves, wherever a row ends"""
    subtrees: list[bytes] = []
    leaves: list[bytes] = []
    for block in blocks:
        leaves += leaves_of(block)
        while len(leaves) > SUBTREE:
            subtrees.append(top_of(leaves[:SUBTREE]))
            del leaves[:SUBTREE]
    return top_of([*subtrees, top_of(leaves)]).hex().encode()


def leaves_of(block: bytes) -> list[bytes]:
    """As merkle.leaf_hash, without a call for each"""
    return [sha256(b"\x00{%b}" % row).digest() for row in block[1:-1].split(BETWEEN)]


def top_of(level: list[bytes]) -> bytes:
    """As merkle.node_hash, level by level, the last of an odd number rising as it is"""
    while len(level) > 1:
        nodes = iter(level)
        level = [sha256(b"\x01" + left + right).digest() for left, right in zip(nodes, nodes, strict=False)] + level[len(level) & ~1 :]
    return level[0] if level else merkle.EMPTY_ROOT
