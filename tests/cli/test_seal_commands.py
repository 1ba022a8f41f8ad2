"""`key`, `seal` and `receipt` as a user types them, on a bundle of the sample checkpoint's own files."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest
from tests.evidence import sealed

import formation
from formation.cli.main import main
from formation.evidence import envelope, keys, receipt
from formation.explorer.page import verify_page
from formation.ledger import canonical, merkle
from formation.weights.identity import identify_files, tensor_rows


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bundle(home: Path, k25_folder: Path) -> Path:
    """Recorded, as far as sealing can tell, from the small checkpoint."""
    checkpoint = formation.open(k25_folder)
    table = tensor_rows(checkpoint)
    root = merkle.root_of(merkle.leaf_hash(canonical.encode(row)) for row in table).hex()
    folder = sealed.write_bundle(home / "run.ofb")
    value = {"files": identify_files(checkpoint), "tensor_table": table, "tensor_table_root": root}
    (folder / "checkpoint.json").write_bytes(canonical.encode(value, limits=canonical.DOCUMENT))
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    assert code == main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return captured.out, captured.err


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    return json.loads(run(capsys, *arguments, "--json")[0])


def test_a_key_is_made_once_and_shown(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    made = told(capsys, "key", "new")
    assert made == told(capsys, "key", "show")
    assert str(home / "config" / "formation" / "key.pem") == made["path"]
    assert 0o600 == stat.S_IMODE(Path(str(made["path"])).stat().st_mode)
    assert made["fingerprint"] == keys.PublicKey.read(made["public_key"]).fingerprint
    out, err = run(capsys, "key", "new", code=2)
    assert "" == out
    assert "expected no key, got one" in err
    assert made == told(capsys, "key", "show")


def test_a_shown_key_can_be_pasted_into_known_signers(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    run(capsys, "key", "new")
    out, err = run(capsys, "key", "show")
    line = err.strip().rpartition(": ")[2].replace("NAME", "me")
    (home / "config" / "formation" / "known_signers").write_text(line + "\n")
    assert {"me": keys.load_or_create().public} == keys.known_signers()
    assert "PRIVATE" not in out + err


def test_showing_a_key_makes_none(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    out, err = run(capsys, "key", "show", code=3)
    assert "" == out
    assert "hint: formation key new" in err
    assert not (home / "config").exists()


def test_seal_signs_with_the_users_key_and_says_what_that_means(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    out, err = run(capsys, "seal", bundle)
    found = envelope.read((bundle / "attestation.json").read_bytes(), envelope.RUN)
    assert keys.load_or_create().public == found.signer
    assert found.digest in out
    assert "only an audit tells" in err
    assert told(capsys, "seal", bundle)["digest"] == found.digest


def test_seal_with_another_key_is_refused_and_says_nothing_of_success(capsys: pytest.CaptureFixture[str], bundle: Path, home: Path) -> None:
    run(capsys, "seal", bundle)
    run(capsys, "key", "new", "--key", home / "other.pem")
    out, err = run(capsys, "seal", bundle, "--key", home / "other.pem", code=1)
    assert "" == out
    assert "sealed by" in err
    assert "sealed:" not in err


def test_a_key_path_that_is_a_slip_makes_no_key(capsys: pytest.CaptureFixture[str], bundle: Path, home: Path) -> None:
    out, err = run(capsys, "seal", bundle, "--key", home / "slip.pem", code=3)
    assert "" == out
    assert "slip.pem" in err
    assert not (home / "slip.pem").exists()
    assert not (bundle / "attestation.json").exists()


def test_hashed_tensors_are_sealed_with_the_bundle(capsys: pytest.CaptureFixture[str], bundle: Path, k25_folder: Path, home: Path) -> None:
    run(capsys, "seal", bundle)
    assert "all" == told(capsys, "seal", bundle, "--hash-tensors", "--checkpoint", k25_folder)["weights"]
    found = canonical.decode((bundle / "tensor-digests.json").read_bytes(), limits=canonical.DOCUMENT)
    assert len(formation.open(k25_folder).tensors) == len(found["tensors"])
    assert list((home / "cache" / "formation" / "tensor-digests").iterdir())
    _, err = run(capsys, "seal", bundle, "--hash-tensors", "--checkpoint", k25_folder)
    assert "known from before" in err


def test_weights_of_another_checkpoint_are_not_hashed(capsys: pytest.CaptureFixture[str], bundle: Path, k25_folder: Path, home: Path) -> None:
    value = canonical.decode((bundle / "checkpoint.json").read_bytes(), limits=canonical.DOCUMENT)
    value["files"][0]["sha256"] = "00" * 32
    (bundle / "checkpoint.json").write_bytes(canonical.encode(value, limits=canonical.DOCUMENT))
    out, err = run(capsys, "seal", bundle, "--hash-tensors", "--checkpoint", k25_folder, code=2)
    assert "" == out
    assert "expected the checkpoint that" in err
    assert not (bundle / "tensor-digests.json").exists()


@pytest.mark.parametrize("options", [["--hash-tensors"], ["--checkpoint", "x"]])
def test_hashing_needs_both_its_options(capsys: pytest.CaptureFixture[str], bundle: Path, options: list[str]) -> None:
    assert "together" in run(capsys, "seal", bundle, *options, code=2)[1]


PLACES = {
    "layer": ("--token 2 --layer 1", 2, "layer 1"),
    "lm_head": ("--token 1 --layer lm_head", 1, "lm_head"),
    "embed": ("--token 1 --layer embed", 1, "embed"),
    "sampler": ("--token 2 --layer sampler", 2, "sampler"),
    "token": ("--token 2 --layer token", 2, "token"),
    "prompt": ("--position 0 --layer 0", 0, "layer 0"),
    "run": ("--layer run", -1, "run"),
}


@pytest.mark.parametrize(("options", "position", "slot"), list(PLACES.values()), ids=list(PLACES))
def test_a_receipt_is_of_the_place_that_was_asked(
    capsys: pytest.CaptureFixture[str], bundle: Path, home: Path, options: str, position: int, slot: str
) -> None:
    run(capsys, "seal", bundle)
    facts = told(capsys, "receipt", bundle, *options.split(), "--out", home / "r.tlog-proof")
    found = receipt.read((home / "r.tlog-proof").read_bytes())
    assert (position, slot) == (found.line["position"], found.line["slot"]) == (facts["position"], facts["slot"])
    assert found.proves == facts["proves"]
    assert "does not prove" in str(facts["does_not_prove"])


def test_a_receipt_has_a_name_of_its_own_and_says_what_it_does_not_prove(capsys: pytest.CaptureFixture[str], bundle: Path, home: Path) -> None:
    run(capsys, "seal", bundle)
    out, err = run(capsys, "receipt", bundle, "--token", "1", "--layer", "1")
    assert "run-p1-layer-1.tlog-proof" == out.strip()
    assert (home / out.strip()).exists()
    assert "does not prove that the line is true" in err


NO_PLACES = {
    "nowhere": ("--layer 0", "expected one of"),
    "two places": ("--layer 0 --token 1 --position 1", "expected one of"),
    "run and token": ("--layer run --token 1", "expected one of"),
    "no such layer": ("--layer 9 --token 1", "expected a position and slot"),
    "no such token": ("--layer 0 --token 3", "expected a token from 1 to 2"),
    "no such position": ("--layer 0 --position -5", "expected a position and slot"),
}


@pytest.mark.parametrize(("options", "reason"), list(NO_PLACES.values()), ids=list(NO_PLACES))
def test_a_place_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], bundle: Path, home: Path, options: str, reason: str) -> None:
    run(capsys, "seal", bundle)
    out, err = run(capsys, "receipt", bundle, *options.split(), "--out", home / "r.tlog-proof", code=2)
    assert "" == out
    assert reason in err
    assert "proves:" not in err
    assert not (home / "r.tlog-proof").exists()


def test_an_unsealed_bundle_gives_no_receipt(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    out, err = run(capsys, "receipt", bundle, "--token", "1", "--layer", "0", code=2)
    assert "" == out
    assert "hint: formation seal" in err


def test_the_manifest_among_the_views_serves_sha256sum(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    run(capsys, "seal", bundle)
    check = ["sha256sum", "--check", "--strict", "views/manifest-sha256.txt"]
    listed = {line.split("  ")[1] for line in (bundle / "views/manifest-sha256.txt").read_text().splitlines()}
    assert {str(p.relative_to(bundle)) for p in bundle.rglob("*") if p.is_file() and p.parent.name != "views"} == listed
    assert 0 == subprocess.run(check, cwd=bundle, capture_output=True, check=False).returncode
    (bundle / "host.json").write_bytes((bundle / "host.json").read_bytes() + b" ")
    assert b"host.json: FAILED" in subprocess.run(check, cwd=bundle, capture_output=True, check=False).stdout


def test_views_that_are_a_link_are_not_written_through(capsys: pytest.CaptureFixture[str], bundle: Path, home: Path) -> None:
    (home / "elsewhere").mkdir()
    (bundle / "views").symlink_to(home / "elsewhere")
    run(capsys, "seal", bundle, code=3)
    assert [] == list((home / "elsewhere").iterdir())


def test_verify_writes_its_page(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    out, _ = run(capsys, "verify", "--page", home / "verify.html")
    assert "open it in a browser" in out
    assert verify_page() == (home / "verify.html").read_bytes()
    run(capsys, "verify", "x.ofb", "--page", home / "again.html", code=2)
    run(capsys, "verify", code=2)
