"""The gated delta rule and what stands around it in a layer: one thin function per function of csrc/delta.c, bits as in `reference_delta`.

Letters: M rows (positions), D channels, W taps, G key heads, H value heads (H / G neighbours share a key head), K key width, V value width.
`threads` never changes a bit.
"""

from __future__ import annotations

import numpy as np

from formation.kernels.arrays import check, check_output, pointer
from formation.kernels.ops import call
from formation.kernels.tensor import F32

LINE = 16  # columns of a state side by side


def conv_silu(x: F32, w: F32, *, threads: int) -> F32:
    """silu of the causal convolution: y[m, d] = silu(sum over j of x[m + j, d] * w[j, d]); x [W-1 + M, D], w [W, D] -> [M, D]

    The first W-1 rows of x are those before row 0.
    """
    check("w", w, np.float32, (None, None))
    check("x", x, np.float32, (None, w.shape[1]))
    if not 1 <= len(w) <= len(x) + 1:
        raise ValueError(f"x: expected {len(w) - 1} rows or more before the first, got {len(x)}")
    y = np.empty((len(x) - len(w) + 1, w.shape[1]), np.float32)
    call("conv_silu", pointer(x), pointer(w), pointer(y), *y.shape, len(w), threads)
    return y


def l2norm(x: F32, eps: float, *, threads: int) -> F32:
    """x * (1 / sqrt(sum of x^2 + eps)) of each row: [M, K] -> [M, K]"""
    check("x", x, np.float32, (None, None))
    y = np.empty(x.shape, np.float32)
    call("l2norm", pointer(x), eps, pointer(y), *x.shape, threads)
    return y


def rmsnorm_gated(x: F32, z: F32, w: F32, eps: float, *, threads: int) -> F32:
    """((x * (1 / sqrt(mean(x^2) + eps))) * w) * silu(z); x, z [M, K], w [K] -> [M, K]"""
    check("x", x, np.float32, (None, None))
    check("z", z, np.float32, x.shape)
    check("w", w, np.float32, (x.shape[1],))
    y = np.empty(x.shape, np.float32)
    call("rmsnorm_gated", pointer(x), pointer(z), pointer(w), eps, pointer(y), *x.shape, threads)
    return y


def delta_gates(b: F32, a: F32, a_log: F32, dt_bias: F32, *, threads: int) -> tuple[F32, F32]:
    """beta = sigmoid(b) and decay = exp(-(exp(a_log) * softplus(a + dt_bias))); b, a [M, H], a_log, dt_bias [H] -> [M, H] each"""
    check("b", b, np.float32, (None, None))
    check("a", a, np.float32, b.shape)
    for name, vector in (("a_log", a_log), ("dt_bias", dt_bias)):
        check(name, vector, np.float32, (b.shape[1],))
    beta, decay = np.empty(b.shape, np.float32), np.empty(b.shape, np.float32)
    call("delta_gates", pointer(b), pointer(a), pointer(a_log), pointer(dt_bias), pointer(beta), pointer(decay), *b.shape, threads)
    return beta, decay


def new_state(heads: int, key_width: int, value_width: int) -> F32:
    """The state of H heads before the first row: zeros [H, ceil(V / 16), K rounded up to 16, 16]"""
    return np.zeros(state_shape(heads, key_width, value_width), np.float32)


def state_shape(heads: int, key_width: int, value_width: int) -> tuple[int, int, int, int]:
    return heads, -(-value_width // LINE), -(-key_width // LINE) * LINE, LINE


def delta_rule(q: F32, k: F32, v: F32, decay: F32, beta: F32, scale: float, state: F32, *, threads: int) -> F32:
    """Takes the rows into the state one after the other, and reads each: q, k [M, G, K], v [M, H, V], decay, beta [M, H] -> [M, H, V]

    With S [K, V] of a head: S = S * decay; d = (v - (S^T k)) * beta; S = S + k d^T; y = (S^T q) * scale. `state` is changed.
    """
    check("v", v, np.float32, (None, None, None))
    check("k", k, np.float32, (len(v), None, None))
    check("q", q, np.float32, k.shape)
    for name, gate in (("decay", decay), ("beta", beta)):
        check(name, gate, np.float32, v.shape[:2])
    (M, H, V), (_, G, K) = v.shape, k.shape
    if not G or H % G:
        raise ValueError(f"k: expected key heads that divide the {H} value heads, got {G}")
    check_output("state", state, state_shape(H, K, V))
    y = np.empty(v.shape, np.float32)
    arrays = (q, k, v, decay, beta)
    call("delta_rule", *map(pointer, arrays), scale, pointer(state), pointer(y), M, G, H, K, V, threads)
    return y


def state_matrices(state: F32, key_width: int, value_width: int) -> F32:
    """The state as [H, K, V]"""
    heads, blocks, lines, _ = state.shape
    return state.transpose(0, 2, 1, 3).reshape(heads, lines, blocks * LINE)[:, :key_width, :value_width].copy()
