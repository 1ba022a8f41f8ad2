"""How far a rule of the ledger is from holding: one gap for each thing checked, and of all of them the worst one for each rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum, inf
from operator import eq
from typing import NamedTuple

TOLERANCE = 64 * 2.0**-53  # times the sum of absolute terms


class Gap(NamedTuple):
    """`size` is the distance from what the rule demands, infinite where no number says it; above `tolerance` the rule is violated."""

    rule: str
    size: float
    tolerance: float
    where: str

    @property
    def violated(self) -> bool:
        return not self.size <= self.tolerance


@dataclass(frozen=True)
class RuleResult:
    """One rule over a whole ledger. `checked` counts what it was held against: at 0 the rule says nothing."""

    rule: str
    checked: int
    worst_gap: float
    tolerance: float
    where: str
    violated: bool


def fact(rule: str, holds: bool, where: str) -> Gap:
    """What either holds or not"""
    return Gap(rule, 0.0 if holds else inf, 0.0, where)


def same(rule: str, expected: Sequence[float], found: Sequence[float], where: str) -> Gap:
    """Number by number equal"""
    if len(expected) != len(found):
        return fact(rule, False, where)
    if all(map(eq, expected, found)):
        return Gap(rule, 0.0, 0.0, where)
    return Gap(rule, max(map(distance, expected, found), default=0.0), 0.0, where)


def distance(a: float, b: float) -> float:
    """Infinite of NaN, which max() would drop"""
    return abs(a - b) if a == a and b == b else inf


def closure(rule: str, total: float, terms: Sequence[float], allowance: float, where: str) -> Gap:
    """The terms make the total, up to the rounding of binary64 and `allowance`, what they may be off; the distance is exact up to its one rounding"""
    return Gap(rule, abs(fsum([*terms, -total])), TOLERANCE * fsum(map(abs, terms)) + allowance, where)


def within(rule: str, low: float, value: float, high: float, tolerance: float, where: str) -> Gap:
    return Gap(rule, max(low - value, value - high, 0.0), tolerance, where)


class Tally:
    """The worst gap of each rule so far; memory does not grow with the ledger."""

    def __init__(self, rules: Sequence[str]) -> None:
        self._worst: dict[str, Gap | None] = dict.fromkeys(rules)
        self._checked = dict.fromkeys(rules, 0)

    def take(self, gaps: Iterable[Gap]) -> None:
        for gap in gaps:
            rule, worst = gap.rule, self._worst[gap.rule]
            self._checked[rule] += 1
            if worst is None or ((gap.size or gap.violated) and (gap.violated, gap.size) > (worst.violated, worst.size)):
                self._worst[rule] = gap

    def join(self, later: Iterable[RuleResult]) -> None:
        """Takes what another tally took, all of it after what this one has taken: the results are as if there were one"""
        for result in later:
            if result.checked:
                self.take([Gap(result.rule, result.worst_gap, result.tolerance, result.where)])
                self._checked[result.rule] += result.checked - 1

    def results(self) -> tuple[RuleResult, ...]:
        return tuple(self._result(rule) for rule in self._worst)

    def _result(self, rule: str) -> RuleResult:
        gap = self._worst[rule] or Gap(rule, 0.0, 0.0, "")
        return RuleResult(rule, self._checked[rule], gap.size, gap.tolerance, gap.where, gap.violated)
