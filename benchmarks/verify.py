"""How long verifying takes: a synthetic bundle in the shape of Kimi K2.5 (61 layers, 384 experts), sealed, then verified in a fresh process.

    python benchmarks/verify.py --tokens 1000 --rows none       seconds by the clock and of all CPUs, and the most memory held

The lines keep every rule; those of one step stand again for every token, so that making them takes seconds. The vocabulary is a small one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.evidence import vectors, whole_bundles

from formation.kernels.choices import Router

LAYERS, EXPERTS, CHOSEN = 61, 384, 8
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
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.bundle or Path(scratch) / "run.ofb"
        if not args.bundle:
            kind = whole_bundles.Kind(prompt=tuple(range(3, 3 + args.prompt)), tokens=args.tokens, rows=args.rows, repeat=True)
            router = Router(experts=EXPERTS, chosen=CHOSEN, scale=whole_bundles.ROUTER.scale)
            whole_bundles.make(folder, kind, router=router, shape=shape(args.hidden))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"ledger {(folder / 'ledger.jsonl').stat().st_size / 1e6:.1f} MB, bundle {size / 1e6:.1f} MB")
        for _ in range(args.repeat):
            print(json.dumps(verified(folder, args.bundle is not None)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
