"""Prints one digest over many kernel results: run under another instruction set, or in another floating-point mode.

Shapes are larger than the property tests', with odd tails, so that every tile of the blocked kernels is entered.
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np
from kernel_inputs import columns, matrix, numbers

from formation.kernels import delta, golden, ops
from formation.kernels.choices import Router
from formation.kernels.tensor import Kind


def products(threads: int):
    for kind in Kind:
        for rows, cols, m in ((257, 1216, 1), (67, 352, 3), (131, 1059, 16), (40, 2080, 37), (33, 97, 70)):
            cols = columns(kind, cols)
            yield ops.linear(matrix(kind, 7, rows, cols), numbers(rows, m, cols), threads=threads)
        w = matrix(kind, 8, 300, columns(kind, 130), "denormal")
        yield ops.linear(w, numbers(3, 5, w.cols, scale=2.0**20), threads=threads)
        yield ops.heads_linear(w, numbers(4, 3, 5, w.cols), stride=60, first=20, rows=40, threads=threads)
        yield ops.heads_linear_t(w, numbers(5, 3, 5, 40), stride=60, first=20, threads=threads)
        yield ops.gather(w, np.arange(300), threads=threads)


def attention(threads: int):
    for heads, keys, width, values in ((64, 129, 576, 512), (5, 700, 70, 37), (1, 1, 16, 16)):
        cache = ops.new_cache(keys, width)
        ops.cache_store(cache, 0, numbers(11, keys, width))
        weights = np.empty((2, heads, keys + 3), np.float32)
        q = numbers(12, 2, heads, width, scale=4)
        yield ops.mla_attend(q, cache, np.array([keys - 1, keys // 2]), 0.25, values, threads=threads, weights=weights)
        yield weights


def grouped_attention(threads: int):
    for heads, groups, keys, width, values in ((16, 2, 333, 256, 256), (6, 3, 70, 37, 21)):
        cache = ops.new_cache(keys, groups * (width + values))
        ops.cache_store(cache, 0, numbers(13, keys, groups * (width + values)))
        q = numbers(14, 2, heads, width, scale=4)
        yield ops.gqa_attend(q, cache, np.array([keys - 1, keys // 2]), 0.25, groups, threads=threads)


def recurrence(threads: int):
    for key_heads, heads, key, value, scale in ((16, 32, 128, 128, 1.0), (3, 9, 50, 37, 1.0), (2, 2, 33, 20, 2.0**-126)):
        state, gates = delta.new_state(heads, key, value), [np.abs(numbers(seed, 9, heads)) for seed in (41, 42)]
        q, k = (delta.l2norm(numbers(seed, 9 * key_heads, key), 1e-6, threads=threads).reshape(9, key_heads, key) for seed in (43, 44))
        yield delta.delta_rule(q, k, numbers(45, 9, heads, value, scale=scale), *gates, 0.125, state, threads=threads)
        yield state
    yield delta.conv_silu(numbers(46, 40, 1030, scale=4), numbers(47, 4, 1030), threads=threads)
    yield delta.rmsnorm_gated(numbers(48, 40, 1030), numbers(49, 40, 1030, scale=9), numbers(50, 1030), 1e-6, threads=threads)
    yield from delta.delta_gates(*(numbers(seed, 40, 70, scale=9) for seed in (51, 52)), numbers(53, 70), numbers(54, 70), threads=threads)


def rows(threads: int):
    tiny = numbers(21, 40, 1030, scale=2.0**-127)
    yield ops.add(tiny, tiny[::-1].copy(), threads=threads)
    yield ops.silu_mul(tiny, numbers(22, 40, 1030, scale=8), threads=threads)
    yield ops.rmsnorm(numbers(23, 40, 1030), numbers(24, 1030), 1e-6, threads=threads)
    yield ops.rmsnorm(tiny, numbers(24, 1030), 0.0, threads=threads)
    acc = tiny.copy()
    ops.accumulate(acc, np.ones(40, np.uint8), np.arange(40), tiny, numbers(25, 40), threads=threads)
    yield acc
    for x in (numbers(26, 40, 1030, scale=100), tiny):
        yield from (f(x) for f in (ops.exp, ops.sigmoid, ops.silu, ops.softplus, lambda x: ops.log(np.abs(x))))


def choices(threads: int):
    logits = numbers(31, 64, 384, scale=6)
    r = ops.route(Router(384, 8, groups=8, kept_groups=4, scale=2.5), logits, numbers(32, 384, scale=0.1), threads=threads)
    yield from (r.scores, r.selection, r.chosen, r.gates)
    yield ops.exp64(numbers(33, 3000, scale=760).astype(np.float64))
    d = ops.sample(logits.reshape(-1), temperature=0.01, top_k=0, top_p=0.999, min_p=0.0, draw=0.75)
    yield np.array([d.id, d.kept, d.low, d.high, d.kept_mass])


def battery(threads: int) -> str:
    h = hashlib.sha256()
    for group in (products, attention, grouped_attention, recurrence, rows, choices):
        for array in group(threads):
            h.update(np.where(np.isnan(array), np.float64("nan"), array).astype(array.dtype).tobytes())
    for case in golden.cases():
        h.update(golden.measure(golden.Threaded(threads), case)["outputs"].encode())
    return h.hexdigest()


if __name__ == "__main__":
    print(ops.isa(), battery(int(sys.argv[1])))
