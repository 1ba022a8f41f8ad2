"""Streaming measured: a synthetic Kimi K2.5 larger than memory, decoded under a budget, beside the raw disk of the same minute.

    python benchmarks/stream.py                                   # 4 layers of 384 experts, 29 GB into out/k25-4x384, budget 8GiB
    python benchmarks/stream.py --layers 2 --experts 32 --memory 1GiB --json

The checkpoint is written if absent and stays. The figures are those of `formation bench` (formation/run/bench.py says what each is); the
prediction is for all 61 layers of the real one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.synthetic_checkpoint import Names, k25_config

import formation
from formation.cli.bench import lines
from formation.model.architecture import parts_of
from formation.model.catalog import read_model
from formation.run.bench import Trial, measure
from formation.run.plan import measure_sizes

TOOL = Path(__file__).resolve().parent.parent / "tools" / "synthetic_checkpoint.py"


def write_if_absent(folder: Path, layers: int, experts: int) -> None:
    """Through a folder of another name, so that an interrupted writing is not taken for a checkpoint."""
    if folder.exists():
        return
    partial = folder.with_name(folder.name + ".partial")
    subprocess.run(["rm", "-rf", str(partial)], check=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, str(TOOL), str(partial), "--layers", str(layers), "--experts", str(experts)], check=True)
    partial.rename(folder)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    model, trial = read_model(k25_config()), Trial(args.tokens, args.rounds, args.prompt, args.reader_threads)
    whole = model, measure_sizes(parts_of(model, Names(model.quantisation)), model.shape)
    return measure(formation.open(args.folder), trial, memory=args.memory, threads=args.threads, guess=not args.no_guess, of=whole)


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
    parser.add_argument("--no-guess", action="store_true", help="read no expert before a router has chosen it")
    parser.add_argument("--json", action="store_true", help="print all figures, every token's included, as JSON")
    args = parser.parse_args()
    args.folder = args.folder or Path("out") / f"k25-{args.layers}x{args.experts}"
    try:
        write_if_absent(args.folder, args.layers, args.experts)
        facts = measured(args)
    except KeyboardInterrupt:
        print("stream.py: interrupted before the first figure", file=sys.stderr)
        return 130
    print(json.dumps(facts, indent=1) if args.json else "\n".join(lines(facts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
