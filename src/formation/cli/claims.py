"""Settle what a dialogue says about its own tokens, claim by claim: supported, refuted, undetermined, or not measurable here.

The claims stand in claims.toml beside the transcript, or in the file that --claims names; without one the lexicon's suggestions are settled, which
are words and no more. What needs no model is settled without one. For the others --as gives a checkpoint that stands in for a side, and --event-log
the log of the dialogue itself: what is measured then is about that model in that context, never about what another machine did.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.options import add_json, add_streaming
from formation.cli.prompt import add_told
from formation.cli.roles import stand_ins
from formation.cli.speech import LiveText, harmless, say
from formation.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from formation.dialogue.claims.claim import Claim, Finding, Settled
    from formation.dialogue.claims.model import Terms
    from formation.dialogue.claims.models import Models
    from formation.dialogue.transcripts.transcript import Transcript

HELP = "what a dialogue says about its own tokens, held against measurement"
REPORT = "formation-claims-report/1"
INDENT = " " * 21


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("transcript", type=Path, metavar="TRANSCRIPT", help="text, JSONL, chat JSON or a log of UniversalBackrooms")
    parser.add_argument("--claims", type=Path, metavar="FILE", help="the claims (default: claims.toml beside the transcript, if it is there)")
    parser.add_argument("--as", dest="sides", action="append", default=[], metavar="NAME=CKPT", help="CKPT stands in for NAME; may be given again")
    parser.add_argument("--event-log", type=Path, metavar="FILE", help="events.jsonl of this very dialogue: what was measured of its tokens")
    parser.add_argument("--suggest", action="store_true", help="settle nothing: write a claims.toml of what words suggest, to --out or stdout")
    add_told(parser, "system prompt of the sides (default: what the transcript has)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON object, or with --suggest the claims, there")
    add_streaming(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.dialogue.transcripts import formats

    transcript = formats.read(args.transcript)
    sha256 = hashlib.sha256(args.transcript.read_bytes()).hexdigest()
    return suggest(args, transcript, sha256) if args.suggest else settle(args, transcript, sha256)


def suggest(args: argparse.Namespace, transcript: Transcript, sha256: str) -> int:
    from formation.dialogue.claims.lexicon import skeleton
    from formation.dialogue.claims.lexicon import suggest as suggested
    from formation.ledger import files

    found = suggested(transcript)
    data = skeleton(found, sha256)
    if args.out and args.out.exists():
        raise EnvironmentFault(f"{args.out}: expected a new file, got one that is there", hint="choose another name")
    if args.out:
        files.write_whole(args.out, data)
        say(f"{args.out}: {len(found)} suggestions")
    else:
        print(harmless(data.decode()), end="")
    return 0


def settle(args: argparse.Namespace, transcript: Transcript, sha256: str) -> int:
    from formation.dialogue.claims import catalog
    from formation.ledger import files

    claims, source = claims_of(args, transcript, sha256)
    with LiveText(0, echo=False) as live:
        models = models_of(args, transcript, live)
        settled = catalog.settle(transcript, claims, models)
    told = document(transcript, sha256, source, models, settled)
    if args.out:
        files.write_whole(args.out, (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode())
    print(json.dumps(told) if args.json else harmless("\n".join(lines(transcript, source, models, settled))))
    return 0


# ---- what is asked


def claims_of(args: argparse.Namespace, transcript: Transcript, sha256: str) -> tuple[list[Claim], str]:
    """The claims, and where they are from. Raises EnvironmentFault."""
    from formation.dialogue.claims.lexicon import suggest as suggested
    from formation.dialogue.claims.read import NAME, read

    path = args.claims or args.transcript.with_name(NAME)
    if args.claims or path.is_file():
        return read(path, transcript, sha256), str(path)
    say(f"no {NAME} beside the transcript: the lexicon's suggestions are settled, which are words and no claims yet")
    return suggested(transcript), "lexicon"


def models_of(args: argparse.Namespace, transcript: Transcript, live: LiveText) -> Models:
    """Raises UsageError, and what opening a checkpoint raises."""
    from formation.dialogue.claims.models import Models

    folders = stand_ins(args.sides, transcript.names)
    if args.mirror and not folders:
        raise UsageError("claims: expected --as with --mirror, got no checkpoint", hint="add --as NAME=CKPT")
    return Models(transcript, folders, args.event_log, terms_of(args, live) if folders else None)


def terms_of(args: argparse.Namespace, live: LiveText) -> Terms:
    from formation.dialogue.claims.model import Terms
    from formation.dialogue.side import Manner
    from formation.text.prompt import read_day

    manner = Manner(args.system or "", args.thinking, today=read_day(args.today))
    return Terms(args.memory, args.threads, manner, live.progress, say, args.mirror)


# ---- what came of it


def document(transcript: Transcript, sha256: str, source: str, models: Models, settled: Sequence[Settled]) -> dict[str, Any]:
    from formation.dialogue.claims.claim import VERDICTS
    from formation.version import __version__

    counts = Counter(each.verdict for each in settled)
    return {
        "format": REPORT, "formation": __version__,
        "transcript": {"sha256": sha256, "names": list(transcript.names), "messages": len(transcript.said)},
        "claims_from": "lexicon" if source == "lexicon" else "file", "models": models.document(),
        "verdicts": {verdict: counts[verdict] for verdict in VERDICTS}, "claims": [each.document() for each in settled],
    }  # fmt: skip


def lines(transcript: Transcript, source: str, models: Models, settled: Sequence[Settled]) -> Iterator[str]:
    from formation.dialogue.claims.claim import VERDICTS

    for each in settled:
        yield from claim_lines(transcript, each)
        yield ""
    for told in models.document():
        yield f"{told['name']}: {told['model_type']}, checkpoint {told['checkpoint_sha256']}, stands in for it"
    counts = Counter(each.verdict for each in settled)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]) or "nothing to settle"
    yield f"{len(settled)} claims of {source}: {said}"
    yield "a verdict is about what its scope names: the transcript, a standard, or a model and a context that are here"


def claim_lines(transcript: Transcript, each: Settled) -> Iterator[str]:
    claim, found = each.claim, each.finding
    speaker = transcript.names[transcript.said[claim.message - 1][1].side]
    quote = json.dumps(claim.quote, ensure_ascii=False)
    yield f"{each.verdict:{len(INDENT) - 2}}  message {claim.message}, {speaker}: {quote}"
    yield f"{INDENT}{claim.predicate}"
    if found.value is not None:
        yield f"{INDENT}{claim.procedure}: {shown(found.value)}{unit(found)}{within(each)}, {says(claim)}  [{found.scope}]"
    yield f"{INDENT}{found.caveat}"


def shown(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else str(value)


def unit(found: Finding) -> str:
    """Of a number; a text and a yes say themselves what they are"""
    return f" {found.unit}" if not isinstance(found.value, bool | str) else ""


def within(each: Settled) -> str:
    return f" within [{each.finding.interval[0]:.6g}, {each.finding.interval[1]:.6g}]" if each.finding.interval else ""


def says(claim: Claim) -> str:
    if "says" not in claim.inputs:
        return "the claim says no value"
    relation = claim.inputs.get("relation", "is")
    return f"said: {'' if relation == 'is' else relation + ' '}{shown(claim.inputs['says'])}"
