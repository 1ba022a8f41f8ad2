"""Measure what streaming a checkpoint costs here: prefill, whole tokens beside the raw disk of the same minute, recording beside not recording.

With --replay instead: how many of the experts of recorded runs a cache of some size would have held, by policy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.options import POLICY_NAMES, add_experts, add_json, add_streaming, read_checkpoint
from formation.cli.speech import LiveText, say

if TYPE_CHECKING:
    from formation.weights.residency import Access

HELP = "what streaming costs on this machine"
OPTIMUM = "optimum"
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # of all routed experts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", nargs="?", metavar="CKPT", help="folder with the weights to measure")
    parser.add_argument("--tokens", type=int, default=8, metavar="N", help="counted tokens of a round (default 8)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="figures are their medians (default 3)")
    parser.add_argument("--positions", type=int, default=32, metavar="N", help="of the prompt (default 32)")
    parser.add_argument("--reader-threads", type=int, default=4, metavar="N", help="that read (default 4)")
    add_experts(parser)
    parser.add_argument("--no-capture", action="store_true", help="leave out the comparison of recording with not recording")
    words = "recorded runs, whose routes are replayed, each with a cache that begins empty; nothing is measured"
    parser.add_argument("--replay", type=Path, nargs="+", metavar="NAME.ofb", help=words)
    parser.add_argument("--policies", metavar="A,B", help=f"which to replay (default: all of {','.join(POLICY_NAMES)},{OPTIMUM})")
    words = "experts that fit, once for each column (default: a sixteenth, an eighth, a quarter and half of them)"
    parser.add_argument("--slots", type=int, action="append", metavar="N", help=words)
    add_streaming(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.errors import UsageError

    if (args.checkpoint is None) == (args.replay is None):
        raise UsageError(f"bench: expected CKPT or --replay, got {'both' if args.replay else 'none'}")
    if args.replay is None and (args.policies or args.slots):
        raise UsageError("bench: expected --policies and --slots with --replay, got them without")
    if args.replay is not None:
        facts = compared(args.replay, _policies(args.policies), args.slots)
        print(json.dumps(facts) if args.json else table(facts))
        return 0
    facts = measured(args)
    print(json.dumps(facts) if args.json else "\n".join(lines(facts)))
    return 0


# ---- a checkpoint


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Raises UsageError, and what opening and running a checkpoint raises."""
    from formation.errors import UsageError
    from formation.run.bench import Trial, measure

    trial = Trial(args.tokens, args.rounds, args.positions, args.reader_threads)
    if min(trial.tokens, trial.rounds, trial.prompt, trial.reader_threads) < 1:
        raise UsageError("bench: expected --tokens, --rounds, --positions and --reader-threads of 1 or more, got less")
    checkpoint = read_checkpoint(args)
    say("reads the disk alone, then tokens, by turns; Ctrl-C ends it after the last whole round")
    with LiveText(trial.steps, echo=False) as live:
        facts = measure(
            checkpoint, trial, memory=args.memory, threads=args.threads, guess=not args.no_guess, policy=args.policy, progress=live.progress
        )  # fmt: skip
    if not args.no_capture and not facts["interrupted"]:
        facts["capture"] = capture_cost(args, checkpoint, trial)
    return facts


def capture_cost(args: argparse.Namespace, checkpoint: Any, trial: Any) -> dict[str, float]:
    """Seconds of a token, the median, in a run without recording and in one with, one after the other, parity left out"""
    import tempfile
    import time
    from itertools import pairwise
    from statistics import median

    from formation.ledger.progress import Watch
    from formation.recording import Means, begin
    from formation.run.order import Order
    from formation.run.sample import Sample

    times: list[float] = []
    order = Order(tuple(range(1, trial.prompt + 1)), trial.tokens + 2, Sample(temperature=1.0, seed=1))
    means = Means(
        args.memory, args.threads, parity="none", on_step=lambda step: times.append(time.monotonic()), guess=not args.no_guess, policy=args.policy
    )  # fmt: skip
    with means.engine(checkpoint) as engine:
        for _ in engine.generate(order.prompt_ids, order.tokens, order.sampler):
            times.append(time.monotonic())
    off = median(after - before for before, after in pairwise(times[1:]))
    times.clear()
    with tempfile.TemporaryDirectory(prefix="formation-bench-") as folder:
        begin(checkpoint, order, Watch("standard", "minimal", "boundaries"), Path(folder) / "run.ofb", means)
    on = median(after - before for before, after in pairwise(times[1:]))
    return {"seconds_per_token_off": off, "seconds_per_token_on": on, "added": on / off - 1}


def lines(facts: dict[str, Any]) -> Iterator[str]:
    from formation.run.machine import show_bytes

    m, c, b = (facts[name] for name in ("machine", "checkpoint", "budget"))
    yield f"checkpoint        {show_bytes(c['bytes'])}, {c['layers']} layers, {c['experts']} experts"
    yield f"memory            {show_bytes(m['memory'])}, budget {show_bytes(b['bytes'])}"
    yield (
        f"machine           {m['threads']} threads ({m['isa']}), {m['reader_threads']} readers of {m['block_bytes'] >> 20} MiB; "
        + (m["advice"] or "direct reads")
    )
    ahead = "unknown" if m["read_ahead_kb"] is None else m["read_ahead_kb"]
    yield f"                  read_ahead_kb {ahead}; page cache {m['page_cache']}"
    yield f"plan              {b['resident_parts']} of {b['parts']} always-needed parts stay, {show_bytes(b['expert_cache_bytes'])} for experts"
    yield f"peak resident     idle + {show_bytes(b['grown_bytes'])} = {b['grown_over_budget']:.3f} of the budget"
    for p, note in zip(facts["prefills"], ("memory touched first", "again, after decoding"), strict=False):
        yield (
            f"prefill           {p['positions']} positions in {p['seconds']:.2f} s: {p['tokens_per_second']:.2f} tokens/s, "
            f"{show_bytes(p['bytes'])} at {p['bytes_per_second'] / 1e9:.2f} GB/s (raw {p['raw_bytes_per_second'] / 1e9:.2f}), "
            f"waiting {p['waiting_share']:.0%}; {note}"
        )
    if facts["interrupted"]:
        yield f"interrupted       after {len(facts['rounds'])} rounds"
    if "decode" in facts:
        yield from decode_lines(facts)
    if "capture" in facts:
        cost = facts["capture"]
        off, on = cost["seconds_per_token_off"], cost["seconds_per_token_on"]
        yield f"recording         {off:.3f} s a token without, {on:.3f} s with, {cost['added']:+.1%}; one run each"


def decode_lines(facts: dict[str, Any]) -> Iterator[str]:
    from formation.run.machine import show_bytes

    d, rounds = facts["decode"], facts["rounds"]
    yield f"decode            medians of {len(rounds)} rounds of {len(rounds[0]['tokens'])} tokens, drawn at random"
    yield f"  raw disk        {d['raw_bytes_per_second'] / 1e9:.3f} GB/s"
    needed = f"{d['whole_token_bytes_per_second'] / 1e9:.3f} GB/s needed, {d['share_of_raw']:.1%} of raw ({d['disk_share_of_raw']:.1%} read)"
    yield f"  whole token     {needed}; {d['seconds_per_token']:.3f} s"
    yield f"  read per token  {show_bytes(d['bytes_per_token'])}, {d['read_over_floor']:.4f} of the floor"
    yield f"  guessed         {d['guessed_share']:.1%} of the bytes read, and {d['wasted_share']:.1%} read on guesses that were wrong"
    yield f"  experts         {d['expert_hit_share']:.1%} of those used were in memory"
    yield (
        f"  waiting         {d['waiting_share']:.1%} of the time ({d['waiting_for_experts_share']:.1%} for experts), "
        f"computing {1 - d['waiting_share']:.1%}, {1000 * d['seconds_computing']:.1f} ms a token"
    )
    for p in facts["prediction"]:
        yield (
            f"  all {p['layers']} layers".ljust(18) + f"budget {show_bytes(p['budget'])}: {show_bytes(p['bytes_per_token'])} a token, "
            f"{p['seconds_per_token']:.2f} s when no expert is cached"
        )


# ---- the routes of a recorded run


def _policies(text: str | None) -> list[str]:
    """Raises UsageError."""
    from formation.errors import UsageError

    known = [*POLICY_NAMES, OPTIMUM]
    names = text.split(",") if text else known
    for name in names:
        if name not in known:
            raise UsageError(f"policies: expected some of {', '.join(known)}, got {name!r}")
    return names


def compared(bundles: list[Path], policies: list[str], slots: list[int] | None) -> dict[str, Any]:
    """Hits of each policy for each number of slots. Raises UsageError, EnvironmentFault."""
    from formation.errors import UsageError

    runs = [routes(bundle) for bundle in bundles]
    experts = max(run.experts for run in runs)
    most = max(len(access) for run in runs for access in run.accesses)
    sizes = sorted(set(slots or [max(most, round(experts * share)) for share in SHARES]))
    if sizes[0] < most:
        raise UsageError(f"slots: expected at least the {most} experts that a token uses in one layer, got {sizes[0]}")
    uses = sum(len(access) for run in runs for access in run.accesses)
    hits = {name: [sum(kept(name, run.accesses, n) for run in runs) for n in sizes] for name in policies}
    return {
        "bundles": [str(bundle) for bundle in bundles], "positions": sum(run.positions for run in runs), "experts": experts,
        "experts_used": len({key for run in runs for access in run.accesses for key in access}), "uses": uses, "slots": sizes,
        "policies": [{"policy": name, "hits": found, "share": [each / uses for each in found]} for name, found in hits.items()],
    }  # fmt: skip


def kept(policy: str, accesses: Sequence[Access], slots: int) -> int:
    """Uses that find their expert in memory"""
    from formation.weights.policy import policy_named
    from formation.weights.residency import optimum, replay

    return optimum(accesses, slots).hits if policy == OPTIMUM else replay(policy_named(policy)(), accesses, slots).hits


@dataclass(frozen=True)
class Routes:
    """Of one run; `experts` are those of the model."""

    accesses: Sequence[Access]
    experts: int
    positions: int


def routes(bundle: Path) -> Routes:
    """The experts as the run asked for them. Raises EnvironmentFault, UsageError.

    The first pass goes through a prompt, or a text that is scored, layer by layer: each expert that any position chose is used once, alone.
    """
    from formation.errors import UsageError
    from formation.evidence.bundle import Bundle

    opened = Bundle(bundle)
    first = opened.anchor.steps().first
    chosen: dict[tuple[int, int], set[int]] = {}  # by pass, which the position tells, and layer
    positions = set()
    for record in opened.experts:
        if record.expert >= 0:
            turn = 0 if opened.anchor.scores or record.position <= first else record.position
            chosen.setdefault((turn, record.layer), set()).add(record.expert)
            positions.add(record.position)
    if not chosen:
        raise UsageError(f"{bundle}: expected a run with chosen experts, got none", hint="give a run of a mixture-of-experts model")
    accesses: list[Access] = []
    for (turn, layer), experts in sorted(chosen.items()):
        keys = [("expert", layer, expert) for expert in sorted(experts)]
        accesses += [keys] if turn else [[key] for key in keys]
    shape = opened.run.shape
    return Routes(accesses, shape.experts * (shape.layers - shape.dense_layers), len(positions))


def table(facts: dict[str, Any]) -> str:
    head = f"{facts['positions']} positions · {facts['uses']} uses of {facts['experts_used']} of {facts['experts']} experts"
    widths = [f"{n:>10}" for n in facts["slots"]]
    rows = ["experts that fit".ljust(18) + "".join(widths)]
    rows += [row["policy"].ljust(18) + "".join(f"{share:>10.1%}" for share in row["share"]) for row in facts["policies"]]
    return "\n".join([head, "found in memory when used:", *rows])
