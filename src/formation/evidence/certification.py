"""What certification.json says: which attacks were made on a bundle and the verifier, which check refused each, and how many mutations.

    {"seed": 0, "checkpoint": false,
     "attacks": [{"group", "name", "adversary", "mutation", "expected", "observed", "state"}, …],
     "mutations": {"count": 300, "signed": 100, "refused": 290, "checks": {"root": 80, …}, "untold": {"layer.residual_norm": 4, …}, "failures": […]}}

`state` of an attack is refused, got through, not applicable (`observed` says why) or not run. `refused` counts mutations, `checks` says which
check refused first; `untold` counts, by field, those which the right key signed and which only the weights or nobody can tell from the truth.
This is the `result` of the predicate; the envelope around it binds the tree head, the attestation and the version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from formation.evidence.strict import Refused, fields, is_count, text
from formation.ledger import canonical

CHECK = "certification"
REFUSED, THROUGH, NOT_APPLICABLE, NOT_RUN = "refused", "got through", "not applicable", "not run"
STATES = (REFUSED, THROUGH, NOT_APPLICABLE, NOT_RUN)
ATTACK = ("group", "name", "adversary", "mutation", "expected", "observed", "state")
MUTATIONS = ("count", "signed", "refused", "checks", "untold", "failures")
EXAMPLE: Mapping[str, Any] = {
    "seed": 0, "checkpoint": False,
    "attacks": [{"group": "root", "name": "edited line", "adversary": "the bundle", "mutation": "one value", "expected": "root", "observed": "root",
                 "state": "refused"}],
    "mutations": {"count": 1, "signed": 0, "refused": 1, "checks": {"root": 1}, "untold": {}, "failures": []},
}  # fmt: skip


@dataclass(frozen=True)
class Certified:
    """The counts. `unmet` are attacks that got through and mutations that did, crashed the verifier or took too long."""

    attacks: int
    refused: int
    not_run: int
    mutations: int
    unmet: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Something was tried, and nothing got through"""
        return not self.unmet and self.refused > 0

    @property
    def outcome(self) -> str:
        return "passed" if self.passed else "failed"

    def __str__(self) -> str:
        left = f"; {self.not_run} attacks not run, which need the weights" if self.not_run else ""
        return f"{self.refused}/{self.attacks} attacks refused by the check expected, {self.mutations} mutations{left}"


def read(result: Any, outcome: str) -> Certified:
    """The result of a certification whose outcome is the one that its attacks and mutations have. Raises Refused, check `certification`."""
    found = fields(CHECK, "certification, result", result, ("seed", "checkpoint", "attacks", "mutations"))
    if not is_count(found["seed"]) or type(found["checkpoint"]) is not bool or not isinstance(found["attacks"], list):
        raise Refused(CHECK, "certification: expected a seed, whether there was a checkpoint, and a list of attacks, got others")
    states = [read_attack(row) for row in found["attacks"]]
    through = [f"{row['group']}: {row['name']}" for row, state in zip(found["attacks"], states, strict=True) if state == THROUGH]
    count, failures = read_mutations(found["mutations"])
    made = states.count(REFUSED) + states.count(THROUGH)
    certified = Certified(made, states.count(REFUSED), states.count(NOT_RUN), count, (*through, *failures))
    if outcome != certified.outcome:
        raise Refused(CHECK, f"certification: expected outcome {certified.outcome}, as its attacks have it, got {canonical.quoted(outcome)}")
    return certified


def read_attack(row: Any) -> str:
    """Its state"""
    found = fields(CHECK, "certification, attack", row, ATTACK)
    for name in ATTACK:
        text(CHECK, f"certification, attack, {name}", found[name])
    if found["state"] not in STATES:
        raise Refused(CHECK, f"certification: expected a state of {', '.join(STATES)}, got {canonical.quoted(found['state'])}")
    if found["state"] == REFUSED and found["expected"] not in found["observed"].split(", "):
        raise Refused(CHECK, f"certification: expected a refusal by {canonical.quoted(found['expected'])}, got {canonical.quoted(found['observed'])}")
    return str(found["state"])


def read_mutations(value: Any) -> tuple[int, tuple[str, ...]]:
    """How many, and those that were not refused and should have been"""
    found = fields(CHECK, "certification, mutations", value, MUTATIONS)
    counts = [found["count"], found["signed"], found["refused"]]
    if not all(map(is_count, counts)) or not (is_counts(found["checks"]) and is_counts(found["untold"])) or not is_texts(found["failures"]):
        raise Refused(CHECK, "certification, mutations: expected counts, counts by check and by field, and a list of failures, got others")
    untold = found["count"] - found["refused"] - len(found["failures"])
    if sum(found["checks"].values()) != found["refused"] or untold < 0 or untold > sum(found["untold"].values()) or found["signed"] > found["count"]:
        raise Refused(CHECK, "certification, mutations: expected counts that add up, got others")
    return found["count"], tuple(found["failures"])


def is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(is_count(n) for n in value.values())


def is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
