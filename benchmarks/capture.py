"""The cost of recording measured: the same tokens without a recorder and with one, at each capture level, with the disk busy and without it.

    python benchmarks/capture.py                                   # 10 layers of 20 experts and the whole vocabulary, 12 GB, into out/
    python benchmarks/capture.py --layers 3 --experts 16 --rounds 2 --json

Layers and experts have Kimi K2.5's sizes. The vocabulary is its own too (stream.py scales it), because the lens costs layers times vocabulary: so
a layer here costs capture what it costs there, and what a token costs once (its head, its file syncs) weighs 61 / layers times too much.

One engine serves all runs of a case, with the same memory for weights, so that only capture differs: off, minimal, standard, full, off, ... in
each round, the same sampled tokens in all of them. lm_head stays in memory. Cases: disk (room for all that every token needs, and few experts) and
memory (everything, after it has been used once). A token's time is that between two tokens, reading, computing, waiting and writing lines
included; the first two, with the prefill and lm_head's mean row, are not counted. Figures are medians over all counted tokens, then over rounds.
"""

from __future__ import annotations

import argparse
import base64
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.synthetic_checkpoint import k25_config, write_checkpoint

import formation
from formation.errors import RuleBroken
from formation.ledger.progress import Watch
from formation.probe.cost import capture_bytes
from formation.recording import Means, begin
from formation.run.generate import Step
from formation.run.order import Order
from formation.run.past import Past
from formation.run.plan import Plan, make_plan

LEVELS = ("off", "minimal", "standard", "full")
VOCABULARY = 163840
PROMPT = 4
UNCOUNTED = 2


class Shared(formation.Engine):
    """An engine that several recordings use one after the other: it has one plan, with room for the largest capture, and stays open."""

    def __init__(self, checkpoint: formation.Checkpoint, *, experts: float | None, positions: int, threads: int | None, guess: bool) -> None:
        super().__init__(checkpoint, memory=1 << 50, threads=threads, guess=guess)
        sizes, shape = self._sizes, self.model.shape
        capture = capture_bytes(self.model, positions, level="full", prompt_level="minimal")
        largest = max(sizes.experts.values())
        room = sizes.expert_total if experts is None else (2 * shape.chosen + experts * shape.experts * len(shape.expert_layers())) * largest
        rest = make_plan(self.model, sizes, 1 << 50, positions, 1, capture)
        taken = rest.cache_bytes + rest.activation_bytes + capture + sizes.always + sizes.row_buffer
        self._plan = make_plan(self.model, sizes, int(taken + room) + (1 << 20), positions, 1, capture)

    def plan(self, positions: int, logit_rows: int = 1, past: Past | None = None, *, lengths: Sequence[int] = ()) -> Plan:
        return self._plan

    def close(self) -> None:
        """Not yet"""

    def shut(self) -> None:
        super().close()


@dataclass(frozen=True)
class With(Means):
    """Records by an engine that is there."""

    shared: Shared | None = None

    def engine(self, checkpoint: formation.Checkpoint) -> formation.Engine:
        assert self.shared is not None
        return self.shared


@dataclass(frozen=True)
class Run:
    """Of the counted tokens of one run."""

    seconds: tuple[float, ...]  # of each
    waited: float  # for weights, all together
    disk_bytes: int
    head_bytes: int  # of these, lm_head
    processor_seconds: float

    @property
    def per_token(self) -> float:
        return median(self.seconds)


class Clock:
    """Takes the time of each token of a run."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.steps: list[Step] = []
        self.processor: list[float] = []

    def __call__(self, step: Step) -> None:
        self.times.append(time.perf_counter())
        self.processor.append(processor_seconds())
        self.steps.append(step)

    def run(self) -> Run:
        counted = self.steps[UNCOUNTED:]
        gaps = tuple(after - before for before, after in zip(self.times[UNCOUNTED - 1 :], self.times[UNCOUNTED:], strict=False))
        reads = [step.reads for step in counted]
        head = sum(part.disk_bytes for r in reads for part in r.parts if part.part == "lm_head")
        waited, disk = sum(r.seconds_waited for r in reads), sum(r.disk_bytes for r in reads)
        return Run(gaps, waited, disk, head, self.processor[-1] - self.processor[UNCOUNTED - 1])


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run_once(engine: Shared, level: str, order: Order, rows: str) -> Run:
    clock = Clock()
    engine.probe = engine.probe_bytes = engine.idle = None
    if level == "off":
        for step in engine.generate(order.prompt_ids, order.tokens, order.sampler):
            clock(step)
        return clock.run()
    with tempfile.TemporaryDirectory(dir=engine.checkpoint.path.parent) as folder:
        means = With(threads=engine.threads, parity="none", on_step=clock, shared=engine)
        try:
            begin(engine.checkpoint, order, Watch(level, "minimal", rows), Path(folder) / "run.ofb", means)
        except RuleBroken as broken:  # found when all tokens are written: the figures stand
            print(f"capture.py: {broken}", file=sys.stderr)
    return clock.run()


def rounds_of(engine: Shared, args: argparse.Namespace, warm: bool) -> Iterator[dict[str, Run]]:
    vocabulary = engine.model.shape.vocabulary
    ids = tuple(np.random.default_rng(5).integers(0, vocabulary, PROMPT).tolist())
    orders = [Order(ids, args.tokens + UNCOUNTED, formation.Sample(temperature=2.0, seed=seed)) for seed in range(args.rounds)]
    for order in orders if warm else orders[:1]:
        run_once(engine, "off", order, args.rows)
    for order in orders:
        yield {level: run_once(engine, level, order, args.rows) for level in args.levels}


def case(checkpoint: formation.Checkpoint, args: argparse.Namespace, experts: float | None) -> dict[str, Any]:
    engine = Shared(checkpoint, experts=experts, positions=PROMPT + args.tokens + UNCOUNTED, threads=args.threads, guess=not args.no_guess)
    try:
        rounds = list(rounds_of(engine, args, warm=experts is None))
        plan = engine.plan(1)
        shape = engine.model.shape
        capture = {level: capture_bytes(engine.model, plan.positions, level=level, prompt_level="minimal") for level in LEVELS[1:]}
    finally:
        engine.shut()
    return {
        "threads": engine.threads, "layers": shape.layers, "budget": plan.budget, "expert_cache_bytes": plan.expert_cache_bytes,
        "head_stays": ("head",) in plan.resident, "capture_bytes": capture,
        "levels": {level: figures([r[level] for r in rounds], [r["off"] for r in rounds]) for level in args.levels},
    }  # fmt: skip


def figures(runs: list[Run], without: list[Run]) -> dict[str, Any]:
    """Medians of rounds; `over` compares with the same round's run without capture."""
    tokens = len(runs[0].seconds)
    over = [run.per_token / off.per_token - 1 for run, off in zip(runs, without, strict=True)]
    mean_over = [sum(run.seconds) / sum(off.seconds) - 1 for run, off in zip(runs, without, strict=True)]
    return {
        "seconds_per_token": median(run.per_token for run in runs),
        "spread": [min(run.per_token for run in runs), max(run.per_token for run in runs)],
        "over": median(over), "over_spread": [min(over), max(over)], "mean_over": median(mean_over),
        "waiting_share": median(run.waited / sum(run.seconds) for run in runs),
        "disk_bytes_per_token": median(run.disk_bytes / tokens for run in runs),
        "extra_bytes": sum(run.disk_bytes - off.disk_bytes for run, off in zip(runs, without, strict=True)),
        "head_bytes": sum(run.head_bytes for run in runs),
        "processor_seconds_per_token": median(run.processor_seconds / tokens for run in runs),
    }  # fmt: skip


def lines(facts: dict[str, Any]) -> Iterator[str]:
    for name, one in facts["cases"].items():
        kept = ", ".join(f"{level} {count / 1e6:.0f}" for level, count in one["capture_bytes"].items())
        room = f"budget {one['budget'] / 1e9:.2f} GB, experts {one['expert_cache_bytes'] / 1e9:.2f}"
        yield f"{name}: {one['layers']} layers, {one['threads']} threads, {room}, capture {max(one['capture_bytes'].values()) / 1e9:.2f}"
        yield f"  set aside for capture: {kept} MB"
        yield f"  {'capture':10}{'ms a token':>12}{'over off':>22}{'waiting':>9}{'MB a token':>12}{'extra bytes':>13}{'lm_head':>9}{'CPU ms':>9}"
        for level, f in one["levels"].items():
            over = f"{f['over']:+.1%} ({f['over_spread'][0]:+.1%} {f['over_spread'][1]:+.1%})"
            yield (
                f"  {level:10}{1000 * f['seconds_per_token']:12.1f}{over:>22}{f['waiting_share']:>9.0%}{f['disk_bytes_per_token'] / 1e6:12.1f}"
                f"{f['extra_bytes']:13}{f['head_bytes']:9}{1000 * f['processor_seconds_per_token']:9.0f}"
            )


def write_vocabulary(folder: Path) -> None:
    """The least that text goes through: single bytes, and an end"""
    spellings = (base64.b64encode(bytes([b])) + b" " + str(b).encode() + b"\n" for b in range(256))
    (folder / "tiktoken.model").write_bytes(b"".join(spellings))
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"256": {"content": "[EOS]", "special": True}}}))


def write_if_absent(folder: Path, layers: int, experts: int) -> None:
    if folder.exists():
        return
    config = k25_config(layers, experts)
    config["text_config"]["vocab_size"] = VOCABULARY
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(partial, config, progress=True)
    write_vocabulary(partial)
    partial.rename(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="default out/k25-capture-LAYERSxEXPERTS")
    parser.add_argument("--layers", type=int, default=10, help="the dense layer included (default 10)")
    parser.add_argument("--experts", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=8, help="counted tokens of a run (default 8)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=("disk", "memory"), default=["disk", "memory"])
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--rows", default="boundaries", choices=("none", "boundaries", "all"))
    parser.add_argument("--threads", type=int, help="that compute (default: all cores)")
    parser.add_argument("--no-guess", action="store_true", help="read no expert before a router has chosen it: then all levels read the same bytes")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.folder = args.folder or Path("out") / f"k25-capture-{args.layers}x{args.experts}"
    write_if_absent(args.folder, args.layers, args.experts)
    checkpoint = formation.open(args.folder)
    facts = {"checkpoint_bytes": checkpoint.total_bytes, "cases": {}}
    for name in args.cases:
        facts["cases"][name] = case(checkpoint, args, 0.05 if name == "disk" else None)
    print(json.dumps(facts, indent=1) if args.json else "\n".join(lines(facts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
