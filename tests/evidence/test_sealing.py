"""Sealing: what is signed, what is refused, and that nothing half-sealed is left."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from tests.evidence import sealed, vectors

from formation.errors import EnvironmentFault, FormationError
from formation.evidence import container, envelope, note, payloads, seal
from formation.evidence.strict import Refused
from formation.ledger import canonical, merkle

KEY, OTHER = vectors.key(), vectors.key(vectors.OTHER_SECRET)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return sealed.write_bundle(tmp_path / "run.ofb")


def refusal_of(folder: Path, key: object = KEY) -> FormationError:
    before = contents(folder)
    with pytest.raises(FormationError) as refusal:
        seal.seal(folder, key)
    assert before == contents(folder)
    return refusal.value


UNSIGNED = ("attestation.json", "views/manifest-sha256.txt")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def test_every_file_is_a_subject_by_its_digest(bundle: Path) -> None:
    seal.seal(bundle, KEY)
    found = envelope.read((bundle / "attestation.json").read_bytes(), envelope.RUN)
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in contents(bundle).items() if name not in UNSIGNED}
    assert expected == found.statement.subjects
    assert {*sealed.documents(), "tree-head.txt"} == set(expected)
    assert KEY.public == found.signer


def test_the_tree_head_is_over_the_lines_of_the_ledger(bundle: Path) -> None:
    seal.seal(bundle, KEY)
    head = note.read_tree_head((bundle / "tree-head.txt").read_bytes(), KEY.public)
    leaves = [merkle.leaf_hash(canonical.encode(line)) for line in sealed.ledger_lines()]
    assert note.TreeHead(f"formation-ledger.dev/run/{sealed.ANCHOR.run_id}", len(leaves), merkle.root_of(leaves)) == head


def test_the_predicate_says_what_the_files_say(bundle: Path) -> None:
    done = seal.seal(bundle, KEY)
    predicate = dict(envelope.read((bundle / "attestation.json").read_bytes(), envelope.RUN).statement.predicate)
    assert isinstance(predicate.pop("formation"), str)
    assert seal.run_predicate(sealed.ANCHOR, done.head, "passed", "headers") == predicate
    assert {"name": "f32x16/1", "digest": "cd" * 32} == predicate["contract"]
    assert (sealed.ANCHOR.run_id, done.head.root.hex()) == (predicate["run_id"], predicate["tree_head"]["root"])


def test_sealing_again_changes_no_byte(bundle: Path) -> None:
    seal.seal(bundle, KEY)
    before = contents(bundle)
    seal.seal(bundle, KEY)
    assert before == contents(bundle)


def test_the_digest_is_that_of_the_signed_payload(bundle: Path) -> None:
    done = seal.seal(bundle, KEY)
    payload = note.from_base64("", "", json.loads((bundle / "attestation.json").read_bytes())["dsseEnvelope"]["payload"])
    assert "sha256:" + hashlib.sha256(payload).hexdigest() == done.digest


def test_views_and_later_files_are_no_subjects(bundle: Path) -> None:
    (bundle / "views").mkdir()
    (bundle / "views" / "index.html").write_text("hello")
    (bundle / "audit.json").write_text("{}")
    assert set(sealed.documents()) | {"tree-head.txt"} == set(seal.seal(bundle, KEY).subjects)


# ---- refused


def test_a_bundle_sealed_by_another_key_is_refused(bundle: Path) -> None:
    seal.seal(bundle, OTHER)
    refusal = refusal_of(bundle)
    assert isinstance(refusal, Refused)
    assert "sealed" == refusal.check
    assert 1 == refusal.exit_code


@pytest.mark.parametrize("name", ["host.json", "io.jsonl", "rows/00000000.safetensors", "ledger.jsonl"])
def test_a_sealed_bundle_that_was_changed_is_not_sealed_anew(bundle: Path, name: str) -> None:
    seal.seal(bundle, KEY)
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data.splitlines(keepends=True)[0] if name == "ledger.jsonl" else data + b"\n")
    refusal = refusal_of(bundle)
    assert isinstance(refusal, Refused)
    assert "sealed" == refusal.check
    assert name in str(refusal)


def test_a_sealed_bundle_that_lost_a_file_is_not_sealed_anew(bundle: Path) -> None:
    seal.seal(bundle, KEY)
    (bundle / "rows/00000000.safetensors").unlink()
    assert "no such file" in str(refusal_of(bundle))


def test_a_damaged_attestation_is_not_replaced(bundle: Path) -> None:
    seal.seal(bundle, KEY)
    (bundle / "attestation.json").write_bytes((bundle / "attestation.json").read_bytes()[:-1])
    assert isinstance(refusal_of(bundle), Refused)


def test_a_seal_that_was_cut_off_after_the_tree_head_is_finished(bundle: Path) -> None:
    seal.seal(bundle, KEY)
    (bundle / "attestation.json").unlink()
    seal.seal(bundle, KEY)
    envelope.read((bundle / "attestation.json").read_bytes(), envelope.RUN)


@pytest.mark.parametrize("part", ["ledger.jsonl.part", "rows/00000064.safetensors.part"])
def test_an_incomplete_ledger_is_refused(bundle: Path, part: str) -> None:
    if part.startswith("ledger"):
        (bundle / "ledger.jsonl").rename(bundle / part)
    else:
        (bundle / part).write_bytes(b"")
    refusal = refusal_of(bundle)
    assert "INCOMPLETE" in str(refusal)
    assert 3 == refusal.exit_code


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "rows/00000000.bin", "rows/a", "LEDGER.JSONL", "anchor.json~"])
def test_an_unknown_file_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes(b"x")
    assert "expected only files of a bundle" in str(refusal_of(bundle))


@pytest.mark.parametrize("name", sorted(sealed.documents()))
def test_a_link_is_refused_even_to_the_right_bytes(bundle: Path, tmp_path: Path, name: str) -> None:
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    assert "a link" in str(refusal_of(bundle))


def test_a_folder_that_is_a_link_and_a_pipe_are_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "rows").rename(tmp_path / "rows")
    (bundle / "rows").symlink_to(tmp_path / "rows")
    assert 3 == refusal_of(bundle).exit_code
    (bundle / "rows").unlink()
    os.mkfifo(bundle / "tensor-digests.json")
    assert "a pipe" in str(refusal_of(bundle))


def test_an_unknown_folder_is_refused(bundle: Path) -> None:
    (bundle / "more").mkdir()
    assert "a folder" in str(refusal_of(bundle))


@pytest.mark.parametrize("name", ["anchor.json", "contract.json", "checkpoint.json", "host.json", "io.jsonl", "parity.json", "ledger.jsonl"])
def test_a_missing_file_is_refused_by_name(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert name in str(refusal_of(bundle))


def test_a_ledger_of_another_run_is_refused(bundle: Path) -> None:
    (bundle / "ledger.jsonl").write_bytes((bundle / "ledger.jsonl").read_bytes().replace(sealed.ANCHOR.run_id.encode(), b"00" * 32))
    assert "another run" in str(refusal_of(bundle))


@pytest.mark.parametrize("data", [b"", b"torn", None], ids=["empty", "no LF", "torn at the end"])
def test_a_ledger_that_is_not_whole_lines_is_refused(bundle: Path, data: bytes | None) -> None:
    whole = (bundle / "ledger.jsonl").read_bytes()
    (bundle / "ledger.jsonl").write_bytes(whole[:-5] if data is None else data)
    assert "whole lines" in str(refusal_of(bundle))


@pytest.mark.parametrize("value", [{"parity": "fine"}, {}, [], {"parity": None}, {"parity": "Passed"}])
def test_a_parity_without_a_known_outcome_is_refused(bundle: Path, value: canonical.Value) -> None:
    (bundle / "parity.json").write_bytes(canonical.encode(value))
    assert "parity" in str(refusal_of(bundle))


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="expected a bundle"):
        seal.seal(tmp_path / "nothing", KEY)


# ---- digests of the weights


def digests(count: int) -> dict[str, str]:
    return {name: hashlib.sha256(name.encode()).hexdigest() for name in sealed.TENSORS[:count]}


def predicate_of(bundle: Path) -> dict[str, object]:
    return dict(envelope.read((bundle / "attestation.json").read_bytes(), envelope.RUN).statement.predicate)


def test_a_sealed_bundle_takes_digests_of_the_weights_later(bundle: Path) -> None:
    first = seal.seal(bundle, KEY)
    payloads.write(bundle, digests(3))
    second = seal.seal(bundle, KEY)
    assert {container.TENSOR_DIGESTS} == set(second.subjects) - set(first.subjects)
    assert ("headers", "all") == (first.weights, second.weights)
    assert "all" == predicate_of(bundle)["weights"]
    assert first.head == second.head


@pytest.mark.parametrize("verdict", ["audit.json", "certification.json"])
def test_a_seal_that_a_verdict_is_about_is_not_replaced(bundle: Path, verdict: str) -> None:
    seal.seal(bundle, KEY)
    (bundle / verdict).write_text("{}")
    seal.seal(bundle, KEY)
    payloads.write(bundle, digests(3))
    refusal = refusal_of(bundle)
    assert isinstance(refusal, Refused)
    assert "sealed" == refusal.check
    assert verdict in str(refusal.hint)


def test_some_tensors_are_said_to_be_some(bundle: Path) -> None:
    payloads.write(bundle, digests(2))
    seal.seal(bundle, KEY)
    assert "tensors 2 of 3" == predicate_of(bundle)["weights"]


@pytest.mark.parametrize("wrong", [{}, {"stranger": "ab" * 32}], ids=["none", "a stranger"])
def test_digests_of_other_tensors_are_not_written(bundle: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(Refused, match="expected tensors of the checkpoint") as refusal:
        payloads.write(bundle, wrong)
    assert payloads.CHECK == refusal.value.check
    assert not (bundle / container.TENSOR_DIGESTS).exists()


ROWS = [{"name": "a.weight", "sha256": "ab" * 32}, {"name": "b.weight", "sha256": "ab" * 32}]


@pytest.mark.parametrize(
    "change",
    [{"kind": "formation-tensor-digests/2"}, {"tensor_table_root": "00" * 32}, {"tensors": {}}, {"tensors": ROWS[::-1]}, {"tensors": [ROWS[0]] * 2},
     {"tensors": [{**ROWS[0], "sha256": "AB" * 32}]}, {"tensors": [{"name": "a.weight"}]}, {"tensors": [7]}, {"more": 1}],
    ids=["another kind", "another table", "no list", "out of order", "twice", "capitals", "no digest", "a number", "a field more"],
)  # fmt: skip
def test_a_file_of_digests_that_is_not_one_is_refused(change: dict[str, object]) -> None:
    value = {"kind": payloads.KIND, "tensor_table_root": sealed.ROOT, "tensors": ROWS}
    assert ["a.weight", "b.weight"] == list(payloads.read(canonical.encode(value), sealed.ROOT))
    with pytest.raises(Refused) as refusal:
        payloads.read(canonical.encode({**value, **change}), sealed.ROOT)
    assert payloads.CHECK == refusal.value.check
