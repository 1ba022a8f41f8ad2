"""Every kernel in numpy, slow and obvious, with the bits of the C library: the same names and signatures as `ops`, without `threads`.

Only whole-array + - * / and square root are used where a bit counts. The process must round to nearest and keep denormals: unlike the C
library, numpy computes in whatever mode the thread is in, and torch.set_flush_denormal changes it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from formation import exact64 as math64
from formation.kernels.choices import Draw, Router, Routing
from formation.kernels.reference_choose import argmax, route, sample, uniform
from formation.kernels.reference_lanes import dot, lane_sum, widen
from formation.kernels.reference_math32 import exp, log, sigmoid, silu, softplus
from formation.kernels.tensor import F32, I64, Weight

__all__ = [
    "Draw", "Router", "Routing", "accumulate", "add", "argmax", "cache_load", "cache_store", "cos64", "exp", "exp64", "finite", "gather",
    "gqa_attend", "heads_linear", "heads_linear_t", "linear", "log", "log64", "mla_attend", "new_cache", "pow64", "rmsnorm", "rope_halves",
    "rope_interleaved", "rope_table", "route", "sample", "sigmoid", "sigmoid_mul", "silu", "silu_mul", "sin64", "softplus", "uniform",
]  # fmt: skip

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
KEYS = 16


def linear(w: Weight, x: F32) -> F32:
    return dot(x[:, None, :], widen(w)[None])  # [M, N]


def heads_linear(w: Weight, x: F32, *, stride: int, first: int, rows: int) -> F32:
    matrix = widen(w)
    heads = [matrix[h * stride + first :][:rows] for h in range(x.shape[1])]
    return np.stack([dot(x[:, h, None, :], head[None]) for h, head in enumerate(heads)], axis=1)  # [M, H, rows]


def heads_linear_t(w: Weight, x: F32, *, stride: int, first: int) -> F32:
    matrix = widen(w)
    heads = [matrix[h * stride + first :][: x.shape[2]].T for h in range(x.shape[1])]  # [cols, rows]
    return np.stack([dot(x[:, h, None, :], head[None]) for h, head in enumerate(heads)], axis=1)  # [M, H, cols]


def gather(w: Weight, indices: I64) -> F32:
    return widen(w)[indices]


@np.errstate(all="ignore")
def rmsnorm(x: F32, w: F32, eps: float) -> F32:
    mean = dot(x, x) / np.float32(x.shape[1])  # [M]
    r = np.float32(1) / np.sqrt(mean + np.float32(eps))
    y: F32 = (x * r[:, None]) * w
    return y


def rope_table(positions: I64, inv_freq: F32, factor: float) -> tuple[F32, F32]:
    if positions.size and (positions.min() < 0 or positions.max() >= 1 << 24):
        raise ValueError("rope_table: expected positions in [0, 2^24)")
    angles = (positions.astype(np.float32)[:, None] * inv_freq[None]).astype(np.float64)  # [M, R/2]
    return cos64(angles).astype(np.float32) * np.float32(factor), sin64(angles).astype(np.float32) * np.float32(factor)


def rope_interleaved(x: F32, cos: F32, sin: F32) -> None:
    a, b = x[..., 0::2].copy(), x[..., 1::2].copy()
    c, s = cos[:, None], sin[:, None]
    x[..., 0::2] = a * c - b * s
    x[..., 1::2] = a * s + b * c


def rope_halves(x: F32, cos: F32, sin: F32) -> None:
    half = cos.shape[1]
    a, b = x[..., :half].copy(), x[..., half:].copy()
    c, s = cos[:, None], sin[:, None]
    x[..., :half] = a * c - b * s
    x[..., half:] = a * s + b * c


def add(a: F32, b: F32, *, out: F32 | None = None) -> F32:
    return deliver(a + b, out)


def silu_mul(gate: F32, up: F32, *, out: F32 | None = None) -> F32:
    return deliver(silu(gate) * up, out)


def sigmoid_mul(gate: F32, x: F32, *, out: F32 | None = None) -> F32:
    return deliver(sigmoid(gate) * x, out)


def deliver(y: F32, out: F32 | None) -> F32:
    if out is None:
        return y
    out[...] = y
    return out


def accumulate(acc: F32, started: U8, rows: I64, y: F32, gates: F32 | None) -> None:
    for i, r in enumerate(rows):
        v = y[i] if gates is None else gates[i] * y[i]
        acc[r] = acc[r] + v if started[r] else v
        started[r] = 1


def new_cache(capacity: int, width: int) -> F32:
    return np.zeros((-(-capacity // KEYS), width, KEYS), np.float32)


def cache_store(cache: F32, first: int, keys: F32) -> None:
    for m, key in enumerate(keys):
        cache[(first + m) // KEYS, :, (first + m) % KEYS] = key


def cache_load(cache: F32, first: int, count: int) -> F32:
    keys = [cache[t // KEYS, :, t % KEYS] for t in range(first, first + count)]
    return np.array(keys, np.float32).reshape(count, cache.shape[1])


def mla_attend(q: F32, cache: F32, positions: I64, scale: float, value_width: int, *, weights: F32 | None = None) -> F32:
    y = np.zeros((*q.shape[:2], value_width), np.float32)
    for m, position in enumerate(positions):
        keys = cache_load(cache, 0, int(position) + 1)  # [T, D]
        for h in range(q.shape[1]):
            y[m, h] = attend(q[m, h], keys, keys[:, :value_width], scale, None if weights is None else weights[m, h])
    return y


def gqa_attend(q: F32, cache: F32, positions: I64, scale: float, groups: int, *, weights: F32 | None = None) -> F32:
    heads, width = q.shape[1:]
    y = np.zeros((*q.shape[:2], cache.shape[1] // groups - width), np.float32)
    for m, position in enumerate(positions):
        entries = cache_load(cache, 0, int(position) + 1)
        own = entries.reshape(len(entries), groups, -1)  # [T, G, K+C]
        for h in range(heads):
            mine = own[:, h * groups // heads]
            y[m, h] = attend(q[m, h], mine[:, :width], mine[:, width:], scale, None if weights is None else weights[m, h])
    return y


def attend(q: F32, keys: F32, values: F32, scale: float, weights: F32 | None) -> F32:
    """One head of one row: q [K], keys [T, K], values [T, C] -> [C]"""
    scores = dot(q[None], keys) * np.float32(scale)  # [T]
    e = exp(scores - scores.max())
    denominator = lane_sum(e)
    if weights is not None:
        weights[:] = 0
        weights[: len(e)] = e / denominator
    y: F32 = dot(e[None], values.T) / denominator
    return y


def each64(function: Callable[[float], float], x: F64) -> F64:
    return np.array([function(float(value)) for value in x.flat], np.float64).reshape(x.shape)


def exp64(x: F64) -> F64:
    return each64(math64.exp64, x)


def log64(x: F64) -> F64:
    return each64(math64.log64, x)


def sin64(x: F64) -> F64:
    return each64(math64.sin64, x)


def cos64(x: F64) -> F64:
    return each64(math64.cos64, x)


def pow64(x: F64, e: F64) -> F64:
    return np.array([math64.pow64(float(a), float(b)) for a, b in zip(x.flat, e.flat, strict=True)], np.float64).reshape(x.shape)


def finite(x: F32) -> int | None:
    found = np.flatnonzero(~np.isfinite(x))
    return int(found[0]) if found.size else None
