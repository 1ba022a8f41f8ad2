"""Answer three questions with the shipped sample checkpoint, under a memory budget smaller than it; then record five tokens of an answer, and
seal, audit, certify and verify the bundle. With --dialogue two models talk for twenty turns instead, every token measured."""

from __future__ import annotations

import argparse
import shlex
import tempfile
from pathlib import Path
from typing import Any

from formation.cli.speech import LiveText, say

HELP = "the main job on the shipped sample checkpoint"
QUESTIONS = ("What does len do?", "What is KeyError?", "Who are you?")
MEMORY = "4MiB"
RECORDING_MEMORY = "8MiB"  # capture keeps rows, and counts; so do two contexts
TURNS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = f"budget (default {MEMORY}, less than the sample's size; {RECORDING_MEMORY} with --dialogue)"
    parser.add_argument("--memory", metavar="SIZE", help=words)
    parser.add_argument("--dialogue", action="store_true", help="let two models talk for twenty turns instead")
    parser.add_argument("--out", metavar="DIR", help="folder for what it makes (default: a new one among the temporary files)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: all cores)")


def run(args: argparse.Namespace) -> int:
    folder = Path(args.out or tempfile.mkdtemp(prefix="formation-demo-"))
    return dialogue(args, folder) if args.dialogue else answers(args, folder)


def answers(args: argparse.Namespace, out: Path) -> int:
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
    with formation.Engine(checkpoint, memory=args.memory or MEMORY, threads=args.threads) as engine:
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
    return evidence(args, str(checkpoint.path), out)


def evidence(args: argparse.Namespace, checkpoint: str, folder: Path) -> int:
    """Five tokens of the first answer recorded and sealed, shown, audited, certified, verified."""
    out = str(folder / "demo.ofb")
    threads = ["--threads", str(args.threads)] if args.threads else []
    code = typed(
        ("record five tokens of the first answer, layer by layer, and seal the bundle",
         ["record", checkpoint, "--chat", QUESTIONS[0], "--no-thinking", "--out", out, "--memory", RECORDING_MEMORY, *threads]),
        ("what formed the tokens", ["show", out]),
        ("execute parts of it again, from the committed rows, and compare every bit", ["audit", out, "--checkpoint", checkpoint, *threads]),
        ("attack copies of it, and the verifier", ["certify", out, *threads]),
        ("what a stranger can tell without the weights", ["verify", out]),
        ("and see it", ["explore", out, "--out", str(folder / "explorer.html")]),
    )  # fmt: skip
    if code == 0:
        say(f"\nthe bundle is kept in {out}; a note for a paper: formation note {out}, with pip install 'formation-ledger[note]'")
    return code


def dialogue(args: argparse.Namespace, folder: Path) -> int:
    """Two samples, or one on both sides, in twenty turns; what their transcript states, its bundles, its page."""
    from formation.samples import NAMES
    from formation.samples import folder as sample

    out = folder / "demo.dlg"
    first, second = NAMES[0], NAMES[-1]
    sides = ["--a", f"{first}={sample(first)}", "--b", f"{second if second != first else f'{first} too'}={sample(second)}"]
    manner = ["--temperature", "0.8", "--seed", "1", "--tokens", "24", "--context", "last 3"]
    manner += ["--no-thinking"] if first == second else ["--a-no-thinking"]
    threads = ["--threads", str(args.threads)] if args.threads else []
    memory = ["--memory", args.memory or RECORDING_MEMORY]
    code = typed(
        ("twenty turns, every token an event of a chained log; then what each side said, recorded and sealed, in one pass over its weights",
         ["dialogue", *sides, *manner, "--kickoff", QUESTIONS[0], "--stop", f"{TURNS} messages", "--out", str(out), *memory, *threads]),
        ("does the transcript's header hold", ["dialogue", "--check", str(out / "transcript.md")]),
        ("where would other rules have ended it", ["dialogue", "--simulate-stops", str(out / "transcript.md")]),
        ("is the log whole, and are the bundles of this dialogue", ["dialogue", "--check", str(out)]),
    )  # fmt: skip
    return code or shown(folder, out)


def shown(folder: Path, out: Path) -> int:
    """The last bundle of each side verified, as one that names this dialogue, and the page"""
    from formation.dialogue.agreement import nonce_of

    about = "what a stranger can tell of what side {} said, without the weights"
    nonce = nonce_of(out)
    checks = [(about.format(letter), ["verify", str(last_bundle(out, letter)), "--nonce", nonce]) for letter in "ab"]
    return typed(*checks, ("and see it", ["explore", str(out), "--out", str(folder / "dialogue.html")]))


def last_bundle(out: Path, letter: str) -> Path:
    """Of those of a side, the one of what was said last"""
    return max(out.glob(f"{letter}*.ofb"), key=lambda path: (len(path.name), path.name))


def typed(*told: tuple[str, list[str]]) -> int:
    """The commands that a user types, each after a line about it, until one fails: its exit code"""
    from formation.cli.main import main

    for about, command in told:
        print(f"\n# {about}\n$ formation {shlex.join(command)}\n", flush=True)
        if code := main(command):
            return code
    return 0


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
