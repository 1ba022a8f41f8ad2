"""`formation publish`: everything it writes comes from the one bundle, the same bytes each time, all or nothing, and never a good word too many."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from galleries import KEY, KNOWN, contents, index, run
from tests.evidence.whole_bundles import Kind, edit_lines, later, make, reseal, write

from formation.cli.main import main
from formation.cli.publish import find_note
from formation.evidence import envelope, keys, receipt
from formation.evidence.bundle import Bundle
from formation.evidence.container import open_container
from formation.evidence.export import export
from formation.evidence.verify import verify
from formation.explorer import page, view
from formation.explorer.gallery import copies, publish
from formation.explorer.gallery.verdict import SUMS
from formation.note import make_note

FILES = {"SHA256SUMS", "explorer.html", "index.html", "ledger.json", "note.pdf", "run.ofb.zip", "verify.html"}


# ---- what is in it


def test_every_file_is_what_its_own_command_makes_of_the_bundle(bundle: Path, gallery: Path, tmp_path: Path) -> None:
    found = contents(gallery)
    assert FILES == {name for name in found if "/" not in name}
    export(Bundle(bundle), "json", tmp_path / "ledger.json")
    assert (tmp_path / "ledger.json").read_bytes() == found["ledger.json"]
    assert [view.explorer(bundle), page.verify_page(), make_note(bundle)] == [found[n] for n in ("explorer.html", "verify.html", "note.pdf")]


def test_the_zip_has_the_verdict_of_the_bundle(bundle: Path, gallery: Path) -> None:
    reports = []
    for path in (bundle, gallery / "run.ofb.zip"):
        with open_container(path) as opened:
            reports.append(verify(opened, signers={KEY.fingerprint: "test"}))
    assert reports[0].verified
    assert reports[0] == reports[1]


@pytest.mark.parametrize(("name", "slot"), [("token-{}", "token"), ("token-{}-lm_head", "lm_head")])
def test_every_token_has_receipts_which_are_those_of_formation_receipt(bundle: Path, gallery: Path, name: str, slot: str) -> None:
    tokens = list(Bundle(bundle).tokens)
    assert 2 * len(tokens) == len(list((gallery / "receipts").iterdir()))
    for token in tokens:
        data = (gallery / "receipts" / f"{name.format(token.token)}.tlog-proof").read_bytes()
        assert receipt.make(bundle, receipt.find_line(bundle, token.step, slot), KEY) == data
        assert slot == receipt.read(data).line["slot"]


def test_sha256sum_accepts_the_sums_which_name_every_other_file(gallery: Path) -> None:
    listed = dict(reversed(line.split("  ")) for line in (gallery / SUMS).read_text().splitlines())  # type: ignore[misc]
    assert {name: hashlib.sha256(data).hexdigest() for name, data in contents(gallery).items() if name != SUMS} == listed
    assert 0 == subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=gallery, capture_output=True, check=False).returncode


def test_every_link_leads_to_a_file_of_the_gallery_or_a_place_in_the_page(gallery: Path) -> None:
    found, text = index(gallery).links, (gallery / "index.html").read_text()
    assert {"explorer.html", "verify.html", "note.pdf", "ledger.json", "run.ofb.zip", SUMS, "receipts/token-1.tlog-proof"} <= set(found)
    for link in found:
        path, _, place = link.partition("#")
        assert (gallery / path).is_file() if path else f'id="{place}"' in text


def test_the_page_says_what_the_bundle_says(bundle: Path, gallery: Path) -> None:
    told, opened = index(gallery).words, Bundle(bundle)
    with open_container(bundle) as container:
        report = verify(container, signers={KEY.fingerprint: "test"})
    anchor, made = opened.anchor, sum(outcome.state == "passed" for outcome in report.outcomes)
    for said in (
        "How 3 tokens formed", "✓ Verified", opened.run_id, report.facts["bundle"], report.facts["root"], KEY.fingerprint, KEY.text, anchor.contract,
        anchor.checkpoint_sha256, anchor.tensor_table_root, "Say it", f"Ledger of {report.facts['lines']} lines", "run.ofb", "1 shard",
        "SIGNER✓ for its publisher", "WEIGHTS– not claimed", f"{made} of {len(report.outcomes)} checks passed, none failed", report.honesty[1:],
        "No audit counts here", "Wall time, hardware and bytes read are declared", "Anchor", "a key that whoever published this page named",
    ):  # fmt: skip
        assert said in told, said
    for outcome in report.outcomes:
        assert f"{outcome.check.id} {outcome.check.name}" in told
    for token in opened.tokens:
        assert f"{token.probability:.5g}" in told


def test_the_pages_policy_allows_its_style_and_nothing_else(gallery: Path) -> None:
    text = (gallery / "index.html").read_text()
    style, policy = re.search("<style>(.*?)</style>", text, re.DOTALL), re.search('Content-Security-Policy" content="([^"]*)"', text)
    assert style and policy
    assert f"default-src 'none'; style-src '{page.source_hash(style[1])}'; base-uri 'none'; form-action 'none'" == policy[1]
    assert not {"script", "img", "iframe", "link", "form", "object"} & set(index(gallery).tags)
    assert not re.search(r"\b(?:src|srcset|action|style|on\w+)=|url\(|@import", text)


def test_an_audit_that_is_attached_is_said_with_what_it_leaves_out(bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "run.ofb"))
    later(folder, "audit.json", envelope.AUDIT)
    assert 0 == main(["publish", str(folder), str(tmp_path / "out"), *KNOWN])
    told = index(tmp_path / "out").words
    assert "REPLAY✓" in told and "The attached audit is its signer's word, for what it executed again and nothing else" in told
    assert "cells not executed" in told and "No audit counts" not in told


# ---- the same bytes


def test_the_same_bundle_gives_the_same_bytes_wherever_and_whenever(bundle: Path, gallery: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "run.ofb"))
    (other / "views").mkdir()
    (other / "views" / "index.html").write_text("never read")
    os.utime(other / "ledger.jsonl", (1, 1))
    source = str(Path(publish.__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": source, "TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-m", "formation.cli.main", "publish", "run.ofb", "elsewhere", *KNOWN]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, umask=0o077)
    assert contents(gallery) == contents(tmp_path / "elsewhere")


def test_the_gallerys_own_zip_published_again_gives_the_same_zip_ledger_and_receipts(gallery: Path, tmp_path: Path) -> None:
    assert 0 == main(["publish", str(gallery / "run.ofb.zip"), str(tmp_path / "again"), *KNOWN])
    again = contents(tmp_path / "again")
    named = {"index.html", "explorer.html", SUMS}  # these say the bundle's name
    assert {name: data for name, data in contents(gallery).items() if name not in named} == {n: d for n, d in again.items() if n not in named}


def test_json_tells_what_was_written(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads(run(capsys, 0, bundle, tmp_path / "out", *KNOWN, "--json")[0])
    assert ("formation-gallery/1", "verified", {}) == (said["kind"], said["verdict"], said["missing"])
    data = (tmp_path / "out" / "run.ofb.zip").read_bytes()
    assert {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "count": 1} == said["files"]["run.ofb.zip"]
    assert 6 == said["files"]["receipts/"]["count"]


# ---- what does not verify


@pytest.fixture
def tampered(bundle: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(bundle, tmp_path / "run.ofb"))
    edit_lines(folder, lambda lines: lines[2]["measured"].update(residual_norm=1.5))
    return folder


def nothing_left(folder: Path) -> bool:
    return {"run.ofb"} == {path.name for path in folder.iterdir()}


def test_a_bundle_that_fails_a_check_is_refused_by_name_and_leaves_nothing(
    tampered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    out, err = run(capsys, 1, tampered, tmp_path / "out", *KNOWN)
    assert "" == out
    assert f"{tampered}: expected a bundle that verifies, got V10 root" in err and "--allow-unverified" in err
    assert "verified " not in err.replace("--allow-unverified ", "") and nothing_left(tmp_path)


def test_a_bundle_published_against_its_verdict_says_so_before_anything_else(
    tampered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    out, err = run(capsys, 0, tampered, tmp_path / "out", *KNOWN, "--allow-unverified")
    assert "published although it does not verify: V10 root" in err and "failed" in out and "verified" not in out
    page = index(tmp_path / "out")
    before, _, after = page.words.partition("✗ This bundle does not verify")
    assert "Not verified: How 3 tokens formed" == before.strip() and after.strip().startswith("First failure: V10 root")
    assert "✓ Verified" not in page.words and "sealed with a signature" not in page.words
    found = contents(tmp_path / "out")
    assert "note.pdf" not in found and not [name for name in found if name.startswith("receipts")]
    assert "not in this gallery: no signature over this ledger holds" in page.words
    assert {"explorer.html", "verify.html", "note.pdf", "run.ofb.zip", "ledger.json"} & set(page.links) == set(found) & FILES - {"index.html", SUMS}


def test_a_broken_rule_keeps_its_receipts_and_gets_no_note(bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "run.ofb"))
    edit_lines(folder, lambda lines: lines[-3]["derived"].update(entropy_nats=9.5))
    reseal(folder)
    assert 1 == main(["publish", str(folder), str(tmp_path / "out"), *KNOWN])
    assert 0 == main(["publish", str(folder), str(tmp_path / "out"), *KNOWN, "--allow-unverified"])
    assert (tmp_path / "out" / "receipts" / "token-3.tlog-proof").exists() and not (tmp_path / "out" / "note.pdf").exists()


def test_an_unknown_signer_is_refused_or_said(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, 1, bundle, tmp_path / "out")
    assert "" == out and "got V12 signer" in err and "--allow-unknown-signer" in err and not (tmp_path / "out").exists()
    out, _ = run(capsys, 0, bundle, tmp_path / "out", "--allow-unknown-signer")
    told = index(tmp_path / "out").words
    assert "SIGNER– not claimed" in told and "Whose key signed was not known to whoever published this page" in told
    assert "for its publisher" not in told


def test_the_name_under_which_a_signer_is_known_stays_private(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (keys.config_folder()).mkdir(parents=True)
    (keys.config_folder() / "known_signers").write_text(f"my-secret-source {KEY.text}\n")
    assert 0 == main(["publish", str(bundle), str(tmp_path / "out")])
    assert "a key known to whoever published this page" in index(tmp_path / "out").words
    assert not [name for name, data in contents(tmp_path / "out").items() if b"my-secret-source" in data]


def test_a_ledger_that_cannot_be_read_is_refused_whatever_is_allowed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(bundle, tmp_path / "run.ofb"))
    lines = (folder / "ledger.jsonl").read_bytes().split(b"\n")
    (folder / "ledger.jsonl").write_bytes(b"\n".join([*lines[:5], b"{", *lines[6:]]))
    out, err = run(capsys, 3, folder, tmp_path / "out", "--allow-unverified")
    assert "" == out and f"{folder}/ledger.jsonl, line 6" in err and ".part" not in err and nothing_left(tmp_path)


def test_an_incomplete_recording_is_published_only_as_what_it_is(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "run.ofb"))
    lines = (folder / "ledger.jsonl").read_bytes().split(b"\n")
    (folder / "ledger.jsonl").unlink()
    (folder / "ledger.jsonl.part").write_bytes(b"\n".join(lines[:-4]) + b"\n{torn")
    assert "V2 complete" in run(capsys, 1, folder, tmp_path / "out", *KNOWN)[1]
    run(capsys, 0, folder, tmp_path / "out", *KNOWN, "--allow-unverified")
    assert "First failure: V2 complete" in index(tmp_path / "out").words
    assert json.loads((tmp_path / "out" / "ledger.json").read_bytes())["complete"] is False


NO_BUNDLES = {"nothing": 3, "a file": 1, "a strange file in it": 1, "a link in it": 1, "never sealed": 1}


@pytest.mark.parametrize(("what", "code"), list(NO_BUNDLES.items()), ids=list(NO_BUNDLES))
def test_what_is_no_bundle_is_refused_and_leaves_nothing(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, code: int
) -> None:  # fmt: skip
    folder = tmp_path / "run.ofb"
    if what == "a file":
        folder.write_text("x")
    elif what != "nothing":
        shutil.copytree(bundle, folder)
    if what == "a strange file in it":
        (folder / "strange.txt").write_text("x")
    elif what == "a link in it":
        (folder / "host.json").unlink()
        (folder / "host.json").symlink_to("/etc/hostname")
    elif what == "never sealed":
        (folder / "attestation.json").unlink()
    out, err = run(capsys, code, folder, tmp_path / "out", *KNOWN, "--allow-unverified")
    assert "" == out and "expected" in err and "verified " not in err
    assert [] == [path for path in tmp_path.iterdir() if path != folder]


# ---- what is left out


def test_without_the_extra_the_note_is_missing_and_the_page_says_how_to_get_it(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "typst", None)
    assert find_note() is None
    _, err = run(capsys, 0, bundle, tmp_path / "out", *KNOWN)
    for told in (err, index(tmp_path / "out").words):
        assert "pip install 'formation-ledger[note]', then formation note run.ofb" in told
    assert not (tmp_path / "out" / "note.pdf").exists() and "note.pdf" not in index(tmp_path / "out").links


def test_a_bundle_too_big_for_one_page_or_one_zip_is_published_without_them(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(view, "MOST_BYTES", 100)
    monkeypatch.setattr(copies, "ZIP_BYTES", 100)
    said = json.loads(run(capsys, 0, bundle, tmp_path / "out", *KNOWN, "--json")[0])
    assert {"explorer.html", "run.ofb.zip"} == set(said["missing"])
    page, names = index(tmp_path / "out"), contents(tmp_path / "out")
    assert not {"explorer.html", "run.ofb.zip"} & set(names)
    assert not [link for link in page.links if link.startswith(("explorer", "run.ofb"))]
    assert 2 == page.words.count("not in this gallery: the bundle is too big") and "formation verify run.ofb.zip" not in page.words


def test_rows_too_big_for_the_explorers_page_are_left_out_of_it_and_named(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    rows = sorted(str(path.relative_to(bundle)) for path in bundle.glob("ro*/*"))
    monkeypatch.setattr(view, "MOST_BYTES", sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) - 1)
    _, err = run(capsys, 0, bundle, tmp_path / "out", *KNOWN)
    assert rows and f"{len(rows)} files of the bundle are too much for one page: explorer.html does not show or check them" in err
    assert f"; without router/ and rows/ ({len(rows)} files), which it does not check" in index(tmp_path / "out").words
    assert view.packed(bundle).page == (tmp_path / "out" / "explorer.html").read_bytes()
    said = json.loads(run(capsys, 0, bundle, tmp_path / "again", *KNOWN, "--json")[0])
    assert rows == sorted(said["left_out"]) and {} == said["missing"]


def test_a_run_without_lens_or_prompt_text_says_what_is_not_there(tmp_path: Path) -> None:
    folder = make(tmp_path / "run.ofb", Kind(steps="minimal", rows="none", parity="none"))
    assert 0 == main(["publish", str(folder), str(tmp_path / "out"), *KNOWN])
    told = index(tmp_path / "out")
    assert "captured at level minimal, and the logit lens needs standard" in told.words and "svg" not in told.tags
    assert "Rows of the residual stream: none kept" in told.words and "left the run as it was is not claimed" in told.words


def test_documents_of_a_failing_bundle_are_not_read_before_they_are_checked(bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "run.ofb"))
    write(folder, "checkpoint.json", {"files": [], "tensor_table": "none"})
    write(folder, "host.json", [])
    reseal(folder)
    assert 0 == main(["publish", str(folder), str(tmp_path / "out"), *KNOWN, "--allow-unverified"])
    told = index(tmp_path / "out").words
    assert "✗ This bundle does not verify" in told and "Declared by the operator" not in told and "shard," not in told
