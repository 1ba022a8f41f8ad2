"""Grouped-query attention (arXiv 2305.13245) over a plain cache of keys and values, with norms of q and k, rotation of all or part of
a head, and an output gate where a model has one.

q, gate = W h;  k, v = W h;  q, k = rotated(norm(q), norm(k));  a = W (softmax(q k') v sigmoid(gate))
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from formation.kernels import ops
from formation.kernels.tensor import F32, I64
from formation.model.attention import KeepsKeys, KeyCache, keep, watched
from formation.model.config import Keys
from formation.model.linear import Modules
from formation.model.quantisation import Quantisation, Stored, plain, read_quantisation
from formation.model.rope import Rope
from formation.model.sequences import Piece, positions_of


@dataclass(frozen=True)
class GroupedAttention(KeepsKeys):
    """Shapes and constants of one model's attention; the weights of a layer come with each call."""

    hidden: int  # D
    heads: int  # H
    groups: int  # G; H / G neighbours share a key and a value
    width: int  # K, of a query, a key and a value
    rope: Rope  # of the first R dimensions, as pairs (i, i + R/2)
    eps: float
    quantisation: Quantisation
    gated: bool  # beside a head's query, q_proj gives what its output is multiplied by the sigmoid of
    centred: bool  # the norms' weights are stored minus one

    @property
    def cache_width(self) -> int:
        """Per group its key, then its value"""
        return self.groups * 2 * self.width

    @property
    def scale(self) -> float:
        """1/sqrt(K), rounded once to binary32"""
        return float(np.float32(1.0 / math.sqrt(self.width)))

    def row_bytes(self) -> int:
        """Upper bound of the scratch memory of one position, in bytes."""
        return 4 * (7 * self.heads * self.width + 3 * self.cache_width + 4 * self.hidden)

    def stored(self, prefix: str, names: Collection[str]) -> list[Stored]:
        matrices = {
            "q_proj": ((1 + self.gated) * self.heads * self.width, self.hidden),
            "k_proj": (self.groups * self.width, self.hidden),
            "v_proj": (self.groups * self.width, self.hidden),
            "o_proj": (self.hidden, self.heads * self.width),
        }
        found = [plain(f"{prefix}.{name}.weight", self.width) for name in ("q_norm", "k_norm")]
        return found + [s for name, (r, c) in matrices.items() for s in self.quantisation.stored(f"{prefix}.{name}", r, c, names)]

    def __call__(self, h: F32, layer: int, pieces: Sequence[Piece], use: Modules) -> F32:
        """The attention write of rows [T], whose normalised residual is h [T, D]; their keys are put in the caches first."""
        cos, sin = self.remember(h, layer, pieces, use)  # [T, R/2]
        found = use.linear("q_proj", h).reshape(len(h), self.heads, -1, self.width)  # of each head its query, then its gate
        q = self._normed("q_norm", found[:, :, 0], cos, sin, use)  # [T, H, K]

        def attend(rows: slice, cache: KeyCache, positions: I64, weights: F32 | None) -> F32:
            return ops.gqa_attend(q[rows], cache.values, positions, self.scale, self.groups, threads=use.threads, weights=weights)

        mixed = watched(attend, self.heads, layer, pieces)  # [T, H, K]
        if self.gated:
            mixed = ops.sigmoid_mul(np.ascontiguousarray(found[:, :, 1]), mixed, threads=use.threads, out=mixed)
        return use.linear("o_proj", mixed.reshape(len(h), -1))  # [T, D]

    def remember(self, h: F32, layer: int, pieces: Sequence[Piece], use: Modules) -> tuple[F32, F32]:
        """Puts keys and values of h [T, D] in the caches: all that later positions need of these. Gives the rotary table, cos and sin [T, R/2]."""
        cos, sin = self.rope.table(positions_of(pieces))  # [T, R/2]
        shape = (len(h), self.groups, self.width)
        k = self._normed("k_norm", use.linear("k_proj", h).reshape(shape), cos, sin, use)
        entries = np.concatenate([k, use.linear("v_proj", h).reshape(shape)], axis=2).reshape(len(h), -1)  # [T, cache width]
        keep(entries, layer, pieces)
        return cos, sin

    def _normed(self, name: str, x: F32, cos: F32, sin: F32, use: Modules) -> F32:
        """Heads x [T, n, K], each normalised, its first R dimensions rotated"""
        normed = use.norm(name, np.ascontiguousarray(x).reshape(-1, self.width), self.eps, centred=self.centred).reshape(x.shape)
        ops.rope_halves(normed[:, :, : self.rope.width], cos, sin, threads=use.threads)
        return normed


def read_grouped_attention(keys: Keys, rope: Rope, *, gated: bool, centred: bool) -> GroupedAttention:
    """Raises UnsupportedError, naming the key."""
    heads, groups = keys.integer("num_attention_heads"), keys.integer("num_key_value_heads")
    if heads % groups:
        raise keys.refusal("num_key_value_heads", f"a divisor of {heads} heads")
    hidden, width, eps = keys.integer("hidden_size"), keys.integer("head_dim"), keys.number("rms_norm_eps", low=1e-30, high=1.0)
    return GroupedAttention(hidden, heads, groups, width, rope, eps, read_quantisation(keys), gated, centred)
