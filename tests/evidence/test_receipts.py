"""Receipts: any line of a sealed ledger, proven to whoever knows the key; and no bit of a receipt can change."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evidence import sealed, vectors

from formation.errors import EnvironmentFault, UsageError
from formation.evidence import receipt, seal
from formation.evidence.keys import BadSignature
from formation.evidence.strict import Refused
from formation.ledger import merkle

KEY = vectors.key()
RECEIPT = vectors.a_receipt()
EXAMPLE_HASHES = """gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=
RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=
AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk="""  # C2SP tlog-proof, from the example at its top


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = sealed.write_bundle(tmp_path_factory.mktemp("receipts") / "run.ofb")
    seal.seal(folder, KEY)
    return folder


def test_every_line_of_a_ledger_has_a_receipt(bundle: Path) -> None:
    for index, line in enumerate(sealed.ledger_lines()):
        found = receipt.read(receipt.make(bundle, index, KEY.public))
        assert (line, index, KEY.public) == (found.line, found.index, found.signer)
        assert sealed.ANCHOR.run_id == found.head.run_id


def test_a_line_is_found_by_position_and_slot(bundle: Path) -> None:
    for index, line in enumerate(sealed.ledger_lines()):
        assert index == receipt.find_line(bundle, line["position"], line["slot"])


def test_tokens_are_counted_from_one_and_stand_at_the_step_that_formed_them(bundle: Path) -> None:
    assert [1, 2] == [receipt.step_of_token(bundle, token) for token in (1, 2)]
    for token in (0, 3, -1):
        with pytest.raises(UsageError, match="expected a token from 1 to 2"):
            receipt.step_of_token(bundle, token)


@pytest.mark.parametrize(("position", "slot"), [(0, "token"), (3, "embed"), (1, "layer 2"), (1, "layer"), (1, "."), (-1, "embed")])
def test_a_place_that_the_ledger_does_not_have_is_refused(bundle: Path, position: int, slot: str) -> None:
    with pytest.raises(UsageError, match="expected a position and slot"):
        receipt.find_line(bundle, position, slot)


def test_a_receipt_has_the_form_of_the_specification(bundle: Path) -> None:
    proof, note = receipt.make(bundle, 3, KEY.public).split(b"\n\n", 1)
    lines = proof.decode().split("\n")
    assert "c2sp.org/tlog-proof@v1" == lines[0]
    assert lines[1].startswith("extra ")
    assert "index 3" == lines[2]
    assert [32] * 4 == [len(base64.b64decode(line)) for line in lines[3:]]
    assert (bundle / "tree-head.txt").read_bytes() == note


def test_the_proof_lines_of_the_specifications_example_are_read() -> None:
    """Its checkpoint is abbreviated there, so it can be read up to the tree head and no further."""
    data = vectors.a_receipt().decode().split("\n\n")
    lines = data[0].split("\n")
    text = "\n".join([*lines[:2], "index 73894", EXAMPLE_HASHES])
    with pytest.raises(Refused) as refusal:
        receipt.read(f"{text}\n\n{data[1]}\n\n{data[2]}".encode())
    assert "inclusion" == refusal.value.check


def test_it_says_what_it_proves_and_what_not(bundle: Path) -> None:
    found = receipt.read(receipt.make(bundle, 3, KEY.public))
    for said in (KEY.public.fingerprint, "layer 1 at position 0", "16 lines", sealed.ANCHOR.run_id, "signed"):
        assert said in found.proves
    assert "does not prove that the line is true" in receipt.NOT_PROVEN


def test_no_flipped_bit_of_a_receipt_is_accepted() -> None:
    data = vectors.a_receipt(1, 3)
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Refused) as refusal:
            receipt.read(bytes(changed))
        assert refusal.value.check in ("receipt", "key", "tree-head", "signature", "inclusion")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.integers(0, len(RECEIPT) - 1).map(lambda end: RECEIPT[:end]))
def test_any_other_bytes_are_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(Refused):
        receipt.read(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.data())
def test_a_line_of_one_place_is_not_proven_at_another(size: int, data: st.DataObject) -> None:
    index, other = (data.draw(st.integers(0, size - 1)) for _ in "io")
    honest = vectors.a_receipt(index, size)
    assert index == receipt.read(honest).index
    if index != other:
        with pytest.raises(Refused) as refusal:
            receipt.read(honest.replace(b"index %d\n" % index, b"index %d\n" % other))
        assert "inclusion" == refusal.value.check


def test_a_receipt_is_made_only_of_a_ledger_that_is_under_its_tree_head(tmp_path: Path) -> None:
    folder = sealed.write_bundle(tmp_path / "run.ofb")
    seal.seal(folder, KEY)
    data = (folder / "ledger.jsonl").read_bytes()
    (folder / "ledger.jsonl").write_bytes(data.replace(b'{"n":7}', b'{"n":8}'))
    with pytest.raises(Refused) as refusal:
        receipt.make(folder, 3, KEY.public)
    assert "inclusion" == refusal.value.check


def test_no_receipt_is_made_of_an_incomplete_ledger_or_a_line_that_is_not_there(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(EnvironmentFault, match="expected line 16"):
        receipt.make(bundle, 16, KEY.public)
    with pytest.raises(BadSignature):
        receipt.make(bundle, 3, vectors.key(vectors.OTHER_SECRET).public)
    folder = sealed.write_bundle(tmp_path / "run.ofb")
    (folder / "ledger.jsonl").rename(folder / "ledger.jsonl.part")
    with pytest.raises(EnvironmentFault, match="INCOMPLETE"):
        receipt.make(folder, 3, KEY.public)


def test_the_path_is_one_that_any_verifier_of_rfc_9162_follows(bundle: Path) -> None:
    """Read with nothing but base64 and hashing"""
    proof, note = receipt.make(bundle, 5, KEY.public).decode().split("\n\n", 1)
    path = [base64.b64decode(line) for line in proof.split("\n")[3:]]
    total = merkle.leaf_hash((bundle / "ledger.jsonl").read_bytes().split(b"\n")[5])
    for level, sibling in enumerate(path):  # of 16 leaves, a full tree
        total = merkle.node_hash(sibling, total) if 5 >> level & 1 else merkle.node_hash(total, sibling)
    assert base64.b64encode(total).decode() == note.split("\n")[2]
