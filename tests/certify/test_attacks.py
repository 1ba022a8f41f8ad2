"""Every attack, on the first bundle that has what it attacks: the check that is there for it refuses it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from formation.certify import suite
from formation.certify.attack import INERT, Attack
from formation.certify.judge import NAMES, Judge

ATTACKS = {f"{attack.group}: {attack.name}": attack for attack in suite.ATTACKS}


def test_no_two_attacks_have_one_name() -> None:
    assert len(suite.ATTACKS) == len(ATTACKS)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_it_is_refused_by_the_check_that_is_there_for_it(judges: Mapping[str, Judge], attack: Attack) -> None:
    outcomes = [suite.make(attack, judge) for judge in judges.values()] if attack.group in ("values", "routing", "norms") else [first(judges, attack)]
    made = [outcome for outcome in outcomes if outcome.state != suite.NOT_APPLICABLE]
    assert made, outcomes
    assert [] == [outcome.observed for outcome in made if outcome.state != suite.REFUSED]


def first(judges: Mapping[str, Judge], attack: Attack) -> suite.Outcome:
    for judge in judges.values():
        if (outcome := suite.make(attack, judge)).state != suite.NOT_APPLICABLE:
            return outcome
    return outcome


def test_every_attack_says_who_does_what_and_names_a_check_that_exists() -> None:
    for attack in suite.ATTACKS:
        assert attack.adversary and attack.mutation and "\n" not in attack.mutation
        assert attack.expected in NAMES or attack.expected == INERT or attack.expected.startswith("receipt: ")


def test_an_attack_is_the_same_bytes_each_time(judges: Mapping[str, Judge]) -> None:
    scene = judges["greedy"].scene
    once, again = (list(suite.corpus(scene)) for _ in range(2))
    assert once == again
    assert len(once) > 300


def test_the_corpus_holds_files_that_this_verifier_refuses_as_it_says(judges: Mapping[str, Judge]) -> None:
    judge = judges["greedy"]
    for name, files, nonce, expected in list(suite.corpus(judge.scene))[::9]:
        found = judge.of_files(files, nonce)
        assert expected in found.failed or "not claimed" == found.states[expected], name
    assert 12 == len(list(suite.archives(judge.scene)))
