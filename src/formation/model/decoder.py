"""What every decoder here has in common: its two ends, and a layer as two writes to the residual stream.

x = embedding;  per layer: u = x + attention(norm(x)), x = u + mlp(norm(u));  logits = lm_head(norm(x))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import numpy as np

from formation.kernels import ops
from formation.kernels.tensor import F32, I64, Tensor
from formation.model.architecture import Shape
from formation.model.linear import Modules
from formation.model.moe import chunks
from formation.model.quantisation import Quantisation, Stored, plain
from formation.model.taps import Probe, Site, Tap, require_finite

NORMS = ("input_layernorm", "post_attention_layernorm")
Attention = Callable[[F32, I64], F32]  # h [n, D] of consecutive positions [n] -> a [n, D]
Mlp = Callable[[F32], F32]  # h [T, D] -> m [T, D]


class Decoder(Protocol):
    """The constants of a model that this module needs. `centred`: norm weights are stored minus one."""

    @property
    def shape(self) -> Shape: ...
    @property
    def eps(self) -> float: ...
    @property
    def tied(self) -> bool: ...
    @property
    def centred(self) -> bool: ...
    @property
    def prefix(self) -> str: ...
    @property
    def quantisation(self) -> Quantisation: ...


# ---- what to read


def layer_name(model: Decoder, layer: int) -> str:
    return f"{model.prefix}model.layers.{layer}"


def stored_embedding(model: Decoder) -> list[Stored]:
    return [plain(f"{model.prefix}model.embed_tokens.weight", model.shape.vocabulary, model.shape.hidden)]


def stored_head(model: Decoder, names: Collection[str]) -> list[Stored]:
    name = f"{model.prefix}{_head(model)}"
    matrix = model.quantisation.stored(name, model.shape.vocabulary, model.shape.hidden, names)
    return [plain(f"{model.prefix}model.norm.weight", model.shape.hidden), *matrix]


def stored_norms(model: Decoder, layer: int) -> list[Stored]:
    return [plain(f"{layer_name(model, layer)}.{norm}.weight", model.shape.hidden) for norm in NORMS]


def skips(model: Decoder, name: str) -> bool:
    """Whether a tensor is of a layer after the last, or the head of a model whose embedding is its head."""
    if model.tied and name == f"{model.prefix}lm_head.weight":
        return True
    layer = re.match(re.escape(model.prefix) + r"model\.layers\.(\d+)\.", name)
    return bool(layer) and int(layer[1]) >= model.shape.layers  # type: ignore[index]


def _head(model: Decoder) -> str:
    return "model.embed_tokens" if model.tied else "lm_head"


# ---- what to compute


def embed(rows: Tensor, positions: I64, probe: Probe) -> F32:
    """Rows of the embedding table, as stored, to x [T, D]."""
    table = Modules({"rows.weight": rows}, "", 1).matrix("rows")
    x = ops.gather(table, np.arange(len(positions)), threads=1)
    require_finite(Site(Tap.EMBEDDING), positions, x)
    probe(Site(Tap.EMBEDDING), positions, x)
    return x


def two_writes(
    model: Decoder, layer: int, x: F32, positions: I64, use: Modules, attention: Attention, mlp: Mlp, probe: Probe, *, chunk: int
) -> F32:  # fmt: skip
    """x_{l+1} of consecutive positions [T] whose residual at boundary l is x [T, D]; `attention` gets at most `chunk` rows at a time."""
    u = np.empty_like(x)
    for part in chunks(len(x), chunk):
        a = attention(use.norm(NORMS[0], x[part], model.eps, centred=model.centred), positions[part])
        require_finite(Site(Tap.ATTENTION_WRITE, layer), positions[part], a)
        probe(Site(Tap.ATTENTION_WRITE, layer), positions[part], a)
        ops.add(x[part], a, threads=use.threads, out=u[part])
    probe(Site(Tap.AFTER_ATTENTION, layer), positions, u)
    m = mlp(use.norm(NORMS[1], u, model.eps, centred=model.centred))
    require_finite(Site(Tap.MLP_WRITE, layer), positions, m)
    probe(Site(Tap.MLP_WRITE, layer), positions, m)
    ops.add(u, m, threads=use.threads, out=u)
    require_finite(Site(Tap.RESIDUAL, layer), positions, u)
    probe(Site(Tap.RESIDUAL, layer), positions, u)
    return u


def remembered(model: Decoder, x: F32, positions: I64, use: Modules, remember: Callable[[F32, I64], object], *, chunk: int) -> None:
    """Hands `remember` the normalised residual that a layer's attention sees, at most `chunk` rows at a time."""
    for part in chunks(len(x), chunk):
        remember(use.norm(NORMS[0], x[part], model.eps, centred=model.centred), positions[part])


def logits(model: Decoder, x: F32, positions: I64, tensors: Mapping[str, Tensor], probe: Probe, *, threads: int) -> F32:
    """Logits of final residual rows x [T, D]                                                [T, vocabulary]"""
    use = Modules(tensors, model.prefix, threads)
    normed = use.norm("model.norm", x, model.eps, centred=model.centred)
    probe(Site(Tap.FINAL_NORM), positions, normed)
    found = use.linear(_head(model), normed)
    require_finite(Site(Tap.LOGITS), positions, found)
    probe(Site(Tap.LOGITS), positions, found)
    return found
