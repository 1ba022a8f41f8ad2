"""What a token costs as a model grows: twice the layers, four times the tokens, four times the experts, everything else as it is.

    python benchmarks/scaling.py                                   # 3, 6, 12 layers of 64 experts; 16, 64, 256 experts in 3 layers: 6.5 GB
    python benchmarks/scaling.py --layers 3 6 --experts 16 64 --tokens 8 32 --json

Kimi K2.5's layers at two sevenths of its width (2048, 8 heads of its sizes, int4 experts of 768: 2.65 MB), all with experts, 8 chosen for a token.
The checkpoints are written, recorded from, measured in turn, and deleted. Page cache dropped, no guesses. The budget is the least at which all
that every token needs stays in memory: it leaves room for the experts of two layers, whatever their number, and with three layers or more none of
them is there again when the next token comes ("hits"). So every chosen expert is read, and no cache is compared.

Decoding is measured by formation/run/bench.py, in rounds of the largest number of tokens; the seconds of fewer are those of the first of a round.
A round of one checkpoint follows one of the other, so that a busy minute is not taken for a large model; figures are medians of rounds.
The ledgers are of the same numbers of tokens, standard capture, and are counted, not timed.

linear: cost = a + b·n, so twice the step in n costs twice as much more: (c3 - c2) / (n3 - n2) over (c2 - c1) / (n2 - n1), 1 where it is a line.
flat: cost of the most experts over that of the fewest, 1 where their number does not matter.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.synthetic_checkpoint import k25_config, write_checkpoint

import formation
from capture import write_vocabulary
from formation.errors import BudgetError
from formation.ledger.progress import Watch
from formation.model.catalog import read_model
from formation.recording import Means, begin
from formation.run.bench import Decoder, Round, Trial, decode_figures, rounds_of
from formation.run.order import Order
from formation.weights.speed import drop_page_cache

CHOSEN, PROMPT = 8, 4
SIDECARS = ("rows", "router")


@dataclass(frozen=True)
class Cost:
    """Of one checkpoint; medians of rounds."""

    layers: int
    experts: int
    checkpoint_bytes: int
    seconds: dict[int, float]  # {tokens: of decoding so many}
    bytes_per_token: float  # from the disk
    over_floor: float
    hits: float
    waiting: float
    raw: float  # bytes per second
    ledger_bytes: dict[int, int]  # {tokens: of ledger.jsonl}
    sidecar_bytes: dict[int, int]  # {tokens: of rows and router}

    @property
    def seconds_per_token(self) -> float:
        most = max(self.seconds)
        return self.seconds[most] / most


def write(folder: Path, layers: int, experts: int) -> formation.Checkpoint:
    config = k25_config(layers, experts)
    config["text_config"] |= {
        "hidden_size": 2048, "moe_intermediate_size": 768, "num_experts_per_tok": CHOSEN, "num_attention_heads": 8, "num_key_value_heads": 8,
        "q_lora_rank": 768, "kv_lora_rank": 256, "vocab_size": 4096, "first_k_dense_replace": 0,
    }  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    write_vocabulary(write_checkpoint(folder, config))
    return formation.open(folder)


def budget_for(checkpoint: formation.Checkpoint, positions: int) -> int:
    """The least that keeps what every token needs"""

    def keeps(budget: int) -> bool:
        engine.budget = budget
        try:
            return len(engine.plan(positions).resident) == engine.model.shape.layers + 1
        except BudgetError:
            return False

    with formation.Engine(checkpoint, guess=False) as engine:
        return bisect_left(range(checkpoint.total_bytes + (1 << 30)), True, key=keeps)


def sizes(layers: list[int], experts: list[int]) -> list[tuple[int, int]]:
    """(layers, experts): the fewest layers with each number of experts, the middle number of experts with each number of layers"""
    middle = sorted(experts)[len(experts) // 2]
    return sorted({(min(layers), each) for each in experts} | {(each, middle) for each in layers})


def measured(checkpoints: list[formation.Checkpoint], args: argparse.Namespace) -> list[list[Round]]:
    """Rounds of each, in turn"""
    trial = Trial(max(args.tokens), args.rounds, PROMPT)
    with ExitStack() as opened:
        going = []
        for checkpoint in checkpoints:
            drop_page_cache(checkpoint)
            budget = budget_for(checkpoint, PROMPT + trial.steps - 1)
            engine = opened.enter_context(formation.Engine(checkpoint, memory=budget, threads=args.threads, guess=False))
            decoder = Decoder(engine, trial)
            decoder.step()  # the prompt
            going.append(rounds_of(decoder))
        in_turn = list(zip(*going, strict=True))
    return [list(each) for each in zip(*in_turn, strict=True)]


def cost_of(checkpoint: formation.Checkpoint, rounds: list[Round], ledgers: dict[int, tuple[int, int]]) -> Cost:
    decode, shape = decode_figures(rounds, [])["decode"], read_model(checkpoint.config).shape
    return Cost(
        shape.layers, shape.experts, checkpoint.total_bytes,
        {n: median(sum(token.seconds for token in each.tokens[:n]) for each in rounds) for n in ledgers},
        decode["bytes_per_token"], decode["read_over_floor"], decode["expert_hit_share"], decode["waiting_share"], decode["raw_bytes_per_second"],
        {n: each[0] for n, each in ledgers.items()}, {n: each[1] for n, each in ledgers.items()},
    )  # fmt: skip


def record(checkpoint: formation.Checkpoint, tokens: int, threads: int | None) -> tuple[int, int]:
    """Bytes of the ledger, and of what lies beside it"""
    out = checkpoint.path / "run.ofb"
    order = Order(tuple(range(PROMPT)), tokens, formation.Sample(temperature=2.0, seed=5))
    begin(checkpoint, order, Watch("standard", "minimal", "boundaries"), out, Means(threads=threads, parity="none", guess=False))
    beside = sum(file.stat().st_size for name in SIDECARS for file in (out / name).rglob("*") if file.is_file())
    size = (out / "ledger.jsonl").stat().st_size
    shutil.rmtree(out)
    return size, beside


# ---- the report


def linear(at: Sequence[int], costs: Sequence[float]) -> tuple[float, float]:
    """(slope over the whole, how much steeper its second part is than its first)"""
    slopes = [(costs[n + 1] - costs[n]) / (at[n + 1] - at[n]) for n in range(len(at) - 1)]
    return (costs[-1] - costs[0]) / (at[-1] - at[0]), slopes[-1] / slopes[0]


def lines(costs: list[Cost], tokens: list[int]) -> Iterator[str]:
    yield (
        f"{'layers':>6}{'experts':>9}{'GB':>7}{'raw GB/s':>10}{'hits':>7}{'floor':>8}{'waiting':>9}{'MB/token':>10}{'ms/token':>10}"
        + "".join(f"{f's of {n}':>10}" for n in tokens)
        + f"{'ledger kB/token':>17}{'a layer':>9}{'beside':>8}"
    )
    for cost in costs:
        ledger, beside = (grown(each) / 1e3 for each in (cost.ledger_bytes, cost.sidecar_bytes))
        yield (
            f"{cost.layers:>6}{cost.experts:>9}{cost.checkpoint_bytes / 1e9:>7.2f}{cost.raw / 1e9:>10.2f}{cost.hits:>7.1%}"
            f"{cost.over_floor:>8.4f}{cost.waiting:>9.0%}{cost.bytes_per_token / 1e6:>10.2f}{1e3 * cost.seconds_per_token:>10.2f}"
            + "".join(f"{cost.seconds[n]:>10.3f}" for n in tokens)
            + f"{ledger:>17.2f}{ledger / cost.layers:>9.2f}{beside:>8.2f}"
        )
    yield from in_layers(costs)
    yield from in_tokens(costs, tokens)
    yield from in_experts(costs)


def grown(by_tokens: dict[int, int]) -> float:
    """Bytes of one token more: without what a ledger has once"""
    few, many = min(by_tokens), max(by_tokens)
    return (by_tokens[many] - by_tokens[few]) / (many - few) if many > few else by_tokens[few] / few


MEASURES: tuple[tuple[str, float, Callable[[Cost], float]], ...] = (
    ("ms a token", 1e3, lambda cost: cost.seconds_per_token),
    ("MB a token", 1e-6, lambda cost: cost.bytes_per_token),
    ("kB of ledger a token", 1e-3, lambda cost: grown(cost.ledger_bytes)),
)


def in_layers(costs: list[Cost]) -> Iterator[str]:
    for experts in sorted({cost.experts for cost in costs}):
        some = [cost for cost in costs if cost.experts == experts]
        if len(some) > 2:
            for name, unit, of in MEASURES:
                slope, ratio = linear([cost.layers for cost in some], [of(cost) for cost in some])
                yield f"layers, {experts} experts: {unit * slope:.3f} {name} for each, linear {ratio:.3f}"


def in_tokens(costs: list[Cost], tokens: list[int]) -> Iterator[str]:
    if len(tokens) > 2:
        for cost in costs:
            slope, ratio = linear(tokens, [cost.seconds[n] for n in tokens])
            ledger, ledger_ratio = linear(tokens, [float(cost.ledger_bytes[n]) for n in tokens])
            told = f"tokens, {cost.layers} layers of {cost.experts}: {1e3 * slope:.2f} ms for each, linear {ratio:.3f}"
            yield f"{told}; ledger {ledger / 1e3:.2f} kB, linear {ledger_ratio:.3f}"


def in_experts(costs: list[Cost]) -> Iterator[str]:
    for layers in sorted({cost.layers for cost in costs}):
        some = sorted((cost for cost in costs if cost.layers == layers), key=lambda cost: cost.experts)
        if len(some) < 2:
            continue
        told = ", ".join(f"{name} {of(some[-1]) / of(some[0]):.3f}" for name, _, of in MEASURES)
        yield f"experts, {layers} layers, {some[-1].experts} over {some[0].experts}: {told}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/scaling"))
    parser.add_argument("--layers", type=int, nargs="+", default=[3, 6, 12])
    parser.add_argument("--experts", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="that compute (default: all cores)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    folders = {args.out / f"{layers}x{experts}": (layers, experts) for layers, experts in sizes(args.layers, args.experts)}
    try:
        checkpoints = [write(folder, *size) for folder, size in folders.items()]
        ledgers = [{tokens: record(each, tokens, args.threads) for tokens in args.tokens} for each in checkpoints]
        costs = list(map(cost_of, checkpoints, measured(checkpoints, args), ledgers))
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps([vars(cost) for cost in costs], indent=1) if args.json else "\n".join(lines(costs, sorted(args.tokens))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
