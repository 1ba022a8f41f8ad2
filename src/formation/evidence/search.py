"""Which object under a path has a given SHA-256: a file, a statement, a tree head's root, a tensor, a line, a row, a run.

Naming is not verifying: it says what the digest belongs to, as far as the bytes there say, and nothing about who signed them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from formation.errors import EnvironmentFault
from formation.evidence import documents, envelope
from formation.evidence.container import TENSOR_DIGESTS, Container, ContainerRefusal, Contents, digest, entries, open_container, read
from formation.evidence.strict import Refused
from formation.ledger import canonical, merkle
from formation.ledger.reader import whole_lines

Named = tuple[str, str]  # SHA-256 in hexadecimal, what has it


def find(wanted: str, path: Path) -> list[str]:
    """What under `path` (a bundle, any other folder, or a file) has the SHA-256 `wanted`. Raises EnvironmentFault, and ContainerRefusal for a
    folder that begins as a bundle does and is none."""
    if path.is_dir() and not (path / "anchor.json").exists():
        return [what for found, what in in_folder(path) if found == wanted]
    if path.is_file():
        return [str(path)] if file_digest(path) == wanted else in_archive(wanted, path)
    return in_container(wanted, path)


def in_container(wanted: str, path: Path) -> list[str]:
    with open_container(path) as container:
        return list(dict.fromkeys(what for found, what in in_bundle(container) if found == wanted))


def in_archive(wanted: str, path: Path) -> list[str]:
    """A file need not be a bundle"""
    with suppress(ContainerRefusal):
        return in_container(wanted, path)
    return []


def file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EnvironmentFault(f"{path}: expected a readable file, got {error.strerror}") from error


def in_folder(path: Path) -> Iterator[Named]:
    """Regular files right in a folder, such as a checkpoint's: whole files, however long that takes"""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = sorted(name for name, found in entries(handle, "") if stat.S_ISREG(found.st_mode))
    finally:
        os.close(handle)
    yield from ((file_digest(path / name), f"file {name}") for name in names)


def in_bundle(container: Container) -> Iterator[Named]:
    contents = container.contents()
    for name in contents.sizes:
        yield digest(container, name), f"file {name}"
    if contents.incomplete:
        return
    with suppress(Refused):
        yield from of_anchor(read(container, contents, "anchor.json"))
    with suppress(Refused):
        yield from of_statement(read(container, contents, "attestation.json"))
    yield from of_checkpoint(container, contents)
    with container.open("ledger.jsonl") as ledger:
        yield from of_ledger(ledger)


def of_anchor(data: bytes) -> Iterator[Named]:
    frozen = documents.read_anchor(data)
    yield frozen.run_id, "run: run_id, the digest of anchor.json"
    yield frozen.checkpoint_sha256, "checkpoint: digest of its list of files"
    yield frozen.tensor_table_root, "checkpoint: root of its tensor table"
    yield frozen.contract_digest, f"numerics contract {frozen.contract}"


def of_statement(data: bytes) -> Iterator[Named]:
    made = envelope.read(data, envelope.RUN)
    yield made.digest.removeprefix("sha256:"), "bundle: digest of the statement in attestation.json"
    yield made.signer.fingerprint.removeprefix("sha256:"), "fingerprint of the key that signed attestation.json"


def of_checkpoint(container: Container, contents: Contents) -> Iterator[Named]:
    with suppress(canonical.CanonicalRefusal):
        value = canonical.decode(read(container, contents, "checkpoint.json"), limits=canonical.DOCUMENT)
        yield from ((found, f"checkpoint: {what}") for found, what in listed(value, "files", "path"))
    if TENSOR_DIGESTS in contents.sizes:
        with suppress(canonical.CanonicalRefusal):
            value = canonical.decode(read(container, contents, TENSOR_DIGESTS), limits=canonical.DOCUMENT)
            yield from ((found, f"tensor: {what}") for found, what in listed(value, "tensors", "name"))


def listed(value: Any, table: str, name: str) -> Iterator[Named]:
    rows = value.get(table) if isinstance(value, dict) else None
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("sha256"), str):
            covers = f", {row['covers']}" if "covers" in row else ""
            yield row["sha256"], f"{ascii(row.get(name))[1:-1]}{covers}"


def of_ledger(file: BinaryIO) -> Iterator[Named]:
    """Lines by their bytes and as leaves; rows by the digests that lines give; the root"""
    tree = merkle.Tree()
    for index, data in enumerate(whole_lines(file)):
        leaf = merkle.leaf_hash(data)
        tree.append(leaf)
        try:
            line = canonical.decode(data, limits=canonical.LINE)
        except canonical.CanonicalRefusal:
            return
        where = f"{ascii(line.get('slot'))[1:-1]} at position {line.get('position')}" if isinstance(line, dict) else "no observation"
        yield hashlib.sha256(data).hexdigest(), f"line {index}: {where}"
        yield leaf.hex(), f"leaf of line {index}: {where}"
        measured = line.get("measured") if isinstance(line, dict) else None
        for name, value in measured.items() if isinstance(measured, dict) else ():
            if name.endswith("_sha256") and isinstance(value, str):
                yield value, f"{name.removesuffix('_sha256')} of line {index}: {where}"
    yield tree.root().hex(), f"tree: root of ledger.jsonl, {tree.size} lines"
