"""What a transcript itself says: counts and durations."""

from __future__ import annotations

from formation.dialogue.claims.claim import TRANSCRIPT, Finding, NotHere
from formation.dialogue.claims.procedure import NOTHING, Case, Input, Procedure

RESOLUTION_SECONDS = 1.0  # of a header's times
AS_SAID = "as the transcript has it"

BY = Input("by", "name", "only what this side said (default: both)")
FIRST = Input("first", "number", "the first message looked at (default: 1)")
LAST = Input("last", "number", "the last message looked at (default: the claim's)")


def count(case: Case) -> Finding:
    text, first, last = case.get("text"), case.get("first", 1), case.get("last", case.claim.message)
    by, what = case.get("by"), case.get("of_what", "occurrences")
    said = [m.text for n, m in case.transcript.said if first <= n <= last and by in (None, case.transcript.names[m.side])]
    found = sum(body.count(text) if what == "occurrences" else text in body for body in said)
    where = (f"messages {first} to {last}" if first != last else f"message {first}") + (f" by {by}" if by else "")
    return Finding(found, what, TRANSCRIPT, f"of {text!r} in {where}, {AS_SAID}; occurrences do not overlap")


def messages(case: Case) -> Finding:
    by, first, last = case.get("by"), case.get("first", 1), case.get("last", len(case.transcript.said))
    found = sum(first <= n <= last and by in (None, case.transcript.names[m.side]) for n, m in case.transcript.said)
    return Finding(found, "messages", TRANSCRIPT, f"{AS_SAID}; prompts are not counted")


def duration(case: Case) -> Finding:
    seconds, per = case.transcript.duration_seconds, case.get("per", "dialogue")
    if seconds is None:
        raise NotHere("the transcript does not state when it started and ended")
    parts = len(case.transcript.said) if per == "message" else 1
    interval = (seconds - RESOLUTION_SECONDS) / parts, (seconds + RESOLUTION_SECONDS) / parts
    caveat = "from the header's own times, whole seconds of a clock that it does not name"
    return Finding(seconds / parts, f"seconds per {per}" if per == "message" else "seconds", TRANSCRIPT, caveat, interval)


def length(case: Case) -> Finding:
    unit = case.get("unit", "characters")
    found = {"characters": len(case.text), "bytes": len(case.text.encode()), "words": len(case.text.split())}[unit]
    return Finding(found, unit, TRANSCRIPT, f"of message {case.message}, {AS_SAID}")


PROCEDURES = (
    Procedure("count", "how often a text was said so far", TRANSCRIPT, NOTHING, (
        Input("text", "text", "what is counted", True), BY, FIRST, LAST,
        Input("of_what", "occurrences|messages", "how often it stands there, or in how many messages (default: occurrences)"),
    ), count),
    Procedure("messages", "how many messages there are", TRANSCRIPT, NOTHING, (
        BY, FIRST, Input("last", "number", "the last one (default: all)"),
    ), messages),
    Procedure("duration", "how long the dialogue took by its header", TRANSCRIPT, NOTHING, (
        Input("per", "dialogue|message", "in all, or on average (default: dialogue)"),
    ), duration),
    Procedure("length", "how long a message is", TRANSCRIPT, NOTHING, (
        Input("message", "number", "which (default: the claim's)"), Input("unit", "characters|bytes|words", "default: characters"),
    ), length),
)  # fmt: skip
