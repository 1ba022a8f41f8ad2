"""DeepSeek-V3 (arXiv 2412.19437) and the Kimi K2 family, which is the same arithmetic under other names.

Multi-token-prediction layers, the vision tower and its projector are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from formation.errors import UnsupportedError
from formation.kernels import ops
from formation.kernels.tensor import F32, I64, Tensor
from formation.model import decoder
from formation.model.architecture import Part, Shape
from formation.model.attention import KeyCache, LatentAttention
from formation.model.config import Keys
from formation.model.linear import Modules
from formation.model.moe import Experts, MixtureOfExperts, Mlp, chunks
from formation.model.quantisation import Quantisation, Stored, read_quantisation
from formation.model.rope import read_rope
from formation.model.taps import Blind, Probe

METHODS = ("noaux_tc", "group_limited_greedy", "greedy")


@dataclass(frozen=True)
class DeepseekV3:
    """One model: its shapes and constants. It holds no weights and no names of files."""

    shape: Shape
    eps: float
    tied: bool
    attention: LatentAttention
    dense: Mlp
    moe: MixtureOfExperts
    quantisation: Quantisation
    prefix: str  # what the published names start with, before `model.`
    centred: bool = False  # norm weights are stored as they are

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
        mlp = self.dense if layer < self.shape.dense_layers else self.moe
        return [*decoder.stored_norms(self, layer), *self.attention.stored(f"{prefix}.self_attn", names), *mlp.stored(f"{prefix}.mlp", names)]

    @property
    def router(self) -> ops.Router:
        return self.moe.router

    @property
    def heads(self) -> int:
        return self.attention.heads

    def bias_name(self, layer: int) -> str | None:
        """The tensor that layer's router adds to its scores, if it does."""
        return f"{decoder.layer_name(self, layer)}.mlp.gate.e_score_correction_bias" if self.moe.biased else None

    def skips(self, name: str) -> bool:
        """Whether a tensor of the checkpoint is known and not part of the text model."""
        if re.match(r"(vision_tower|mm_projector|multi_modal_projector)\.", name) or name.endswith("rotary_emb.inv_freq"):
            return True
        return decoder.skips(self, name)

    def kind(self, layer: int) -> str:
        return "attention"

    # ---- what to compute

    def new_cache(self, layer: int, capacity: int) -> KeyCache:
        """The cache of one layer for `capacity` positions."""
        return KeyCache(capacity, self.attention.cache_width)

    def cache_bytes(self, layer: int, capacity: int) -> int:
        return KeyCache.nbytes(capacity, self.attention.cache_width)

    def row_bytes(self) -> int:
        """Scratch memory of one row of a chunk, in bytes, at the widest place of a layer."""
        return max(self.attention.row_bytes(), self.dense.row_bytes(), self.moe.row_bytes())

    def embed(self, rows: Tensor, positions: I64, probe: Probe) -> F32:
        """Rows of the embedding table, as stored, to x [T, D]."""
        return decoder.embed(rows, positions, probe)

    def layer(
        self, layer: int, x: F32, positions: I64, cache: KeyCache, tensors: Mapping[str, Tensor], experts: Experts,
        probe: Probe, *, threads: int, chunk: int,
    ) -> F32:  # fmt: skip
        """x_{l+1} of consecutive positions [T] whose residual at boundary l is x [T, D]; at most `chunk` rows at a time."""
        use = Modules(tensors, f"{decoder.layer_name(self, layer)}.", threads)

        def attention(h: F32, of: I64) -> F32:
            return self.attention(h, layer, of, cache, use.under("self_attn"), probe)

        def mlp(h: F32) -> F32:
            return self._mlp(layer, h, positions, use.under("mlp"), experts, probe, chunk)

        return decoder.two_writes(self, layer, x, positions, use, attention, mlp, probe, chunk=chunk)

    def remember(
        self, layer: int, x: F32, positions: I64, cache: KeyCache, tensors: Mapping[str, Tensor], *, threads: int, chunk: int
    ) -> None:  # fmt: skip
        """Fills the cache with what `layer` keeps of consecutive positions [T], whose residual at boundary l is x [T, D], and computes
        nothing else: what a later position of the layer is replayed from."""
        use = Modules(tensors, f"{decoder.layer_name(self, layer)}.", threads)
        keep = self.attention.remember
        decoder.remembered(self, x, positions, use, lambda h, of: keep(h, layer, of, cache, use.under("self_attn"), Blind()), chunk=chunk)

    def _mlp(self, layer: int, h: F32, positions: I64, use: Modules, experts: Experts, probe: Probe, chunk: int) -> F32:
        if layer >= self.shape.dense_layers:
            return self.moe(h, layer, positions, use, experts, probe, chunk)
        m = np.empty_like(h)
        for part in chunks(len(h), chunk):
            m[part] = self.dense(h[part], use)
        return m

    def head(self, x: F32, positions: I64, tensors: Mapping[str, Tensor], probe: Probe, *, threads: int) -> F32:
        """Logits of final residual rows x [T, D]                                                [T, vocabulary]"""
        return decoder.logits(self, x, positions, tensors, probe, threads=threads)


def read(config: Mapping[str, Any]) -> DeepseekV3:
    """The model that `config.json` describes. Raises UnsupportedError, naming the key, for anything not understood."""
    keys = Keys(config)
    prefix = ""
    if config.get("model_type") == "kimi_k25":
        keys, prefix = _text_of_kimi_k25(keys), "language_model."
    keys.choice("model_type", ("kimi_k2", "deepseek_v3"))
    quantisation = read_quantisation(keys)
    model = DeepseekV3(
        shape=_read_shape(keys),
        eps=keys.number("rms_norm_eps", low=1e-30, high=1.0),
        tied=keys.flag("tie_word_embeddings", False),
        attention=_read_attention(keys, quantisation),
        dense=Mlp(keys.integer("hidden_size"), keys.integer("intermediate_size"), quantisation),
        moe=_read_moe(keys, quantisation),
        quantisation=quantisation,
        prefix=prefix,
    )
    keys.choice("hidden_act", ("silu",), "silu")
    keys.skip("num_nextn_predict_layers", "num_mtp_layers")  # layers beyond num_hidden_layers, skipped
    keys.finish()
    return model


def _text_of_kimi_k25(keys: Keys) -> Keys:
    text = keys.section("text_config") or Keys(None, f"{keys.where}: text_config")
    keys.skip("model_type", "vision_config", "ignore_index", "media_placeholder_token_id", "use_unified_vision_chunk", "video_placeholder")
    keys.skip("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "projection_hidden_size")
    # The text model's own key decides; the outer one is a default of the wrapper class.
    keys.skip("projection_layer_norm_eps", "tie_word_embeddings", "quantization_config")
    keys.finish()
    return text


def _read_shape(keys: Keys) -> Shape:
    return Shape(
        layers=keys.integer("num_hidden_layers"),
        hidden=keys.integer("hidden_size"),
        vocabulary=keys.integer("vocab_size"),
        context=keys.integer("max_position_embeddings"),
        experts=keys.integer("n_routed_experts"),
        chosen=keys.integer("num_experts_per_tok"),
        dense_layers=keys.integer("first_k_dense_replace", 0, low=0),
    )


def _read_attention(keys: Keys, quantisation: Quantisation) -> LatentAttention:
    rotary = keys.integer("qk_rope_head_dim", low=2)
    keys.skip("num_key_value_heads")  # latent attention has one latent per position, whatever this says
    if not keys.flag("rope_interleave", True):
        raise keys.refusal("rope_interleave", "true")
    return LatentAttention(
        hidden=keys.integer("hidden_size"),
        heads=keys.integer("num_attention_heads"),
        query_latent=keys.optional_integer("q_lora_rank"),
        latent=keys.integer("kv_lora_rank"),
        nope=keys.integer("qk_nope_head_dim"),
        rotary=rotary,
        value=keys.integer("v_head_dim"),
        rope=read_rope(keys, rotary),
        quantisation=quantisation,
    )


def _read_moe(keys: Keys, quantisation: Quantisation) -> MixtureOfExperts:
    method = keys.choice("topk_method", METHODS, "noaux_tc")
    try:
        router = _read_router(keys, method)
    except ValueError as error:
        raise UnsupportedError(f"{keys.where}: {error}") from None
    hidden, inner = keys.integer("hidden_size"), keys.integer("moe_intermediate_size")
    shared = keys.integer("n_shared_experts", 0, low=0)
    expert = Mlp(hidden, inner, quantisation)
    return MixtureOfExperts(router, method == "noaux_tc", expert, Mlp(hidden, inner * shared, quantisation) if shared else None)


def _read_router(keys: Keys, method: str) -> ops.Router:
    groups, kept = keys.integer("n_group", 1), keys.integer("topk_group", 1)
    return ops.Router(
        experts=keys.integer("n_routed_experts"),
        chosen=keys.integer("num_experts_per_tok"),
        groups=1 if method == "greedy" else groups,
        kept_groups=1 if method == "greedy" else kept,
        softmax=keys.choice("scoring_func", ("sigmoid", "softmax"), "sigmoid") == "softmax",
        group_top2=method == "noaux_tc",
        normalise=keys.flag("norm_topk_prob", True),
        scale=keys.number("routed_scaling_factor", 1.0),
    )
