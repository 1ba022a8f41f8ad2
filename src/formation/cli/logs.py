"""The log of a dialogue, as `formation dialogue` reads it: whether its chain is whole, its transcript is its own, and its bundles are of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.bundles import lines as bundle_lines
from formation.cli.speech import harmless
from formation.errors import EvidenceError

if TYPE_CHECKING:
    from formation.dialogue.agreement import Agreed
    from formation.dialogue.events import Survey
    from formation.dialogue.so_far import SoFar
    from formation.dialogue.stops.rules import Rule
    from formation.dialogue.stops.simulate import Outcome
    from formation.dialogue.transcripts.transcript import Transcript


def so_far_of(log: Path) -> SoFar:
    from formation.dialogue import events
    from formation.dialogue.so_far import SoFar

    so_far = SoFar()
    for event in events.read(log):
        so_far.take(event)
    if not so_far.head:
        raise EvidenceError(f"{log}: expected a dialogue that was begun, got an empty log")
    return so_far


def transcript_of(log: Path) -> Transcript:
    return so_far_of(log).transcript(prompts=True)


def simulated(log: Path, rules: Sequence[Rule]) -> list[Outcome]:
    from formation.dialogue import events, times
    from formation.dialogue.stops.simulate import simulate_log

    found = list(events.read(log))
    return simulate_log(found, rules, times.passed(log.with_name(times.NAME), len(found)))


# ---- --check


def check(log: Path, args: argparse.Namespace) -> int:
    """Exit code 1 for a log that was cut off. Raises EvidenceError for what is not as the log has it."""
    from formation.dialogue import events

    found, so_far = events.survey(log), so_far_of(log)
    compared = same_transcript(log, so_far)
    agreed = of_bundles(log) if found.complete else []
    if args.json:
        print(json.dumps(document(found, so_far, compared, agreed)))
    else:
        print(harmless("\n".join(told(found, so_far, compared, agreed))))
    return 0 if found.complete else 1


def same_transcript(log: Path, so_far: SoFar) -> bool:
    """Whether there is one. Raises EvidenceError if it says something else than the log."""
    from formation.dialogue.conduct import LOSSLESS
    from formation.dialogue.transcripts import formats

    path = log.with_name(LOSSLESS)
    if not path.is_file():
        return False
    known = so_far.transcript(prompts=True)
    found = formats.read(path)
    if (found.names, found.messages) != (known.names, known.messages):
        raise EvidenceError(f"{path}: expected the messages of {log.name}, got others", hint="formation dialogue --resume writes it anew")
    return True


def of_bundles(log: Path) -> list[Agreed]:
    from formation.dialogue.agreement import agree

    folders = sorted(log.parent.glob("[ab]*.ofb"), key=lambda path: (path.name[0], len(path.name), path.name))
    return agree(log, folders) if folders else []


def document(found: Survey, so_far: SoFar, transcript: bool, agreed: Sequence[Agreed]) -> Mapping[str, Any]:
    own = {"events": found.events, "complete": found.complete, "last_sha256": found.last_sha256, "messages": len(so_far.ended)}
    bundles = [{"bundle": each.bundle, "side": each.side, "turns": each.turns, "tokens": each.tokens, "values": each.values} for each in agreed]
    return own | {"tokens": so_far.tokens, "transcript": transcript, "bundles": bundles}


def told(found: Survey, so_far: SoFar, transcript: bool, agreed: Sequence[Agreed]) -> Iterator[str]:
    yield f"{found.events} events, whose chain is whole; the last is sha256:{found.last_sha256}"
    end = "" if found.complete else ", and was cut off: --resume goes on with it"
    yield f"{len(so_far.ended)} messages, {so_far.tokens} tokens{end}"
    yield "transcript.jsonl says the same" if transcript else "no transcript.jsonl beside it"
    yield from bundle_lines(agreed) if agreed else ["no bundles beside it"] if found.complete else []
