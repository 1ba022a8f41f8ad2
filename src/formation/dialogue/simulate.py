"""Where rules would have ended a dialogue that is over, had they been asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from formation.dialogue.conditions import Amounts, Said
from formation.dialogue.stops import Evidence, Rule, Stops
from formation.dialogue.transcript import Transcript

KNOWN = frozenset({"messages", "errors"})  # amounts of a transcript: it says nothing about tokens, seconds or bytes
USUAL = (
    "any ends anywhere", "both end", "both end bare", "each ends bare 2 times", "each ends bare 3 times", "each ends bare 4 times",
    "any says the same 2 times", "both say the same 2 times", "cycle 3 times", "any says nothing", "100 messages",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """`evidence` is None if the rule never held, or if `unknown` names amounts that the transcript does not say."""

    rule: Rule
    evidence: Evidence | None
    unknown: tuple[str, ...] = ()


def simulate(transcript: Transcript, rules: Sequence[Rule]) -> list[Outcome]:
    """Each rule on its own"""
    return [outcome(transcript, rule) for rule in rules]


def outcome(transcript: Transcript, rule: Rule) -> Outcome:
    if unknown := rule.needs - KNOWN:
        return Outcome(rule, None, tuple(sorted(unknown)))
    stops = Stops([rule])
    for count, (number, message) in enumerate(transcript.said, 1):
        evidence = stops.said(Said(number, message.side, message.text), Amounts(messages=count))
        if evidence:
            return Outcome(rule, evidence)
    return Outcome(rule, None)
