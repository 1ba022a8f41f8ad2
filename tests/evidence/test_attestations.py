"""Attestations: DSSE's own example, in-toto's rules, other people's readers, and that no bit can change."""

from __future__ import annotations

import base64
import json

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from in_toto_attestation.v1.statement import Statement as InTotoStatement
from in_toto_attestation.v1.statement_pb2 import Statement as InTotoMessage
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey
from tests.evidence import vectors

from formation.evidence import envelope
from formation.evidence.envelope import Statement
from formation.evidence.strict import Refused
from formation.ledger import canonical

ONE = Statement(envelope.RUN, {"b.json": "ab" * 32, "a/b.bin": "cd" * 32}, {"n": 1})


def test_the_encoding_that_is_signed_is_that_of_the_protocols_example() -> None:
    assert b"DSSEv1 29 http://example.com/HelloWorld 11 hello world" == envelope.pae("http://example.com/HelloWorld", b"hello world")


def test_lengths_are_in_bytes_and_empty_ones_are_zero() -> None:
    assert b"DSSEv1 0  0 " == envelope.pae("", b"")
    assert b"DSSEv1 2 \xc3\xa9 1 \x00" == envelope.pae("é", b"\x00")


def test_what_was_made_is_read_back() -> None:
    found = envelope.read(envelope.make(ONE, vectors.key()), envelope.RUN)
    assert (ONE.predicate_type, dict(ONE.subjects), dict(ONE.predicate)) == (
        found.statement.predicate_type, found.statement.subjects, found.statement.predicate,
    )  # fmt: skip
    assert vectors.key().public == found.signer


@pytest.mark.parametrize("kind", [envelope.AUDIT, envelope.CERTIFICATION])
def test_audits_and_certifications_are_the_same_kind_of_file_and_none_passes_for_another(kind: str) -> None:
    data = envelope.make(Statement(kind, ONE.subjects, {"version": "0.1.0"}), vectors.key())
    assert {"version": "0.1.0"} == envelope.read(data, kind).statement.predicate
    with pytest.raises(Refused) as refusal:
        envelope.read(data, envelope.RUN)
    assert "statement" == refusal.value.check


def test_a_predicate_cannot_name_its_own_signer() -> None:
    with pytest.raises(ValueError, match="signer"):
        envelope.make(Statement(envelope.RUN, ONE.subjects, {"signer": vectors.key(vectors.OTHER_SECRET).public.text}), vectors.key())


def test_the_digest_is_that_of_the_payload_and_does_not_hang_on_the_signature() -> None:
    import hashlib

    data = json.loads(envelope.make(ONE, vectors.key()))
    payload = base64.b64decode(data["dsseEnvelope"]["payload"])
    assert "sha256:" + hashlib.sha256(payload).hexdigest() == envelope.read(canonical.encode(data), envelope.RUN).digest


# ---- other people's readers


def sslib_key(secret: bytes = vectors.SECRET) -> SSlibKey:
    public = vectors.key(secret).public
    return SSlibKey(public.fingerprint, "ed25519", "ed25519", {"public": public.data.hex()})


def test_securesystemslib_verifies_the_envelope() -> None:
    found = Envelope.from_dict(json.loads(vectors.attestation())["dsseEnvelope"])
    assert [vectors.key().public.fingerprint] == list(found.verify([sslib_key()], 1))
    with pytest.raises(VerificationError):
        found.verify([sslib_key(vectors.OTHER_SECRET)], 1)


def test_securesystemslib_signs_the_same_bytes() -> None:
    found = Envelope.from_dict(json.loads(vectors.attestation())["dsseEnvelope"])
    assert envelope.pae(found.payload_type, found.payload) == found.pae()


def test_in_toto_reads_and_accepts_the_statement() -> None:
    payload = base64.b64decode(json.loads(vectors.attestation())["dsseEnvelope"]["payload"])
    found = InTotoStatement.copy_from_pb(json_format.Parse(payload, InTotoMessage()))
    found.validate()
    assert envelope.RUN == found.pb.predicate_type
    assert ["anchor.json", "rows/00000000.safetensors"] == [s.name for s in found.pb.subject]
    assert ["ab" * 32, "cd" * 32] == [s.digest["sha256"] for s in found.pb.subject]


def test_the_file_has_the_members_of_a_sigstore_bundle() -> None:
    data = json.loads(vectors.attestation())
    assert "application/vnd.dev.sigstore.bundle.v0.3+json" == data["mediaType"]
    assert {"mediaType", "verificationMaterial", "dsseEnvelope"} == set(data)
    assert {"publicKey": {"hint": vectors.key().public.fingerprint}} == data["verificationMaterial"]
    assert {"payload", "payloadType", "signatures"} == set(data["dsseEnvelope"])
    assert 1 == len(data["dsseEnvelope"]["signatures"])


# ---- hostile bytes


def test_no_flipped_bit_of_an_attestation_is_accepted() -> None:
    data = vectors.attestation()
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Refused) as refusal:
            envelope.read(bytes(changed), envelope.RUN)
        assert refusal.value.check in ("envelope", "statement", "signature", "key")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        envelope.read(data, envelope.RUN)
    assert "envelope" == refusal.value.check


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "digest", "sha256", "signer", "sig"]), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["_type", "subject", "predicate", "predicateType"]), JSON)
def test_any_value_in_a_signed_statement_is_refused_in_a_sentence(name: str, value: object) -> None:
    with pytest.raises(Refused) as refusal:
        envelope.read(vectors.resealed({name: value}), envelope.RUN)
    assert refusal.value.check in ("statement", "key")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["dsseEnvelope", "mediaType", "verificationMaterial"]), JSON)
def test_any_value_in_the_file_is_refused_in_a_sentence(name: str, value: object) -> None:
    with pytest.raises(Refused) as refusal:
        envelope.read(vectors.edited(json.loads(vectors.attestation()), name, value), envelope.RUN)
    assert "envelope" == refusal.value.check
