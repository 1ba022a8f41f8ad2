"""Bundles of what the sides of a dialogue said: how they are asked for, made when a dialogue is over, and held against its log."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.speech import LiveText, harmless, say

if TYPE_CHECKING:
    from formation.dialogue.agreement import Agreed
    from formation.dialogue.conduct import Conductor
    from formation.dialogue.given import Pass
    from formation.evidence.keys import PrivateKey
    from formation.evidence.seal import Seal

LEVELS = ("minimal", "standard", "full")


def add_bundle(parser: argparse._ActionsContainer) -> None:
    """How a pass over given tokens is recorded"""
    parser.add_argument(
        "--capture", choices=LEVELS, default="minimal", help="of scored tokens; above minimal their rows stay in memory (default: minimal)"
    )
    parser.add_argument("--rows", choices=("none", "boundaries", "all"), default="boundaries", help="rows to keep: an audit of parts needs them")
    parser.add_argument("--parity", choices=("replay", "none"), default="replay", help="prove that capture changed nothing (default: replay)")
    parser.add_argument("--key", metavar="PATH", help="sign with this key (default: your own, made on first use)")


def signer(args: argparse.Namespace) -> PrivateKey:
    """Asked for before the long work: a key that cannot be read is known then"""
    from formation.evidence import keys

    return keys.load_or_create(Path(args.key) if args.key else None)


# ---- of a dialogue that is over


def planned(conductor: Conductor) -> list[Pass]:
    """While its sides are open. None where Ctrl-C was pressed twice: whoever wants to end at once does not want to wait for bundles."""
    from formation.dialogue.given import passes

    if conductor.interrupts.times > 1:
        say(f"no bundles yet: formation dialogue --resume {conductor.folder} makes them")
        return []
    return passes(conductor.sides, conductor.so_far)


def make(args: argparse.Namespace, folder: Path, wanted: Sequence[Pass], key: PrivateKey) -> list[dict[str, Any]]:
    """Records those that are missing, holds all of them against the log, and seals them: what the JSON says of each. Raises as recording does, and
    EvidenceError for one that is not of this dialogue: that is not sealed."""
    from formation.dialogue import events
    from formation.dialogue.agreement import agree, nonce_of

    if not wanted:
        return []
    log = folder / events.NAME
    nonce, places = nonce_of(log), [folder / each.name for each in wanted]
    for path in dict.fromkeys(each.checkpoint.path for each in wanted):
        record(args, [each for each in wanted if each.checkpoint.path == path], folder, nonce)
    agreed = agree(log, places)
    told = [document(each, sealed(place, key)) for each, place in zip(agreed, places, strict=True)]
    say(harmless("\n".join(lines(agreed))))
    say(f"next: formation verify {places[0]} --nonce {nonce}")
    return told


def record(args: argparse.Namespace, asked: Sequence[Pass], folder: Path, nonce: str) -> None:
    """Those of one checkpoint, in as few passes over its weights as the budget has room for"""
    from formation.ledger.progress import Watch
    from formation.recording import Means, ensure

    say(harmless("\n".join(plan_lines(asked))))
    with LiveText(sum(each.heard.tokens for each in asked), echo=False) as live:
        means = Means(args.memory, args.threads, parity=args.parity, progress=live.progress, on_step=lambda step: live.add(""))
        watch = Watch(args.capture, "minimal", args.rows)
        ensure(asked[0].checkpoint, [each.order(nonce) for each in asked], watch, [folder / each.name for each in asked], means)


def plan_lines(asked: Sequence[Pass]) -> Iterator[str]:
    """One for each side"""
    for speaker in dict.fromkeys(each.speaker for each in asked):
        own = [each for each in asked if each.speaker == speaker]
        heard = [each.heard for each in own]
        counts = of(sum(each.tokens for each in heard), sum(len(each.turns) for each in heard))
        apart = f", {len(own)} sequences that go on from no other" if len(own) > 1 else ""
        yield f"{shown([each.name for each in own])}: what {speaker} said, {counts} among {sum(len(each.ids) - 1 for each in heard)} positions{apart}"


def shown(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def of(tokens: int, turns: int) -> str:
    return f"{tokens} token{'s' * (tokens != 1)} in {turns} turn{'s' * (turns != 1)}"


def sealed(place: Path, key: PrivateKey) -> Seal:
    from formation.evidence.seal import seal

    return seal(place, key)


def document(agreed: Agreed, seal: Seal) -> dict[str, Any]:
    own = {"bundle": agreed.bundle, "side": agreed.side, "turns": list(agreed.turns), "tokens": agreed.tokens, "values": agreed.values}
    return own | {"digest": seal.digest, "run_id": seal.head.run_id, "signer": seal.fingerprint}


def lines(agreed: Sequence[Agreed]) -> Iterator[str]:
    for side in sorted({each.side for each in agreed}):
        own = [each for each in agreed if each.side == side]
        counts, values = of(sum(each.tokens for each in own), sum(len(each.turns) for each in own)), sum(each.values for each in own)
        ledgers = "its ledger shares" if len(own) == 1 else "their ledgers share"
        yield f"{shown([each.bundle for each in own])}: {counts}: all {values} numbers that {ledgers} with events.jsonl are the same, bit for bit"
