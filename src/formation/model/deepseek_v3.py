"""DeepSeek-V3 (arXiv 2412.19437) and the Kimi K2 family, which is the same arithmetic under other names.

    x = embedding;  per layer: u = x + attention(norm(x)), x = u + mlp(norm(u));  logits = lm_head(norm(x))

Multi-token-prediction layers, the vision tower and its projector are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from formation.errors import UnsupportedError
from formation.kernels import ops
from formation.kernels.tensor import F32, I64, Tensor
from formation.model.architecture import Part, Shape
from formation.model.attention import LatentAttention, LatentCache
from formation.model.config import Keys
from formation.model.linear import Modules
from formation.model.moe import Experts, MixtureOfExperts, Mlp, chunks
from formation.model.quantisation import Quantisation, Stored, plain, read_quantisation
from formation.model.rope import read_rope
from formation.model.taps import Blind, Probe, Site, Tap, require_finite

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

    # ---- what to read

    def part(self, key: tuple[Any, ...], names: Collection[str]) -> Part:
        """The part called `key`: ("embedding",), ("layer", l), ("expert", l, e) or ("head",)."""
        match key:
            case ("embedding",):
                stored = [plain(f"{self.prefix}model.embed_tokens.weight", self.shape.vocabulary, self.shape.hidden)]
            case ("head",):
                stored = [plain(f"{self.prefix}model.norm.weight", self.shape.hidden), *self._lm_head(names)]
            case ("expert", layer, expert):
                stored = self.moe.stored_expert(f"{self._layer(layer)}.mlp", expert, names)
            case (_, layer):
                stored = self._stored_layer(layer, names)
        return Part(key, tuple(stored))

    @property
    def router(self) -> ops.Router:
        return self.moe.router

    @property
    def heads(self) -> int:
        return self.attention.heads

    def bias_name(self, layer: int) -> str | None:
        """The tensor that layer's router adds to its scores, if it does."""
        return f"{self._layer(layer)}.mlp.gate.e_score_correction_bias" if self.moe.biased else None

    def skips(self, name: str) -> bool:
        """Whether a tensor of the checkpoint is known and not part of the text model."""
        if re.match(r"(vision_tower|mm_projector|multi_modal_projector)\.", name) or name.endswith("rotary_emb.inv_freq"):
            return True
        if self.tied and name == f"{self.prefix}lm_head.weight":
            return True
        layer = re.match(re.escape(self.prefix) + r"model\.layers\.(\d+)\.", name)
        return bool(layer) and int(layer[1]) >= self.shape.layers  # type: ignore[index]

    def _layer(self, layer: int) -> str:
        return f"{self.prefix}model.layers.{layer}"

    def _lm_head(self, names: Collection[str]) -> Sequence[Stored]:
        name = f"{self.prefix}model.embed_tokens" if self.tied else f"{self.prefix}lm_head"
        return self.quantisation.stored(name, self.shape.vocabulary, self.shape.hidden, names)

    def _stored_layer(self, layer: int, names: Collection[str]) -> list[Stored]:
        prefix = self._layer(layer)
        norms = [plain(f"{prefix}.{n}.weight", self.shape.hidden) for n in ("input_layernorm", "post_attention_layernorm")]
        mlp = self.dense if layer < self.shape.dense_layers else self.moe
        return [*norms, *self.attention.stored(f"{prefix}.self_attn", names), *mlp.stored(f"{prefix}.mlp", names)]

    # ---- what to compute

    def new_cache(self, capacity: int) -> LatentCache:
        """The cache of one layer for `capacity` positions."""
        return LatentCache(capacity, self.attention.cache_width)

    def cache_bytes(self, capacity: int) -> int:
        return LatentCache.nbytes(capacity, self.attention.cache_width)

    def row_bytes(self) -> int:
        """Scratch memory of one row of a chunk, in bytes, at the widest place of a layer."""
        return max(self.attention.row_bytes(), self.dense.row_bytes(), self.moe.expert.row_bytes() + 16 * self.shape.hidden)

    def embed(self, rows: Tensor, positions: I64, probe: Probe) -> F32:
        """Rows of the embedding table, as stored, to x [T, D]."""
        table = Modules({"rows.weight": rows}, "", 1).matrix("rows")
        x = ops.gather(table, np.arange(len(positions)), threads=1)
        require_finite(Site(Tap.EMBEDDING), positions, x)
        probe(Site(Tap.EMBEDDING), positions, x)
        return x

    def layer(
        self, layer: int, x: F32, positions: I64, cache: LatentCache, tensors: Mapping[str, Tensor], experts: Experts,
        probe: Probe, *, threads: int, chunk: int,
    ) -> F32:  # fmt: skip
        """x_{l+1} of consecutive positions [T] whose residual at boundary l is x [T, D]; at most `chunk` rows at a time."""
        use = Modules(tensors, f"{self._layer(layer)}.", threads)
        u = np.empty_like(x)
        for part in chunks(len(x), chunk):
            h = use.norm("input_layernorm", x[part], self.eps)
            a = self.attention(h, layer, positions[part], cache, use.under("self_attn"), probe)
            require_finite(Site(Tap.ATTENTION_WRITE, layer), positions[part], a)
            probe(Site(Tap.ATTENTION_WRITE, layer), positions[part], a)
            ops.add(x[part], a, threads=threads, out=u[part])
        probe(Site(Tap.AFTER_ATTENTION, layer), positions, u)
        h = use.norm("post_attention_layernorm", u, self.eps)
        m = self._mlp(layer, h, positions, use.under("mlp"), experts, probe, chunk)
        require_finite(Site(Tap.MLP_WRITE, layer), positions, m)
        probe(Site(Tap.MLP_WRITE, layer), positions, m)
        ops.add(u, m, threads=threads, out=u)
        require_finite(Site(Tap.RESIDUAL, layer), positions, u)
        probe(Site(Tap.RESIDUAL, layer), positions, u)
        return u

    def remember(
        self, layer: int, x: F32, positions: I64, cache: LatentCache, tensors: Mapping[str, Tensor], *, threads: int, chunk: int
    ) -> None:  # fmt: skip
        """Fills the cache with what `layer` keeps of consecutive positions [T], whose residual at boundary l is x [T, D], and computes
        nothing else: what a later position of the layer is replayed from."""
        use = Modules(tensors, f"{self._layer(layer)}.", threads)
        for part in chunks(len(x), chunk):
            h = use.norm("input_layernorm", x[part], self.eps)
            self.attention.remember(h, layer, positions[part], cache, use.under("self_attn"), Blind())

    def _mlp(self, layer: int, h: F32, positions: I64, use: Modules, experts: Experts, probe: Probe, chunk: int) -> F32:
        if layer >= self.shape.dense_layers:
            return self.moe(h, layer, positions, use, experts, probe, chunk)
        m = np.empty_like(h)
        for part in chunks(len(h), chunk):
            m[part] = self.dense(h[part], use)
        return m

    def head(self, x: F32, positions: I64, tensors: Mapping[str, Tensor], probe: Probe, *, threads: int) -> F32:
        """Logits of final residual rows x [T, D]                                                [T, vocabulary]"""
        use = Modules(tensors, self.prefix, threads)
        normed = use.norm("model.norm", x, self.eps)
        probe(Site(Tap.FINAL_NORM), positions, normed)
        name = "model.embed_tokens" if self.tied else "lm_head"
        logits = use.linear(name, normed)
        require_finite(Site(Tap.LOGITS), positions, logits)
        probe(Site(Tap.LOGITS), positions, logits)
        return logits


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
