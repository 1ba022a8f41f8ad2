"""Ask what would have come if another token had stood there: a dialogue or a recorded run, taken up at one of its tokens in several ways.

RUN is the folder of a dialogue or a bundle, and is only read. --at says where: MSG:TOKEN of a dialogue, TOKEN of a run, both counted from 1. Each
choice is an id, a text (id:7 and text:7, or text:end, say which is meant), end (also '' and ∅: nothing said is a turn that ends), least, free,
resample, resample:SEED or undecided. What is forced keeps its probability under the model and under the sampler. Branches share the run's own draws,
so that they differ by what was chosen and not by luck. A branch of a recorded run is recorded too: a sealed bundle that names its parent.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.fork_progress import ForkProgress
from formation.cli.options import add_json, add_streaming, read_checkpoint
from formation.cli.speech import harmless, say
from formation.dialogue.named import FORM

if TYPE_CHECKING:
    from formation.dialogue.forks.of_bundle import Place
    from formation.dialogue.forks.source import Source

HELP = "what would have come if another token had stood there"
SAMPLER: tuple[tuple[str, Any, str, str], ...] = (
    ("temperature", float, "T", "of the branches, in place of the run's own; 0: greedy"),
    ("top-k", int, "K", "likewise"), ("top-p", float, "P", "likewise"), ("min-p", float, "P", "likewise"), ("seed", int, "N", "likewise"),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="RUN", help="folder of a dialogue, or bundle NAME.ofb")
    parser.add_argument("--at", required=True, metavar="MSG:TOKEN", help="which token, from 1; TOKEN alone of a recorded run")
    choices = f"{FORM}, end, least, free, resample[:SEED] or undecided"
    parser.add_argument("--choose", nargs="+", required=True, metavar="CHOICE", help=choices)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the fork; one that was cut off there goes on")
    parser.add_argument("--checkpoint", metavar="CKPT", help="of who spoke (of a dialogue by default where it was then)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="of each choice that leaves something to be drawn (default 1)")
    parser.add_argument("--tokens", type=int, default=32, metavar="N", help="of a branch at most, unless its turn ends before (default 32)")
    parser.add_argument("--own-draws", action="store_true", help="each branch draws for itself: they share no chances")
    parser.add_argument("--offsets", type=int, metavar="K", help="after how many tokens distributions are still held against the base's (default 8)")
    parser.add_argument("--marker", action="append", default=[], metavar="TEXT", help="count the branches that hold it; may be given again")
    sampler = parser.add_argument_group("how the branches are drawn")
    for name, kind, metavar, words in SAMPLER:
        sampler.add_argument(f"--{name}", type=kind, metavar=metavar, help=words)
    bundles = parser.add_argument_group("of a recorded run, for the bundle of each branch")
    for name in ("--capture", "--capture-prompt"):
        bundles.add_argument(name, choices=("minimal", "standard", "full"), help="default: as the run has it")
    bundles.add_argument("--parity", choices=("replay", "full", "none"), default="replay", help="as in formation record (default: replay)")
    bundles.add_argument("--key", metavar="PATH", help="sign with this key (default: your own, made on first use)")
    add_streaming(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.cli.fork_view import lines
    from formation.dialogue.forks.apart import OFFSETS
    from formation.dialogue.forks.choices import EMPTY, read_choices
    from formation.dialogue.forks.forking import Ask, fork

    offsets = OFFSETS if args.offsets is None else args.offsets
    ask = Ask(tuple(read_choices(args.choose)), args.samples, args.tokens, args.own_draws, min(offsets, args.tokens), tuple(args.marker))
    if any(word in EMPTY for word in args.choose):
        say("an empty choice is the end of the turn")
    check_out(args)
    live = ForkProgress()
    try:
        with opened(args, ask.tokens, live) as source:
            found = fork(source, ask, args.out, live.token)
    finally:
        live.end()
    told = found | {"out": str(args.out)}
    print(json.dumps(told, ensure_ascii=False) if args.json else harmless("\n".join(lines(told))))
    return 0


def check_out(args: argparse.Namespace) -> None:
    """Raises UsageError where what is forked would be written into."""
    from formation.errors import UsageError

    out, base = args.out.resolve(), args.source.resolve()
    if out == base or base in out.parents:
        raise UsageError(f"--out: expected a folder outside of {args.source}, which is not written into, got {args.out}")


@contextmanager
def opened(args: argparse.Namespace, most: int, live: ForkProgress) -> Iterator[Source]:
    """Raises UsageError, EnvironmentFault, EvidenceError."""
    from formation.dialogue import events
    from formation.dialogue.cast import Means
    from formation.dialogue.forks.of_bundle import open_bundle
    from formation.dialogue.forks.of_dialogue import open_dialogue
    from formation.dialogue.forks.source import read_place
    from formation.errors import EnvironmentFault, UsageError
    from formation.ledger.start import ANCHOR

    message, token = read_place(args.at)
    asked = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name, *_ in SAMPLER}
    settings = {name: value for name, value in asked.items() if value is not None}
    if (args.source / events.NAME).is_file():
        if message is None:
            raise UsageError(f"--at: expected MSG:TOKEN, as {args.source} is a dialogue, got {args.at}")
        means = Means(args.memory, args.threads, live.progress, args.mirror)
        with open_dialogue(args.source, message, token, means, place=args.checkpoint, settings=settings) as dialogue:
            yield dialogue
    elif (args.source / ANCHOR).is_file():
        if message is not None or args.checkpoint is None:
            got = args.at if message is not None else "no --checkpoint"
            raise UsageError(f"fork: expected --at TOKEN and --checkpoint CKPT, as {args.source} is a recorded run, got {got}")
        with open_bundle(args.source, token, read_checkpoint(args), place(args, live), most, settings=settings) as bundle:
            yield bundle
    else:
        raise EnvironmentFault(f"{args.source}: expected the folder of a dialogue or a bundle, got neither")


def place(args: argparse.Namespace, live: ForkProgress) -> Place:
    from dataclasses import replace

    from formation.dialogue.forks.of_bundle import Place
    from formation.evidence import keys
    from formation.ledger.progress import Watch
    from formation.ledger.start import read_start
    from formation.recording import Means

    known = read_start(args.source).watch or Watch("standard", "minimal", "boundaries")
    asked = {name: value for name in ("capture", "capture_prompt") if (value := getattr(args, name)) is not None}
    key = keys.load_or_create(Path(args.key) if args.key else None)
    return Place(args.out, replace(known, **asked), Means(args.memory, args.threads, parity=args.parity, progress=live.progress), key)
