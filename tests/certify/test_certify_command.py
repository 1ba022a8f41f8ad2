"""formation certify: what it prints and writes, and what verify then says; a certification that lies about itself is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from formation.certify import on_documents, suite
from formation.certify.certification import read_bundle
from formation.certify.forgery import Forgery, Scene
from formation.certify.on_verdicts import verdict
from formation.cli.main import main
from formation.evidence import certification, envelope, keys, verify
from formation.evidence.report import passed
from formation.evidence.seal import seal
from formation.evidence.strict import Refused
from recorded_runs import contents


@pytest.fixture
def bundle(folders: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sealed by the user's own key"""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    copy = Path(shutil.copytree(folders["greedy"], tmp_path / "run.ofb"))
    for name in ("attestation.json", "tree-head.txt"):
        (copy / name).unlink()
    seal(copy, keys.load_or_create())
    return copy


def test_a_bundle_is_certified_and_verify_says_so(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(bundle, without=())
    assert 0 == main(["certify", str(bundle), "--mutations", "20", "--threads", "1", "--attacks"])
    told = capsys.readouterr().out
    assert "weights               –  not run: no checkpoint (" in told
    assert "refused        signature: garbage signature (the bundle) – signature" in told
    assert "GOT THROUGH" not in told and "NOT CERTIFIED" not in told
    after = contents(bundle, without=())
    assert before == {name: data for name, data in after.items() if name != "certification.json"}
    assert 0 == main(["verify", str(bundle), "--json"])
    assert "passed" == json.loads(capsys.readouterr().out)["levels"]["CERTIFIED"]
    made = envelope.read(after["certification.json"], envelope.CERTIFICATION)
    found = certification.read(made.statement.predicate["result"], "passed")
    assert found.passed and found.refused == found.attacks > 300 and found.not_run > 10 and 20 == found.mutations
    assert made.signer == keys.load_or_create().public


def test_what_gets_through_is_written_too_and_exits_1(bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(verify.METHODS, "nonce", lambda e, check: passed("not looked at"))
    monkeypatch.setattr(suite, "ATTACKS", on_documents.GROUP.attacks)
    assert 1 == main(["certify", str(bundle), "--mutations", "0", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert "failed" == told["outcome"]
    through = [(a["name"], a["expected"], a["observed"]) for a in told["attacks"] if a["state"] == "got through"]
    assert [("old bundle replayed", "nonce", "verified")] == through
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(bundle.parent / "config"))
    assert 1 == main(["verify", str(bundle)])
    assert "certification.json: expected an outcome of passed, got failed" in capsys.readouterr().out


def test_a_bundle_that_does_not_verify_is_not_attacked(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "host.json").write_bytes(b"{}")
    assert 1 == main(["certify", str(bundle)])
    said = capsys.readouterr()
    assert "expected a bundle that verifies, got V11 subjects" in said.err
    assert "" == said.out
    assert not (bundle / "certification.json").exists()


def test_a_later_certification_replaces_a_failed_one(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "ATTACKS", suite.ATTACKS[:5])
    (bundle / "certification.json").write_bytes(b"garbage")
    assert 0 == main(["certify", str(bundle), "--mutations", "1", "--threads", "1"])
    assert 0 == main(["verify", str(bundle)])


def test_usage(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["certify", str(bundle), "--seed", "-1"])
    assert 2 == main(["certify", str(bundle / "host.json")])
    assert 3 == main(["certify", str(bundle.parent / "nothing"), "--out", str(bundle.parent / "c.json")])
    assert "certified" not in capsys.readouterr().out


def test_verify_refuses_a_certification_whose_result_is_none(bundle: Path) -> None:
    forgery = Forgery(Scene(read_bundle(bundle)), dict(read_bundle(bundle)))
    verdict(forgery, "certification", keys.load_or_create(), result={})
    (bundle / "certification.json").write_bytes(forgery.files["certification.json"])
    assert 1 == main(["verify", str(bundle)])


# ---- what certification.json may say


def edited(change: Callable[[Any], object]) -> Any:
    result = json.loads(json.dumps(certification.EXAMPLE))
    change(result)
    return result


LIES: Mapping[str, tuple[Callable[[Any], object], str]] = {
    "nothing was tried": (lambda r: r.update(attacks=[], mutations=dict(r["mutations"], count=0, refused=0, checks={})), "expected outcome failed"),
    "an attack got through": (lambda r: r["attacks"][0].update(state="got through"), "expected outcome failed"),
    "a mutation got through": (lambda r: r["mutations"].update(count=2, failures=["mutation 1"]), "expected outcome failed"),
    "refused by another check": (lambda r: r["attacks"][0].update(observed="census"), "expected a refusal by 'root'"),
    "refused by nobody": (lambda r: r["attacks"][0].update(observed=""), "expected a refusal by 'root'"),
    "a state of its own": (lambda r: r["attacks"][0].update(state="probably"), "expected a state of"),
    "counts that do not add up": (lambda r: r["mutations"].update(count=300), "expected counts that add up"),
    "more refusals than mutations": (lambda r: r["mutations"].update(refused=2, checks={"root": 2}), "expected counts that add up"),
    "a count below zero": (lambda r: r["mutations"].update(signed=-1), "expected counts, counts by check"),
    "a seed of no type": (lambda r: r.update(seed="0"), "expected a seed"),
    "a field more": (lambda r: r.update(approved=True), "expected the fields"),
    "an attack without a name": (lambda r: r["attacks"][0].pop("name"), "expected the fields"),
    "no object": (lambda r: r.update(mutations=[]), "expected the fields"),
}


def test_the_example_is_one() -> None:
    found = certification.read(certification.EXAMPLE, "passed")
    assert "1/1 attacks refused by the check expected, 1 mutations" == str(found)


@pytest.mark.parametrize("lie", LIES)
def test_a_certification_that_lies_about_itself_is_refused(lie: str) -> None:
    change, said = LIES[lie]
    with pytest.raises(Refused, match=said) as refusal:
        certification.read(edited(change), "passed")
    assert "certification" == refusal.value.check


def test_a_failed_one_is_read_as_that() -> None:
    result = edited(lambda r: r["attacks"][0].update(state="got through"))
    assert ("root: edited line",) == certification.read(result, "failed").unmet
