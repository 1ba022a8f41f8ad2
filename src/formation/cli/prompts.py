"""`formation record --prompts FILE`: many prompts in the same passes over the weights, each with a bundle of its own.

A line of the file is a JSON object with one of chat, prompt and ids, and if need be system, thinking, today, tokens and name, as in
{"chat": "Why is the sky blue?", "tokens": 20}. The bundles are --out/NAME.ofb, or --out/1.ofb, --out/2.ofb, … by line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.options import read_sampler
from formation.cli.prompt import has_prompt
from formation.cli.request import LEVELS, TOKENS, asked_watch
from formation.cli.speech import LiveText, harmless, say
from formation.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from formation.evidence.bundle import Bundle
    from formation.evidence.keys import PrivateKey
    from formation.run.order import Order
    from formation.weights.checkpoint import Checkpoint

MOST_BYTES, MOST_PROMPTS, MOST_NAME = 64 << 20, 10_000, 100
KINDS = {"chat": str, "prompt": str, "ids": list}
OTHERS = {"system": str, "thinking": bool, "today": str, "tokens": int, "name": str}
TAKEN_BY_LINES = ("anchor", "nonce")


@dataclass(frozen=True)
class Asked:
    """One line: the folder of its bundle and the run."""

    out: Path
    order: Order


def record_all(args: argparse.Namespace, checkpoint: Checkpoint, key: PrivateKey) -> list[dict[str, Any]]:
    """Facts of each bundle, in the order of the file. Raises UsageError, EnvironmentFault, and what recording raises."""
    from formation.evidence.bundle import Bundle
    from formation.evidence.seal import ATTESTATION, seal
    from formation.ledger.progress import Watch
    from formation.recording import Means, ensure

    asked, watch = read_prompts(args, checkpoint), asked_watch(args, Watch(**LEVELS))
    if not args.resume:
        check_new(asked)

    def seal_once(out: Path) -> None:
        if not (out / ATTESTATION).exists():
            seal(out, key)

    with LiveText(sum(each.order.tokens for each in asked), echo=False) as live:
        means = Means(
            args.memory, args.threads, not args.no_kv_cache, args.parity, live.progress, lambda step: live.add(""), not args.no_guess, say_group,
            policy=args.policy,
        )  # fmt: skip
        ensure(checkpoint, [each.order for each in asked], watch, [each.out for each in asked], means, seal_once)
    return [facts(each, Bundle(each.out)) for each in asked]


def check_new(asked: Sequence[Asked]) -> None:
    """Raises EnvironmentFault."""
    for each in asked:
        if each.out.exists():
            raise EnvironmentFault(f"{each.out}: expected no such folder yet, got one", hint="--resume goes on with what was cut off")


def say_group(count: int, left: int) -> None:
    say(f"the budget holds {count} of the {left} prompts that are left at a time")


# ---- the file


def read_prompts(args: argparse.Namespace, checkpoint: Checkpoint) -> list[Asked]:
    """Raises UsageError, which names the line, EnvironmentFault, and what reading a tokenizer raises."""
    if has_prompt(args) or any(getattr(args, name) is not None for name in TAKEN_BY_LINES):
        raise UsageError("--prompts: expected no other prompt, --anchor or --nonce beside it, got one", hint="the file's lines say what is asked")
    lines = list(read_lines(Path(args.prompts)))
    if not lines:
        raise UsageError(f"{args.prompts}: expected at least one prompt, got none")
    names = [str(line.get("name", number)) for number, line in enumerate(lines, 1)]
    for number, name in enumerate(names, 1):
        if names.index(name) + 1 != number:
            raise UsageError(f"{args.prompts}, line {number}: expected a name of its own, got {name!r} again")
    return [Asked(Path(args.out) / f"{name}.ofb", order_of_line(args, checkpoint, line)) for name, line in zip(names, lines, strict=True)]


def read_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    from formation.strict_json import JsonRefusal, parse_json

    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path}: expected at most {MOST_BYTES} bytes, got {path.stat().st_size}")
        data = path.read_bytes()
    except OSError as error:
        raise EnvironmentFault(f"{path}: expected a file of prompts, got: {error.strerror}") from error
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        if number > MOST_PROMPTS:
            raise UsageError(f"{path}: expected at most {MOST_PROMPTS} lines, got more")
        try:
            yield checked(parse_json(line), f"{path}, line {number}")
        except JsonRefusal as error:
            raise UsageError(f"{path}, line {number}: {error}", hint='a line is a JSON object such as {"chat": "Why is the sky blue?"}') from None


def checked(line: Any, where: str) -> Mapping[str, Any]:
    """Raises UsageError."""
    known = KINDS | OTHERS
    if not isinstance(line, dict):
        raise UsageError(f"{where}: expected an object, got {type(line).__name__}")
    for name, value in line.items():
        if name not in known or type(value) is not known[name]:
            raise UsageError(f"{where}: expected fields of {', '.join(known)} in their types, got {name[:40]!r}: {str(value)[:40]!r}")
    if sum(name in line for name in KINDS) != 1:
        raise UsageError(f"{where}: expected one of {', '.join(KINDS)}, got {sum(name in line for name in KINDS)}")
    if not all(type(i) is int for i in line.get("ids", ())):
        raise UsageError(f"{where}: expected ids that are whole numbers, got others")
    name = line.get("name", "x")
    if not (name and name.isascii() and name[0].isalnum() and set(name) <= set(NAME) and len(name) <= MOST_NAME):
        raise UsageError(f"{where}: expected a name of letters, digits, - _ and ., got {name[:40]!r}")
    return line


NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."


def order_of_line(args: argparse.Namespace, checkpoint: Checkpoint, line: Mapping[str, Any]) -> Order:
    from formation.run.order import Order
    from formation.text.prompt import make_prompt, read_day

    given = {name: line.get(name) for name in ("prompt", "chat", "ids", "system", "thinking")}
    made = make_prompt(checkpoint.path, checkpoint.config, **given, today=read_day(line.get("today")))
    tokens = line.get("tokens", TOKENS if args.tokens is None else args.tokens)
    return Order(tuple(made.ids), tokens, read_sampler(args), tuple(sorted(set(made.stop))), made.text)


# ---- what came of it


def facts(asked: Asked, bundle: Bundle) -> dict[str, Any]:
    spelt = [token.bytes for token in bundle.tokens]
    return {"bundle": str(asked.out), "run_id": bundle.run_id, "tokens": len(spelt), "text": b"".join(spelt).decode("utf-8", "backslashreplace")}


def show(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"bundles": found}))
        return
    for each in found:
        print(harmless(f"{each['bundle']}  run {each['run_id'][:16]}…  {each['tokens']} tokens: {json.dumps(each['text'], ensure_ascii=False)}"))
    say(f"next: formation verify {found[0]['bundle']}")
