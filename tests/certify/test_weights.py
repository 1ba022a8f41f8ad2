"""Attacks that only re-execution can tell, on a recorded run: verify passes each of them, the audit names what differs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from formation.audit import reexecute
from formation.certify import mutations, on_weights
from formation.certify.judge import Judge
from formation.certify.on_weights import EVERY, Auditor
from formation.certify.suite import NOT_APPLICABLE, REFUSED, THROUGH
from formation.weights.checkpoint import open_checkpoint


@pytest.fixture(scope="module")
def auditor(judges: Mapping[str, Judge], k25_folder: Path) -> Auditor:
    return Auditor(judges["recorded"], open_checkpoint(k25_folder), memory="24MiB", threads=2)


def test_every_attack_with_weights_is_found_and_spot_audits_state_their_odds(auditor: Auditor) -> None:
    lines = mutations.run(auditor.judge, 2, range(0, 120, mutations.SIGNED_EVERY)).lines
    outcomes = {outcome.attack.name: outcome for outcome in auditor.make_all(lines)}
    assert [attack.name for attack in EVERY] == list(outcomes)
    assert ["lying state"] == [name for name, outcome in outcomes.items() if outcome.state != REFUSED]
    assert (NOT_APPLICABLE, "no layer has a delta net") == (outcomes["lying state"].state, outcomes["lying state"].observed)
    assert "one cell in 32 drawn, which finds one edited cell with 3.12%" in outcomes["one steered cell, one cell drawn"].observed


def test_an_audit_that_looks_away_lets_them_through(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reexecute, "execute", lambda due, auditor: None)
    steered = next(attack for attack in on_weights.GROUP.attacks if attack.name == "one steered cell")
    outcome = auditor.make(steered)
    assert (THROUGH, "audit passed") == (outcome.state, outcome.observed)


def test_a_control_that_fails_its_audit_ends_it(judges: Mapping[str, Judge], k25_folder: Path) -> None:
    other = Auditor(judges["greedy"], open_checkpoint(k25_folder), memory="24MiB", threads=2)
    (only,) = other.make_all({})
    assert THROUGH == only.state
    assert only.observed.startswith("the untouched bundle fails its audit: checkpoint, identity")


def test_writes_that_were_kept_need_no_audit(judges: Mapping[str, Judge], k25_folder: Path) -> None:
    other = Auditor(judges["greedy"], open_checkpoint(k25_folder))
    outcome = other.make(on_weights.GROUP.attacks[0])
    assert (NOT_APPLICABLE, "the writes were kept: verify adds them up") == (outcome.state, outcome.observed)
