"""What verifying found: an outcome for each numbered check, and from these a state for each level. Never a bare yes.

A level is `failed` if one of its checks is; `passed` if all that could be made passed, and at least one was; else `not claimed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from formation.evidence.checks import LEVELS, Check

PASSED, FAILED, NOT_CLAIMED, NOT_REACHED = "passed", "failed", "not claimed", "not reached"
NEITHER = (
    "only an audit proves the computation, and only for what it re-executed; neither proves that the run was not picked from many, nor wall time, "
    "nor hardware"
)
HONESTY = f"a verified bundle proves these bytes were signed by this key and are consistent; {NEITHER}"
REFUSED = f"a bundle that fails a check proves nothing; {NEITHER}"
KIND = "formation-verdict/1"


@dataclass(frozen=True)
class Finding:
    """What one check looked at, what it should have been and what it was."""

    state: str
    checked: str
    expected: str = ""
    found: str = ""


@dataclass(frozen=True)
class Outcome:
    check: Check
    finding: Finding

    @property
    def state(self) -> str:
        return self.finding.state

    def __str__(self) -> str:
        f = self.finding
        if self.state == FAILED:
            said = f"{f.checked}: expected {f.expected}, got {f.found}" if f.expected else f.checked
            return f"{self.check.id} {self.check.name}: {said}"
        return f"{self.check.id} {self.check.name}: {f.checked}"


@dataclass(frozen=True)
class Report:
    """The verdict on one bundle. `facts` are for people: run, signer, sizes; `notes` say more about a level."""

    outcomes: tuple[Outcome, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def verified(self) -> bool:
        """All checks were made as far as the bundle claims something, and none failed"""
        return all(outcome.state in (PASSED, NOT_CLAIMED) for outcome in self.outcomes)

    @property
    def exit_code(self) -> int:
        return 0 if self.verified else 1

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.state == FAILED)

    @property
    def honesty(self) -> str:
        return HONESTY if self.verified else REFUSED

    def levels(self) -> dict[str, str]:
        return {level: self._level([o.state for o in self.outcomes if o.check.level == level]) for level in LEVELS}

    @staticmethod
    def _level(states: list[str]) -> str:
        if FAILED in states:
            return FAILED
        return PASSED if PASSED in states and NOT_REACHED not in states else NOT_CLAIMED

    def document(self) -> dict[str, Any]:
        """For --json"""
        return {
            "kind": KIND,
            "verdict": "verified" if self.verified else "failed",
            "levels": self.levels(),
            "notes": dict(self.notes),
            "checks": [shown(outcome) for outcome in self.outcomes],
            "facts": dict(self.facts),
            "proves": self.honesty,
        }


def shown(outcome: Outcome) -> dict[str, str]:
    check, finding = outcome.check, outcome.finding
    found = {"id": check.id, "name": check.name, "level": check.level, "state": finding.state, "checked": finding.checked}
    return found | ({"expected": finding.expected, "found": finding.found} if finding.expected else {})


def passed(checked: str) -> Finding:
    return Finding(PASSED, checked)


def not_claimed(why: str) -> Finding:
    return Finding(NOT_CLAIMED, why)


def failed(sentence: str) -> Finding:
    """From a sentence "what: expected X, got Y", or one of another form"""
    before, found, after = sentence.partition("expected ")
    expected, got, rest = after.rpartition(", got ")
    what = before.rstrip(": ")
    return Finding(FAILED, what or "this", expected, rest) if found and got else Finding(FAILED, sentence)
