"""Let one model name a token that the other will never say, and see: how probable was it, announced and not, and does repeating it make it more so?

A is asked --question; what it would answer first, of the tokens that B has too, is nominated. Its probability and rank under B, before and after an
announcement, and the bound below which no context can bring it, are on disk before B says a word. Then B speaks in five ways, --seeds times each:
free, made to say the token, made to say its least likely one, made to say a control that was as likely and is announced nowhere, and without any
announcement. With --token an operator nominates, and --a is left out. Both sides are checkpoints; B says 16 tokens at most, unless --tokens says
another number.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.fork_progress import ForkProgress
from formation.cli.options import add_json, add_streaming, read_checkpoints
from formation.cli.roles import add_manners, asking, manner, read_side
from formation.cli.speech import harmless
from formation.errors import UsageError

if TYPE_CHECKING:
    from formation.dialogue.cast import Role
    from formation.dialogue.certificate.bounds import Certificate
    from formation.dialogue.forks.challenge import Terms
    from formation.dialogue.local import LocalSide

HELP = "one model names a token that the other will never say: how probable was it, announced and not?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--a", metavar="NAME=CKPT", help="who nominates")
    parser.add_argument("--b", metavar="NAME=CKPT", required=True, help="who is challenged")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for it; one that was cut off there goes on")
    parser.add_argument("--token", metavar="TEXT", help="nominate this text, of whatever tokens")
    parser.add_argument(
        "--nominate", choices=("drawn", "least"), help="the token that A draws, or the one that is least likely to it (default: drawn)"
    )
    parser.add_argument("--question", metavar="TEXT", help="what A is asked")
    parser.add_argument("--opening", metavar="TEXT", help="what B is told with and without an announcement (default: 'Say something.')")
    parser.add_argument("--announce", metavar="TEXT", help="how it is announced, with {token} in it")
    parser.add_argument("--seeds", type=int, default=4, metavar="N", help="of every arm, and of the nomination (default 4)")
    parser.add_argument("--repeats", type=int, default=4, metavar="R", help="announcements in one message at most, for the slope (default 4)")
    add_manners(parser)
    add_streaming(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.cli.challenge_view import lines
    from formation.dialogue.forks import answer, challenge

    live = ForkProgress()
    roles, terms = roles_of(args), terms_of(args)
    floors = certificate_of(args, roles)
    with sides_of(args, roles, live) as sides:
        try:
            target = challenge.target_of(sides[-1], terms, floors)
            found = challenge.challenge(target, nominated(args, sides, terms), head_of(args, sides), args.out, live.part)
        finally:
            live.end()
    told = answer.conclude(found, args.out)
    print(json.dumps(told, ensure_ascii=False) if args.json else harmless("\n".join(lines(told, str(args.out)))))
    return 0


def roles_of(args: argparse.Namespace) -> list[Role]:
    """Of --a and --b, or of --b alone where an operator nominates. Raises UsageError."""
    from formation.dialogue.cast import Role

    if (args.a is None) != (args.token is not None) or (args.token is not None and (args.nominate or args.question)):
        raise UsageError("challenge: expected --a, which nominates, or --token, got both or neither", hint="with --token leave --a out")
    letters = "ab" if args.a else "b"
    roles = [Role(*read_side(letter, getattr(args, letter)), manner(args, letter), asking(args, letter)) for letter in letters]
    if server := next((role for role in roles if role.is_server), None):
        raise UsageError(f"side {server.name}: expected a folder with a checkpoint, got {server.source}", hint="a server cannot be measured so")
    return roles


def terms_of(args: argparse.Namespace) -> Terms:
    from formation.dialogue.forks.challenge import ANNOUNCE, OPENING, Terms

    tokens = args.b_tokens if args.b_tokens is not None else args.tokens
    announce, opening = (given if given is not None else usual for given, usual in ((args.announce, ANNOUNCE), (args.opening, OPENING)))
    return Terms(opening, announce, args.seeds, args.repeats, 16 if tokens is None else tokens)


def certificate_of(args: argparse.Namespace, roles: list[Role]) -> Certificate:
    """Of the challenged side, which is the last"""
    from formation.dialogue.certificate.bounds import BYTES_OF_A_TOKEN, certify
    from formation.dialogue.certificate.lm_head import LmHead
    from formation.text import load_tokenizer

    opened = read_checkpoints(args, [role.source for role in roles])[-1]
    taken = load_tokenizer(opened.path, opened.config).rows * BYTES_OF_A_TOKEN
    with LmHead(opened, memory=args.memory, threads=args.threads, taken=taken) as head:
        return certify(head)


@contextmanager
def sides_of(args: argparse.Namespace, roles: list[Role], live: ForkProgress) -> Iterator[list[LocalSide]]:
    from formation.dialogue.cast import Means, cast
    from formation.dialogue.local import LocalSide

    with cast(roles, Means(args.memory, args.threads, live.progress, args.mirror)) as (sides, _):
        local = [side for side in sides if isinstance(side, LocalSide)]
        assert len(local) == len(roles)  # roles_of has refused servers
        yield local


def nominated(args: argparse.Namespace, sides: list[LocalSide], terms: Terms) -> Any:
    from formation.dialogue.forks import nominate

    if args.token is not None:
        return nominate.by_operator(args.token, terms.samples)
    question = nominate.QUESTION if args.question is None else args.question
    return nominate.nominations(sides[0], sides[-1].tokenizer, question, args.nominate or nominate.DRAWN, terms.samples)


def head_of(args: argparse.Namespace, sides: list[LocalSide]) -> dict[str, Any]:
    from formation.dialogue.forks.nominate import QUESTION
    from formation.ledger.fields import absent

    question = absent("nominated by the operator") if args.token is not None else QUESTION if args.question is None else args.question
    return {"sides": [side.describe() for side in sides], "question": question}
