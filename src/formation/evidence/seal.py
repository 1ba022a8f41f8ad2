"""Sealing: a complete bundle gets a signed tree head and a signed attestation over all of its files.

    tree-head.txt      size and root of the ledger, signed (note.py)
    attestation.json   SHA-256 of every file, and what the run was, signed (envelope.py)
    views/manifest-sha256.txt   the same digests, unsigned, for `sha256sum -c views/manifest-sha256.txt` inside the bundle

Signatures of Ed25519 are deterministic, so sealing again gives the same bytes. A sealed bundle may be sealed anew only by the same key and only
to add files: what the old attestation says must still hold, and no audit or certification may be there, which are about the old one. Sealing
does not check what the ledger says: the recorder did, and a verifier will.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formation.errors import EnvironmentFault
from formation.evidence import container, envelope, note, payloads
from formation.evidence.envelope import Statement
from formation.evidence.keys import PrivateKey
from formation.evidence.note import TreeHead
from formation.evidence.strict import Refused
from formation.ledger import anchor, canonical, merkle, reader
from formation.ledger.files import read_whole, write_whole
from formation.version import __version__

TREE_HEAD, ATTESTATION, MANIFEST = "tree-head.txt", "attestation.json", "manifest-sha256.txt"
VERDICTS = (container.AUDIT, container.CERTIFICATION)  # each about one attestation
LATER = (TREE_HEAD, ATTESTATION, *VERDICTS)  # made by sealing, or after it
PARITIES = ("passed", "not claimed")


@dataclass(frozen=True)
class Seal:
    """What was signed. `digest` is the bundle's."""

    head: TreeHead
    fingerprint: str
    digest: str
    subjects: Mapping[str, str]
    weights: str


def seal(folder: Path, key: PrivateKey) -> Seal:
    """Writes tree-head.txt and attestation.json. Raises EnvironmentFault for a folder that is no complete bundle, Refused for one that is
    sealed already otherwise, by another key or over other bytes."""
    names, views = list_subjects(folder), _views(folder)
    frozen = _anchor(folder)
    ledger_digest, head = _read_ledger(folder, frozen.run_id)
    weights = payloads.level_of(folder) if container.TENSOR_DIGESTS in names else payloads.HEADERS
    subjects = {name: ledger_digest if name == reader.NAME else _hash(folder / name) for name in names}
    signed_head = note.sign_tree_head(head, key)
    subjects[TREE_HEAD] = hashlib.sha256(signed_head).hexdigest()
    predicate = {**run_predicate(frozen, head, _parity(folder), weights), "formation": __version__}
    data = envelope.make(Statement(envelope.RUN, subjects, predicate), key)
    made = envelope.read(data, envelope.RUN)
    if (folder / ATTESTATION).exists() and read_whole(folder / ATTESTATION) != data:
        _check_grows(folder, made)
    write_whole(folder / TREE_HEAD, signed_head)
    write_whole(folder / ATTESTATION, data)
    digests = {**subjects, ATTESTATION: hashlib.sha256(data).hexdigest()}
    write_whole(views / MANIFEST, "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode("ascii"))
    return Seal(head, key.public.fingerprint, made.digest, subjects, weights)


def run_predicate(frozen: anchor.Anchor, head: TreeHead, parity: str, weights: str) -> dict[str, Any]:
    """What the attestation of a run says beside `formation`, the version that sealed it: all of it follows from the files."""
    return {
        "run_id": frozen.run_id,
        "tree_head": {"origin": head.origin, "size": head.size, "root": head.root.hex()},
        "contract": {"name": frozen.contract, "digest": frozen.contract_digest},
        "checkpoint": {"sha256": frozen.checkpoint_sha256, "tensor_table_root": frozen.tensor_table_root},
        "parity": parity,
        "weights": weights,
    }


def _views(folder: Path) -> Path:
    """The folder of what is unsigned, made if missing. Raises EnvironmentFault for anything else in its place."""
    views = folder / container.UNTRUSTED
    if not views.is_symlink() and not views.exists():
        views.mkdir()
    if views.is_symlink() or not views.is_dir():
        raise EnvironmentFault(f"{views}: expected a folder for views, got something else", hint="remove it")
    return views


def _check_grows(folder: Path, made: envelope.Attestation) -> None:
    """That the seal in the folder may be replaced by this one."""
    if later := [name for name in VERDICTS if (folder / name).exists()]:
        hint = f"remove {' and '.join(later)}, seal, then make it anew"
        raise Refused("sealed", f"{folder}: expected no verdict about the present seal, got {later[0]}", hint=hint)
    old = envelope.read(read_whole(folder / ATTESTATION), envelope.RUN)
    if old.signer != made.signer:
        raise Refused("sealed", f"{folder}: expected an unsealed bundle or one sealed by {made.signer.fingerprint}, got {old.signer.fingerprint}")
    for name, sealed in old.statement.subjects.items():
        found = made.statement.subjects.get(name, "no such file")
        if found != sealed:
            raise Refused("sealed", f"{folder}: expected {name} as it was sealed, sha256 {sealed}, got {found}")


# ---- what a bundle holds


def list_subjects(folder: Path) -> list[str]:
    """Names of the recorded files, sorted: all but what sealing makes, and views. Raises EnvironmentFault for anything that has no
    place in a bundle, for links, and for an INCOMPLETE ledger."""
    sizes = dict(_files(folder))
    try:
        found = container.checked({**dict.fromkeys(container.SEAL, 0), **sizes}, ())
    except container.ContainerRefusal as refusal:
        raise EnvironmentFault(f"{folder}: {refusal}", hint="remove what does not belong to the bundle, or record anew") from None
    if found.incomplete:
        raise EnvironmentFault(f"{folder}: expected a complete bundle, got an INCOMPLETE one", hint="formation record --resume finishes it")
    return sorted(set(sizes) - set(LATER))


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    try:
        for inside in ("", *container.FOLDERS):
            if inside and not (folder / inside).exists():
                continue
            handle = os.open(folder / inside, os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if inside else 0) | os.O_CLOEXEC)
            try:
                for name, found in container.entries(handle, f"{inside}/" if inside else ""):
                    if inside or name not in (*container.FOLDERS, container.UNTRUSTED):
                        yield name, container.regular(name, found)
            finally:
                os.close(handle)
    except (OSError, container.ContainerRefusal) as error:
        got = error.strerror if isinstance(error, OSError) else error
        raise EnvironmentFault(f"{folder}: expected a bundle, got: {got}", hint="give the folder NAME.ofb") from error


def _anchor(folder: Path) -> anchor.Anchor:
    try:
        return anchor.decode(read_whole(folder / "anchor.json"))
    except (anchor.AnchorRefusal, canonical.CanonicalRefusal) as refusal:
        raise EnvironmentFault(f"{folder / 'anchor.json'}: {refusal}") from None


def _read_ledger(folder: Path, run_id: str) -> tuple[str, TreeHead]:
    """SHA-256 of the file, and the tree head, from the same bytes. That it is the anchor's run is read off its first line."""
    tree, whole, size = merkle.Tree(), hashlib.sha256(), 0
    path = folder / reader.NAME
    for line in reader.lines(folder):
        if not tree.size:
            _check_run(path, line, run_id)
        tree.append(merkle.leaf_hash(line))
        whole.update(line + b"\n")
        size += len(line) + 1
    if not tree.size or size != path.stat().st_size:
        raise EnvironmentFault(f"{path}: expected whole lines, got {path.stat().st_size - size} bytes after line {tree.size}")
    return whole.hexdigest(), note.head_of(run_id, tree.size, tree.root())


def _check_run(path: Path, line: bytes, run_id: str) -> None:
    try:
        found = canonical.decode(line, limits=canonical.LINE)
    except canonical.CanonicalRefusal as refusal:
        raise EnvironmentFault(f"{path}, line 1: {refusal}") from None
    if not isinstance(found, dict) or found.get("run_id") != run_id:
        raise EnvironmentFault(f"{path}: expected a ledger of run {run_id}, which anchor.json names, got another run's")


def _parity(folder: Path) -> str:
    try:
        value = canonical.decode(read_whole(folder / "parity.json"), limits=canonical.DOCUMENT)
    except canonical.CanonicalRefusal as refusal:
        raise EnvironmentFault(f"{folder / 'parity.json'}: {refusal}") from None
    return parity_of(value)


def parity_of(value: Any) -> str:
    """The outcome in parity.json. Raises Refused, check `parity`."""
    found = value.get("parity") if isinstance(value, dict) else None
    if found not in PARITIES:
        raise Refused("parity", f"parity.json: expected parity to be one of {', '.join(PARITIES)}, got {canonical.quoted(found)}")
    return str(found)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
