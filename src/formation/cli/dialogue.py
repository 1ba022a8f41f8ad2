"""Let two models talk, every token measured and kept in a log; or look at the transcript of a dialogue.

A side is a folder with a checkpoint, streamed here, or the URL of a server of the OpenAI protocol. The folder --out holds events.jsonl, the log from
which a dialogue that was cut off is resumed to the same bytes, and its transcript. A rule that ends it is a sentence, such as 'both end bare twice'
or 'any says the same 3 times and 2 hours'; --stop may be given several times. Ctrl-C ends it after the token, twice at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from formation.cli.bundles import add_bundle
from formation.cli.options import add_json, add_streaming
from formation.cli.roles import add_manners

HELP = "let two models talk, every token measured; or check, convert, ask a transcript"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sides = parser.add_argument_group("a dialogue")
    sides.add_argument("--a", metavar="NAME=CKPT|URL", help="the first side: how it is called, and what speaks")
    sides.add_argument("--b", metavar="NAME=CKPT|URL", help="the second")
    sides.add_argument("--first", choices=("a", "b"), default="a", help="who speaks first (default: a)")
    begin = sides.add_mutually_exclusive_group()
    begin.add_argument("--kickoff", metavar="TEXT", help="what the first to speak is told, as if by the other (default: an empty message)")
    begin.add_argument("--no-kickoff", action="store_true", help="it is told nothing: its template alone begins")
    sides.add_argument(
        "--stop", action="append", metavar="RULE", help="what ends it (default: 'each ends bare 2 times', '1 error'): docs/dialogue.md"
    )
    sides.add_argument("--out", type=Path, metavar="NAME.dlg", help="folder for it, which must hold none; with --convert, the file to write")
    sides.add_argument("--resume", type=Path, metavar="NAME.dlg", help="go on with the dialogue in this folder, which was cut off")
    add_manners(parser)
    bundles = parser.add_argument_group("its bundles, one for each side that runs here")
    bundles.add_argument("--no-bundles", dest="bundles", action="store_false", help="make none (--resume makes what is missing)")
    add_bundle(bundles)
    add_streaming(parser)
    task = parser.add_argument_group("or a transcript").add_mutually_exclusive_group()
    task.add_argument(
        "--check", type=Path, metavar="TRANSCRIPT", help="hold what the header states against the messages; exit code 1 if it does not hold"
    )
    task.add_argument(
        "--convert", type=Path, metavar="TRANSCRIPT", help="write it to --out in the form of that name: .md, or .jsonl, which loses nothing"
    )
    task.add_argument("--simulate-stops", type=Path, metavar="TRANSCRIPT", help="where each --stop would have ended it (default: the usual rules)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.cli import conversation, transcripts
    from formation.errors import UsageError

    transcript = args.check or args.convert or args.simulate_stops
    if transcript and (args.a or args.b or args.resume):
        raise UsageError("dialogue: expected a dialogue or a transcript, got both")
    if not transcript:
        return conversation.run(args)
    if (args.out is None) == (args.convert is not None):
        raise UsageError(f"dialogue: expected --convert with --out, got {'no --out' if args.convert else 'no --convert'}")
    if args.stop and not args.simulate_stops:
        raise UsageError("dialogue: expected --simulate-stops with --stop, got none")
    return transcripts.run(args)
