"""How long verifying takes: a synthetic bundle in the shape of Kimi K2.5 (61 layers, 384 experts), sealed, then verified in a fresh process.

    python benchmarks/verify.py --tokens 1000 --rows none       seconds by the clock and of all CPUs, and the most memory held
    python benchmarks/verify.py run.ofb --repeat 25             the same of a bundle that is there

The lines keep every rule; those of one step stand again for every token, so that making them takes seconds. The vocabulary is a small one; the
tensor table is the whole model's, 208,550 tensors with K2.5's names, unless --small-table asks for one of three.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.evidence import vectors, whole_bundles
from tools.synthetic_checkpoint import k25_config, shards_of

from formation.kernels.choices import Router
from formation.ledger import canonical, merkle
from formation.model.catalog import read_model

LAYERS, EXPERTS, CHOSEN = 61, 384, 8
SHARDS, OTHERS = 64, 335  # of the published checkpoint: its files, and its tensors that are not of the language model
VERIFY = """
import resource, sys
from formation.cli.main import main
code = main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))  # kB
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)  # of its largest worker; what they share is counted in each
sys.exit(code)
"""


def shape(hidden: int) -> dict[str, int]:
    return {"layers": LAYERS, "dense_layers": 1, "hidden": hidden, "heads": 64, "experts": EXPERTS, "chosen": CHOSEN, "vocabulary": 2000}


def table_of_k25() -> dict[str, Any]:
    """checkpoint.json of Kimi K2.5, of random digests: true names, shapes and dtypes, tensors one behind the other in a shard for each layer"""
    shards: dict[str, list[tuple[str, str, tuple[int, ...], int]]] = {}
    for number, stored in enumerate(shards_of(read_model(k25_config())), 1):
        shards[f"model-{number:05}-of-{SHARDS:06}.safetensors"] = [(s.name, s.dtypes[0], s.shape, s.nbytes) for s in stored]
    others = [(f"vision_tower.encoder.blocks.{n // 12}.part_{n % 12}.weight", "BF16", (1152, 1152), 2 * 1152 * 1152) for n in range(OTHERS)]
    shards[f"model-{SHARDS:05}-of-{SHARDS:06}.safetensors"] = others
    rows = [row for file, tensors in shards.items() for row in rows_of(file, tensors)]
    rows.sort(key=lambda row: row["name"])
    root = merkle.root_of(merkle.leaf_hash(canonical.encode(row)) for row in rows).hex()
    files = [{"path": file, "size": 9_000_000_000, "sha256": "5e" * 32, "covers": "header"} for file in sorted(shards)]
    return {"files": files, "tensor_table": rows, "tensor_table_root": root}


def rows_of(file: str, tensors: list[tuple[str, str, tuple[int, ...], int]]) -> list[dict[str, Any]]:
    rows, end = [], 1 << 19
    for name, dtype, shape, size in tensors:
        begin, end = end, end + size
        rows.append({"file": file, "name": name, "dtype": dtype, "shape": list(shape), "begin": begin, "end": end})
    return rows


def verified(folder: Path, given: bool) -> dict[str, Any]:
    """Of a fresh process, its interpreter's start included"""
    command = [sys.executable, "-c", VERIFY, "verify", str(folder), "--json"]
    command += ["--allow-unknown-signer"] if given else ["--signer", vectors.key().public.text]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    shown, most, worker = done.stdout.splitlines()
    verdict = json.loads(shown)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"verdict": verdict["verdict"], "seconds": seconds, "cpu_seconds": cpu, "memory_mb": int(most) / 1024, "worker_mb": int(worker) / 1024}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="?", help="an existing sealed bundle instead of a synthetic one")
    parser.add_argument("--tokens", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=10)
    parser.add_argument("--rows", choices=("none", "boundaries", "all"), default="boundaries")
    parser.add_argument("--hidden", type=int, default=7168)
    parser.add_argument("--small-table", action="store_true", help="three tensors instead of K2.5's")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.bundle or Path(scratch) / "run.ofb"
        if not args.bundle:
            table = whole_bundles.CHECKPOINT if args.small_table else table_of_k25()
            kind = whole_bundles.Kind(prompt=tuple(range(3, 3 + args.prompt)), tokens=args.tokens, rows=args.rows, repeat=True, checkpoint=table)
            router = Router(experts=EXPERTS, chosen=CHOSEN, scale=whole_bundles.ROUTER.scale)
            whole_bundles.make(folder, kind, router=router, shape=shape(args.hidden))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"ledger {(folder / 'ledger.jsonl').stat().st_size / 1e6:.1f} MB, bundle {size / 1e6:.1f} MB")
        runs = []
        for _ in range(args.repeat):
            runs.append(verified(folder, args.bundle is not None))
            print(json.dumps(runs[-1] | {"load": os.getloadavg()[0]}), flush=True)
        for name in ("seconds", "cpu_seconds"):
            print(f"{name}: fastest {min(run[name] for run in runs):.3f}, median {median(run[name] for run in runs):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
