"""Attestations: an in-toto Statement v1 in a DSSE envelope with one Ed25519 signature, in a file shaped like a Sigstore bundle v0.3.

    {"dsseEnvelope": {"payload": base64, "payloadType": "application/vnd.in-toto+json", "signatures": [{"keyid": sha256:…, "sig": base64}]},
     "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial": {"publicKey": {"hint": sha256:…}}}

    payload = {"_type": "https://in-toto.io/Statement/v1", "predicate": {…, "signer": base64 of the public key}, "predicateType": …,
               "subject": [{"digest": {"sha256": …}, "name": "anchor.json"}, …]}

File and payload are canonical JSON; subjects are sorted by name. The signature is over PAE(payloadType, payload), and the signer's key is in
what is signed, so that no other key can take the signature over. `keyid` and `hint` are that key's fingerprint. Three kinds of statement are
made: of a run, of an audit, of a certification. The digest of an attestation, and of a bundle, is that of the payload's bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from formation.evidence.keys import SIGNATURE_BYTES, PrivateKey, PublicKey
from formation.evidence.strict import Refused, digest, document, exactly, fields, from_base64, text, to_base64
from formation.ledger import canonical

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
RUN = "https://formation-ledger.dev/run/v1"
AUDIT = "https://formation-ledger.dev/audit/v1"
CERTIFICATION = "https://formation-ledger.dev/certification/v1"
SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class Statement:
    """What is said of which files: `subjects` is name -> SHA-256 in hexadecimal."""

    predicate_type: str
    subjects: Mapping[str, str]
    predicate: Mapping[str, Any]


@dataclass(frozen=True)
class Attestation:
    """A statement whose signature by `signer` holds. Whether the signer is to be trusted is another question."""

    statement: Statement
    signer: PublicKey
    payload: bytes

    @property
    def digest(self) -> str:
        """sha256:HEX of the payload: of a run's attestation, the digest of its bundle"""
        return "sha256:" + hashlib.sha256(self.payload).hexdigest()


def pae(payload_type: str, payload: bytes) -> bytes:
    """What a DSSE signature is over (Pre-Authentication Encoding, DSSE v1)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def make(statement: Statement, key: PrivateKey) -> bytes:
    """The file. Raises CanonicalRefusal for a predicate that is no canonical JSON, ValueError for one that names a signer."""
    if "signer" in statement.predicate:
        raise ValueError("predicate: expected no signer, which is added here, got one")
    payload = _encode(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"digest": {"sha256": statement.subjects[name]}, "name": name} for name in sorted(statement.subjects)],
            "predicateType": statement.predicate_type,
            "predicate": {**statement.predicate, "signer": key.public.text},
        }
    )
    name, signature = key.public.fingerprint, to_base64(key.sign(pae(PAYLOAD_TYPE, payload)))
    envelope = {"payload": to_base64(payload), "payloadType": PAYLOAD_TYPE, "signatures": [{"keyid": name, "sig": signature}]}
    return _encode({"dsseEnvelope": envelope, "mediaType": MEDIA_TYPE, "verificationMaterial": {"publicKey": {"hint": name}}})


def _encode(value: dict[str, Any]) -> bytes:
    return canonical.encode(value, limits=canonical.DOCUMENT)


def read(data: bytes, predicate_type: str) -> Attestation:
    """A statement of that type, its signature verified by the key it carries.

    Raises Refused with check `envelope` (the file), `statement` (the payload), `key` (the point), and BadSignature.
    """
    file = document("envelope", "attestation", data, ("dsseEnvelope", "mediaType", "verificationMaterial"))
    exactly("envelope", "attestation, mediaType", file["mediaType"], MEDIA_TYPE)
    envelope = fields("envelope", "dsseEnvelope", file["dsseEnvelope"], ("payload", "payloadType", "signatures"))
    exactly("envelope", "payloadType", envelope["payloadType"], PAYLOAD_TYPE)
    signature, names = _signature(envelope["signatures"]), [_hint(file["verificationMaterial"])]
    payload = from_base64("envelope", "payload", envelope["payload"])
    statement, signer = read_statement(payload, predicate_type)
    for name in (*names, signature["keyid"]):
        exactly("envelope", "fingerprint of the signer's key", name, signer.fingerprint)
    signer.verify(from_base64("envelope", "signature", signature["sig"], SIGNATURE_BYTES), pae(PAYLOAD_TYPE, payload))
    return Attestation(statement, signer, payload)


def _signature(value: Any) -> dict[str, Any]:
    if not isinstance(value, list) or len(value) != 1:
        raise Refused("envelope", f"signatures: expected exactly one, got {len(value) if isinstance(value, list) else type(value).__name__}")
    return fields("envelope", "signature", value[0], ("keyid", "sig"))


def _hint(material: Any) -> Any:
    key = fields("envelope", "verificationMaterial", material, ("publicKey",))["publicKey"]
    return fields("envelope", "publicKey", key, ("hint",))["hint"]


def read_statement(payload: bytes, predicate_type: str) -> tuple[Statement, PublicKey]:
    """The statement and the key it names as its signer; nothing is verified. Raises Refused, checks `statement` and `key`."""
    value = document("statement", "statement", payload, ("_type", "subject", "predicateType", "predicate"))
    exactly("statement", "statement, _type", value["_type"], STATEMENT_TYPE)
    exactly("statement", "statement, predicateType", value["predicateType"], predicate_type)
    predicate = value["predicate"]
    if not isinstance(predicate, dict) or "signer" not in predicate:
        raise Refused("statement", "predicate: expected an object with a signer, got none")
    rest = {name: item for name, item in predicate.items() if name != "signer"}
    return Statement(predicate_type, _subjects(value["subject"]), rest), PublicKey.read(predicate["signer"])


def _subjects(value: Any) -> dict[str, str]:
    if not isinstance(value, list) or not value:
        raise Refused("statement", "subject: expected a list of files, got none")
    subjects: dict[str, str] = {}
    last = ""
    for item in value:
        subject = fields("statement", "subject", item, ("digest", "name"))
        name = text("statement", "subject, name", subject["name"])
        if not SUBJECT.fullmatch(name) or name <= last:
            raise Refused("statement", f"subject: expected plain names in ascending order, got {canonical.quoted(name)} after {last!r}")
        found = fields("statement", f"subject {name}, digest", subject["digest"], ("sha256",))
        subjects[name] = digest("statement", f"subject {name}", found["sha256"])
        last = name
    return subjects
