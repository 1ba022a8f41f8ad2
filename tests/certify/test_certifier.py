"""The certifier itself: it says so when a verifier is wrong, and does not when nothing was tried."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from formation.certify import judge as judges_module
from formation.certify import mutations, suite
from formation.certify.attack import BUNDLE, Attack
from formation.certify.forgery import Forgery
from formation.certify.judge import Judge
from formation.certify.mutations import Mutant, Tally
from formation.certify.on_signature import edited_file, garbage_signature
from formation.evidence import verify
from formation.evidence.report import passed

GARBAGE = Attack("signature", "garbage", BUNDLE, "garbage", "signature", garbage_signature)


def through(attack: Attack, judge: Judge) -> str:
    outcome = suite.make(attack, judge)
    assert suite.THROUGH == outcome.state
    return outcome.observed


def test_an_attack_that_gets_through_is_said_to(judges: Mapping[str, Judge], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(verify.METHODS, "signature", lambda e, check: passed("whatever"))
    monkeypatch.setattr("formation.evidence.verify.AT_SIGNING", ())
    assert "envelope" == through(GARBAGE, judges["greedy"])


def test_a_refusal_by_another_check_is_none(judges: Mapping[str, Judge]) -> None:
    attack = Attack("files", "edited file", BUNDLE, "an edit", "census", edited_file)
    assert "subjects" == through(attack, judges["greedy"])


def test_a_verifier_that_crashes_has_refused_nothing(judges: Mapping[str, Judge], monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError("by hand")

    monkeypatch.setitem(verify.METHODS, "signature", crash)
    assert "crash: ZeroDivisionError: 'by hand'" == through(GARBAGE, judges["greedy"])


def test_a_verifier_that_does_not_end_has_refused_nothing(judges: Mapping[str, Judge], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges_module, "SECONDS", 0.05)
    monkeypatch.setitem(verify.METHODS, "signature", lambda *_: time.sleep(60))
    assert "timeout: no verdict within 0 s" == through(GARBAGE, judges["greedy"])


def test_an_attack_that_changes_nothing_is_none(judges: Mapping[str, Judge]) -> None:
    assert "nothing was changed" == through(Attack("files", "nothing", BUNDLE, "nothing", "subjects", lambda f: None), judges["greedy"])


def test_a_mutant_that_is_accepted_is_a_failure_unless_the_list_has_all_that_differs(judges: Mapping[str, Judge]) -> None:
    judge = judges["greedy"]
    position = judge.scene.steps[0]
    for field, value, failures in (("residual_norm", 1.5, 0), ("residual_sha256", "ab" * 32, 1)):
        forgery, tally = judge.scene.forgery(), Tally()
        forgery.change(position, "embed", **{field: value})
        forgery.seal()
        found = judges_module.Judgement((), {})  # as if it had been accepted
        mutations.take(tally, Mutant(0, "by hand", True, forgery.files), found, judge.scene)
        assert failures == len(tally.failures)
        assert (1 - failures) == sum(tally.untold.values())
    tally = Tally()
    mutations.take(tally, Mutant(1, "by hand", False, forgery.files), found, judge.scene)
    assert ["mutation 1, by hand: verified"] == tally.failures  # unsigned, nothing is excused


def test_the_signers_part_is_played_by_a_key_of_nobody(judges: Mapping[str, Judge]) -> None:
    scenes = [judge.scene for judge in judges.values()]
    assert 1 == len({scene.key.public.text for scene in scenes})  # it follows from the seed
    forgery: Forgery = scenes[0].forgery()
    forgery.seal()
    assert dict(forgery.files) == dict(scenes[0].files)
