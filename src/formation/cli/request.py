"""What the options of `formation record` ask for, held against the anchor they may come with and the recording they may go on with."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from formation.cli.options import gives_sampler, read_sampler
from formation.cli.prompt import has_prompt, read_prompt
from formation.errors import UsageError

if TYPE_CHECKING:
    from formation.ledger.progress import Watch
    from formation.ledger.start import Start
    from formation.run.order import Order
    from formation.weights.checkpoint import Checkpoint

T = TypeVar("T", "Order", "Watch")
TOKENS = 5
LEVELS = {"capture": "standard", "capture_prompt": "minimal", "rows": "boundaries"}
OPTIONS = {
    "prompt_ids": "prompt", "prompt_text": "prompt", "stop": "ids that stop the run", "tokens": "--tokens",
    "sampler": "the choice of tokens", "nonce": "--nonce", "capture": "--capture", "capture_prompt": "--capture-prompt", "rows": "--rows",
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    order: Order
    watch: Watch
    start: Start | None  # what --anchor names
    done: tuple[int, ...] | None  # tokens that are there already; None for a recording that has not begun


def read_request(args: argparse.Namespace, checkpoint: Checkpoint) -> Request:
    """Raises UsageError for options that contradict each other, an anchor, or what was begun."""
    from formation.ledger.progress import Watch, token_ids
    from formation.ledger.start import interrupted, read_start
    from formation.run.order import order_of

    start = read_start(Path(args.anchor)) if args.anchor is not None else None
    begun = interrupted(Path(args.out)) if args.resume else None
    if begun is not None:
        source = f"the recording in {args.out}"
        order = agreed(asked_order(args, checkpoint, order_of(begun[0])), order_of(begun[0]), source)
        if start is not None:
            agreed(order_of(start.anchor), order, source)
        return Request(order, agreed(asked_watch(args, begun[1]), begun[1], source), start, tuple(token_ids(Path(args.out), begun[2])))
    if start is not None:
        order = agreed(asked_order(args, checkpoint, order_of(start.anchor), may_prompt=False), order_of(start.anchor), "the anchor")
        watch = start.watch or Watch(**LEVELS)
        asked = asked_watch(args, watch)
        return Request(order, asked if start.watch is None else agreed(asked, watch, f"the bundle {start.bundle}"), start, None)
    return Request(new_order(args, checkpoint), asked_watch(args, Watch(**LEVELS)), None, None)


def new_order(args: argparse.Namespace, checkpoint: Checkpoint) -> Order:
    from formation.run.order import Order

    if args.prompt is None and args.chat is None and args.ids is None:
        raise UsageError("prompt: expected one of --prompt, --chat, --ids and --anchor, got none")
    prompt = read_prompt(args, checkpoint)
    tokens = TOKENS if args.tokens is None else args.tokens
    return Order(tuple(prompt.ids), tokens, read_sampler(args), tuple(sorted(set(prompt.stop))), prompt.text, args.nonce)


def asked_order(args: argparse.Namespace, checkpoint: Checkpoint, known: Order, *, may_prompt: bool = True) -> Order:
    """`known` with what the options say in its place"""
    changes: dict[str, Any] = {name: value for name in ("tokens", "nonce") if (value := getattr(args, name)) is not None}
    if gives_sampler(args):
        changes["sampler"] = read_sampler(args)
    if has_prompt(args):
        if not may_prompt:
            raise UsageError("prompt: expected none with --anchor, which has one, got another", hint="leave out --prompt, --chat and --ids")
        prompt = read_prompt(args, checkpoint)
        changes |= {"prompt_ids": tuple(prompt.ids), "prompt_text": prompt.text, "stop": tuple(sorted(set(prompt.stop)))}
    return replace(known, **changes)


def asked_watch(args: argparse.Namespace, known: Watch) -> Watch:
    return replace(known, **{name: value for name in LEVELS if (value := getattr(args, name)) is not None})


def agreed(asked: T, known: T, source: str) -> T:
    """`known`, which `asked` must be. Raises UsageError that names the first option in which it is not."""
    ours, theirs = asdict(known), asdict(asked)
    for name, value in ours.items():
        if theirs[name] != value:
            raise UsageError(
                f"{OPTIONS[name]}: expected {str(value)[:60]}, as {source} has it, got {str(theirs[name])[:60]}", hint="leave the option out"
            )  # fmt: skip
    return known
