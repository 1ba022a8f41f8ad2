"""Generate text from a checkpoint, its weights streamed under a memory budget."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from formation.cli.options import add_checkpoint, add_experts, add_json, add_sampler, add_streaming, read_checkpoint, read_sampler
from formation.cli.prompt import add_prompt, read_prompt
from formation.cli.speech import LiveText, guesses, say

if TYPE_CHECKING:
    from formation.run.generate import Engine, Step
    from formation.text.prompt import Prompt
    from formation.weights.checkpoint import Checkpoint

HELP = "continue a text or answer a chat message"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    add_prompt(parser)
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="how many at most (default 64)")
    parser.add_argument("--no-stop", action="store_true", help="go on after an end-of-text or end-of-turn token")
    parser.add_argument("--no-kv-cache", action="store_true", help="recompute the whole prefix at every step: slower, the same bits")
    add_sampler(parser)
    add_streaming(parser)
    add_experts(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    sampler = read_sampler(args)
    checkpoint = read_checkpoint(args)
    prompt = read_prompt(args, checkpoint)
    with LiveText(args.tokens, echo=not args.json) as live, engine_of(args, checkpoint, live) as engine:
        steps = stream_text(engine, prompt, args.tokens, sampler, live, stop=() if args.no_stop else prompt.stop)
        advice = engine.advice
    if args.json:
        print(json.dumps(report(engine, prompt, steps), ensure_ascii=False))
    say(summary(steps, engine))
    if advice:
        say(f"note: {advice}")
    return 0


def engine_of(args: argparse.Namespace, checkpoint: Checkpoint, live: LiveText) -> Engine:
    from formation.run.generate import Engine

    return Engine(
        checkpoint, memory=args.memory, threads=args.threads, keep_cache=not args.no_kv_cache, progress=live.progress, guess=not args.no_guess,
        policy=args.policy,
    )  # fmt: skip


def stream_text(engine: Engine, prompt: Prompt, tokens: int, sampler: Any, live: LiveText, stop: tuple[int, ...]) -> list[dict[str, Any]]:
    """Runs the steps, showing complete characters as they come; one record per step."""
    from formation.text import StreamDecoder

    decoder, records = StreamDecoder(prompt.tokenizer), []
    for step in engine.generate(prompt.ids, tokens, sampler, stop=stop):
        live.add("" if step.id in stop else decoder.push(step.id))
        records.append(record(step))
    live.add_rest(decoder.flush())
    return records


def record(step: Step) -> dict[str, Any]:
    from dataclasses import asdict
    from hashlib import sha256

    return {
        "id": step.id,
        "position": step.position,
        "logit": float(step.logits[step.id]),
        "logits_sha256": sha256(step.logits.astype("<f4").tobytes()).hexdigest(),
        "draw": step.choice.draw.draw if step.choice.draw else None,
        "disk_bytes": step.reads.disk_bytes,
        "guessed_bytes": step.reads.guessed_bytes,
        "guessed_unused_bytes": step.reads.guessed_unused_bytes,
        "cache_bytes": step.reads.cache_bytes,
        "seconds_waited": step.reads.seconds_waited,
        "seconds": step.seconds,
        "parts": [asdict(part) for part in step.reads.parts],
    }


def report(engine: Engine, prompt: Prompt, steps: list[dict[str, Any]]) -> dict[str, Any]:
    from formation.kernels import golden, ops

    ids = [s["id"] for s in steps]
    return {
        "checkpoint": str(engine.checkpoint.path),
        "contract": golden.CONTRACT,
        "contract_digest": golden.CONTRACT_DIGEST,
        "kernels": ops.isa(),
        "threads": engine.threads,
        "memory_budget_bytes": engine.budget,
        "kv_cache": engine.keep_cache,
        "prompt_ids": prompt.ids,
        "ids": ids,
        "text": prompt.tokenizer.decode([i for i in ids if i not in prompt.stop]),
        "stopped": bool(ids) and ids[-1] in prompt.stop,
        "steps": steps,
        "disk_bytes": sum(s["disk_bytes"] for s in steps),
        "seconds": sum(s["seconds"] for s in steps),
    }


def summary(steps: list[dict[str, Any]], engine: Engine) -> str:
    from formation.run.machine import show_bytes

    read, kept = sum(s["disk_bytes"] for s in steps), sum(s["cache_bytes"] for s in steps)
    seconds = sum(s["seconds"] for s in steps)
    waited = sum(s["seconds_waited"] for s in steps)
    guessed = guesses(*(sum(s[name] for s in steps) for name in ("guessed_bytes", "guessed_unused_bytes")))
    return (
        f"{len(steps)} tokens in {seconds:.2f} s · read {show_bytes(read)} from disk at {read / 1e9 / max(seconds, 1e-9):.2f} GB/s{guessed}, "
        f"{show_bytes(kept)} from memory · waited {waited:.2f} s for the disk · budget {show_bytes(engine.budget)}"
    )
