"""The gated delta rule and what stands around it, in numpy, slow and obvious: the names and signatures of `delta`, without `threads`."""

from __future__ import annotations

import numpy as np

from formation.kernels.delta import LINE, new_state, state_matrices
from formation.kernels.reference_lanes import dot
from formation.kernels.reference_math32 import exp, sigmoid, silu, softplus
from formation.kernels.tensor import F32

__all__ = ["conv_silu", "delta_gates", "delta_rule", "l2norm", "new_state", "rmsnorm_gated", "state_matrices"]

ONE = np.float32(1)


def conv_silu(x: F32, w: F32) -> F32:
    rows = range(len(x) - len(w) + 1)
    windows = np.array([x[m : m + len(w)].T for m in rows], np.float32).reshape(len(rows), *w.T.shape)  # [M, D, W]
    return silu(dot(windows, w.T[None]))


@np.errstate(all="ignore")
def l2norm(x: F32, eps: float) -> F32:
    y: F32 = x * (ONE / np.sqrt(dot(x, x) + np.float32(eps)))[:, None]
    return y


@np.errstate(all="ignore")
def rmsnorm_gated(x: F32, z: F32, w: F32, eps: float) -> F32:
    r = ONE / np.sqrt(dot(x, x) / np.float32(x.shape[1]) + np.float32(eps))
    y: F32 = ((x * r[:, None]) * w) * silu(z)
    return y


@np.errstate(all="ignore")
def delta_gates(b: F32, a: F32, a_log: F32, dt_bias: F32) -> tuple[F32, F32]:
    return sigmoid(b), exp(-(exp(a_log) * softplus(a + dt_bias)))


@np.errstate(all="ignore")
def delta_rule(q: F32, k: F32, v: F32, decay: F32, beta: F32, scale: float, state: F32) -> F32:
    y = np.zeros_like(v)
    (rows, heads, _), shared = v.shape, v.shape[1] // k.shape[1]
    S = state_matrices(state, k.shape[2], v.shape[2])  # [H, K, V]
    for m in range(rows):
        for h in range(heads):
            key, query = k[m, h // shared], q[m, h // shared]
            S[h] = S[h] * decay[m, h]
            delta = (v[m, h] - dot(S[h].T, key[None])) * beta[m, h]  # [V]
            S[h] = S[h] + key[:, None] * delta[None]
            y[m, h] = dot(S[h].T, query[None]) * np.float32(scale)
    keep(state, S)
    return y


def keep(state: F32, S: F32) -> None:
    """The other way round than `state_matrices`"""
    for column in range(S.shape[2]):
        state[:, column // LINE, : S.shape[1], column % LINE] = S[:, :, column]
