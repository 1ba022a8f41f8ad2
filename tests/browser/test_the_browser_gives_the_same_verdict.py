"""Whole bundles get the same verdict from Python and from the page, check by check and word by word: honest ones, and files lost and changed."""

from __future__ import annotations

import base64
import json
import random
import struct
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from tests.evidence import vectors
from tests.evidence.later_results import AUDITS, RUN, certified, mutants
from tests.evidence.whole_bundles import audit_result
from verdicts import GREEDY, KINDS, SAMPLED, browser_verdict, copy_of, expect_same, files_of

from formation.evidence import audited, certification, envelope
from formation.evidence import container as containers
from formation.evidence.strict import Refused
from formation.ledger import canonical


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """To be changed"""
    return copy_of(bundles[GREEDY], tmp_path)


# ---- vectors that Python's tests run too

CASES = {
    "ed25519": "([c]) => new (m['keys.js'].PublicKey)(c.public_key).verify(c.signature, c.message)",
    "tree-heads": "([c, file]) => m['note.js'].readTreeHead(c.data, m['keys.js'].PublicKey.read(file.public_key))",
    "attestations": "([c, file]) => m['envelope.js'].readAttestation(c.data, file.predicate_type)",
    "receipts": "([c]) => m['receipt.js'].readReceipt(c.data)",
}
JUDGE = """async ([cases, file]) => { const verdicts = [];
  for (const c of cases) {
    try { await (%s)([c, file]); verdicts.push("holds"); }
    catch (refusal) { if (!(refusal instanceof m["refusals.js"].Refused)) throw refusal; verdicts.push(refusal.check); }
  } return verdicts; }"""


@pytest.mark.parametrize("name", vectors.FILES)
def test_shared_vectors_get_their_verdicts(run, name):
    file = json.loads((vectors.FOLDER / f"{name}.json").read_text())
    read = bytes.fromhex if name == "ed25519" else base64.b64decode
    cases = [{key: read(value) for key, value in case.items() if key not in ("case", "verdict")} for case in file.pop("cases")]
    expected = [case["verdict"] for case in json.loads((vectors.FOLDER / f"{name}.json").read_text())["cases"]]
    assert expected == run(JUDGE % CASES[name], [cases, file])


# ---- honest bundles


@pytest.mark.parametrize("name", KINDS)
def test_an_honest_bundle_is_verified_with_the_same_words(run, bundles, name):
    nonce = KINDS[name].nonce
    assert set() == expect_same(run, bundles[name], nonce=nonce)
    assert "verified" == browser_verdict(run, bundles[name], nonce=nonce)["verdict"]


def test_signer_and_nonce_decide_alike(run, bundles):
    path = bundles[GREEDY]
    assert {"signer"} == expect_same(run, path, known=False)
    assert set() == expect_same(run, path, known=False, allow_unknown_signer=True)
    assert {"nonce"} == expect_same(run, path, nonce="another")


def zipped(folder: Path, target: Path, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, str(file.relative_to(folder)))
    return target


def test_a_zip_of_stored_members_gets_the_verdict_of_its_folder(run, bundles, tmp_path):
    folder = bundles[GREEDY]
    archive = zipped(folder, tmp_path / "run.zip")
    assert set() == expect_same(run, archive)
    assert browser_verdict(run, folder) == browser_verdict(run, archive)


def test_zips_that_two_readers_could_read_differently_are_refused_alike(run, bundle, tmp_path):
    assert {"container"} == expect_same(run, zipped(bundle, tmp_path / "deflated.zip", zipfile.ZIP_DEFLATED))
    data = zipped(bundle, tmp_path / "run.zip").read_bytes()
    source = random.Random(1)
    start = data.rindex(b"PK\x05\x06")
    (directory,) = struct.unpack_from("<I", data, start + 16)
    refused_some = 0
    for n in range(36):
        at = source.randrange(directory, len(data)) if n % 3 else source.randrange(0, 60)
        mutant = bytearray(data)
        mutant[at] ^= 1 << source.randrange(8)
        (tmp_path / "mutant.zip").write_bytes(mutant)
        refused_some += "container" in expect_same(run, tmp_path / "mutant.zip")
    assert refused_some > 18
    for broken in (b"", data[:-1], data + b"x", b"x" + data, data[: start + 20] + b"\x01\x00!"):
        (tmp_path / "mutant.zip").write_bytes(broken)
        assert {"container"} == expect_same(run, tmp_path / "mutant.zip")


# ---- files lost, added and changed


def test_a_lost_or_strange_file_is_named_alike(run, bundle):
    for name in containers.REQUIRED:
        data = (bundle / name).read_bytes()
        (bundle / name).unlink()
        assert {"container"} == expect_same(run, bundle)
        (bundle / name).write_bytes(data)
    for name in ("strange.json", "rows/00000064.safetensors", "rows/strange", "LEDGER.jsonl", "é.json", "progress.json", "ledger.jsonl.part"):
        (bundle / name).write_bytes(b"{}")
        assert expect_same(run, bundle)
        (bundle / name).unlink()
    (bundle / "views").mkdir()
    (bundle / "views" / "note.txt").write_text("never trusted")
    assert set() == expect_same(run, bundle)


def test_a_flipped_bit_of_any_file_fails_the_same_check(run, bundle):
    source = random.Random(2)
    broken: set[str] = set()
    for file in files_of(bundle) * 4:
        data = file.read_bytes()
        at = source.randrange(len(data))
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << source.randrange(8)]) + data[at + 1 :])
        failed = expect_same(run, bundle)
        assert failed
        broken |= failed
        file.write_bytes(data)
    assert len(broken) > 8


def test_a_file_cut_lengthened_or_emptied_fails_the_same_check(run, bundle):
    for file in files_of(bundle):
        data = file.read_bytes()
        for changed in (data[:-1], data + b"\n", b"", data.replace(b"\n", b"\r\n", 1) if b"\n" in data else b"\xef\xbb\xbf" + data):
            file.write_bytes(changed)
            assert expect_same(run, bundle)
        file.write_bytes(data)


def test_later_verdicts_are_read_alike(run, bundle):
    attestation = sha256((bundle / "attestation.json").read_bytes()).hexdigest()
    head = canonical.decode((bundle / "attestation.json").read_bytes(), limits=canonical.DOCUMENT)
    payload = canonical.decode(base64.b64decode(head["dsseEnvelope"]["payload"]), limits=canonical.DOCUMENT)
    verdict = {"formation": "0.1.0", "outcome": "passed", "tree_head": payload["predicate"]["tree_head"]}
    right, wrong = {"attestation.json": attestation}, {"attestation.json": "ab" * 32}
    results = {"audit": (envelope.AUDIT, audit_result(bundle)), "certification": (envelope.CERTIFICATION, certified())}
    for name, (kind, result) in results.items():
        good = {**verdict, "result": result}
        cases = [(good, right), (good, wrong), (good, {"anchor.json": attestation}), ({**good, "outcome": "failed"}, right)]
        cases += [({**good, "result": other}, right) for other in ([], {}, {**result, "more": 1}, audited.example(4, 3, 3))]
        cases += [({**good, "tree_head": {}}, right), ({**good, "more": 1}, right), ({**good, "outcome": "failed", "result": {}}, right)]
        failed = []
        for predicate, subjects in cases:
            for key in (vectors.key(), vectors.key(vectors.OTHER_SECRET)):
                (bundle / f"{name}.json").write_bytes(envelope.make(envelope.Statement(kind, subjects, predicate), key))
                failed.append(expect_same(run, bundle))
        assert [set()] * 2 + [{name}] * (2 * len(cases) - 2) == failed
        (bundle / f"{name}.json").unlink()
    assert set() == expect_same(run, bundle)


READ = """([cases, run]) => JSON.parse(cases).map(([name, result, outcome]) => {
  const { readAudit } = m["audited.js"];
  try { return name === "audit" ? readAudit(result, outcome, run) : m["certification.js"].readCertification(result, outcome); }
  catch (refusal) { if (!(refusal instanceof m["refusals.js"].Refused)) throw refusal; return `${refusal.check}: ${refusal.message}`; }
})"""


def test_their_results_are_read_with_the_same_words(run):
    cases = [("audit", result, outcome) for name, result in AUDITS.items() for outcome in ("passed", "failed", None)]
    cases += [("audit", mutant, "failed" if name == "failed" else "passed") for name, result in AUDITS.items() for mutant in mutants(result)]
    cases += [("certification", result, outcome) for result in (certified(), *mutants(certified())) for outcome in ("passed", "failed")]
    found = run(READ, [json.dumps(cases), RUN])  # one text for thousands is faster
    expected = [words_of(*case) for case in cases]
    assert [] == [(case, *pair) for case, *pair in zip(cases, expected, found, strict=True) if pair[0] != pair[1]]
    assert 2000 < len(cases)


def words_of(name: str, result: object, outcome: str) -> str:
    try:
        if name == "audit":
            return str(audited.read(result, outcome).of_run(RUN["positions"], RUN["layers"], RUN["steps"]))
        return str(certification.read(result, outcome))
    except Refused as refusal:
        return f"{refusal.check}: {refusal}"


def test_a_bundle_of_another_seals_nothing_here(run, bundles, bundle):
    other = bundles[SAMPLED]
    for name in ("tree-head.txt", "attestation.json", "ledger.jsonl", "anchor.json"):
        data = (bundle / name).read_bytes()
        (bundle / name).write_bytes((other / name).read_bytes())
        assert expect_same(run, bundle)
        (bundle / name).write_bytes(data)
