"""How fast the matrix products are, beside what this processor could do and beside torch.

    PYTHONPATH=src python benchmarks/kernels.py [--threads 1 2] [--rows 1 4 16 64 256] [--seconds 0.3]

One line for each shape, kind, number of rows and number of threads: multiply-adds for each stored byte of the weights, the median of many rounds in
milliseconds, the median and the fastest in billions of multiply-adds per second, and the fastest as a share of the roof: what separate multiplies and
adds can do here, or, if that is less, what reading the weights from memory once leaves possible. Both are measured again before every shape. The
rounds go through enough copies of the weights that they do not stay in the caches next to the cores. Weights are random bytes: the figures are
about speed, not results. It does not know what else the machine is doing: run it on an idle one, and compare figures of one run only.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median

import numpy as np

from formation.kernels import ops
from formation.kernels.tensor import F32, Kind, Weight

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

BYTES_PER_VALUE = {Kind.F32: 4.0, Kind.F16: 2.0, Kind.BF16: 2.0, Kind.INT4: 0.5, Kind.FP8: 1.0}
COPIES_BYTES = 128 << 20
HIDDEN, EXPERT = 7168, 2048  # of Kimi K2.5 and DeepSeek-V3
SHAPES = [  # what, kind, outputs, inputs
    ("expert gate or up", Kind.INT4, EXPERT, HIDDEN),
    ("expert down", Kind.INT4, HIDDEN, EXPERT),
    ("expert gate or up", Kind.FP8, EXPERT, HIDDEN),
    ("attention output", Kind.BF16, HIDDEN, 8192),
    ("router", Kind.F32, 384, HIDDEN),
]

PEAK_SOURCE = """
#if defined(__AVX512F__)
enum { VL = 16, SUMS = 16 };
#elif defined(__AVX__)
enum { VL = 8, SUMS = 8 };
#else
enum { VL = 4, SUMS = 8 };
#endif
typedef float fv __attribute__((vector_size(4 * VL)));
fv weights[8], activations[SUMS], sink[SUMS]; /* not static: the compiler must not know that they are zero */
/* Multiply-adds done: `rounds` times one weight vector times each activation, added to as many independent sums. */
long long multiply_adds(long long rounds) {
  fv sums[SUMS] = {};
  for (long long k = 0; k < rounds; k++)
    _Pragma("GCC unroll 16") for (int i = 0; i < SUMS; i++) sums[i] = sums[i] + weights[k & 7] * activations[i];
  for (int i = 0; i < SUMS; i++) sink[i] = sums[i];
  return rounds * SUMS * VL;
}
/* Bytes read: all of them, once, in the order they lie. */
long long read_all(const fv *data, long long vectors) {
  fv sums[SUMS] = {};
  for (long long k = 0; k + SUMS <= vectors; k += SUMS)
    _Pragma("GCC unroll 16") for (int i = 0; i < SUMS; i++) sums[i] = sums[i] + data[k + i];
  for (int i = 0; i < SUMS; i++) sink[i] = sums[i];
  return vectors * (long long)sizeof *data;
}
"""
MEMORY_BYTES = 256 << 20  # read by each thread, more than any cache holds


@dataclass(frozen=True)
class Roof:
    """What this processor could do on so many threads: billions of separate multiplies and adds, and of bytes from memory, per second."""

    macs: float
    bytes: float

    def at(self, macs: int, stored: int) -> float:
        """Billions of multiply-adds per second that a product with so many stored bytes of weights could reach, each read once"""
        return min(self.macs, self.bytes * macs / stored)


Roofs = dict[int, Roof]  # by the number of threads


def build_peak() -> ctypes.CDLL | None:
    """The loops of PEAK_SOURCE; None, and said so, without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("peak: skipped, no C compiler found")
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "peak.c"), Path(folder, "peak.so")
        source.write_text(PEAK_SOURCE)
        flags = ["-O3", "-march=native", "-ffp-contract=off", "-Wno-psabi", "-shared", "-fPIC"]
        subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
        loops = ctypes.CDLL(str(library))
    loops.multiply_adds.argtypes, loops.multiply_adds.restype = [ctypes.c_longlong], ctypes.c_longlong
    loops.read_all.argtypes, loops.read_all.restype = [ctypes.c_void_p, ctypes.c_longlong], ctypes.c_longlong
    return loops


def measure_roofs(loops: ctypes.CDLL | None, threads: Sequence[int]) -> Roofs:
    """The most of five rounds; printed."""
    if loops is None:
        return {}
    found = {count: Roof(*(max(once(loops, count) for _ in range(5)) for once in (peak_round, memory_round))) for count in threads}
    for count, roof in found.items():
        print(f"roof on {count} threads: {roof.macs:.1f} GMAC/s, {roof.bytes:.1f} GB/s from memory", flush=True)
    return found


def peak_round(loops: ctypes.CDLL, threads: int) -> float:
    return together([lambda: loops.multiply_adds(10_000_000)] * threads)


def memory_round(loops: ctypes.CDLL, threads: int) -> float:
    data = np.ones(threads * MEMORY_BYTES // 4, np.float32).reshape(threads, -1)
    vector = 64 if ops.isa() == "avx512" else 32 if ops.isa() == "avx2" else 16
    return together([lambda part=part: loops.read_all(part.ctypes.data, part.nbytes // vector) for part in data])


def together(work: Sequence[Callable[[], int]]) -> float:
    """Billions per second of what they count, each on a thread of its own"""
    with ThreadPoolExecutor(len(work)) as pool:
        start = time.perf_counter()
        done = sum(pool.map(lambda one: one(), work))
        return done / (time.perf_counter() - start) / 1e9


def random_weight(kind: Kind, rows: int, cols: int, seed: int) -> Weight:
    """A weight of random stored values, all finite and of ordinary size."""
    rng = np.random.default_rng(seed)
    if kind in (Kind.INT4, Kind.FP8):
        data = rng.integers(0, 256, int(rows * cols * BYTES_PER_VALUE[kind]), np.uint8)
        data = data & 0xBF if kind is Kind.FP8 else data  # no NaN code
    else:
        values = rng.standard_normal(rows * cols, np.float32)
        narrow = {Kind.F32: values, Kind.F16: values.astype(np.float16), Kind.BF16: (values.view(np.uint32) >> 16).astype(np.uint16)}
        data = narrow[kind].view(np.uint8)
    return Weight(f"random {rows}x{cols}", kind, rows, cols, data, random_scale(kind, rows, cols, rng))


def random_scale(kind: Kind, rows: int, cols: int, rng: np.random.Generator) -> np.ndarray | None:
    if kind is Kind.INT4:
        return rng.integers(0x3C00, 0x3C80, rows * cols // 32, np.uint16).view(np.uint8)
    if kind is Kind.FP8:
        return rng.random(-(-rows // 128) * -(-cols // 128), np.float32).view(np.uint8)
    return None


def timed(call: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each of the rounds that fit, at least three."""
    rounds, end = [], time.perf_counter() + seconds
    while len(rounds) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        rounds.append(time.perf_counter() - start)
    return rounds


def report(what: str, kind: str, shape: str, rows: int, threads: int, size: tuple[int, int], rounds: list[float], roofs: Roofs) -> None:
    """`size`: multiply-adds, and stored bytes of the weights"""
    macs, stored = size
    middle, speed = median(rounds), macs / min(rounds) / 1e9
    share = f"{speed / roofs[threads].at(macs, stored):7.0%}" if threads in roofs else "      -"
    figures = f"{middle * 1e3:9.3f} {macs / middle / 1e9:8.1f} {speed:8.1f} {share}"
    print(f"{what:<19} {kind:<11} {shape:>10} {rows:5d} {threads:7d} {macs / stored:7.1f} {figures}", flush=True)


def stored_bytes(weights: Sequence[Weight]) -> int:
    return sum(w.data.nbytes + (0 if w.scale is None else w.scale.nbytes) for w in weights)


def bench_shape(shape: tuple[str, Kind, int, int], options: argparse.Namespace, roofs: Roofs) -> None:
    what, kind, outputs, inputs = shape
    copies = max(2, int(COPIES_BYTES / (outputs * inputs * BYTES_PER_VALUE[kind])))
    weights = [random_weight(kind, outputs, inputs, seed) for seed in range(min(copies, 16))]
    for rows in options.rows:
        x = np.random.default_rng(1).standard_normal((rows, inputs), np.float32)
        for threads in options.threads:
            turn = cycle(weights)
            rounds = timed(lambda x=x, turn=turn, n=threads: ops.linear(next(turn), x, threads=n), options.seconds)
            report(what, kind.name.lower(), f"{outputs}x{inputs}", rows, threads, (rows * outputs * inputs, stored_bytes(weights[:1])), rounds, roofs)
            bench_torch(what, kind, weights[0], x, threads, options, roofs)


def bench_torch(what: str, kind: Kind, w: Weight, x: F32, threads: int, options: argparse.Namespace, roofs: Roofs) -> None:
    """torch on the same shape: bf16 throughout for bf16 weights, unpack and multiply for int4."""
    if torch is None or kind not in (Kind.BF16, Kind.INT4):
        return
    torch.set_num_threads(threads)
    activations = torch.from_numpy(x).bfloat16()
    if kind is Kind.BF16:
        dense, name = torch.from_numpy(w.data.view(np.int16)).view(torch.bfloat16).reshape(w.rows, w.cols), "torch bf16"
        rounds = timed(lambda: torch.nn.functional.linear(activations, dense), options.seconds)
    else:
        packed, name = torch.from_numpy(w.data.view(np.int32)).reshape(w.rows, w.cols // 8), "torch int4"
        scale = torch.from_numpy(w.scale.view(np.int16)).view(torch.bfloat16).reshape(w.rows, w.cols // 32, 1)
        rounds = timed(lambda: torch.nn.functional.linear(activations, torch_unpack(packed, scale)), options.seconds)
    report(what, name, f"{w.rows}x{w.cols}", len(x), threads, (len(x) * w.rows * w.cols, stored_bytes([w])), rounds, roofs)


def torch_unpack(packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The plain way: eight shifts, then the scales. packed [rows, cols/8], scale [rows, cols/32, 1] -> bf16 [rows, cols]"""
    nibbles = packed.unsqueeze(-1) >> torch.arange(0, 32, 4, dtype=torch.int32) & 15
    return ((nibbles - 8).reshape(*scale.shape[:2], 32).to(torch.bfloat16) * scale).reshape(len(packed), -1)


def bench_expert(options: argparse.Namespace, roofs: Roofs) -> None:
    """One row through a whole int4 expert: gate, up, silu and product, down; of several experts in turn, and of one again and again."""
    sets = [[random_weight(Kind.INT4, *shape, seed) for shape in ((EXPERT, HIDDEN), (EXPERT, HIDDEN), (HIDDEN, EXPERT))] for seed in range(6)]
    x, size = np.random.default_rng(1).standard_normal((1, HIDDEN), np.float32), (3 * HIDDEN * EXPERT, stored_bytes(sets[0]))
    for threads in options.threads:
        for what, experts in (("expert after expert", sets), ("the same expert", sets[:1])):
            turn = cycle(experts)
            rounds, calm = paced(lambda turn=turn, n=threads: expert(next(turn), x, n), threads, options.expert_seconds)
            report(what, "int4", "", 1, threads, size, rounds, roofs)
            report(f"  {len(calm)} of {len(rounds)} calm", "int4", "", 1, threads, size, calm, roofs)


def paced(call: Callable[[], object], threads: int, seconds: float) -> tuple[list[float], list[float]]:
    """Seconds of each round, and of the calm ones: a small product right before and after, whose weights stay in the nearest caches, took no
    more than a tenth longer than in its fastest round. So a neighbour that takes half of a core is seen by something other than what it slows."""
    small, x = random_weight(Kind.INT4, 512, HIDDEN, 7), np.random.default_rng(2).standard_normal((1, HIDDEN), np.float32)

    def pace() -> float:
        return timed(lambda: ops.linear(small, x, threads=threads), 0.0)[-1]  # the third: by then its weights are where they stay

    rounds, end = [], time.perf_counter() + seconds
    while not rounds or time.perf_counter() < end:
        before, start = pace(), time.perf_counter()
        call()
        took = time.perf_counter() - start
        rounds.append((max(before, pace()), took))
    best = min(slowest for slowest, _ in rounds)
    return [took for _, took in rounds], [took for slowest, took in rounds if slowest <= 1.1 * best]


def expert(weights: Sequence[Weight], x: F32, threads: int) -> F32:
    gate, up, down = weights
    hidden = ops.silu_mul(ops.linear(gate, x, threads=threads), ops.linear(up, x, threads=threads), threads=threads)
    return ops.linear(down, hidden, threads=threads)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the matrix products.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each line (default 0.3)")
    parser.add_argument("--expert-seconds", type=float, default=10, help="time for each line of a whole expert (default 10)")
    options = parser.parse_args()
    print(f"instruction set: {ops.isa()}; torch: {torch.__version__ if torch else 'not installed, its lines are skipped'}")
    loops = build_peak()
    print(f"{'what':<19} {'kind':<11} {'shape':>10} {'rows':>5} {'threads':>7} {'MAC/B':>7} {'ms':>9} {'GMAC/s':>8} {'fastest':>8} {'of roof':>7}")
    bench_expert(options, measure_roofs(loops, options.threads))
    for shape in SHAPES:
        bench_shape(shape, options, measure_roofs(loops, options.threads))


if __name__ == "__main__":
    main()
