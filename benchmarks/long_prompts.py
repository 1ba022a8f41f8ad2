"""Attention over a long prompt: what it costs in time and in memory, at Kimi K2.5's sizes (64 heads of 576, of which 512 are the value).

    python benchmarks/long_prompts.py                              # 256, 1024, 4096 positions; one layer of 0.3 GB into out/long-prompts
    python benchmarks/long_prompts.py --positions 512 2048 --no-pass

attention: latent attention alone, in the chunks that a pass computes together, each position over all before it: H (D + C) T (T + 1) / 2
multiply-adds. Its share of the roof is that of benchmarks/kernels.py, in the same minute: separate multiplies and adds on so many threads.
pass: one layer of Kimi K2.5 with 8 small experts through the engine, the prompt in and one token out; then recorded, with standard capture of
every position of the prompt, which looks at the softmax weights too, in parts.
memory: how far the process grew beyond what it held before (VmHWM, set back before each), weights of the model included; beside it what the softmax
weights of all positions would take at once.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.synthetic_checkpoint import k25_config, write_checkpoint

import formation
from capture import write_vocabulary
from formation.kernels import ops
from formation.ledger.progress import Watch
from formation.model.attention import KeyCache
from formation.model.moe import chunks
from formation.recording import Means, begin
from formation.run import machine
from formation.run.bench import status_bytes
from formation.run.order import Order
from formation.run.plan import LARGEST_CHUNK
from kernels import build_peak, measure_roofs

HEADS, KEY, VALUE = 64, 576, 512


def grown(action: Callable[[], object]) -> tuple[float, int]:
    """Seconds, and bytes that the process grew by at its largest"""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
    before, began = status_bytes("VmRSS"), time.perf_counter()
    action()
    return time.perf_counter() - began, status_bytes("VmHWM") - before


def attention(count: int, threads: int) -> Callable[[], None]:
    """Over all positions of a prompt, chunk after chunk"""
    cache = KeyCache(count, KEY)
    cache.store(0, np.random.default_rng(1).standard_normal((count, KEY), np.float32))
    q = np.random.default_rng(2).standard_normal((min(count, LARGEST_CHUNK), HEADS, KEY), np.float32)

    def attend() -> None:
        for part in chunks(count, LARGEST_CHUNK):
            positions = np.arange(part.start, part.stop, dtype=np.int64)
            ops.mla_attend(q[: len(positions)], cache.values, positions, KEY**-0.5, VALUE, threads=threads)

    return attend


def engine_pass(folder: Path, count: int, threads: int) -> None:
    with formation.Engine(formation.open(folder), threads=threads) as engine:
        next(engine.generate(ids(count), 1))


def recorded(folder: Path, count: int, threads: int) -> None:
    out = folder.parent / "long-prompts.ofb"
    shutil.rmtree(out, ignore_errors=True)
    begin(formation.open(folder), Order(ids(count), 1), Watch("standard", "standard", "none"), out, Means(threads=threads, parity="none"))
    shutil.rmtree(out)


def ids(count: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(count).integers(0, 256, count).tolist())


def checkpoint_of(folder: Path) -> Path:
    if not folder.exists():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        config = k25_config(1, 8)
        config["text_config"] |= {"first_k_dense_replace": 0, "moe_intermediate_size": 256}
        write_vocabulary(write_checkpoint(partial, config))
        partial.rename(folder)
    return folder


def lines(args: argparse.Namespace) -> Iterator[str]:
    roof = measure_roofs(build_peak(), [args.threads]).get(args.threads)
    yield f"{'what':<20}{'positions':>10}{'seconds':>10}{'GMAC/s':>9}{'of roof':>9}{'grew by':>11}{'a position':>12}{'softmax weights':>17}"
    for count in args.positions:
        macs = HEADS * (KEY + VALUE) * count * (count + 1) // 2
        seconds, memory = grown(attention(count, args.threads))
        share = f"{macs / seconds / 1e9 / roof.macs:>9.0%}" if roof else f"{'-':>9}"
        yield line("attention", count, seconds, f"{macs / seconds / 1e9:>9.1f}{share}", memory)
    if args.no_pass:
        return
    folder = checkpoint_of(args.folder)
    for what, run in (("pass", engine_pass), ("pass, recorded", recorded)):
        run(folder, 8, args.threads)  # what is loaded once
        for count in args.positions:
            seconds, memory = grown(lambda run=run, n=count: run(folder, n, args.threads))
            yield line(what, count, seconds, f"{'':>18}", memory)


def line(what: str, count: int, seconds: float, speed: str, memory: int) -> str:
    weights = machine.show_bytes(HEADS * count * count * 4)
    return f"{what:<20}{count:>10}{seconds:>10.2f}{speed}{machine.show_bytes(memory):>11}{machine.show_bytes(memory // count):>12}{weights:>17}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/long-prompts"))
    parser.add_argument("--positions", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument("--no-pass", action="store_true", help="attention alone")
    for each in lines(parser.parse_args()):
        print(each, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
