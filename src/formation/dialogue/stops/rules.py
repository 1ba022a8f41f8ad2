"""When a dialogue is over: rules that are told each message and each token, and say from what they conclude.

    Stops(rules)   said(message, amounts), measured(amounts), interrupted(times): Evidence, or None while the dialogue goes on
    Rule           conditions that hold together ("and"); the first rule that holds ends the dialogue

Only what the sides themselves said is told to them: a marker in a prompt ends nothing. How rules are written: words.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from formation.dialogue.stops.conditions import Amounts, AtLeast, Condition, Finding, Said, Span, Watcher


@dataclass(frozen=True)
class Evidence:
    """Why a dialogue ended: the rule as it is written, the number of the last message that was ended before (0: none), whether that was within the
    next one, the characters that the rule saw, and the amounts that it compared."""

    rule: str
    after: int
    within: bool
    spans: tuple[Span, ...] = ()
    amounts: tuple[tuple[str, float], ...] = ()

    def document(self) -> dict[str, Any]:
        """As events.jsonl has it"""
        return {
            "rule": self.rule, "after": self.after, "within": self.within, "spans": [asdict(span) for span in self.spans],
            "amounts": [{"what": what, "amount": amount} for what, amount in self.amounts],
        }  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """All conditions hold at once. Conditions on what was said are looked at when a message has ended, a rule of amounts alone after each token
    too."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.conditions))

    @property
    def needs(self) -> frozenset[str]:
        """Amounts without which it cannot be told whether the rule holds"""
        return frozenset(each.what for each in self.conditions if isinstance(each, AtLeast))


@dataclass
class Watched:
    """A rule and what its conditions remember"""

    rule: Rule
    watchers: list[Watcher | AtLeast] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watchers = [each if isinstance(each, AtLeast) else each.watch() for each in self.rule.conditions]

    def said(self, message: Said, amounts: Amounts) -> Evidence | None:
        findings = [each.finding(amounts) if isinstance(each, AtLeast) else each.said(message) for each in self.watchers]
        return self._evidence(findings, message.number, within=False)

    def measured(self, amounts: Amounts, after: int) -> Evidence | None:
        if not all(isinstance(each, AtLeast) for each in self.watchers):
            return None
        return self._evidence([each.finding(amounts) for each in self.watchers if isinstance(each, AtLeast)], after, within=True)

    def _evidence(self, findings: Sequence[Finding | None], after: int, *, within: bool) -> Evidence | None:
        seen = [finding for finding in findings if finding is not None]
        if len(seen) < len(findings):
            return None
        spans = dict.fromkeys(span for finding in seen for span in finding.spans)
        return Evidence(str(self.rule), after, within, tuple(spans), tuple(amount for finding in seen for amount in finding.amounts))


class Stops:
    """The rules of one dialogue. A runner tells it each message that a side has ended, and the amounts after each token; a dialogue that is resumed
    tells it again from the beginning."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._watched = [Watched(rule) for rule in rules]
        self._after = 0

    def said(self, message: Said, amounts: Amounts) -> Evidence | None:
        """Every rule is told, so that none misses a message; of those that hold the first ends the dialogue."""
        self._after = message.number
        found = [watched.said(message, amounts) for watched in self._watched]
        return next((evidence for evidence in found if evidence), None)

    def measured(self, amounts: Amounts) -> Evidence | None:
        found = (watched.measured(amounts, self._after) for watched in self._watched)
        return next((evidence for evidence in found if evidence), None)

    def interrupted(self, times: int) -> Evidence:
        """Ctrl-C, which no rule has to ask for"""
        return Evidence("Ctrl-C", self._after, True, amounts=(("interrupts", times),))
