"""Every shared vector gets its verdict. The page that verifies in a browser runs the same files."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.evidence import edwards, vectors

from formation.evidence import envelope, note, receipt
from formation.evidence.keys import BadSignature, PublicKey, check_signature
from formation.evidence.strict import Refused


def load(name: str) -> dict[str, Any]:
    return json.loads((vectors.FOLDER / f"{name}.json").read_text())


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=ascii(case["case"])[1:-1]) for case in load(name)["cases"]]


def verdict(check: Any, *arguments: Any) -> str:
    try:
        check(*arguments)
    except Refused as refusal:
        return refusal.check
    return "holds"


def bytes_of(case: dict[str, str]) -> tuple[bytes, bytes, bytes]:
    public, message, signature = (bytes.fromhex(case[name]) for name in ("public_key", "message", "signature"))
    return public, message, signature


@pytest.mark.parametrize("name", list(vectors.FILES))
def test_the_vector_files_are_what_their_maker_makes(name: str) -> None:
    assert vectors.text_of(name) == (vectors.FOLDER / f"{name}.json").read_text()


@pytest.mark.parametrize("case", cases("ed25519"))
def test_an_ed25519_vector_gets_its_verdict(case: dict[str, str]) -> None:
    public, message, signature = bytes_of(case)
    assert case["verdict"] == verdict(lambda: PublicKey(public).verify(signature, message))


@pytest.mark.parametrize("case", cases("tree-heads"))
def test_a_tree_head_vector_gets_its_verdict(case: dict[str, str]) -> None:
    key = PublicKey.read(load("tree-heads")["public_key"])
    assert case["verdict"] == verdict(note.read_tree_head, base64.b64decode(case["data"]), key)


@pytest.mark.parametrize("case", cases("attestations"))
def test_an_attestation_vector_gets_its_verdict(case: dict[str, str]) -> None:
    assert case["verdict"] == verdict(envelope.read, base64.b64decode(case["data"]), load("attestations")["predicate_type"])


@pytest.mark.parametrize("case", cases("receipts"))
def test_a_receipt_vector_gets_its_verdict(case: dict[str, str]) -> None:
    assert case["verdict"] == verdict(receipt.read, base64.b64decode(case["data"]))


def test_a_scalar_that_is_too_large_is_refused_before_any_library_sees_it() -> None:
    """Libraries differ: some reduce S, and then each signature has many forms."""
    for s in (edwards.L, edwards.L + 1, 2**256 - 1):
        with pytest.raises(BadSignature, match="below the group's order"):
            check_signature(bytes.fromhex(vectors.RFC_8032[0][2])[:32] + s.to_bytes(32, "little"))
    check_signature(bytes.fromhex(vectors.RFC_8032[0][2])[:32] + (edwards.L - 1).to_bytes(32, "little"))


# ---- that the ed25519 vectors test what they say


def test_the_bare_equation_holds_for_every_forgery() -> None:
    """Without the checks of points and scalars, each of these would be accepted: that is why the checks are there."""
    forged = [c for c in load("ed25519")["cases"] if "of small order" in c["case"] or "S + 1 L" in c["case"]]
    assert 8 + 8 + 4 < len(forged)
    for case in forged:
        public, message, signature = bytes_of(case)
        assert edwards.equation_holds(public, message, signature), case["case"]


def test_the_library_alone_accepts_forgeries_that_the_check_refuses() -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    accepted = []
    for case in load("ed25519")["cases"]:
        public, message, signature = bytes_of(case)
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
            accepted += [case["verdict"]]
        except (InvalidSignature, ValueError):
            continue
    assert {"holds", "key", "signature"} == set(accepted)


def test_a_signature_that_needs_the_cofactor_is_one_only_with_it() -> None:
    case = next(c for c in load("ed25519")["cases"] if c["case"].endswith("only with the cofactor"))
    public, message, signature = bytes_of(case)
    assert edwards.equation_holds(public, message, signature, cofactor=8)
    assert not edwards.equation_holds(public, message, signature)
