"""Qwen3-Next: gated delta nets, with full attention in every fourth layer, and experts in all. Multi-token-prediction layers are skipped."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from formation.errors import UnsupportedError
from formation.kernels import ops
from formation.kernels.tensor import F32, I64, Tensor
from formation.model import decoder
from formation.model.architecture import Part, Shape
from formation.model.attention import KeyCache
from formation.model.config import Keys
from formation.model.deltanet import DeltaState, GatedDeltaNet
from formation.model.grouped_attention import GroupedAttention
from formation.model.linear import Modules
from formation.model.moe import Experts, MixtureOfExperts, Mlp
from formation.model.quantisation import Quantisation, Stored, read_quantisation
from formation.model.rope import read_partial_rope
from formation.model.taps import Blind, Probe

MIXERS = {"linear_attention": ("delta", "linear_attn"), "full_attention": ("attention", "self_attn")}  # layer_types: (kind, name of the module)


@dataclass(frozen=True)
class Qwen3Next:
    """One model: its shapes and constants. It holds no weights and no names of files."""

    shape: Shape
    eps: float
    tied: bool
    layer_types: tuple[str, ...]
    attention: GroupedAttention
    delta: GatedDeltaNet
    moe: MixtureOfExperts
    quantisation: Quantisation
    prefix: str = ""
    centred: bool = True  # norms are those of 1 + what is stored, but for the one inside a delta layer

    # ---- what to read

    def part(self, key: tuple[Any, ...], names: Collection[str]) -> Part:
        """The part called `key`: ("embedding",), ("layer", l), ("expert", l, e) or ("head",)."""
        match key:
            case ("embedding",):
                stored = decoder.stored_embedding(self)
            case ("head",):
                stored = decoder.stored_head(self, names)
            case ("expert", layer, expert):
                stored = self.moe.stored_expert(f"{decoder.layer_name(self, layer)}.mlp", expert, names)
            case (_, layer):
                stored = self._stored_layer(layer, names)
        return Part(key, tuple(stored))

    def _stored_layer(self, layer: int, names: Collection[str]) -> list[Stored]:
        prefix = decoder.layer_name(self, layer)
        mixer, name = self._mixer(layer)
        return [*decoder.stored_norms(self, layer), *mixer.stored(f"{prefix}.{name}", names), *self.moe.stored(f"{prefix}.mlp", names)]

    @property
    def router(self) -> ops.Router:
        return self.moe.router

    @property
    def heads(self) -> int:
        """Of the layers with attention"""
        return self.attention.heads

    def bias_name(self, layer: int) -> str | None:
        return None

    def skips(self, name: str) -> bool:
        """Whether a tensor of the checkpoint is known and not part of the text model."""
        return name.startswith("mtp.") or decoder.skips(self, name)

    def kind(self, layer: int) -> str:
        return MIXERS[self.layer_types[layer]][0]

    def _mixer(self, layer: int) -> tuple[GatedDeltaNet | GroupedAttention, str]:
        kind, name = MIXERS[self.layer_types[layer]]
        return (self.delta if kind == "delta" else self.attention), name

    # ---- what to compute

    def new_cache(self, layer: int, capacity: int) -> DeltaState | KeyCache:
        """What a layer keeps of the past: for `capacity` positions, or as much for any number."""
        return self.delta.new_cache() if self.kind(layer) == "delta" else KeyCache(capacity, self.attention.cache_width)

    def cache_bytes(self, layer: int, capacity: int) -> int:
        return self.delta.cache_bytes() if self.kind(layer) == "delta" else KeyCache.nbytes(capacity, self.attention.cache_width)

    def row_bytes(self) -> int:
        """Scratch memory of one row of a chunk, in bytes, at the widest place of a layer."""
        return max(self.attention.row_bytes(), self.delta.row_bytes(), self.moe.row_bytes())

    def embed(self, rows: Tensor, positions: I64, probe: Probe) -> F32:
        """Rows of the embedding table, as stored, to x [T, D]."""
        return decoder.embed(rows, positions, probe)

    def layer(
        self, layer: int, x: F32, positions: I64, cache: Any, tensors: Mapping[str, Tensor], experts: Experts,
        probe: Probe, *, threads: int, chunk: int,
    ) -> F32:  # fmt: skip
        """x_{l+1} of consecutive positions [T] whose residual at boundary l is x [T, D]; at most `chunk` rows at a time."""
        use = Modules(tensors, f"{decoder.layer_name(self, layer)}.", threads)
        mixer, name = self._mixer(layer)

        def attention(h: F32, of: I64) -> F32:
            return mixer(h, layer, of, cache, use.under(name), probe)

        def mlp(h: F32) -> F32:
            return self.moe(h, layer, positions, use.under("mlp"), experts, probe, chunk)

        return decoder.two_writes(self, layer, x, positions, use, attention, mlp, probe, chunk=chunk)

    def remember(
        self, layer: int, x: F32, positions: I64, cache: Any, tensors: Mapping[str, Tensor], *, threads: int, chunk: int
    ) -> None:  # fmt: skip
        """Takes into the cache what `layer` keeps of consecutive positions [T], whose residual at boundary l is x [T, D], and computes
        nothing else. A delta layer's state is that after rows 0 to p: they come in order, each once."""
        use = Modules(tensors, f"{decoder.layer_name(self, layer)}.", threads)
        mixer, name = self._mixer(layer)
        decoder.remembered(self, x, positions, use, lambda h, of: mixer.remember(h, layer, of, cache, use.under(name), Blind()), chunk=chunk)

    def head(self, x: F32, positions: I64, tensors: Mapping[str, Tensor], probe: Probe, *, threads: int) -> F32:
        """Logits of final residual rows x [T, D]                                                [T, vocabulary]"""
        return decoder.logits(self, x, positions, tensors, probe, threads=threads)


def read(config: Mapping[str, Any]) -> Qwen3Next:
    """The model that `config.json` describes. Raises UnsupportedError, naming the key, for anything not understood."""
    keys = Keys(config)
    keys.choice("model_type", ("qwen3_next",))
    quantisation, shape = read_quantisation(keys), _read_shape(keys)
    eps = keys.number("rms_norm_eps", low=1e-30, high=1.0)
    model = Qwen3Next(
        shape=shape,
        eps=eps,
        tied=keys.flag("tie_word_embeddings", False),
        layer_types=_read_layer_types(keys, shape.layers),
        attention=_read_attention(keys, eps, quantisation),
        delta=_read_delta(keys, eps, quantisation),
        moe=_read_moe(keys, quantisation),
        quantisation=quantisation,
    )
    keys.choice("hidden_act", ("silu",), "silu")
    keys.skip("intermediate_size")  # of layers without experts: there are none
    keys.finish()
    return model


def _read_shape(keys: Keys) -> Shape:
    if keys.values.get("mlp_only_layers") not in (None, []):
        raise keys.refusal("mlp_only_layers", "no layers")
    keys.skip("mlp_only_layers")
    keys.integer("decoder_sparse_step", 1, high=1)
    return Shape(
        layers=keys.integer("num_hidden_layers"),
        hidden=keys.integer("hidden_size"),
        vocabulary=keys.integer("vocab_size"),
        context=keys.integer("max_position_embeddings"),
        experts=keys.integer("num_experts"),
        chosen=keys.integer("num_experts_per_tok"),
        dense_layers=0,
    )


def _read_layer_types(keys: Keys, layers: int) -> tuple[str, ...]:
    """`layer_types`, or every `full_attention_interval`-th layer with full attention; both must agree."""
    interval = keys.integer("full_attention_interval", 4)
    regular = ["linear_attention" if (layer + 1) % interval else "full_attention" for layer in range(layers)]
    found = keys.values.get("layer_types")
    keys.skip("layer_types")
    if found is None:
        return tuple(regular)
    if not isinstance(found, list) or len(found) != layers or any(name not in MIXERS for name in found):
        raise keys.refusal("layer_types", f"{layers} of {', '.join(MIXERS)}")
    if "full_attention_interval" in keys.values and found != regular:
        raise keys.refusal("layer_types", f"full attention in every layer that {interval} divides, as full_attention_interval says")
    return tuple(found)


def _read_attention(keys: Keys, eps: float, quantisation: Quantisation) -> GroupedAttention:
    heads, groups, width = keys.integer("num_attention_heads"), keys.integer("num_key_value_heads"), keys.integer("head_dim")
    if heads % groups:
        raise keys.refusal("num_key_value_heads", f"a divisor of {heads} heads")
    return GroupedAttention(keys.integer("hidden_size"), heads, groups, width, read_partial_rope(keys, width, 0.25), eps, quantisation)


def _read_delta(keys: Keys, eps: float, quantisation: Quantisation) -> GatedDeltaNet:
    found = GatedDeltaNet(
        hidden=keys.integer("hidden_size"),
        key_heads=keys.integer("linear_num_key_heads"),
        value_heads=keys.integer("linear_num_value_heads"),
        key=keys.integer("linear_key_head_dim"),
        value=keys.integer("linear_value_head_dim"),
        taps=keys.integer("linear_conv_kernel_dim"),
        eps=eps,
        quantisation=quantisation,
    )
    if found.value_heads % found.key_heads:
        raise keys.refusal("linear_num_key_heads", f"a divisor of {found.value_heads} value heads")
    return found


def _read_moe(keys: Keys, quantisation: Quantisation) -> MixtureOfExperts:
    hidden, normalise = keys.integer("hidden_size"), keys.flag("norm_topk_prob", True)
    try:
        router = ops.Router(keys.integer("num_experts"), keys.integer("num_experts_per_tok"), softmax=True, normalise=normalise)
    except ValueError as error:
        raise UnsupportedError(f"{keys.where}: {error}") from None
    expert, shared = (Mlp(hidden, keys.integer(name), quantisation) for name in ("moe_intermediate_size", "shared_expert_intermediate_size"))
    return MixtureOfExperts(router, False, expert, shared, shared_name="shared_expert", shared_gated=True)
