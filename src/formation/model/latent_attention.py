"""Multi-head latent attention (arXiv 2405.04434, section 2.1) in its absorbed form: keys and values stay in the latent space.

A head's key is K_h·latent with the rotary part beside it, so q·(K_h·latent) = (K_hᵀ·q)·latent: the query is taken to the latent
space once per position, every key of every head is the one cached latent, and the weighted latent is taken out by V_h.
Prefill, decode and replay are therefore one arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from formation.kernels import ops
from formation.kernels.tensor import F32, I64
from formation.model.attention import KeepsKeys, KeyCache, keep, watched
from formation.model.linear import Modules
from formation.model.quantisation import Quantisation, Stored, plain
from formation.model.rope import Rope
from formation.model.sequences import Piece, positions_of

# transformers' and the publishers' own code build the norms inside attention with this default, whatever rms_norm_eps says.
INNER_NORM_EPS = 1e-6


@dataclass(frozen=True)
class LatentAttention(KeepsKeys):
    """Shapes and constants of one model's attention; the weights of a layer come with each call."""

    hidden: int
    heads: int
    query_latent: int | None  # None: the query is projected straight from the hidden state
    latent: int  # C
    nope: int  # N
    rotary: int  # R
    value: int  # V
    rope: Rope
    quantisation: Quantisation

    @property
    def query_width(self) -> int:
        return self.nope + self.rotary

    @property
    def cache_width(self) -> int:
        return self.latent + self.rotary

    @property
    def scale(self) -> float:
        """1/sqrt(N + R), times YaRN's squared magnitude, rounded once to binary32."""
        return float(np.float32(1.0 / math.sqrt(self.query_width) * self.rope.score_factor))

    def row_bytes(self) -> int:
        """Upper bound of the scratch memory of one position, in bytes."""
        per_head = 2 * self.query_width + 2 * self.nope + 3 * self.cache_width + 2 * self.latent + 2 * self.value
        return 4 * (self.heads * per_head + 4 * self.hidden + 3 * (self.query_latent or 0) + 3 * self.cache_width)

    def _matrices(self) -> dict[str, tuple[int, int]]:
        """{module name: (rows, cols)}"""
        queries = self.heads * self.query_width
        direct = {"q_proj": (queries, self.hidden)}
        low_rank = {"q_a_proj": (self.query_latent or 0, self.hidden), "q_b_proj": (queries, self.query_latent or 0)}
        return {
            **(direct if self.query_latent is None else low_rank),
            "kv_a_proj_with_mqa": (self.cache_width, self.hidden),
            "kv_b_proj": (self.heads * (self.nope + self.value), self.latent),
            "o_proj": (self.hidden, self.heads * self.value),
        }

    def stored(self, prefix: str, names: Collection[str]) -> list[Stored]:
        """What the layer whose attention is called `prefix` holds in the checkpoint."""
        found = [plain(f"{prefix}.kv_a_layernorm.weight", self.latent)]
        if self.query_latent is not None:
            found.append(plain(f"{prefix}.q_a_layernorm.weight", self.query_latent))
        for name, (rows, cols) in self._matrices().items():
            found += self.quantisation.stored(f"{prefix}.{name}", rows, cols, names)
        return found

    def __call__(self, h: F32, layer: int, pieces: Sequence[Piece], use: Modules) -> F32:
        """The attention write of rows [T], whose normalised residual is h [T, D]; their keys are put in the caches first."""
        cos, sin = self.remember(h, layer, pieces, use)  # [T, R/2]
        q = self._latent_queries(h, use, cos, sin)  # [T, H, C+R]

        def attend(rows: slice, cache: KeyCache, positions: I64, weights: F32 | None) -> F32:
            return ops.mla_attend(q[rows], cache.values, positions, self.scale, self.latent, threads=use.threads, weights=weights)

        mixed = watched(attend, self.heads, layer, pieces)  # [T, H, C]
        stride = self.nope + self.value
        out = ops.heads_linear(use.matrix("kv_b_proj"), mixed, stride=stride, first=self.nope, rows=self.value, threads=use.threads)  # [T, H, V]
        return use.linear("o_proj", out.reshape(len(h), -1))  # [T, D]

    def remember(self, h: F32, layer: int, pieces: Sequence[Piece], use: Modules) -> tuple[F32, F32]:
        """Puts the keys of h [T, D] in the caches: all that later positions need of these. Gives the rotary table, cos and sin [T, R/2]."""
        cos, sin = self.rope.table(positions_of(pieces))  # [T, R/2]
        both = use.linear("kv_a_proj_with_mqa", h)  # [T, C+R]
        keys = np.empty_like(both)
        keys[:, : self.latent] = use.norm("kv_a_layernorm", both[:, : self.latent], INNER_NORM_EPS)
        keys[:, self.latent :] = both[:, self.latent :]
        ops.rope_interleaved(keys[:, None, self.latent :], cos, sin, threads=use.threads)
        keep(keys, layer, pieces)
        return cos, sin

    def _latent_queries(self, h: F32, use: Modules, cos: F32, sin: F32) -> F32:
        if self.query_latent is None:
            q = use.linear("q_proj", h)
        else:
            low = use.norm("q_a_layernorm", use.linear("q_a_proj", h), INNER_NORM_EPS)
            q = use.linear("q_b_proj", low)
        q = q.reshape(len(h), self.heads, self.query_width)  # [T, H, N+R]
        latent = np.empty((len(h), self.heads, self.cache_width), np.float32)
        stride = self.nope + self.value
        content = np.ascontiguousarray(q[:, :, : self.nope])  # [T, H, N]
        latent[:, :, : self.latent] = ops.heads_linear_t(use.matrix("kv_b_proj"), content, stride=stride, first=0, threads=use.threads)
        latent[:, :, self.latent :] = q[:, :, self.nope :]
        ops.rope_interleaved(latent[:, :, self.latent :], cos, sin, threads=use.threads)
        return latent
