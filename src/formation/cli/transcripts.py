"""What `formation dialogue` does with a transcript, or the log of a dialogue, that is there: hold what it states against it, write it in another
form, ask where rules would have ended it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.speech import harmless

if TYPE_CHECKING:
    from formation.dialogue.stops.simulate import Outcome
    from formation.dialogue.transcripts.transcript import Transcript

MOST_SPANS = 4  # that the terminal shows of one rule
EXCERPT = 40


def run(args: argparse.Namespace) -> int:
    """Of --check, --convert or --simulate-stops"""
    from formation.cli import logs
    from formation.dialogue.transcripts import formats

    path = args.check or args.convert or args.simulate_stops
    log = log_at(path)
    if log and args.check:
        return logs.check(log, args)
    transcript = logs.transcript_of(log) if log else formats.read(path)
    if args.simulate_stops:
        return simulate(transcript, log, args)
    return convert(transcript, args) if args.convert else check(transcript, args)


def log_at(path: Path) -> Path | None:
    """The log in this folder of a dialogue, or under this name"""
    from formation.dialogue import events

    return events.located(path) if path.is_dir() or path.name == events.NAME else None


# ---- --check


def check(transcript: Transcript, args: argparse.Namespace) -> int:
    from formation.dialogue.transcripts.transcript import mismatches

    found = mismatches(transcript)
    if args.json:
        print(json.dumps(facts(transcript) | {"mismatches": [{"fact": each.fact, "sentence": each.sentence} for each in found]}))
    else:
        told = [*fact_lines(transcript), *(f"MISMATCH  {each.fact}: {each.sentence}" for each in found)]
        print(harmless("\n".join(told if found else [*told, "what the header states holds, and the sides take turns"])))
    return 1 if found else 0


def facts(transcript: Transcript) -> dict[str, Any]:
    from formation.dialogue.stops.conditions import Ends, Place, Said
    from formation.dialogue.transcripts.transcript import show_stamp

    def count(place: Place) -> int:
        return sum(Ends("any", place).seen(Said(number, message.side, message.text)) is not None for number, message in transcript.said)

    return {
        "names": list(transcript.names), "messages": len(transcript.said), "by_side": list(transcript.counts),
        "bare": count("bare"), "ending": count("last"), "prompts": len(transcript.messages) - len(transcript.said),
        "stated_messages": transcript.stated_messages,
        "started": show_stamp(transcript.started) if transcript.started else None,
        "ended": show_stamp(transcript.ended) if transcript.ended else None, "duration_seconds": transcript.duration_seconds,
    }  # fmt: skip


def fact_lines(transcript: Transcript) -> Iterator[str]:
    from formation.dialogue.stops.conditions import MARKER

    told, seconds, stated = facts(transcript), transcript.duration_seconds, transcript.stated_messages
    yield f"{transcript.names[0]} ↔ {transcript.names[1]}"
    prompts = f", and {told['prompts']} prompts" if told["prompts"] else ""
    yield f"messages  {told['messages']}: {' and '.join(map(str, told['by_side']))}{prompts}; stated: {'nothing' if stated is None else stated}"
    yield f"{MARKER:9} {told['bare']} messages of nothing else, {told['ending']} that end in it"
    yield f"time      {told['started'] or '?'} to {told['ended'] or '?'}" + (f", {seconds:.0f} s" if seconds is not None else "")


# ---- --convert


def convert(transcript: Transcript, args: argparse.Namespace) -> int:
    from formation.dialogue.transcripts import formats
    from formation.errors import EnvironmentFault

    if args.out.exists():
        raise EnvironmentFault(f"{args.out}: expected a new file, got one that is there", hint="choose another name")
    formats.write(args.out, transcript)
    written = facts(transcript) | {"out": str(args.out), "bytes": args.out.stat().st_size}
    print(json.dumps(written) if args.json else harmless(f"{args.out}: {written['messages']} messages, {written['bytes']} bytes"))
    return 0


# ---- --simulate-stops


def simulate(transcript: Transcript, log: Path | None, args: argparse.Namespace) -> int:
    from formation.cli import logs
    from formation.dialogue.stops.simulate import USUAL, simulate
    from formation.dialogue.stops.words import read_rule

    rules = [read_rule(words) for words in args.stop or USUAL]
    outcomes = logs.simulated(log, rules) if log else simulate(transcript, rules)
    if args.json:
        told = [{"rule": str(each.rule), "unknown": list(each.unknown), "evidence": each.evidence and each.evidence.document()} for each in outcomes]
        print(json.dumps(facts(transcript) | {"outcomes": told}))
    else:
        print(harmless("\n".join(outcome_lines(transcript, outcomes))))
    return 0


def outcome_lines(transcript: Transcript, outcomes: Sequence[Outcome]) -> Iterator[str]:
    width = max(len(str(each.rule)) for each in outcomes)
    yield f"{'rule':{width}}  ends after message, of {len(transcript.said)}"
    for each in outcomes:
        if each.unknown:
            yield f"{each.rule!s:{width}}  cannot be told: nothing here says its {' and '.join(each.unknown)}"
        elif each.evidence is None:
            yield f"{each.rule!s:{width}}  never"
        else:
            within = f" and within {each.evidence.after + 1}" if each.evidence.within else ""
            amounts = "".join(f" {amount:g} {what}" for what, amount in each.evidence.amounts) if each.evidence.within else ""
            seen = " ".join(span_text(transcript, span.message, span.start, span.end) for span in each.evidence.spans[-MOST_SPANS:])
            more = "… " if len(each.evidence.spans) > MOST_SPANS else ""
            yield f"{each.rule!s:{width}}  {each.evidence.after:<5}{within}{amounts} {more}{seen}".rstrip()


def span_text(transcript: Transcript, number: int, start: int, end: int) -> str:
    """Message, characters and what they are: 22[0:5] "[END]" """
    return f"{number}[{start}:{end}] {excerpt(transcript.said[number - 1][1].text[start:end])}"


def excerpt(text: str) -> str:
    return json.dumps(text[:EXCERPT], ensure_ascii=False) + ("…" if len(text) > EXCERPT else "")
