"""Record a run: for every generated token and every layer, what was observed, in a ledger that is checked before it is closed."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli import prompts
from formation.cli.options import add_checkpoint, add_experts, add_json, add_sampler, add_streaming, read_checkpoint
from formation.cli.prompt import add_prompt
from formation.cli.request import TOKENS, Request, read_request
from formation.cli.speech import LiveText, guesses, say

if TYPE_CHECKING:
    from formation.evidence.seal import Seal
    from formation.ledger.start import Start
    from formation.recording import Recording
    from formation.weights.checkpoint import Checkpoint

HELP = "keep the output formation ledger of a run"
LEVELS = ("minimal", "standard", "full")
PROOFS = {
    "replay": ": a run without capture, in another process, gave the same logits and cache entries",
    "full": ": four runs in processes of their own, without and with capture, gave the same logits, cache entries and ledger",
    "none": "",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    add_prompt(parser, required=False)
    parser.add_argument("--prompts", metavar="FILE", help="record many, a JSON object in each line, in the same passes over the weights")
    parser.add_argument("--anchor", metavar="FILE", help="run from this anchor.json, or repeat this bundle and say whether it is reproduced")
    words = "folder for the bundle, or with --prompts for all of them; must not hold a ledger yet"
    parser.add_argument("--out", required=True, metavar="NAME.ofb", help=words)
    parser.add_argument("--resume", action="store_true", help="go on with a recording in it that was cut off; the options may be left out")
    parser.add_argument("--tokens", type=int, metavar="N", help=f"how many at most (default {TOKENS})")
    parser.add_argument("--capture", choices=LEVELS, help="what is observed of steps (default: standard)")
    parser.add_argument("--capture-prompt", choices=LEVELS, help="and of prompt positions (default: minimal)")
    parser.add_argument("--rows", choices=("none", "boundaries", "all"), help="rows to keep: an audit of parts needs them (default: boundaries)")
    parser.add_argument(
        "--parity", choices=("replay", "full", "none"), default="replay", help="prove that capture did not perturb the run (default: replay)"
    )
    parser.add_argument("--nonce", metavar="TEXT", help="chosen by a verifier beforehand")
    parser.add_argument("--no-kv-cache", action="store_true", help="recompute the whole prefix at every step: slower, the same ledger")
    add_experts(parser)
    parser.add_argument("--key", metavar="PATH", help="sign with this key (default: your own, made on first use)")
    add_sampler(parser)
    add_streaming(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.errors import EvidenceError
    from formation.evidence import keys
    from formation.evidence.seal import seal

    key = keys.load_or_create(Path(args.key) if args.key else None)  # before the long work: a key that cannot be read is known now
    checkpoint = read_checkpoint(args)
    if args.prompts is not None:
        prompts.show(prompts.record_all(args, checkpoint, key), as_json=args.json)
        return 0
    request = read_request(args, checkpoint)
    recording = record(args, checkpoint, request)
    facts = closing_facts(recording, checkpoint, request.order.steps.first + 1, seal(recording.folder, key))
    if request.start and request.start.bundle:
        facts["reproduced"] = reproduction(request.start, recording)
    print(json.dumps(facts) if args.json else "\n".join(closing_lines(facts)))
    if "reproduced" in facts and not facts["reproduced"]["same"]:
        raise EvidenceError(f"expected to reproduce {args.anchor}, got a ledger that departs in {facts['reproduced']['departs']}")
    if not args.json:
        say(f"next: formation show {args.out}, formation verify {args.out}")
    return 0


def record(args: argparse.Namespace, checkpoint: Checkpoint, request: Request) -> Recording:
    """Begins or resumes, and shows the text as it comes; with the first new token also that of the tokens that are there already."""
    from formation.recording import Means, begin, resume
    from formation.run.identity import check_same, identify
    from formation.text import StreamDecoder, load_tokenizer

    if request.start:
        check_same(request.start.anchor, identify(checkpoint), request.start.listed_files())
    decoder = StreamDecoder(load_tokenizer(checkpoint.path, checkpoint.config))
    with LiveText(request.order.tokens, echo=not args.json) as live:
        unseen = list(request.done or ())

        def show(*tokens: int) -> None:
            for token in (*unseen, *tokens):
                live.add("" if token in request.order.stop else decoder.push(token))
            unseen.clear()

        means = Means(
            args.memory, args.threads, not args.no_kv_cache, args.parity, live.progress, lambda step: show(step.id), not args.no_guess,
            policy=args.policy,
        )  # fmt: skip
        fresh = request.done is None
        recording = begin(checkpoint, request.order, request.watch, args.out, means) if fresh else resume(checkpoint, args.out, means)
        show()
        live.add_rest(decoder.flush())
        return recording


def reproduction(start: Start, recording: Recording) -> dict[str, Any]:
    """Whether the ledger is that of the bundle, as far as that one can be read, or where it first departs."""
    from formation.ledger import reader

    departure = start.departure(recording.folder)
    complete = reader.find(start.bundle or Path()).name == reader.NAME
    lines = start.readable.lines if start.readable else 0
    return {
        "bundle": str(start.bundle), "complete": complete, "lines": lines, "same": departure is None,
        "departs": None if departure is None else str(departure),
    }  # fmt: skip


def closing_facts(recording: Recording, checkpoint: Checkpoint, first: int, sealed: Seal) -> dict[str, Any]:
    from formation.run.machine import file_system

    system = file_system(checkpoint.path)
    return {
        "bundle": str(recording.folder),
        "run_id": recording.run_id,
        "tokens": len(recording.ids),
        "anchor_token": {"id": recording.ids[0], "position": first},
        "ids": list(recording.ids),
        "observations": recording.commit.lines,
        "cells": recording.cells,
        "ledger_bytes": recording.commit.size_bytes,
        "root": recording.commit.root.hex(),
        "shards": len(checkpoint.shards),
        "shards_touched": len(recording.read.shards),
        "source": {"kind": system.kind, "source": system.source},
        "disk_bytes": recording.read.disk_bytes,
        "guessed_bytes": recording.read.guessed_bytes,
        "guessed_unused_bytes": recording.read.guessed_unused_bytes,
        "seconds": recording.read.seconds,
        "sum_rules": [asdict(r) for r in recording.rules],
        "parity": recording.parity,
        "parity_method": recording.method,
        "digest": sealed.digest,
        "signer": sealed.fingerprint,
    }


def closing_lines(facts: dict[str, Any]) -> list[str]:
    from formation.run.machine import show_bytes

    speed = show_bytes(facts["disk_bytes"] / max(facts["seconds"], 1e-9))
    source, anchor = facts["source"], facts["anchor_token"]
    lines = [
        f"bundle         {facts['bundle']}, run {facts['run_id'][:16]}…",
        f"tokens         {facts['tokens']}; the anchor leads first to id {anchor['id']} at position {anchor['position']}",
        f"observations   {facts['cells']} cells of generated tokens, {facts['observations']} lines in all, {show_bytes(facts['ledger_bytes'])}",
        f"root           {facts['root']}",
        f"weights        {facts['shards_touched']} of {facts['shards']} shards touched, on {source['kind']} ({source['source']}), "
        f"{show_bytes(facts['disk_bytes'])} read at {speed}/s{guesses(facts['guessed_bytes'], facts['guessed_unused_bytes'])}",
        "sum rules      worst gap, tolerance, where",
    ]
    for r in facts["sum_rules"]:
        lines.append(f"  {r['rule']:13}{r['worst_gap']:>9.2g} {r['tolerance']:>9.2g}  {r['checked']} checked, worst in {r['where']}")
    lines.append(f"parity         {facts['parity']}{PROOFS[facts['parity_method']]}")
    return [*lines, *reproduction_lines(facts.get("reproduced")), f"sealed         {facts['digest']}, by {facts['signer']}"]


def reproduction_lines(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    if not found["same"]:
        return [f"reproduced     no: departs in {found['departs']}"]
    what = "same ledger root" if found["complete"] else f"the same {found['lines']} lines, all that its INCOMPLETE ledger has"
    return [f"reproduced     {what} as {found['bundle']}"]
