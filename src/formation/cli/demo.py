"""Answer three questions with the shipped sample checkpoint, under a memory budget smaller than it, and record five tokens of an answer."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.speech import LiveText, say

if TYPE_CHECKING:
    from formation.text import Tokenizer
    from formation.weights.checkpoint import Checkpoint

HELP = "the main job on the shipped sample checkpoint"
QUESTIONS = ("What does len do?", "What is KeyError?", "Who are you?")
MEMORY = "4MiB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memory", default=MEMORY, metavar="SIZE", help=f"budget (default {MEMORY}, less than the sample's size)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: all cores)")


def run(args: argparse.Namespace) -> int:
    import formation
    from formation.cli.generate import stream_text, summary
    from formation.run.machine import show_bytes
    from formation.samples import folder
    from formation.text import load_tokenizer
    from formation.text.prompt import chat_prompt

    checkpoint = formation.open(folder("kimi_k25"))
    tokenizer = load_tokenizer(checkpoint.path, checkpoint.config)
    total = show_bytes(checkpoint.total_bytes)
    say(f"sample checkpoint: {len(checkpoint.shards)} shards, {len(checkpoint.tensors)} tensors, {total}, in the layout of Kimi K2.5")
    with formation.Engine(checkpoint, memory=args.memory, threads=args.threads) as engine:
        say(f"memory budget {show_bytes(engine.budget)}: the weights do not fit, so they are streamed from the shards\n")
        every: list[dict[str, Any]] = []
        for question in QUESTIONS:
            print(f"> {question}", flush=True)
            prompt = chat_prompt(checkpoint.path, tokenizer, question, thinking=False)
            with LiveText(64) as live:
                engine.progress = live.progress
                steps = stream_text(engine, prompt, 64, formation.Greedy(), live, stop=prompt.stop)
            say(f"  {summary(steps, engine)}\n")
            every += steps
    print("\n".join(account_lines(every)))
    record_five(checkpoint, tokenizer, args)
    say("\nnext: formation record --help, formation generate --help, docs/quickstart.md")
    return 0


def record_five(checkpoint: Checkpoint, tokenizer: Tokenizer, args: argparse.Namespace) -> None:
    """Five tokens of the first answer in a ledger, checked and shown; the bundle is thrown away afterwards."""
    from formation.cli.record import closing_facts, closing_lines
    from formation.cli.request import LEVELS
    from formation.cli.show import token_lines, tokens
    from formation.evidence import keys
    from formation.evidence.seal import seal
    from formation.ledger.progress import Watch
    from formation.recording import Means, begin
    from formation.run.order import Order
    from formation.text.prompt import chat_prompt

    say("\nrecording five tokens of the first answer, layer by layer, and checking the ledger\n")
    prompt = chat_prompt(checkpoint.path, tokenizer, QUESTIONS[0], thinking=False)
    order = Order(tuple(prompt.ids), 5, stop=prompt.stop, prompt_text=prompt.text)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo.ofb"
        recording = begin(checkpoint, order, Watch(**LEVELS), out, Means("8MiB", args.threads))
        facts = closing_facts(recording, checkpoint, len(prompt.ids), seal(out, keys.load_or_create()))
        print("\n" + "\n".join([*token_lines(list(tokens(out))), "", *closing_lines(facts)[1:]]))


def account_lines(steps: list[dict[str, Any]]) -> list[str]:
    """What was read for which part of the model, over all steps."""
    from formation.run.machine import show_bytes

    totals: dict[str, list[float]] = {}
    for step in steps:
        for part in step["parts"]:
            sums = totals.setdefault(part["part"], [0.0, 0.0, 0.0])
            for n, name in enumerate(("disk_bytes", "cache_bytes", "seconds_waited")):
                sums[n] += part[name]
    ordered = sorted(totals, key=lambda name: (name == "lm_head", name))
    rows = [f"{name:12}{show_bytes(totals[name][0]):>12}{show_bytes(totals[name][1]):>14}{totals[name][2] * 1000:>11.0f} ms" for name in ordered]
    return [f"{'part':12}{'from disk':>12}{'from memory':>14}{'waited':>14}", *rows]
