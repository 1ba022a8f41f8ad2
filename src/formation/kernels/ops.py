"""One thin function per kernel of the C library. The bits are those of the contract, and of the same function in `reference`.

Letters: M rows (positions), N outputs, K inputs, H heads, D key width, C value width, R rotary width, E experts, k chosen, V vocabulary.
Arrays are dense and row-major unless a function says that it takes a slice. Wrong types raise TypeError, wrong shapes and values
outside a domain ValueError: both are programming errors. `threads` bounds the threads used and never changes a bit. Non-finite
inputs are not refused here: `finite` finds them, and those who read weights refuse them.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formation.kernels.arrays import check, check_indices, check_output, check_rows, check_weight, pointer
from formation.kernels.choices import Draw, Router, Routing
from formation.kernels.native import DrawStruct, RouterStruct, WeightStruct, demand, load
from formation.kernels.tensor import F32, I64, Weight

__all__ = [
    "Draw", "Router", "Routing", "accumulate", "add", "argmax", "cache_load", "cache_store", "cos64", "exp", "exp64", "finite", "gather",
    "gqa_attend", "heads_linear", "heads_linear_t", "isa", "isa_available", "linear", "log", "log64", "mla_attend", "new_cache", "pow64",
    "rmsnorm", "rope_halves", "rope_interleaved", "rope_table", "route", "sample", "sigmoid", "sigmoid_mul", "silu", "silu_mul", "sin64",
    "softplus", "uniform",
]  # fmt: skip

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
KEYS = 16  # keys side by side in a cache block


def call(name: str, *arguments: Any) -> None:
    demand(name, getattr(load(), f"fk_{name}")(*arguments))


def struct(w: Weight) -> Any:
    check_weight(w)
    return ctypes.byref(WeightStruct(int(w.kind), w.rows, w.cols, pointer(w.data), None if w.scale is None else pointer(w.scale)))


# ---- matrices ----


def linear(w: Weight, x: F32, *, threads: int) -> F32:
    """y[m, n] = dot(x[m], w[n]); x [M, K] -> [M, N]"""
    check("x", x, np.float32, (None, w.cols))
    y = np.empty((len(x), w.rows), np.float32)
    call("linear", struct(w), pointer(x), pointer(y), len(x), threads)
    return y


def heads_linear(w: Weight, x: F32, *, stride: int, first: int, rows: int, threads: int) -> F32:
    """Head h uses rows h*stride + first ... + rows of w: x [M, H, cols] -> [M, H, rows]"""
    check("x", x, np.float32, (None, None, w.cols))
    check_head_rows(w, x.shape[1], stride, first, rows)
    y = np.empty((*x.shape[:2], rows), np.float32)
    call("heads_linear", struct(w), x.shape[1], stride, first, rows, pointer(x), pointer(y), len(x), threads)
    return y


def heads_linear_t(w: Weight, x: F32, *, stride: int, first: int, threads: int) -> F32:
    """The same rows transposed: y[m, h, c] = dot over n of x[m, h, n] and w[h*stride + first + n, c]; x [M, H, rows] -> [M, H, cols]"""
    check("x", x, np.float32, (None, None, None))
    check_head_rows(w, x.shape[1], stride, first, x.shape[2])
    y = np.empty((*x.shape[:2], w.cols), np.float32)
    call("heads_linear_t", struct(w), x.shape[1], stride, first, x.shape[2], pointer(x), pointer(y), len(x), threads)
    return y


def check_head_rows(w: Weight, heads: int, stride: int, first: int, rows: int) -> None:
    if min(stride, first, rows) < 0 or (heads and (heads - 1) * stride + first + rows > w.rows):
        raise ValueError(f"{w.name}: expected {heads} heads of {rows} rows from {first} every {stride} within {w.rows} rows")


def gather(w: Weight, indices: I64, *, threads: int) -> F32:
    """Rows of w by index, widened or dequantised: [M] -> [M, cols]"""
    check_indices("indices", indices, w.rows)
    y = np.empty((len(indices), w.cols), np.float32)
    call("gather", struct(w), pointer(indices), pointer(y), len(indices), threads)
    return y


# ---- rows and elements ----


def rmsnorm(x: F32, w: F32, eps: float, *, threads: int) -> F32:
    """x * (1 / sqrt(mean(x^2) + eps)) * w; x [M, K], possibly a column slice of a wider array, w [K] -> a new [M, K]"""
    (ldx,) = check_rows("x", x, (None, None))
    check("w", w, np.float32, (x.shape[1],))
    y = np.empty(x.shape, np.float32)
    call("rmsnorm", pointer(x), ldx, pointer(w), eps, pointer(y), x.shape[1], len(x), x.shape[1], threads)
    return y


def rope_table(positions: I64, inv_freq: F32, factor: float) -> tuple[F32, F32]:
    """cos and sin [M, R/2] of fl32(position * inv_freq) times factor. Positions below 2^24, angles up to 2^21."""
    check("positions", positions, np.int64, (None,))
    check("inv_freq", inv_freq, np.float32, (None,))
    cos, sin = (np.empty((len(positions), len(inv_freq)), np.float32) for _ in range(2))
    call("rope_table", pointer(positions), pointer(inv_freq), factor, pointer(cos), pointer(sin), *cos.shape)
    return cos, sin


def rope_interleaved(x: F32, cos: F32, sin: F32, *, threads: int) -> None:
    """Rotates the pairs (2i, 2i+1) of x [M, H, R] in place; x may be a slice of a wider array. cos, sin [M, R/2]"""
    rotate("rope_interleaved", x, cos, sin, threads)


def rope_halves(x: F32, cos: F32, sin: F32, *, threads: int) -> None:
    """The same for the pairs (i, i + R/2)"""
    rotate("rope_halves", x, cos, sin, threads)


def rotate(name: str, x: F32, cos: F32, sin: F32, threads: int) -> None:
    ldm, ldh = check_rows("x", x, (None, None, None))
    if not x.flags.writeable or x.shape[2] % 2:
        raise ValueError(f"x: expected a writable array of even width, got width {x.shape[2]}, writable {x.flags.writeable}")
    for argument, table in (("cos", cos), ("sin", sin)):
        check(argument, table, np.float32, (len(x), x.shape[2] // 2))
    call(name, pointer(x), ldm, ldh, pointer(cos), pointer(sin), *x.shape, threads)


def add(a: F32, b: F32, *, threads: int, out: F32 | None = None) -> F32:
    """a + b; `out` may be a or b"""
    return combine("add", a, b, threads, out)


def silu_mul(gate: F32, up: F32, *, threads: int, out: F32 | None = None) -> F32:
    """silu(gate) * up; `out` may be one of them"""
    return combine("silu_mul", gate, up, threads, out)


def sigmoid_mul(gate: F32, x: F32, *, threads: int, out: F32 | None = None) -> F32:
    """sigmoid(gate) * x; `out` may be one of them"""
    return combine("sigmoid_mul", gate, x, threads, out)


def combine(name: str, a: F32, b: F32, threads: int, out: F32 | None) -> F32:
    check("first operand", a, np.float32)
    check("second operand", b, np.float32, a.shape)
    y = np.empty(a.shape, np.float32) if out is None else check_output("out", out, a.shape)
    call(name, pointer(a), pointer(b), pointer(y), a.size, threads)
    return y


def accumulate(acc: F32, started: U8, rows: I64, y: F32, gates: F32 | None, *, threads: int) -> None:
    """acc[rows[i]] += gates[i] * y[i], or is set to it where started is 0; acc [T, K], started [T], rows [n] distinct, y [n, K]"""
    check_output("acc", acc, (len(acc), y.shape[1]))
    check("started", started, np.uint8, (len(acc),))
    check_indices("rows", rows, len(acc))
    check("y", y, np.float32, (len(rows), None))
    if len(np.unique(rows)) != len(rows):
        raise ValueError("rows: expected each row once in one call, got a repeated row")
    if gates is not None:
        check("gates", gates, np.float32, (len(rows),))
    call("accumulate", pointer(acc), pointer(started), pointer(rows), pointer(y), None if gates is None else pointer(gates), *y.shape, threads)


# ---- attention ----


def new_cache(capacity: int, width: int) -> F32:
    """A cache for `capacity` keys of `width` values: zeros [ceil(capacity / 16), width, 16]"""
    return np.zeros((-(-capacity // KEYS), width, KEYS), np.float32)


def check_keys(cache: F32, first: int, count: int) -> None:
    check("cache", cache, np.float32, (None, None, KEYS))
    if first < 0 or count < 0 or first + count > len(cache) * KEYS:
        raise ValueError(f"cache: expected keys within [0, {len(cache) * KEYS}), got {count} from {first}")


def cache_store(cache: F32, first: int, keys: F32) -> None:
    """Writes keys [M, D] at key indices first, first + 1, ..."""
    check("keys", keys, np.float32, (None, cache.shape[1]))
    check_keys(cache, first, len(keys))
    check_output("cache", cache, cache.shape)
    call("cache_store", pointer(cache), cache.shape[1], first, pointer(keys), len(keys))


def cache_load(cache: F32, first: int, count: int) -> F32:
    """Keys first ... first + count - 1 as [count, D]"""
    check_keys(cache, first, count)
    keys = np.empty((count, cache.shape[1]), np.float32)
    call("cache_load", pointer(cache), cache.shape[1], first, pointer(keys), count)
    return keys


def mla_attend(
    q: F32, cache: F32, positions: I64, scale: float, value_width: int, *, threads: int, weights: F32 | None = None
) -> F32:
    """Row m attends keys 0..positions[m]; values are the first C = value_width entries of a key.

    q [M, H, D] -> [M, H, C]. `weights` [M, H, ldw] receives the softmax weights, zero beyond positions[m].
    """
    check_keys(cache, 0, 0)
    check("q", q, np.float32, (None, None, cache.shape[1]))
    if not 0 <= value_width <= cache.shape[1]:
        raise ValueError(f"value_width: expected 0 to {cache.shape[1]}, got {value_width}")
    return attend("mla_attend", q, cache, positions, scale, (q.shape[2], value_width), weights, threads)


def gqa_attend(q: F32, cache: F32, positions: I64, scale: float, groups: int, *, threads: int, weights: F32 | None = None) -> F32:
    """Row m attends keys 0..positions[m]; its H heads are in `groups` of neighbours, each with its key and value in the cache.

    q [M, H, K] -> [M, H, C]; a cache entry is, per group, the key [K] and the value [C]. `weights` as in `mla_attend`.
    """
    check_keys(cache, 0, 0)
    check("q", q, np.float32, (None, None, None))
    width = cache.shape[1] // groups if groups > 0 else 0
    if width * groups != cache.shape[1] or q.shape[1] % max(groups, 1) or not 1 <= q.shape[2] <= width:
        raise ValueError(f"groups: expected {q.shape[1]} heads of {q.shape[2]} and {cache.shape[1]} columns in equal groups, got {groups} groups")
    return attend("gqa_attend", q, cache, positions, scale, (groups, q.shape[2], width - q.shape[2]), weights, threads)


def attend(
    name: str, q: F32, cache: F32, positions: I64, scale: float, shape: tuple[int, ...], weights: F32 | None, threads: int
) -> F32:  # fmt: skip
    """`shape` is what the kernel asks for between H and threads; its last is the width of a value."""
    check_indices("positions", positions, len(cache) * KEYS, len(q))
    y = np.empty((*q.shape[:2], shape[-1]), np.float32)
    out, ldw = None, 0
    if weights is not None:
        check_output("weights", weights, (*q.shape[:2], weights.shape[-1]))
        out, ldw = pointer(weights), weights.shape[-1]
    call(name, pointer(q), pointer(cache), pointer(positions), scale, pointer(y), out, ldw, *q.shape[:2], *shape, threads)
    return y


# ---- experts and tokens ----


def route(router: Router, logits: F32, bias: F32 | None, *, threads: int) -> Routing:
    """Scores, selection, chosen experts and gates of logits [M, E]. The bias [E] selects and does not weigh."""
    check("logits", logits, np.float32, (None, router.experts))
    if bias is not None:
        check("bias", bias, np.float32, (router.experts,))
    scores, selection = np.empty_like(logits), np.empty_like(logits)
    chosen, gates = np.empty((len(logits), router.chosen), np.int64), np.empty((len(logits), router.chosen), np.float32)
    r = RouterStruct(
        router.experts, router.chosen, router.groups, router.kept_groups, router.softmax, router.group_top2, router.normalise, router.scale
    )
    outputs = (pointer(scores), pointer(selection), pointer(chosen), pointer(gates))
    call("route", ctypes.byref(r), pointer(logits), None if bias is None else pointer(bias), *outputs, len(logits), threads)
    return Routing(scores, selection, chosen, gates)


def uniform(seed: int, branch: int, position: int) -> float:
    """The draw in [0, 1) that belongs to this seed, branch and position (Philox4x32-10, 53 bits)"""
    for name, value in (("seed", seed), ("branch", branch), ("position", position)):
        if not 0 <= value < 1 << 64:
            raise ValueError(f"{name}: expected 64 bits, got {value}")
    return float(load().fk_uniform(seed, branch, position))


def sample(logits: F32, *, temperature: float, top_k: int, top_p: float, min_p: float, draw: float) -> Draw:
    """Temperature, then top-k (0 none), top-p (1 none), min-p (0 none), then the inverse CDF over id order at `draw`. logits [V]

    Order within top-k and top-p: descending logit, lower id first. Refuses non-finite logits and temperature 0 (use `argmax`).
    """
    check("logits", logits, np.float32, (None,))
    out = DrawStruct()
    call("sample", pointer(logits), logits.size, temperature, top_k, top_p, min_p, draw, ctypes.byref(out))
    return Draw(out.id, out.kept, out.draw, out.low, out.high, out.kept_mass)


def argmax(logits: F32) -> int:
    """The lowest id among the largest logits [V]"""
    check("logits", logits, np.float32, (None,))
    if not logits.size:
        raise ValueError("logits: expected at least one, got none")
    return int(load().fk_argmax(pointer(logits), logits.size))


# ---- functions, element by element, of arrays of any shape ----


def each(name: str, x: NDArray[Any], dtype: type) -> NDArray[Any]:
    check("x", x, dtype)
    y = np.empty_like(x)
    call(name, pointer(x), pointer(y), x.size)
    return y


def exp(x: F32) -> F32:
    """By rule +0 below -80"""
    return each("exp", x, np.float32)


def log(x: F32) -> F32:
    return each("log", x, np.float32)


def sigmoid(x: F32) -> F32:
    return each("sigmoid", x, np.float32)


def silu(x: F32) -> F32:
    return each("silu", x, np.float32)


def softplus(x: F32) -> F32:
    return each("softplus", x, np.float32)


def exp64(x: F64) -> F64:
    return each("exp64", x, np.float64)


def log64(x: F64) -> F64:
    return each("log64", x, np.float64)


def sin64(x: F64) -> F64:
    """|x| up to 2^21"""
    return each("sin64", x, np.float64)


def cos64(x: F64) -> F64:
    """|x| up to 2^21"""
    return each("cos64", x, np.float64)


def pow64(x: F64, e: F64) -> F64:
    """x^e for finite x > 0 and finite e, of the same shape"""
    check("x", x, np.float64)
    check("e", e, np.float64, x.shape)
    y = np.empty_like(x)
    call("pow64", pointer(x), pointer(e), pointer(y), x.size)
    return y


def finite(x: F32) -> int | None:
    """The flat index of the first value that is not finite, None when all are"""
    check("x", x, np.float32)
    where = ctypes.c_int64(-1)
    return None if load().fk_finite(pointer(x), x.size, ctypes.byref(where)) else where.value


# ---- the path in use ----


def isa() -> str:
    """The instruction set in use: avx512, avx2 or plain; the bits are the same"""
    return str(load().fk_isa().decode())


def isa_available(name: str) -> bool:
    return bool(load().fk_isa_available(name.encode()))
