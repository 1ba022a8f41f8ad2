"""What audit.json and certification.json say is read: counts that fit each other and the ledger, and levels that say how much was done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import vectors
from tests.evidence.later_results import AUDITS, DIFFERENCE, LAYERS, POINT, POSITIONS, STEPS, certified, failed, mutants, of_mode
from tests.evidence.whole_bundles import Kind, audit_result, later, make

from formation.cli.main import main
from formation.evidence import audited, certification, envelope
from formation.evidence.container import open_container
from formation.evidence.report import Report
from formation.evidence.strict import Refused
from formation.evidence.verify import verify

WORDS = {
    "profile": "6 of 20 cells, head and sampler of 3 tokens, 40 values; 14 cells not executed",
    "cells": "2 of 20 cells, head and sampler of 3 tokens, 40 values; 18 cells not executed",
    "column": "5 of 20 cells, head and sampler of 3 tokens, 40 values; 15 cells not executed",
    "full": "20 of 20 cells, head and sampler of 3 tokens, 40 values; 0 cells not executed",
}
LEVELS = [("audit.json", envelope.AUDIT, "REPLAY", "V35"), ("certification.json", envelope.CERTIFICATION, "CERTIFIED", "V36")]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "run.ofb", Kind(rows="none"))


def report_of(bundle: Path) -> Report:
    with open_container(bundle) as container:
        return verify(container, signers={vectors.key().public.fingerprint: "test"})


# ---- what verify says


def test_the_levels_say_how_much_was_done(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, kind, _, _ in LEVELS:
        later(bundle, name, kind)
    assert 0 == main(["verify", str(bundle), "--signer", vectors.key().public.text])
    told = capsys.readouterr().out
    assert "1 of 15 cells, head and sampler of 3 tokens, 40 values; 14 cells not executed" in told
    assert "1/1 attacks refused by the check expected, 1 mutations" in told


@pytest.mark.parametrize(("name", "kind", "level", "check"), LEVELS)
@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_a_verdict_without_content_is_refused(
    name: str, kind: str, level: str, check: str, outcome: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later(bundle, name, kind, result={}, outcome=outcome)
    assert 1 == main(["verify", str(bundle), "--signer", vectors.key().public.text])
    told = capsys.readouterr().out
    assert check in told and "the fields " in told
    assert level not in report_of(bundle).notes
    assert "failed" == report_of(bundle).levels()[level]


@pytest.mark.parametrize(("name", "kind", "level", "check"), LEVELS)
def test_a_stranger_s_counts_are_not_shown(name: str, kind: str, level: str, check: str, bundle: Path) -> None:
    later(bundle, name, kind, secret=vectors.OTHER_SECRET)
    assert f"{name} is signed by an unknown key" == report_of(bundle).notes[level]
    later(bundle, name, kind, secret=vectors.OTHER_SECRET, result={})
    assert "failed" == report_of(bundle).levels()[level]


def test_an_audit_that_honestly_failed_is_called_that(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = audit_result(bundle)
    later(bundle, "audit.json", envelope.AUDIT, outcome="failed", result=result | {"difference_count": 1, "differences": [DIFFERENCE]})
    assert 1 == main(["verify", str(bundle), "--signer", vectors.key().public.text])
    assert "audit.json: expected an outcome of passed, got failed" in capsys.readouterr().out


@pytest.mark.parametrize("changed", [{"positions": 4}, {"layers": 5}, {"tokens": 2}], ids=str)
def test_counts_of_another_ledger_are_refused(changed: dict[str, int], bundle: Path) -> None:
    size = {"positions": 5, "layers": 3, "tokens": 3}
    assert audited.example(**size) == audit_result(bundle)
    later(bundle, "audit.json", envelope.AUDIT, result=audited.example(**size | changed))
    assert "failed" == report_of(bundle).levels()["REPLAY"]


# ---- the reader of an audit


@pytest.mark.parametrize("mode", audited.MODES)
def test_an_audit_of_each_mode_says_its_counts(mode: str) -> None:
    assert WORDS[mode] == str(audited.read(of_mode(mode), "passed").of_run(POSITIONS, LAYERS, STEPS))


def test_a_failed_audit_is_read_as_that() -> None:
    found = audited.read(failed(), "failed").of_run(POSITIONS, LAYERS, STEPS)
    assert ("failed", 1) == (found.outcome, found.differences)


def challenge(**changes: Any) -> Callable[[Any], object]:
    return lambda result: result["challenge"].update(changes)


def executed(**changes: int) -> Callable[[Any], object]:
    return lambda result: result["executed"].update(changes)


LIES: dict[str, tuple[Callable[[Any], object], str]] = {
    "a difference in its list": (lambda r: r.update(differences=[DIFFERENCE], difference_count=1), "expected outcome failed"),
    "differences that are counted and not listed": (lambda r: r.update(difference_count=1), "expected their count and a list"),
    "differences that are listed and not counted": (lambda r: r.update(differences=[DIFFERENCE]), "expected their count and a list"),
    "a seal that does not hold": (lambda r: r.update(seal="does not hold"), "expected outcome failed"),
    "no seal": (lambda r: r.update(seal="none"), "expected outcome failed"),
    "a seal of its own": (lambda r: r.update(seal="gold"), "audit, seal: expected one of"),
    "nothing compared": (executed(values=0), "expected outcome failed"),
    "no token executed": (executed(tokens=0), "expected outcome failed"),
    "less than was challenged": (executed(cells=5), "expected outcome failed"),
    "more than was challenged": (executed(cells=7), "expected at most the 6 cells that were challenged, got 7"),
    "more cells than there are": (executed(cells=21), "expected counts that fit"),
    "more tokens than positions": (executed(tokens=6), "expected counts that fit"),
    "cells that are no rectangle": (executed(cells_in_all=21), "expected counts that fit"),
    "no position": (executed(embeddings=0), "expected counts that fit"),
    "a cell twice": (challenge(cells=[[0, 0], [0, 0]]), "expected different cells"),
    "a cell of no position": (challenge(cells=[[0, 0], [5, 0]]), "expected different cells"),
    "a cell of no layer": (challenge(cells=[[0, 0], [0, 4]]), "expected different cells"),
    "a column twice": (challenge(columns=[2, 2]), "expected different cells"),
    "a column more than its mode has": (challenge(columns=[1, 2]), "expected the cells and columns of mode profile, got 2 and 2"),
    "nothing drawn": (challenge(cells=[]), "expected the cells and columns of mode profile, got 0 and 1"),
    "all of it, by name": (challenge(mode="full"), "expected the cells and columns of mode full"),
    "a mode of its own": (challenge(mode="thorough"), "expected one of profile"),
    "a draw without a seed": (challenge(seed=None), "expected a seed and its source"),
    "a seed of nothing": (challenge(seed=""), "expected a seed and its source"),
    "a certain curve": (lambda r: r["curve"].update(columns=[{**POINT, "probability": 1.5}]), "expected probabilities"),
    "a curve of other layers": (lambda r: r["curve"].update(columns=[{**POINT, "of": 5}]), "expected probabilities"),
    "no curve of what was drawn": (lambda r: r["curve"].update(cells=[]), "expected probabilities"),
    "more tensors compared than used": (lambda r: r["weights"].update(compared=3), "expected counts that fit"),
    "more tensors than there are": (lambda r: r["weights"].update(in_all=1), "expected counts that fit"),
    "a tensor twice": (lambda r: r["weights"]["tensors"].reverse(), "expected tensors in ascending order"),
    "a field more": (lambda r: r.update(approved=True), "expected the fields"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_audit_that_lies_about_itself_is_refused(lie: str) -> None:
    change, said = LIES[lie]
    result = of_mode("profile")
    change(result)
    with pytest.raises(Refused, match=said) as refusal:
        audited.read(result, "passed")
    assert "audit" == refusal.value.check


def test_what_is_all_right_did_not_fail() -> None:
    with pytest.raises(Refused, match="expected outcome passed"):
        audited.read(of_mode("full"), "failed")


# ---- any value in any place


@pytest.mark.parametrize("name", AUDITS)
def test_no_mutant_of_an_audit_raises_anything_else_or_passes_with_other_counts(name: str) -> None:
    outcome = "failed" if name == "failed" else "passed"
    refused = 0
    for result in mutants(AUDITS[name]):
        try:
            found = audited.read(result, outcome).of_run(POSITIONS, LAYERS, STEPS)
        except Refused as refusal:
            assert "audit" == refusal.check
            refused += 1
        else:
            assert result["executed"]["cells"] == found.cells <= POSITIONS * LAYERS
            assert outcome == found.outcome
    assert 400 < refused


def test_no_mutant_of_a_certification_raises_anything_else() -> None:
    refused = 0
    for result in mutants(certified()):
        try:
            assert certification.read(result, "passed").passed
        except Refused as refusal:
            assert "certification" == refusal.check
            refused += 1
    assert 300 < refused
