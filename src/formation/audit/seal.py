"""What an audit takes from a bundle's seal and gives to audit.json: the statements before and after it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formation.audit.compare import Difference, Findings
from formation.audit.recorded import Ledger
from formation.audit.report import AuditReport
from formation.evidence import container, envelope, note, payloads
from formation.evidence.audited import BROKEN, HOLDS
from formation.evidence.keys import PrivateKey
from formation.evidence.strict import Refused
from formation.ledger.files import read_whole, write_document, write_whole

TREE_HEAD, ATTESTATION = container.SEAL[1], container.SEAL[0]


@dataclass(frozen=True)
class Seal:
    """`signer` is the fingerprint under which its signatures hold, None if they do not; whether that key is to be trusted `verify` says.
    `attestation_sha256` is None if there is no attestation."""

    signer: str | None
    attestation_sha256: str | None
    subjects: dict[str, str]

    @property
    def state(self) -> str:
        return HOLDS if self.signer else BROKEN


def read_seal(ledger: Ledger, findings: Findings) -> Seal | None:
    """None for an unsealed bundle. A seal that is not of this ledger, or whose signatures do not hold, is a finding."""
    found = {name: read_whole(ledger.folder / name) for name in (TREE_HEAD, ATTESTATION) if (ledger.folder / name).exists()}
    if not found:
        return None
    digest = hashlib.sha256(found[ATTESTATION]).hexdigest() if ATTESTATION in found else None
    try:
        attestation = envelope.read(found.get(ATTESTATION, b""), envelope.RUN)
        head = note.read_tree_head(found.get(TREE_HEAD, b""), attestation.signer)
    except Refused as refusal:
        findings.add(Difference(-1, "seal", refusal.check, "a seal whose signatures hold", str(refusal)))
        return Seal(None, digest, {})
    own = note.head_of(ledger.run.run_id, ledger.size, ledger.root)
    findings.equal(-1, "seal", "tree head", as_json(own), as_json(head))
    return Seal(attestation.signer.fingerprint, digest, dict(attestation.statement.subjects))


def as_json(head: note.TreeHead) -> dict[str, Any]:
    return {"origin": head.origin, "size": head.size, "root": head.root.hex()}


def known_payloads(ledger: Ledger, seal: Seal | None, findings: Findings) -> dict[str, str]:
    """Tensor name -> SHA-256 that the bundle committed to; empty where it has none."""
    path = ledger.folder / container.TENSOR_DIGESTS
    if not path.exists():
        return {}
    data = read_whole(path)
    if seal:
        findings.equal(-1, "seal", path.name, seal.subjects.get(path.name), hashlib.sha256(data).hexdigest())
    try:
        return payloads.read(data, ledger.anchor.tensor_table_root)
    except Refused as refusal:
        findings.add(Difference(-1, "seal", refusal.check, "digests of the checkpoint's tensors", str(refusal)))
        return {}


def write_audit(report: AuditReport, path: Path, key: PrivateKey | None) -> None:
    """Signed by `key` and bound to the bundle's attestation; without a key, or of an unsealed bundle, an unsigned draft."""
    head = note.head_of(report.run_id, report.tree_size, bytes.fromhex(report.tree_root))
    predicate = report.predicate(as_json(head))
    if key is None or report.attestation_sha256 is None:
        write_document(path, predicate)
    else:
        statement = envelope.Statement(envelope.AUDIT, {ATTESTATION: report.attestation_sha256}, predicate)
        write_whole(path, envelope.make(statement, key))
