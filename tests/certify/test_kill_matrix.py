"""The certifier certified: without any one check some attack gets through, and docs/certify.md says which."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import pytest
from tools import attack_list

from formation.certify import matrix, on_forks, on_scored, suite
from formation.certify.attack import Group
from formation.certify.forgery import LEDGER
from formation.certify.judge import Judge
from formation.certify.matrix import Matrix
from formation.evidence.checks import CHECKS
from formation.ledger.formulas import recompute


@pytest.fixture(scope="module")
def found(judges: Mapping[str, Judge]) -> Matrix:
    return matrix.matrix([judges[name].scene for name in ("greedy", "sampled", "scored")])


def test_every_check_has_an_attack_that_it_alone_refuses(found: Matrix) -> None:
    assert [] == matrix.unneeded(found)
    assert [check.name for check in CHECKS] == list(found)


def test_the_page_has_the_matrix_and_the_attacks_of_this_code(found: Matrix) -> None:
    page = attack_list.PAGE.read_text(encoding="utf-8")
    assert page == attack_list.page_with(page, attack_list.ATTACKS, attack_list.attack_list()), "python -m tools.attack_list"
    assert page == attack_list.page_with(page, attack_list.MATRIX, attack_list.kill_matrix(found)), "python -m tools.attack_list"


def test_without_a_check_the_others_still_refuse(judges: Mapping[str, Judge]) -> None:
    judge = judges["greedy"]
    forgery = judge.scene.forgery()
    forgery.lines = forgery.lines[:-1]
    root = next(check for check in CHECKS if check.name == "root")
    assert LEDGER in forgery.files
    assert {"census", "subjects"} <= set(matrix.without(root, forgery, judge).failed)


@pytest.mark.parametrize(("chosen", "summed"), [(1.5, 1.4999999), (3e-310, -2e-308), (1e6, -1e-9), (0.1, 0.30000000000000004)])
def test_the_retired_rule_of_the_heads_rounding_follows_from_formulas(chosen: float, summed: float) -> None:
    """V18 allowed one rounding of the very difference that the formula rounds once"""
    rounding = recompute("lm_head_rounding", {"chosen_logit": chosen, "dla_logit": summed})
    assert abs(Fraction(summed) + Fraction(rounding) - Fraction(chosen)) <= Fraction(2) ** -53 * abs(Fraction(rounding))


@pytest.mark.parametrize("name", ["scored", "drawn"])
def test_what_is_said_of_given_tokens_is_refused_by_one_check_and_passes_without_it(judges: Mapping[str, Judge], name: str) -> None:
    """But for the census: without it nobody knows which lines are due"""
    check_one_refuses_each(on_scored.GROUP, judges[name])


def test_what_is_said_of_forced_tokens_is_refused_by_one_check_and_passes_without_it(judges: Mapping[str, Judge]) -> None:
    check_one_refuses_each(on_forks.GROUP, judges["forked"])


def check_one_refuses_each(group: Group, judge: Judge) -> None:
    needed = {}
    for attack in group.attacks:
        outcome = suite.make(attack, judge)
        if outcome.state != suite.NOT_APPLICABLE:
            assert attack.expected == outcome.observed
            needed[attack] = [check.name for check in matrix.killed_by(attack, judge)]
    assert {"anchor", "sampler", "census"} == {attack.expected for attack in needed}
    assert {} == {a.name: checks for a, checks in needed.items() if a.expected != "census" and [a.expected] != checks}
