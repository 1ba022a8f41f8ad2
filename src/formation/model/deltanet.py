"""Gated delta net (arXiv 2412.06464), always in its recurrent form: a layer's past is one matrix per head, and the last rows before a convolution.

q, k, v = silu(conv(W h));  beta = sigmoid(W h), decay = exp(-exp(A_log) softplus(W h + dt_bias));  q, k to length 1
per position: S = S decay;  d = (v - S'k) beta;  S = S + k d';  y = S'q / sqrt(K)
a = W (norm(y) silu(z))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from formation.kernels import delta
from formation.kernels.tensor import F32, I64
from formation.model.linear import Modules
from formation.model.moe import chunks
from formation.model.quantisation import Quantisation, Stored, plain
from formation.model.sequences import Piece
from formation.model.taps import Probe, Site, Tap, require_finite

UNIT_EPS = 1e-6  # of the norm that brings q and k to length 1: fixed in the published code, whatever rms_norm_eps says


class DeltaState:
    """What one layer keeps of all positions before `filled`: per head its state, and the rows that the convolution still sees.

    Attention keeps an entry of every position, this only the last state. `follow` is called with each state as it was, if it is set before.
    """

    def __init__(self, heads: int, key: int, value: int, taps: int, channels: int) -> None:
        self.heads, self.key, self.value, self.taps = heads, key, value, taps
        self.state = delta.new_state(heads, key, value)
        self.tail = np.zeros((taps - 1, channels), np.float32)
        self.filled = 0
        self.follow: Callable[[int, F32, F32], object] | None = None  # position, matrices [H, K, V], tail [taps - 1, channels]

    def matrices(self) -> F32:
        """Of each head its state, keys by values                                                             [H, K, V]"""
        return delta.state_matrices(self.state, self.key, self.value)

    def stand_at(self, first: int) -> None:
        """Rows go in once and in order; position 0 begins again."""
        if first == 0:
            self.state[:], self.tail[:], self.filled = 0, 0, 0
        if first != self.filled:
            raise RuntimeError(f"state of a delta layer: expected position {self.filled} next, got {first}")


@dataclass(frozen=True)
class GatedDeltaNet:
    """Shapes and constants of one model's delta layers; the weights of a layer come with each call."""

    kind: ClassVar[str] = "delta"
    name: ClassVar[str] = "linear_attn"
    heads: ClassVar[int] = 0  # that have softmax weights

    hidden: int  # D
    key_heads: int  # G
    value_heads: int  # H; H / G neighbours share q and k
    key: int  # K
    value: int  # V
    taps: int  # of the convolution
    eps: float
    quantisation: Quantisation

    @property
    def shared(self) -> int:
        return self.value_heads // self.key_heads

    @property
    def channels(self) -> int:
        """Of the convolution: all of q, then all of k, then all of v."""
        return 2 * self.key_heads * self.key + self.value_heads * self.value

    @property
    def scale(self) -> float:
        """1/sqrt(K), rounded once to binary32"""
        return float(np.float32(1.0 / math.sqrt(self.key)))

    def new_cache(self, capacity: int) -> DeltaState:
        """The same for any number of positions"""
        return DeltaState(self.value_heads, self.key, self.value, self.taps, self.channels)

    def cache_bytes(self, capacity: int) -> int:
        return 4 * (math.prod(delta.state_shape(self.value_heads, self.key, self.value)) + (self.taps - 1) * self.channels)

    def row_bytes(self) -> int:
        """Upper bound of the scratch memory of one position, in bytes."""
        values = self.value_heads * self.value
        return 4 * (2 * (self.channels + values) + 5 * self.channels + 4 * values + 8 * self.value_heads + 4 * self.hidden)

    def stored(self, prefix: str, names: Collection[str]) -> list[Stored]:
        values = self.value_heads * self.value
        matrices = {
            "in_proj_qkvz": (self.channels + values, self.hidden),
            "in_proj_ba": (2 * self.value_heads, self.hidden),
            "out_proj": (self.hidden, values),
        }
        vectors = {"A_log": self.value_heads, "dt_bias": self.value_heads, "norm.weight": self.value}
        found = [plain(f"{prefix}.conv1d.weight", self.channels, 1, self.taps)]
        found += [plain(f"{prefix}.{name}", size) for name, size in vectors.items()]
        return found + [s for name, (r, c) in matrices.items() for s in self.quantisation.stored(f"{prefix}.{name}", r, c, names)]

    def __call__(self, h: F32, layer: int, pieces: Sequence[Piece], use: Modules) -> F32:
        """The write of rows [T], whose normalised residual is h [T, D]; they are taken into the states."""
        y, z = self.remember(h, layer, pieces, use)  # [T, H, V] both
        rows = (len(h) * self.value_heads, self.value)
        normed = delta.rmsnorm_gated(y.reshape(rows), z.reshape(rows), use.vector("norm.weight"), self.eps, threads=use.threads)
        return use.linear("out_proj", normed.reshape(len(h), -1))  # [T, D]

    def remember(self, h: F32, layer: int, pieces: Sequence[Piece], use: Modules) -> tuple[F32, F32]:
        """Takes h [T, D] into the states. Gives what each row reads from its own, and its output gate z [T, H, V]."""
        rows, z = self._projected(h, use)
        (beta, decay), taps = self._gates(h, use), use.taps("conv1d.weight")
        y = np.empty_like(z)
        for piece in pieces:
            here = piece.rows
            y[here] = self._through(rows[here], beta[here], decay[here], taps, layer, piece, use.threads)
        return y, z

    def _through(self, rows: F32, beta: F32, decay: F32, taps: F32, layer: int, piece: Piece, threads: int) -> F32:
        """What the rows [T, channels] of one sequence read from its state, which takes them in                              [T, H, V]"""
        _, positions, cache, probe = piece
        cache.stand_at(int(positions[0]))
        seen = np.concatenate([cache.tail, rows])  # [taps - 1 + T, channels]
        q, k, v = self._heads(delta.conv_silu(seen, taps, threads=threads), threads)
        probe(Site(Tap.DELTA_BETA, layer), positions, beta)
        probe(Site(Tap.DELTA_DECAY, layer), positions, decay)
        y, watched = np.empty_like(v), probe.wants(Tap.DELTA_STATE) or cache.follow is not None
        for part in chunks(len(rows), 1 if watched else len(rows)):  # a state that is looked at must have been there
            y[part] = delta.delta_rule(q[part], k[part], v[part], decay[part], beta[part], self.scale, cache.state, threads=threads)
            cache.tail[:] = seen[part.stop : part.stop + self.taps - 1]
            cache.filled = int(positions[part][-1]) + 1
            if watched:
                show(cache, layer, positions[part], probe)
        return y

    def _projected(self, h: F32, use: Modules) -> tuple[F32, F32]:
        """Rows for the convolution [T, channels], and z [T, H, V]: the matrix gives q, k, v, z of one key head after the other."""
        mixed = use.linear("in_proj_qkvz", h).reshape(len(h), self.key_heads, -1)
        ends = np.cumsum([self.key, self.key, self.shared * self.value])
        *rows, z = np.split(mixed, ends, axis=2)
        gate = np.ascontiguousarray(z).reshape(len(h), self.value_heads, self.value)
        return np.concatenate([part.reshape(len(h), -1) for part in rows], axis=1), gate

    def _heads(self, rows: F32, threads: int) -> tuple[F32, F32, F32]:
        """q, k [T, G, K] of length 1, and v [T, H, V]"""
        width = self.key_heads * self.key

        def unit(first: int) -> F32:
            x = np.ascontiguousarray(rows[:, first : first + width]).reshape(-1, self.key)
            return delta.l2norm(x, UNIT_EPS, threads=threads).reshape(len(rows), self.key_heads, self.key)

        v = np.ascontiguousarray(rows[:, 2 * width :]).reshape(len(rows), self.value_heads, self.value)
        return unit(0), unit(width), v

    def _gates(self, h: F32, use: Modules) -> tuple[F32, F32]:
        """beta and decay [T, H]: the matrix gives b, a of one key head after the other."""
        b, a = np.split(use.linear("in_proj_ba", h).reshape(len(h), self.key_heads, -1), 2, axis=2)
        b, a = (np.ascontiguousarray(part.reshape(len(h), -1)) for part in (b, a))
        return delta.delta_gates(b, a, use.vector("A_log"), use.vector("dt_bias"), threads=use.threads)


def show(cache: DeltaState, layer: int, position: I64, probe: Probe) -> None:
    """Copies of the state after `position` [1], for the probe and for whoever follows the cache"""
    matrices, tail = cache.matrices(), cache.tail.copy()
    require_finite(Site(Tap.DELTA_STATE, layer), position, matrices[None])
    probe(Site(Tap.DELTA_STATE, layer), position, matrices[None])
    probe(Site(Tap.DELTA_TAIL, layer), position, tail[None])
    if cache.follow is not None:
        cache.follow(int(position[0]), matrices, tail)
