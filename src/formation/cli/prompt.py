"""From --prompt, --chat or --ids to the ids that a run starts from, and the ids that stop it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from formation.errors import UsageError

if TYPE_CHECKING:
    from formation.text.prompt import Prompt
    from formation.weights.checkpoint import Checkpoint


TODAY = "the day to tell a chat template that asks which day it is: no clock is read"


def add_prompt(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    group = parser.add_argument_group("prompt (one of the three)")
    one = group.add_mutually_exclusive_group(required=required)
    one.add_argument("--prompt", metavar="TEXT", help="text to continue; - reads it from standard input")
    one.add_argument("--chat", metavar="TEXT", help="a user's message, put into the checkpoint's chat template; - reads standard input")
    one.add_argument("--ids", metavar="N,N,…", help="token ids")
    add_told(group, "system message of a chat")


def add_told(parser: argparse._ActionsContainer, system: str) -> None:
    """What a chat template is told beside the messages"""
    parser.add_argument("--system", metavar="TEXT", help=system)
    parser.add_argument("--thinking", action=argparse.BooleanOptionalAction, help="of templates that know it")
    parser.add_argument("--today", metavar="YYYY-MM-DD", help=TODAY)


def has_prompt(args: argparse.Namespace) -> bool:
    return any(value is not None for value in (args.prompt, args.chat, args.ids, args.system, args.thinking, args.today))


def read_prompt(args: argparse.Namespace, checkpoint: Checkpoint) -> Prompt:
    from formation.text.prompt import make_prompt, read_day

    prompt, chat = (_text(text) if text is not None else None for text in (args.prompt, args.chat))
    ids = _numbers(args.ids) if args.ids is not None else None
    told = {"system": args.system, "thinking": args.thinking, "today": read_day(args.today)}
    return make_prompt(checkpoint.path, checkpoint.config, prompt=prompt, chat=chat, ids=ids, **told)


def _text(argument: str) -> str:
    if argument != "-":
        return argument
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input: expected UTF-8 text, got byte {error.object[error.start]:#x} at {error.start}") from None


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise UsageError(f"--ids: expected numbers separated by commas, got {text[:60]!r}") from None
