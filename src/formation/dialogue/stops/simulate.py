"""Where rules would have ended a dialogue that is over, had they been asked: told from a transcript, or from a log, which knows more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from formation.dialogue import times
from formation.dialogue.events import Event
from formation.dialogue.so_far import FAILED, STOPPED, SoFar
from formation.dialogue.stops.conditions import Amounts, Said
from formation.dialogue.stops.rules import Evidence, Rule, Stops
from formation.dialogue.transcripts.transcript import Transcript

KNOWN = frozenset({"messages", "errors"})  # amounts of a transcript: it says nothing about tokens, seconds or bytes
IN_LOG, IN_TIMES = KNOWN | {"tokens"}, frozenset({"seconds", "bytes"})
USUAL = (
    "any ends anywhere", "both end", "both end bare", "each ends bare 2 times", "each ends bare 3 times", "each ends bare 4 times",
    "any says the same 2 times", "both say the same 2 times", "cycle 3 times", "any says nothing", "100 messages",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """`evidence` is None if the rule never held, or if `unknown` names amounts that nobody has said."""

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


# ---- of a log


def simulate_log(found: Sequence[Event], rules: Sequence[Rule], passed: times.Passed) -> list[Outcome]:
    """The same of the events of a log, `passed` being what its times.jsonl says: rules on amounts alone are looked at after each token too"""
    known = IN_LOG | (IN_TIMES if all(event.number in passed for event in found) else frozenset())
    return [Outcome(rule, None, tuple(sorted(unknown))) if (unknown := rule.needs - known) else of_events(found, rule, passed) for rule in rules]


def of_events(found: Iterable[Event], rule: Rule, passed: times.Passed) -> Outcome:
    stops, so_far = Stops([rule]), SoFar()
    for event in found:
        so_far.take(event)
        if evidence := heard(stops, event, so_far, so_far.amounts(*passed.get(event.number, (None, None)))):
            return Outcome(rule, evidence)
    return Outcome(rule, None)


def heard(stops: Stops, event: Event, so_far: SoFar, amounts: Amounts) -> Evidence | None:
    """Of an event that was taken; a turn that its side did not end is judged by nobody"""
    if event.kind in ("token", "fault"):
        return stops.measured(amounts)
    if event.kind == "turn_end" and (last := so_far.ended[-1]).reason not in (STOPPED, FAILED):
        return stops.said(Said(last.number, last.side, last.text), amounts)
    return None
