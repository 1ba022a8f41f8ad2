"""Streaming measured: a synthetic Kimi K2.5 larger than memory, decoded under a budget, beside the raw disk of the same minute.

    python benchmarks/stream.py                                   # 4 layers of 384 experts, 29 GB into out/k25-4x384, budget 8GiB
    python benchmarks/stream.py --layers 2 --experts 32 --memory 1GiB --json

The checkpoint is written if absent and stays. Order of a run: page cache dropped; a prefill; then rounds of raw reads, one token that is
not counted (it finds what was read ahead meanwhile), and --tokens counted tokens, drawn at random (see Scattered); then a prefill of
another prompt, in memory that has been touched before. Figures are medians of rounds; Ctrl-C reports those done.

- raw: blocks of randomly chosen experts (same block size, same number of threads, same Reader, nothing computed), before and after a round.
- whole token: bytes that the disk gave during the counted tokens, over their whole time: reading, computing, waiting, choosing.
- floor: bytes of the tensors that the plan does not keep and every token needs, plus chosen experts that were not in memory, plus one row of
  the embedding. Read over it: padding to pages, gaps, and what was read and not used; under it (below 1) where a part that the plan gives
  no place happened to stay in the room for passing parts.
- waiting: the computation stood still for a read. computing: the rest.
- resident: VmHWM less VmRSS of the idle process (engine created, kernels loaded, raw reads done once), over the budget.
- prediction: bytes of one token of all 61 layers at a budget, no expert cached, at the raw speed, plus the time of this run's tokens in
  which the disk gave nothing (seconds - bytes / raw), times 61 / layers. Where parts do not stay, more of it is hidden behind their reading.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.synthetic_checkpoint import Names, k25_config

import formation
from formation.errors import BudgetError
from formation.kernels import ops
from formation.model.architecture import parts_of
from formation.model.catalog import read_model
from formation.run import machine
from formation.run.plan import make_plan, measure_sizes, stored_sizes
from formation.run.sample import Choice
from formation.weights.arena import Slot
from formation.weights.layout import BLOCK_BYTES, lay_out
from formation.weights.reader import Reader
from formation.weights.stream import ReadEvent

RAW_SECONDS = 1.5
TOOL = Path(__file__).resolve().parent.parent / "tools" / "synthetic_checkpoint.py"


# ---- the disk alone


class RawDisk:
    """Reads random experts as the engine does, without an engine."""

    def __init__(self, engine: formation.Engine, threads: int) -> None:
        self.reader = Reader(engine.checkpoint)
        self.threads = threads
        tensors, shape = engine.checkpoint.tensors, engine.model.shape
        keys = [("expert", layer, e) for layer in shape.expert_layers() for e in range(shape.experts)]
        self._layouts = [lay_out([tensors[n] for n in engine.model.part(key, tensors).names]) for key in keys]
        self._slots = [Slot(max(layout.slot_bytes for layout in self._layouts)) for _ in range(2)]
        self._random = random.Random(0)

    def bytes_per_second(self, seconds: float = RAW_SECONDS) -> float:
        blocks, lock = self._blocks(), threading.Lock()
        before, began = self.reader.bytes_read, time.perf_counter()

        def work() -> None:
            while time.perf_counter() - began < seconds:
                with lock:
                    block, slot = next(blocks)
                self.reader.read(block, slot.view)

        workers = [threading.Thread(target=work) for _ in range(self.threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return (self.reader.bytes_read - before) / (time.perf_counter() - began)

    def _blocks(self) -> Iterator[Any]:
        turn = 0
        while True:
            turn += 1
            for block in self._random.choice(self._layouts).blocks():
                yield block, self._slots[turn % 2]


# ---- tokens


class Scattered:
    """A sampler that ignores the logits: a random model that hears itself says one token for ever, and then every expert is in memory."""

    def __init__(self, vocabulary: int) -> None:
        self._random = random.Random(2)
        self._vocabulary = vocabulary

    def choose(self, logits: np.ndarray, position: int) -> Choice:
        return Choice(self._random.randrange(self._vocabulary))


@dataclass(frozen=True)
class Token:
    """One decode step."""

    seconds: float
    disk_bytes: int
    floor_bytes: int
    expert_uses: int
    expert_hits: int
    seconds_waited: float
    waited_for_experts: float


@dataclass(frozen=True)
class Round:
    """Raw speed before and after, and the tokens in between."""

    raw: float  # bytes per second, mean of both
    tokens: tuple[Token, ...]

    def total(self, field: str) -> float:
        return float(sum(getattr(token, field) for token in self.tokens))

    @property
    def speed(self) -> float:
        """Whole tokens, bytes per second"""
        return self.total("disk_bytes") / self.total("seconds")


class Decoder:
    """An engine that has been given a prompt, and counts what each step does."""

    def __init__(self, engine: formation.Engine, prompt: int, steps: int) -> None:
        self.engine = engine
        self.prompt = prompt
        self.steps = steps
        self.plan = engine.plan(prompt + steps - 1)
        self.stream = engine._prepare(prompt + steps - 1, 1).stream
        self._log = self.stream.events
        self.stream.events = self._add
        self._uses: list[ReadEvent] = []
        tensors, model = engine.checkpoint.tensors, engine.model
        self._sizes = stored_sizes(parts_of(model, tensors), model.shape, tensors)
        self.start(1)

    def start(self, seed: int) -> None:
        """A new prompt, with room for as many steps, so that the engine keeps its memory; its prefill is the first step."""
        vocabulary = self.engine.model.shape.vocabulary
        ids = np.random.default_rng(seed).integers(0, vocabulary, self.prompt).tolist()
        self._steps = self.engine.generate(ids, self.steps, Scattered(vocabulary))

    def step(self) -> Token:
        self._uses.clear()
        step = next(self._steps)
        experts = [use for use in self._uses if use.key[0] == "expert"]
        hits = sum(use.tier == "cache" for use in experts)
        return Token(
            step.seconds, step.reads.disk_bytes, self._floor(len(experts) - hits), len(experts), hits,
            sum(use.seconds for use in self._uses), sum(use.seconds for use in experts),
        )  # fmt: skip

    def quiet(self) -> None:
        """Wait until what is read ahead has been read."""
        before = -1
        while before != self.stream.bytes_read:
            before = self.stream.bytes_read
            time.sleep(0.05)

    def _add(self, event: ReadEvent) -> None:
        self._uses.append(event)
        if self._log is not None:
            self._log(event)

    def _floor(self, missed: int) -> int:
        sizes, kept = self._sizes, self.plan.resident
        resident = sum(sizes.head if key == ("head",) else sizes.layers[key[1]] for key in kept)
        row = sizes.embedding // self.engine.model.shape.vocabulary
        return sizes.always - resident + missed * max(sizes.experts.values()) + row


def rounds_of(decoder: Decoder, raw: RawDisk, rounds: int, tokens: int) -> Iterator[Round]:
    for _ in range(rounds):
        decoder.quiet()
        before = raw.bytes_per_second()
        decoder.step()
        counted = tuple(decoder.step() for _ in range(tokens))
        decoder.quiet()
        yield Round((before + raw.bytes_per_second()) / 2, counted)


def rounds_until_interrupted(rounds: Iterator[Round]) -> tuple[list[Round], bool]:
    done: list[Round] = []
    try:
        for one in rounds:
            done.append(one)
    except KeyboardInterrupt:
        return done, True
    return done, False


# ---- this machine


def status_bytes(line: str) -> int:
    return 1024 * int(re.search(rf"^{line}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)[1])  # type: ignore[index]


def read_ahead_kb(folder: Path) -> str:
    device = folder.stat().st_dev
    path = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/bdi/read_ahead_kb")
    return path.read_text().strip() if path.exists() else "unknown"


def drop_page_cache(checkpoint: formation.Checkpoint) -> str:
    for shard in checkpoint.shards:
        with shard.path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return "dropped with POSIX_FADV_DONTNEED on every shard"


def write_if_absent(folder: Path, layers: int, experts: int) -> None:
    """Through a folder of another name, so that an interrupted writing is not taken for a checkpoint."""
    if folder.exists():
        return
    partial = folder.with_name(folder.name + ".partial")
    subprocess.run(["rm", "-rf", str(partial)], check=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, str(TOOL), str(partial), "--layers", str(layers), "--experts", str(experts)], check=True)
    partial.rename(folder)


# ---- the report


def measure(args: argparse.Namespace) -> dict[str, Any]:
    checkpoint = formation.open(args.folder)
    cache = drop_page_cache(checkpoint)
    with formation.Engine(checkpoint, memory=args.memory, threads=args.threads, reader_threads=args.reader_threads) as engine:
        raw = RawDisk(engine, args.reader_threads)
        first_raw = raw.bytes_per_second()
        ops.isa()
        idle = status_bytes("VmRSS")
        decoder = Decoder(engine, args.prompt, 1 + args.rounds * (args.tokens + 1))
        prefills = [prefill_figures(decoder.step(), args.prompt, first_raw)]
        rounds, interrupted = rounds_until_interrupted(rounds_of(decoder, raw, args.rounds, args.tokens))
        if not interrupted:
            decoder.start(3)
            prefills.append(prefill_figures(decoder.step(), args.prompt, rounds[-1].raw))
        grown = status_bytes("VmHWM") - idle
        return {
            "machine": {
                "threads": engine.threads, "isa": ops.isa(), "reader_threads": args.reader_threads, "block_bytes": BLOCK_BYTES,
                "reads": raw.reader.mode, "read_ahead_kb": read_ahead_kb(args.folder), "page_cache": cache,
                "memory": machine.memory().total_bytes,
            },
            "checkpoint": {"layers": engine.model.shape.layers, "experts": engine.model.shape.experts, "bytes": checkpoint.total_bytes},
            "budget": {
                "bytes": engine.budget, "resident_parts": len(decoder.plan.resident), "parts": engine.model.shape.layers + 1,
                "expert_cache_bytes": decoder.plan.expert_cache_bytes, "grown_bytes": grown, "grown_over_budget": grown / engine.budget,
            },
            "prefills": prefills,
            "interrupted": interrupted,
            "rounds": [asdict(r) for r in rounds],
        } | ({"decode": decode_figures(rounds), "prediction": list(predictions(engine, rounds, args.prompt))} if rounds else {})  # fmt: skip


def prefill_figures(token: Token, positions: int, raw: float) -> dict[str, float]:
    return {
        "positions": positions, "seconds": token.seconds, "tokens_per_second": positions / token.seconds, "bytes": token.disk_bytes,
        "bytes_per_second": token.disk_bytes / token.seconds, "raw_bytes_per_second": raw, "waiting_share": token.seconds_waited / token.seconds,
    }  # fmt: skip


def decode_figures(rounds: list[Round]) -> dict[str, float]:
    """Medians of rounds."""

    def of(figure: Any) -> float:
        return median(figure(r) for r in rounds)

    return {
        "raw_bytes_per_second": of(lambda r: r.raw),
        "whole_token_bytes_per_second": of(lambda r: r.speed),
        "share_of_raw": of(lambda r: r.speed / r.raw),
        "seconds_per_token": of(lambda r: median(t.seconds for t in r.tokens)),
        "bytes_per_token": of(lambda r: r.total("disk_bytes") / len(r.tokens)),
        "read_over_floor": of(lambda r: r.total("disk_bytes") / r.total("floor_bytes")),
        "expert_hit_share": of(lambda r: r.total("expert_hits") / r.total("expert_uses")),
        "waiting_share": of(lambda r: r.total("seconds_waited") / r.total("seconds")),
        "waiting_for_experts_share": of(lambda r: r.total("waited_for_experts") / r.total("seconds")),
        "seconds_computing": of(lambda r: (r.total("seconds") - r.total("seconds_waited")) / len(r.tokens)),
    }


def predictions(engine: formation.Engine, rounds: list[Round], positions: int) -> Iterator[dict[str, float]]:
    model = read_model(k25_config())
    sizes, raw = measure_sizes(parts_of(model, Names(model.quantisation)), model.shape), median(r.raw for r in rounds)
    idle = median((r.total("seconds") - r.total("disk_bytes") / r.raw) / len(r.tokens) for r in rounds)
    idle *= model.shape.layers / engine.model.shape.layers
    for budget in (engine.budget, 16 << 30, 32 << 30, 64 << 30):
        try:
            plan = make_plan(model, sizes, budget, positions)
        except BudgetError:
            continue
        yield {"budget": budget, "bytes_per_token": plan.bytes_per_token, "seconds_per_token": plan.bytes_per_token / raw + idle}


def lines(facts: dict[str, Any]) -> Iterator[str]:
    m, c, b = (facts[name] for name in ("machine", "checkpoint", "budget"))
    yield f"checkpoint        {c['bytes'] / 1e9:.2f} GB, {c['layers']} layers, {c['experts']} experts"
    yield f"memory            {m['memory'] / 1e9:.1f} GB, budget {b['bytes'] / 1e9:.2f} GB"
    yield f"machine           {m['threads']} threads ({m['isa']}), {m['reader_threads']} readers of {m['block_bytes'] >> 20} MiB, {m['reads']} reads"
    yield f"                  read_ahead_kb {m['read_ahead_kb']}; page cache {m['page_cache']}"
    yield f"plan              {b['resident_parts']} of {b['parts']} always-needed parts stay, {b['expert_cache_bytes'] / 1e9:.2f} GB for experts"
    yield f"peak resident     idle + {b['grown_bytes'] / 1e9:.3f} GB = {b['grown_over_budget']:.3f} of the budget"
    for p, note in zip(facts["prefills"], ("memory touched first", "again, after decoding"), strict=False):
        yield (
            f"prefill           {p['positions']} positions in {p['seconds']:.2f} s: {p['tokens_per_second']:.2f} tokens/s, "
            f"{p['bytes'] / 1e9:.2f} GB at {p['bytes_per_second'] / 1e9:.2f} GB/s (raw {p['raw_bytes_per_second'] / 1e9:.2f}), "
            f"waiting {p['waiting_share']:.0%}; {note}"
        )
    if facts["interrupted"]:
        yield f"interrupted       after {len(facts['rounds'])} rounds"
    if "decode" in facts:
        yield from decode_lines(facts)


def decode_lines(facts: dict[str, Any]) -> Iterator[str]:
    d, rounds = facts["decode"], facts["rounds"]
    yield f"decode            medians of {len(rounds)} rounds of {len(rounds[0]['tokens'])} tokens"
    yield f"  raw disk        {d['raw_bytes_per_second'] / 1e9:.3f} GB/s"
    yield f"  whole token     {d['whole_token_bytes_per_second'] / 1e9:.3f} GB/s, {d['share_of_raw']:.1%} of raw; {d['seconds_per_token']:.3f} s"
    yield f"  read per token  {d['bytes_per_token'] / 1e6:.1f} MB, {d['read_over_floor']:.4f} of the floor"
    yield f"  experts         {d['expert_hit_share']:.1%} of those used were in memory"
    yield (
        f"  waiting         {d['waiting_share']:.1%} of the time ({d['waiting_for_experts_share']:.1%} for experts), "
        f"computing {1 - d['waiting_share']:.1%}, {1000 * d['seconds_computing']:.1f} ms a token"
    )
    for p in facts["prediction"]:
        yield (
            f"  all 61 layers   budget {p['budget'] / 2**30:.0f} GiB: {p['bytes_per_token'] / 1e9:.2f} GB a token, {p['seconds_per_token']:.2f} s"
            " when no expert is cached"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="default out/k25-LAYERSxEXPERTS")
    parser.add_argument("--layers", type=int, default=4, help="the dense layer included (default 4)")
    parser.add_argument("--experts", type=int, default=384)
    parser.add_argument("--tokens", type=int, default=8, help="counted tokens of a round (default 8)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=32, help="positions of the prefill (default 32)")
    parser.add_argument("--memory", default="8GiB")
    parser.add_argument("--threads", type=int, help="that compute (default: all cores)")
    parser.add_argument("--reader-threads", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print all figures, every token's included, as JSON")
    args = parser.parse_args()
    args.folder = args.folder or Path("out") / f"k25-{args.layers}x{args.experts}"
    try:
        write_if_absent(args.folder, args.layers, args.experts)
        facts = measure(args)
    except KeyboardInterrupt:
        print("stream.py: interrupted before the first figure", file=sys.stderr)
        return 130
    print(json.dumps(facts, indent=1) if args.json else "\n".join(lines(facts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
