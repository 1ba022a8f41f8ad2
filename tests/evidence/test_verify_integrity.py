"""Checks V1 to V12: each is broken alone, in a bundle that its owner then signs again wherever a signature would tell."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.evidence import vectors, whole_bundles
from tests.evidence.broken_bundles import STEP, edit, refused, report_of
from tests.evidence.whole_bundles import BundleMaker, Kind, edit_document, later, make, parity_of, reseal

from formation.cli.main import main
from formation.evidence import envelope, note, payloads
from formation.evidence.container import Folder
from formation.ledger import canonical

pytestmark = pytest.mark.usefixtures("no_keys_of_the_user")
OWN = Ed25519PrivateKey.from_private_bytes(vectors.SECRET).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
BARE = Kind(rows="none")


# ---- INTEGRITY


def test_v01_a_file_that_no_bundle_has_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "notes.txt").write_text("hello")
    assert "notes.txt" in refused(capsys, bundle, "V1")


def test_v01_a_bundle_that_was_never_sealed_says_so(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "attestation.json").unlink()
    assert "formation seal" in refused(capsys, bundle, "V1")


def test_v01_what_is_neither_folder_nor_archive_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "picture").write_bytes(b"\x89PNG" * 20)
    refused(capsys, tmp_path / "picture", "V1")


def test_v02_an_incomplete_ledger_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "ledger.jsonl").rename(bundle / "ledger.jsonl.part")
    for name in ("tree-head.txt", "attestation.json", "parity.json"):
        (bundle / name).unlink()
    said = refused(capsys, bundle, "V2")
    assert "INCOMPLETE" in said
    assert "--resume" in said


def test_v03_an_anchor_in_another_form_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "anchor.json").write_bytes((bundle / "anchor.json").read_bytes() + b"\n")
    refused(capsys, bundle, "V3")


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", "0x7"), ("seed", str(1 << 64)), ("branch", "01"), ("temperature", 0), ("top_k", -1), ("top_p", 1.5), ("min_p", -0.5)],
)
def test_v03_a_setting_that_no_sampler_has_is_refused(name: str, value: Any, sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(sampled, "anchor.json", lambda anchor: anchor["sampler"].update({name: value}))
    refused(capsys, sampled, "V3")


def test_v04_a_contract_with_another_vector_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(bundle, "contract.json", lambda value: value["cases"]["add"].update(outputs="00" * 32))
    reseal(bundle)
    refused(capsys, bundle, "V4")


def test_v04_a_contract_that_this_version_does_not_know_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_bundles, "NAME", "f32x16/2")
    monkeypatch.setattr(whole_bundles, "DIGEST", whole_bundles.documents.cases_digest("f32x16/2", whole_bundles.VECTORS["cases"]))
    report = report_of(make(tmp_path / "run.ofb", BARE))
    assert ["V4"] == [outcome.check.id for outcome in report.failed]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda value: value["tensor_table"][0].update(begin=1), id="a tensor's range"),
        pytest.param(lambda value: value["tensor_table"].reverse(), id="order of the tensors"),
        pytest.param(lambda value: value["files"][0].update(path="../config.json"), id="a path that climbs"),
        pytest.param(lambda value: value["files"][0].update(sha256="00" * 32), id="a file's digest"),
        pytest.param(lambda value: value.update(tensor_table_root="00" * 32), id="the root"),
        pytest.param(lambda value: value.update(extra=1), id="another field"),
    ],
)
def test_v05_a_checkpoint_that_is_not_the_anchors_is_refused(change: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(bundle, "checkpoint.json", change)
    reseal(bundle)
    refused(capsys, bundle, "V5")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: file["dsseEnvelope"]["signatures"].append(file["dsseEnvelope"]["signatures"][0]), id="two signatures"),
        pytest.param(lambda file: file["dsseEnvelope"]["signatures"].clear(), id="no signature"),
        pytest.param(lambda file: file["dsseEnvelope"].update(payloadType="text/plain"), id="another type of payload"),
        pytest.param(lambda file: file.update(mediaType="application/json"), id="another type of file"),
    ],
)
def test_v06_an_attestation_in_another_form_is_refused(change: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(bundle, "attestation.json", change)
    refused(capsys, bundle, "V6")


def test_v06_a_statement_about_something_else_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later(bundle, "attestation.json", envelope.AUDIT)
    refused(capsys, bundle, "V6")


def test_v07_a_signature_by_another_key_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def other(file: dict[str, Any]) -> None:
        inner = file["dsseEnvelope"]
        payload = envelope.from_base64("test", "payload", inner["payload"])
        signature = vectors.key(vectors.OTHER_SECRET).sign(envelope.pae(envelope.PAYLOAD_TYPE, payload))
        inner["signatures"][0]["sig"] = envelope.to_base64(signature)

    edit_document(bundle, "attestation.json", other)
    refused(capsys, bundle, "V7")


def test_v08_a_tree_head_signed_by_another_key_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = note.read_tree_head((bundle / "tree-head.txt").read_bytes(), vectors.key().public)
    reseal(bundle, head=note.sign_tree_head(head, vectors.key(vectors.OTHER_SECRET)))
    refused(capsys, bundle, "V8")


def test_v08_a_tree_head_of_another_run_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = note.read_tree_head((bundle / "tree-head.txt").read_bytes(), vectors.key().public)
    reseal(bundle, head=note.sign_tree_head(note.head_of("ab" * 32, head.size, head.root), vectors.key()))
    refused(capsys, bundle, "V8")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data.replace(b"{", b"{ ", 1), id="a space"),
        pytest.param(lambda data: data + b"{}", id="no LF at the end"),
        pytest.param(lambda data: data.replace(b"\n", b"\r\n", 1), id="CR LF"),
        pytest.param(lambda data: data + b"\n", id="an empty line"),
        pytest.param(lambda data: data + b'"' + b"x" * canonical.LINE.size_bytes + b'"\n', id="a line over the limit"),
        pytest.param(lambda data: b"", id="an empty ledger"),
    ],
)
def test_v09_a_line_in_another_form_is_refused(change: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "ledger.jsonl").write_bytes(change((bundle / "ledger.jsonl").read_bytes()))
    reseal(bundle)
    refused(capsys, bundle, "V9")


def test_v10_a_ledger_with_another_root_than_was_signed_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (bundle / "tree-head.txt").read_bytes()
    head = note.read_tree_head(before, vectors.key().public)
    stated = {"origin": head.origin, "size": head.size, "root": head.root.hex()}
    edit(bundle, STEP, "layer 0", "lens_kl", lambda kl: kl + 1)
    reseal(bundle, head=before, tree_head=stated)
    refused(capsys, bundle, "V10")


def test_v11_a_file_changed_after_it_was_signed_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(bundle, "host.json", lambda host: host.update(cores=64))
    assert "host.json" in refused(capsys, bundle, "V11")


def digests(sha256: str) -> bytes:
    tensors = [{"name": name, "sha256": sha256 * 32} for name in whole_bundles.NAMES]
    return canonical.encode({"kind": payloads.KIND, "tensor_table_root": whole_bundles.ROOT, "tensors": tensors})


@pytest.fixture
def signed(bundle: Path) -> Path:
    (bundle / "tensor-digests.json").write_bytes(digests("ab"))
    reseal(bundle, weights="all")
    return bundle


# What is read after V11 has digested it, by which check, and other bytes that every check would accept of a signer
READ_AGAIN: Mapping[str, tuple[str, Callable[[Path], bytes]]] = {
    "host.json": ("V33", lambda folder: (folder / "host.json").read_bytes().replace(b'"cores":2', b'"cores":64')),
    "io.jsonl": ("V33", lambda folder: (folder / "io.jsonl").read_bytes().replace(b'"seconds":0.5', b'"seconds":0.25')),
    "parity.json": ("V31", lambda folder: canonical.encode(parity_of(folder, Kind(parity="full"), BundleMaker(BARE)))),
    "tensor-digests.json": ("V32", lambda _: digests("cd")),
}


def test_v11_what_was_checked_is_what_is_digested(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No one can give other bytes for the digest than for the check: they are read once, or compared"""
    opened: Counter[str] = Counter()
    original = Folder.open
    monkeypatch.setattr(Folder, "open", lambda folder, name: opened.update([name]) or original(folder, name))
    assert () == report_of(signed).failed
    due = {path.name for path in signed.iterdir()}
    assert dict.fromkeys(due, 1) | dict.fromkeys(READ_AGAIN, 2) == opened


@pytest.mark.parametrize("name", READ_AGAIN)
def test_other_bytes_for_a_check_than_were_digested_would_be_accepted_if_they_were_signed(name: str, signed: Path) -> None:
    (signed / name).write_bytes(READ_AGAIN[name][1](signed))
    reseal(signed, weights="all")
    assert () == report_of(signed).failed


@pytest.mark.parametrize("name", READ_AGAIN)
def test_a_file_that_changes_after_v11_digested_it_is_refused(
    name: str, signed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The size is the other bytes' from the start, so that it tells nothing"""
    before = (signed / name).read_bytes()
    check, change = READ_AGAIN[name]
    (signed / name).write_bytes(change(signed))
    assert before != (signed / name).read_bytes()
    original, digested = Folder.open, cycle([True, False])
    monkeypatch.setattr(Folder, "open", lambda folder, n: BytesIO(before) if n == name and next(digested) else original(folder, n))
    assert f"{name}: expected the bytes that were digested, got a file that changes" in refused(capsys, signed, check)


def test_v11_a_file_that_was_not_signed_is_refused(with_rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "other.ofb", BARE)
    (with_rows / "rows").rename(folder / "rows")
    (with_rows / "router").rename(folder / "router")
    assert "router/00000000.safetensors" in refused(capsys, folder, "V11")


def test_v11_a_file_that_was_signed_and_is_gone_is_refused(with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (with_rows / "router" / "00000000.safetensors").unlink()
    refused(capsys, with_rows, "V11", also=("V28",))


# ---- SIGNER


def test_v12_a_signer_that_nobody_knows_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vectors.key().public.text in refused(capsys, bundle, "V12", "--checks")


def test_v12_a_signer_other_than_the_one_asked_for_is_refused_even_if_known(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, bundle, "V12", "--signer", vectors.key(vectors.OTHER_SECRET).public.text)


def test_v12_a_bundle_signed_anew_by_another_key_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reseal(bundle, vectors.OTHER_SECRET)
    refused(capsys, bundle, "V12")


def test_an_unknown_signer_can_be_allowed_and_is_then_not_claimed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["verify", str(bundle), "--allow-unknown-signer", "--json"])
    verdict = json.loads(capsys.readouterr().out)
    assert ("verified", "not claimed") == (verdict["verdict"], verdict["levels"]["SIGNER"])


@pytest.mark.parametrize("known", ["known_signers", "own"])
def test_a_signer_is_known_from_the_users_files_and_the_report_says_which(
    known: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config" / "formation"
    config.mkdir(parents=True)
    if known == "own":
        (config / "key.pem").write_bytes(OWN)
        (config / "key.pem").chmod(0o600)
    else:
        (config / "known_signers").write_text(f"alice {vectors.key().public.text}\n")
    assert 0 == main(["verify", str(bundle)])
    assert ("your own key" if known == "own" else "known to you as alice") in capsys.readouterr().out
