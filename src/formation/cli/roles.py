"""How the sides of a dialogue speak, from the options: each for both sides, or with --a- or --b- before its name for one of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from formation.cli.prompt import TODAY
from formation.errors import UsageError

if TYPE_CHECKING:
    from formation.dialogue.cast import Asking, Role
    from formation.dialogue.chain import Chain
    from formation.dialogue.side import Manner

TOKENS = 256
OPTIONS: tuple[tuple[str, Any, str, str], ...] = (
    ("system", str, "TEXT", "system prompt"),
    ("today", str, "YYYY-MM-DD", TODAY),
    ("tokens", int, "N", f"at most, in one turn (default {TOKENS})"),
    ("context", str, "WHAT", "of the dialogue that it is given: full, 'last 6' messages, or '4000 tokens' (default: full)"),
    ("temperature", float, "T", "above 0: sample (default 0: greedy)"),
    ("top-k", int, "K", "keep the K most probable (default 0: all)"),
    ("top-p", float, "P", "keep the fewest that reach P together (default 1)"),
    ("min-p", float, "P", "keep those at least P times as probable as the best (default 0)"),
    ("seed", int, "N", "of the counter-based generator; the second side's is one more unless it has its own (default 0)"),
    ("repetition", float, "R", "divide the logits of tokens that it has said by R (default 1: off)"),
    ("presence", float, "P", "take P off their logits (default 0)"),
    ("frequency", float, "P", "take P off for each time it has said them (default 0)"),
)
ASKING: tuple[tuple[str, Any, str, str], ...] = (
    ("key-variable", str, "NAME", "the environment variable that holds its key"),
    ("patience", float, "SECONDS", "without a byte of an answer, after which it is too late (default 300)"),
)


def add_manners(parser: argparse.ArgumentParser) -> None:
    about = "each for both sides, or for one of them as --a-tokens 40, --b-seed 7"
    group = parser.add_argument_group("how the sides speak", about)
    for name, kind, metavar, words in OPTIONS:
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=words)
    add_thinking(group, "", "or --no-thinking, of templates that know it")
    servers = parser.add_argument_group("how servers are asked", "in the same way")
    for name, kind, metavar, words in ASKING:
        servers.add_argument(f"--{name}", type=kind, metavar=metavar, help=words)
    servers.add_argument("--no-logprobs", action="store_true", help="not for log probabilities")
    for letter in "ab":
        for name, kind, metavar, _ in (*OPTIONS, *ASKING):
            group.add_argument(f"--{letter}-{name}", type=kind, metavar=metavar, help=argparse.SUPPRESS)
        group.add_argument(f"--{letter}-no-logprobs", action="store_true", help=argparse.SUPPRESS)
        add_thinking(group, f"{letter}-", argparse.SUPPRESS)


def add_thinking(group: argparse._ArgumentGroup, prefix: str, words: str) -> None:
    """--thinking and --no-thinking, with the letter of a side before them as before any other option"""
    for name, value in (("thinking", True), ("no-thinking", False)):
        dest = f"{prefix}thinking".replace("-", "_")
        group.add_argument(f"--{prefix}{name}", dest=dest, action="store_const", const=value, help=words if value else argparse.SUPPRESS)


def gives_manners(args: argparse.Namespace) -> bool:
    names = [name.replace("-", "_") for name, *_ in OPTIONS] + ["thinking"]
    return any(getattr(args, prefix + name) is not None for name in names for prefix in ("", "a_", "b_"))


def read_roles(args: argparse.Namespace) -> list[Role]:
    """Of --a and --b. Raises UsageError."""
    from formation.dialogue.cast import Role

    return [Role(*read_side(letter, getattr(args, letter)), manner(args, letter), asking(args, letter)) for letter in "ab"]


def asking(args: argparse.Namespace, letter: str) -> Asking:
    """Raises UsageError."""
    from formation.dialogue.cast import Asking

    seconds = first_given(args, letter, "patience")
    if seconds is not None and not 0 < seconds <= 1e6:
        raise UsageError(f"patience: expected seconds above 0, got {seconds:g}")
    logprobs = not (args.no_logprobs or getattr(args, f"{letter}_no_logprobs"))
    return Asking(first_given(args, letter, "key_variable"), logprobs, seconds)


def first_given(args: argparse.Namespace, letter: str, name: str) -> Any:
    """The side's own, else what is given for both"""
    own = getattr(args, f"{letter}_{name}")
    return getattr(args, name) if own is None else own


def read_side(letter: str, words: str) -> tuple[str, str]:
    """Its name and its source. Raises UsageError."""
    name, sign, source = words.partition("=")
    if not (sign and name and source):
        raise UsageError(f"--{letter}: expected NAME=CKPT or NAME=URL, got {words[:60]!r}", hint=f"for example --{letter} lamp=./checkpoint")
    return name, source


def stand_ins(asked: Sequence[str], names: Sequence[str]) -> dict[int, str]:
    """The checkpoints of --as by the sides of a transcript, in the order in which they were given. Raises UsageError."""
    found: dict[int, str] = {}
    for words in asked:
        name, sign, source = words.rpartition("=")
        if not (sign and source and name in names):
            expected = f"NAME=CKPT with the name {' or '.join(names)}"
            raise UsageError(f"--as: expected {expected}, got {words[:60]!r}", hint="names are as the transcript has them")
        if names.index(name) in found:
            raise UsageError("--as: expected each side once, got one twice")
        found[names.index(name)] = source
    return found


def manner(args: argparse.Namespace, letter: str) -> Manner:
    from formation.dialogue.context import read_context
    from formation.dialogue.side import Manner
    from formation.text.prompt import read_day

    def given(name: str, default: Any = None) -> Any:
        found = first_given(args, letter, name)
        return default if found is None else found

    context, today = read_context(given("context", "full")), read_day(given("today"))
    return Manner(given("system", ""), given("thinking"), context, chain(args, letter, given), given("tokens", TOKENS), today)


def chain(args: argparse.Namespace, letter: str, given: Any) -> Chain:
    from formation.dialogue.chain import Chain
    from formation.dialogue.edits import Edits
    from formation.run.sample import Greedy, Sample

    edits = Edits(given("repetition", 1.0), given("presence", 0.0), given("frequency", 0.0))
    settings = (given("top_k", 0), given("top_p", 1.0), given("min_p", 0.0))
    if temperature := given("temperature", 0.0):
        seed = getattr(args, f"{letter}_seed")
        return Chain(Sample(temperature, *settings, seed=(args.seed or 0) + (letter == "b") if seed is None else seed), edits)
    if settings != (0, 1.0, 0.0) or given("seed") is not None:
        raise UsageError(
            f"side {letter}: expected a temperature with a filter or a seed, got none", hint="add --temperature 1"
        )  # fmt: skip
    return Chain(Greedy(), edits)
