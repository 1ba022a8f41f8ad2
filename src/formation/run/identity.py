"""What the documents of a bundle say of checkpoint, contract and machine."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formation.errors import EvidenceError
from formation.kernels import golden, ops
from formation.ledger import canonical, merkle
from formation.ledger.anchor import Anchor
from formation.run import machine
from formation.run.generate import Engine
from formation.version import __version__
from formation.weights.checkpoint import Checkpoint
from formation.weights.identity import identify_files, tensor_rows

SHOWN = 3  # of the files that differ


@dataclass(frozen=True)
class Identity:
    """Of a checkpoint, from everything but the payload of its tensors; `sha256` is that of the canonical list of files."""

    files: Sequence[dict[str, Any]]
    tensor_table: Sequence[dict[str, Any]]
    sha256: str
    tensor_table_root: str

    def document(self) -> dict[str, Any]:
        return {"files": list(self.files), "tensor_table": list(self.tensor_table), "tensor_table_root": self.tensor_table_root}


def identify(checkpoint: Checkpoint) -> Identity:
    """Reads the small files and the shards' headers. Raises ReadError."""
    files, table = identify_files(checkpoint), tensor_rows(checkpoint)
    root = merkle.root_of(merkle.leaf_hash(canonical.encode(row)) for row in table)
    digest = hashlib.sha256(canonical.encode(files, limits=canonical.DOCUMENT)).hexdigest()
    return Identity(files, table, digest, root.hex())


def check_same(anchor: Anchor, identity: Identity, listed: Sequence[Mapping[str, Any]] = ()) -> None:
    """That a run from `anchor` can be repeated here. `listed` are the files of its checkpoint, where they are known.
    Raises EvidenceError that says what differs."""
    if (anchor.contract, anchor.contract_digest) != (golden.CONTRACT, golden.CONTRACT_DIGEST):
        raise EvidenceError(
            f"numerics contract: expected {anchor.contract} with digest {anchor.contract_digest}, as the anchor says, "
            f"got {golden.CONTRACT} with {golden.CONTRACT_DIGEST}", hint="use the version of formation that the anchor was frozen with",
        )  # fmt: skip
    if anchor.checkpoint_sha256 != identity.sha256:
        found = differences(listed, identity.files) or [f"expected files with digest {anchor.checkpoint_sha256}, got {identity.sha256}"]
        more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise EvidenceError(f"checkpoint: not that of the anchor: {'; '.join(found[:SHOWN])}{more}", hint="use the checkpoint of the anchor")
    if anchor.tensor_table_root != identity.tensor_table_root:
        raise EvidenceError(f"tensor table: expected root {anchor.tensor_table_root}, as the anchor says, got {identity.tensor_table_root}")


def differences(expected: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of two lists of files, of which the first is not trusted; empty if that names none"""
    ours, theirs = ({str(f.get("path")): f for f in files if isinstance(f, dict)} for files in (found, expected))
    if not theirs:
        return []
    told = []
    for path in sorted({*ours, *theirs}):
        if path not in ours or path not in theirs:
            told.append(f"{path}: expected {'a file' if path in theirs else 'no file'}, got {'none' if path in theirs else 'one'}")
        elif dict(ours[path]) != dict(theirs[path]):
            name = next((n for n in ("size", "sha256") if ours[path][n] != theirs[path].get(n)), "covers")
            told.append(f"{path}: expected {name} {str(theirs[path].get(name))[:64]}, got {ours[path][name]}")
    return told


def contract_document() -> dict[str, Any]:
    return {"name": golden.CONTRACT, "digest": golden.CONTRACT_DIGEST, "cases": golden.recorded()}


def host_document(engine: Engine) -> dict[str, Any]:
    """The machine that begins a recording, declared: nothing of it decides a bit of the ledger."""
    return {**machine_of(engine), "resumed": []}


def host_of_resumed(host: dict[str, Any], engine: Engine, lines: int) -> dict[str, Any]:
    """The same once a recording with so many lines goes on here. A machine that went on and wrote no line is not kept: it recorded nothing.
    Nor is one that is what the last one was."""
    here, resumed = machine_of(engine), [each for each in host["resumed"] if each["from_line"] < lines]
    last = resumed[-1] if resumed else host
    if {name: last[name] for name in here} == here:
        return {**host, "resumed": resumed}
    return {**here, "resumed": []} if lines == 0 else {**host, "resumed": [*resumed, {**here, "from_line": lines}]}


def machine_of(engine: Engine) -> dict[str, Any]:
    return {
        "formation": __version__, "python": platform.python_version(), "system": platform.platform(), "kernels": ops.isa(),
        "cores": machine.cores(), "threads": engine.threads, "memory_bytes": machine.memory().total_bytes, "memory_budget_bytes": engine.budget,
        "kv_cache": engine.keep_cache, "guess": engine.guess, "file_system": file_system(engine.checkpoint.path),
        "mirrors": [file_system(folder) for folder in engine.checkpoint.mirrors],
    }  # fmt: skip


def file_system(folder: Path) -> dict[str, str]:
    found = machine.file_system(folder)
    return {"kind": found.kind, "source": found.source}
