"""Score what was said in a transcript: how surprising each token of a side's messages is to a model, in one pass over its weights.

Each --as names a side of the transcript and a checkpoint, under whose own chat template the dialogue is read; only that side's own messages are
scored, everything else is what it was told. The folder --out gets tokens.jsonl, a line for each scored token, summary.json, and a bundle for each
side, a.ofb and b.ofb, which `formation verify`, `audit`, `show` and `explore` know as any other.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.bundles import add_bundle, signer
from formation.cli.options import add_json, add_streaming, read_checkpoints
from formation.cli.prompt import add_told
from formation.cli.roles import stand_ins
from formation.cli.speech import harmless, say
from formation.errors import EnvironmentFault

if TYPE_CHECKING:
    from formation.dialogue.score import Event, Row, Scored
    from formation.dialogue.side import Manner
    from formation.dialogue.taught import Speaker, Taught
    from formation.dialogue.transcripts.transcript import Transcript
    from formation.weights.checkpoint import Checkpoint

HELP = "how surprising what was said in a transcript is to a model, token by token"
MOST_SAID = 5  # places of an event of several tokens that the terminal tells
TOKENS, SUMMARY = "tokens.jsonl", "summary.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("transcript", type=Path, metavar="TRANSCRIPT", help="text, JSONL, chat JSON or a log of UniversalBackrooms")
    parser.add_argument(
        "--as", dest="sides", action="append", required=True, metavar="NAME=CKPT", help="score what NAME said with CKPT; may be given again"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the bundles and the tables; must hold none yet")
    parser.add_argument("--resume", action="store_true", help="go on with what is in --out, begun by the same command and cut off")
    about = "count how often a token is this one, or the first of this text (default: the end of a turn)"
    parser.add_argument("--event", metavar="TEXT", help=about)
    parser.add_argument("--messages", type=int, metavar="N", help="only the first N (default: all)")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--kickoff", metavar="TEXT", help="what the first to speak was told (default: what the transcript has, or an empty message)")
    begin.add_argument("--no-kickoff", action="store_true", help="it was told nothing: its template alone begins")
    add_told(parser, "system prompt (default: what the transcript has)")
    add_bundle(parser)
    parser.add_argument("--table", action="store_true", help="print every scored token")
    add_streaming(parser)
    add_json(parser)


@dataclass(frozen=True)
class Asked:
    """One side, as far as it is known before anything is computed."""

    side: int
    name: str
    checkpoint: Checkpoint
    taught: Taught
    event: Event


def run(args: argparse.Namespace) -> int:
    from formation.dialogue import score
    from formation.dialogue.taught import first_messages
    from formation.dialogue.transcripts import formats
    from formation.evidence.seal import seal
    from formation.ledger import files

    key = signer(args)
    transcript = formats.read(args.transcript)
    if args.messages is not None:
        transcript = first_messages(transcript, args.messages)
    sources = stand_ins(args.sides, transcript.names)
    opened = read_checkpoints(args, list(sources.values()))
    asked = list(ask(args, transcript, list(sources), opened))
    if not args.resume:
        check_new(args.out, asked)
    found: list[dict[str, Any]] = []
    scored = [each for _, sides in groupby(asked, lambda side: side.checkpoint.path.resolve()) for each in score_sides(args, list(sides))]
    for each in scored:
        sealed = seal(each.folder, key)
        found.append(score.document(each) | {"bundle": each.folder.name, "digest": sealed.digest, "signer": sealed.fingerprint})
    files.write_whole(args.out / TOKENS, "".join(f"{json.dumps(line)}\n" for line in table(scored)).encode())
    files.write_whole(args.out / SUMMARY, (json.dumps({"sides": found}, indent=1) + "\n").encode())
    if args.json:
        print(json.dumps({"out": str(args.out), "sides": found}))
    else:
        print(harmless("\n".join([*(row_lines(scored) if args.table else ()), *(line for each in scored for line in lines(each))])))
        say(f"next: formation verify {args.out / found[0]['bundle']}, formation explore {args.out / found[0]['bundle']}")
    return 0


# ---- what is asked for


def ask(args: argparse.Namespace, transcript: Transcript, sides: Sequence[int], checkpoints: Sequence[Checkpoint]) -> Iterator[Asked]:
    """Raises UsageError, and what a checkpoint's template raises."""
    from formation.dialogue.score import event_of
    from formation.dialogue.side import Manner
    from formation.dialogue.taught import check_fits, speaker_of, taught
    from formation.model.catalog import read_model
    from formation.text.prompt import read_day

    speakers = [speaker_of(checkpoint) for checkpoint in checkpoints]
    told = manners(Manner(args.system or "", args.thinking, today=read_day(args.today)), speakers)
    kickoff = None if args.no_kickoff else args.kickoff or ""
    for side, checkpoint, speaker, manner in zip(sides, checkpoints, speakers, told, strict=True):
        name, said = transcript.names[side], taught(transcript, side, speaker, manner, kickoff)
        check_fits(name, said, read_model(checkpoint.config).shape.context)
        yield Asked(side, name, checkpoint, said, event_of(speaker, args.event))


def manners(asked: Manner, speakers: Sequence[Speaker]) -> list[Manner]:
    """Each is told what its template has use for. What no template has use for all are told, and refuse."""
    told = [speaker.told(asked) for speaker in speakers]
    useless = {name: getattr(asked, name) for name in ("thinking", "today") if all(getattr(each, name) is None for each in told)}
    return [replace(each, **useless) for each in told]


def check_new(out: Path, asked: Sequence[Asked]) -> None:
    """Raises EnvironmentFault."""
    for name in (TOKENS, SUMMARY, *(bundle_of(each) for each in asked)):
        if (out / name).exists():
            raise EnvironmentFault(f"{out}: expected a folder without scores, got {name}", hint="go on with --resume, or choose another folder")


def bundle_of(asked: Asked) -> str:
    return f"{'ab'[asked.side]}.ofb"


def score_sides(args: argparse.Namespace, asked: Sequence[Asked]) -> list[Scored]:
    """Of one checkpoint, whose weights are read once for all of them"""
    from formation.cli.speech import LiveText
    from formation.dialogue.score import Wanted, score_together
    from formation.ledger.progress import Watch
    from formation.recording import Means

    for place, each in enumerate(asked):
        say(harmless(plan_line(each, beside=place > 0)))
    with LiveText(sum(end - begin for each in asked for begin, end in each.taught.spans), echo=False) as live:
        means = Means(args.memory, args.threads, parity=args.parity, progress=live.progress, on_step=lambda step: live.add(""))
        sides = [Wanted(each.name, each.taught, each.event, args.out / bundle_of(each)) for each in asked]
        return score_together(asked[0].checkpoint, sides, Watch(args.capture, "minimal", args.rows), means)


def plan_line(asked: Asked, *, beside: bool) -> str:
    """What the pass is, before it begins"""
    from formation.dialogue.score import LONG
    from formation.run.machine import show_bytes

    positions, taught = len(asked.taught.ids) - 1, asked.taught
    tokens = sum(end - begin for begin, end in taught.spans)
    limit = f"; beyond some {LONG} positions arithmetic is the limit, not reading" if positions > LONG else ""
    silent = f"; {len(taught.silent)} messages without a token are not scored" if taught.silent else ""
    passes = "in the same pass if the budget holds both," if beside else "one pass of"
    size = show_bytes(asked.checkpoint.total_bytes)
    scored = f"{tokens} tokens in {len(taught.spans)} messages scored"
    return f"{asked.name}: {passes} {positions} positions over {size} of weights, {scored}{limit}{silent}"


# ---- what came of it


def table(scored: Sequence[Scored]) -> Iterator[dict[str, Any]]:
    """A line for each scored token, in the order of the dialogue"""
    for each, row in in_order(scored):
        yield {"side": each.name, **row.document()}


def in_order(scored: Sequence[Scored]) -> list[tuple[Scored, Row]]:
    return sorted(((each, row) for each in scored for row in each.rows), key=lambda pair: (pair[1].message, pair[1].index))


def row_lines(scored: Sequence[Scored]) -> Iterator[str]:
    yield "message token        id      bits      rank   text"
    for _, row in in_order(scored):
        yield f"{row.message:7} {row.index:5} {row.id:9} {row.surprisal_bits:9.4f} {row.rank_low:9}   {spelt(row)}"


def spelt(row: Row) -> str:
    return json.dumps(row.bytes.decode("utf-8", "backslashreplace"), ensure_ascii=False) + ("  ends the turn" if row.ends_turn else "")


def lines(scored: Scored) -> Iterator[str]:
    from formation.dialogue.score import document
    from formation.ledger.zero import LN2

    told, found = document(scored), scored.count
    yield f"{scored.name}  {told['tokens']} tokens of {told['messages']} messages, in {scored.folder}"
    perplexity = f"perplexity {told['perplexity']:.4g}"
    yield f"  surprise        {scored.nats_per_token:.4f} nats per token ({perplexity}), {scored.bits_per_byte:.4f} bits per byte of text"
    yield f"  {scored.event.name}: observed {found.observed}, expected {found.expected:.4g} in {found.trials} steps"
    yield f"    as many or more {found.at_least:.4g}, as many or fewer {found.at_most:.4g} (Poisson-binomial, each chance after what was said before)"
    if scored.event.whole:
        said = ", ".join(f"{-nats / LN2:.3f}" for nats in scored.whole[:MOST_SAID]) + (" …" if len(scored.whole) > MOST_SAID else "")
        yield f"    all {len(scored.event.whole)} tokens of it: said {len(scored.whole)} times{f', with {said} bits' if said else ''}"
    yield "  most surprising"
    for row in scored.most_surprising:
        yield f"    {row.surprisal_bits:8.3f} bits, rank {row.rank_low}, message {row.message} token {row.index + 1}: {spelt(row)}"
    yield f"  parity          {scored.parity}"
