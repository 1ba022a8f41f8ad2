"""A decoder: two ends, and layers of two writes to the residual stream. All that the architectures have in common stands here.

x = embedding;  per layer: u = x + mixer(norm(x)), x = u + mlp(norm(u));  logits = lm_head(norm(x))

An architecture says which mixer and MLP a layer has, and the constants; what is read and what is computed follows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from formation.errors import UnsupportedError
from formation.kernels import ops
from formation.kernels.tensor import F32, I64, Tensor
from formation.model.architecture import Key, Part, Shape
from formation.model.config import Keys
from formation.model.linear import Modules
from formation.model.moe import Experts, MixtureOfExperts, Mlp, chunks
from formation.model.quantisation import Quantisation, Stored, plain, read_quantisation
from formation.model.sequences import Piece, apart
from formation.model.taps import Blind, Probe, Site, Tap, require_finite

NORMS = ("input_layernorm", "post_attention_layernorm")


class Mixer(Protocol):
    """What mixes positions in a layer: an attention, or a delta net. It holds constants; weights and cache come with each call."""

    @property
    def kind(self) -> str: ...  # "attention" or "delta"
    @property
    def name(self) -> str: ...  # of its module in a layer
    @property
    def heads(self) -> int: ...  # that have softmax weights

    def stored(self, prefix: str, names: Collection[str]) -> list[Stored]: ...
    def new_cache(self, capacity: int) -> Any: ...
    def cache_bytes(self, capacity: int) -> int: ...
    def row_bytes(self) -> int: ...
    def __call__(self, h: F32, layer: int, pieces: Sequence[Piece], use: Modules) -> F32: ...
    def remember(self, h: F32, layer: int, pieces: Sequence[Piece], use: Modules) -> object: ...


@dataclass(frozen=True)
class Decoder:
    """One model: its shapes, constants and parts. It holds no weights and no names of files."""

    shape: Shape
    eps: float
    tied: bool  # the head is the embedding
    quantisation: Quantisation
    mixers: tuple[Mixer, ...]  # of each layer
    moe: MixtureOfExperts
    dense: Mlp | None = None  # of the first `shape.dense_layers` layers
    prefix: str = ""  # what the published names start with, before `model.`
    unused: tuple[str, ...] = ()  # patterns of whole names of published tensors that are no part of the text model
    centred: bool = False  # norm weights are stored minus one

    @property
    def router(self) -> ops.Router:
        return self.moe.router

    @property
    def heads(self) -> int:
        """Of the layers with attention"""
        return max(mixer.heads for mixer in self.mixers)

    def kind(self, layer: int) -> str:
        return self.mixers[layer].kind

    # ---- what to read

    def part(self, key: Key, names: Collection[str]) -> Part:
        """The part called `key`: ("embedding",), ("layer", l), ("expert", l, e) or ("head",); ("router", l) is of the layer's part what
        `likely_experts` needs."""
        match key:
            case ("embedding",):
                stored = [plain(f"{self.prefix}model.embed_tokens.weight", self.shape.vocabulary, self.shape.hidden)]
            case ("head",):
                stored = self._stored_head(names)
            case ("expert", layer, expert):
                stored = self.moe.stored_expert(f"{self._layer_name(layer)}.mlp", expert, names)
            case ("router", layer):
                name = self._layer_name(layer)
                stored = [plain(f"{name}.{NORMS[1]}.weight", self.shape.hidden), *self.moe.stored_router(f"{name}.mlp")]
            case (_, layer):
                stored = self._stored_layer(layer, names)
        return Part(key, tuple(stored))

    def _stored_head(self, names: Collection[str]) -> list[Stored]:
        matrix = self.quantisation.stored(self.prefix + self._head, self.shape.vocabulary, self.shape.hidden, names)
        return [plain(f"{self.prefix}model.norm.weight", self.shape.hidden), *matrix]

    def _stored_layer(self, layer: int, names: Collection[str]) -> list[Stored]:
        name, mixer = self._layer_name(layer), self.mixers[layer]
        norms = [plain(f"{name}.{norm}.weight", self.shape.hidden) for norm in NORMS]
        return [*norms, *mixer.stored(f"{name}.{mixer.name}", names), *self._mlp_of(layer).stored(f"{name}.mlp", names)]

    def _layer_name(self, layer: int) -> str:
        return f"{self.prefix}model.layers.{layer}"

    @property
    def _head(self) -> str:
        return "model.embed_tokens" if self.tied else "lm_head"

    def _mlp_of(self, layer: int) -> Mlp | MixtureOfExperts:
        return self.moe if self.dense is None or layer >= self.shape.dense_layers else self.dense

    def bias_name(self, layer: int) -> str | None:
        """The tensor that layer's router adds to its scores, if it does."""
        return f"{self._layer_name(layer)}.mlp.gate.e_score_correction_bias" if self.moe.biased else None

    def skips(self, name: str) -> bool:
        """Whether a tensor of the checkpoint is known and not part of the text model: so are layers after the last, and the head of a model
        whose embedding is its head."""
        if any(re.fullmatch(pattern, name) for pattern in self.unused) or (self.tied and name == f"{self.prefix}lm_head.weight"):
            return True
        layer = re.match(re.escape(self.prefix) + r"model\.layers\.(\d+)\.", name)
        return layer is not None and int(layer[1]) >= self.shape.layers

    # ---- memory

    def new_cache(self, layer: int, capacity: int) -> Any:
        """What a layer keeps of the past: for `capacity` positions, or as much for any number."""
        return self.mixers[layer].new_cache(capacity)

    def cache_bytes(self, layer: int, capacity: int) -> int:
        return self.mixers[layer].cache_bytes(capacity)

    def row_bytes(self) -> int:
        """Scratch memory of one row of a chunk, in bytes, at the widest place of a layer."""
        widest = max(self.moe.row_bytes(), *(mixer.row_bytes() for mixer in self.mixers))
        return max(widest, self.dense.row_bytes()) if self.dense else widest

    # ---- what to compute

    def embed(self, rows: Tensor, positions: I64, probe: Probe) -> F32:
        """Rows of the embedding table, as stored, to x [T, D]."""
        table = Modules({"rows.weight": rows}, "", 1).matrix("rows")
        x = ops.gather(table, np.arange(len(positions)), threads=1)
        _show(Site(Tap.EMBEDDING), positions, x, probe)
        return x

    def layer(
        self, layer: int, x: F32, positions: I64, cache: Any, tensors: Mapping[str, Tensor], experts: Experts,
        probe: Probe, *, threads: int, chunk: int,
    ) -> F32:  # fmt: skip
        """x_{l+1} of consecutive positions [T] whose residual at boundary l is x [T, D]; at most `chunk` rows at a time.

        With a cache of `Several` sequences, `positions` are places.
        """
        use, mixer = Modules(tensors, f"{self._layer_name(layer)}.", threads), self.mixers[layer]
        u = np.empty_like(x)
        for part in chunks(len(x), chunk):
            a = mixer(self._norm(NORMS[0], x[part], use), layer, apart(positions[part], cache, probe), use.under(mixer.name))
            _show(Site(Tap.ATTENTION_WRITE, layer), positions[part], a, probe)
            ops.add(x[part], a, threads=threads, out=u[part])
        probe(Site(Tap.AFTER_ATTENTION, layer), positions, u)
        m = self._mlp(layer, self._norm(NORMS[1], u, use), positions, use.under("mlp"), experts, probe, chunk)
        _show(Site(Tap.MLP_WRITE, layer), positions, m, probe)
        ops.add(u, m, threads=threads, out=u)
        _show(Site(Tap.RESIDUAL, layer), positions, u, probe)
        return u

    def _mlp(self, layer: int, h: F32, positions: I64, use: Modules, experts: Experts, probe: Probe, chunk: int) -> F32:
        mlp = self._mlp_of(layer)
        if isinstance(mlp, MixtureOfExperts):
            return mlp(h, layer, positions, use, experts, probe, chunk)
        m = np.empty_like(h)
        for part in chunks(len(h), chunk):
            m[part] = mlp(h[part], use)
        return m

    def likely_experts(self, layer: int, u: F32, tensors: Mapping[str, Tensor], *, threads: int) -> list[int]:
        """What `layer` would choose if rows u [T, D] of an earlier layer came to its router as they are: the most likely first."""
        use = Modules(tensors, f"{self._layer_name(layer)}.", threads)
        routing = self.moe.route(self._norm(NORMS[1], u, use), layer, np.arange(len(u)), use.under("mlp"), Blind())
        best = np.take_along_axis(routing.selection, routing.chosen, axis=1).reshape(-1)  # [T * K]
        return list(dict.fromkeys(routing.chosen.reshape(-1)[np.argsort(-best, kind="stable")].tolist()))

    def remember(
        self, layer: int, x: F32, positions: I64, cache: Any, tensors: Mapping[str, Tensor], *, threads: int, chunk: int
    ) -> None:  # fmt: skip
        """Takes into the cache what `layer` keeps of consecutive positions [T], whose residual at boundary l is x [T, D], and computes
        nothing else: what a later position of the layer is replayed from. A delta layer's rows come in order, each once."""
        use, mixer = Modules(tensors, f"{self._layer_name(layer)}.", threads), self.mixers[layer]
        for part in chunks(len(x), chunk):
            mixer.remember(self._norm(NORMS[0], x[part], use), layer, apart(positions[part], cache, Blind()), use.under(mixer.name))

    def head(self, x: F32, positions: I64, tensors: Mapping[str, Tensor], probe: Probe, *, threads: int) -> F32:
        """Logits of final residual rows x [T, D]                                                [T, vocabulary]"""
        use = Modules(tensors, self.prefix, threads)
        normed = self._norm("model.norm", x, use)
        probe(Site(Tap.FINAL_NORM), positions, normed)
        logits = use.linear(self._head, normed)
        _show(Site(Tap.LOGITS), positions, logits, probe)
        return logits

    def _norm(self, name: str, x: F32, use: Modules) -> F32:
        return use.norm(name, x, self.eps, centred=self.centred)


def _show(site: Site, positions: I64, values: F32, probe: Probe) -> None:
    """To the probe, once it is known to be finite."""
    require_finite(site, positions, values)
    probe(site, positions, values)


# ---- the keys that configs have in common


def read_shape(keys: Keys, *, experts: int, dense_layers: int) -> Shape:
    return Shape(
        layers=keys.integer("num_hidden_layers"),
        hidden=keys.integer("hidden_size"),
        vocabulary=keys.integer("vocab_size"),
        context=keys.integer("max_position_embeddings"),
        experts=experts,
        chosen=keys.integer("num_experts_per_tok"),
        dense_layers=dense_layers,
    )


def read_mlp(keys: Keys, width: str, times: int = 1) -> Mlp:
    """As wide inside as the key `width` says, so many times."""
    return Mlp(keys.integer("hidden_size"), times * keys.integer(width), read_quantisation(keys))


def read_router(keys: Keys, experts: int, **how: Any) -> ops.Router:
    """Raises UnsupportedError for numbers that no router has."""
    try:
        return ops.Router(experts, keys.integer("num_experts_per_tok"), **how)
    except ValueError as error:
        raise UnsupportedError(f"{keys.where}: {error}") from None


def read_decoder(
    keys: Keys, shape: Shape, mixers: Sequence[Mixer], moe: MixtureOfExperts, dense: Mlp | None = None,
    *, prefix: str = "", unused: tuple[str, ...] = (), centred: bool = False,
) -> Decoder:  # fmt: skip
    """The decoder of these parts, once every key of its config has been read. Raises UnsupportedError, naming the key, for one that has not."""
    keys.choice("hidden_act", ("silu",), "silu")
    eps, tied = keys.number("rms_norm_eps", low=1e-30, high=1.0), keys.flag("tie_word_embeddings", False)
    keys.finish()
    return Decoder(shape, eps, tied, read_quantisation(keys), tuple(mixers), moe, dense, prefix, unused, centred)
