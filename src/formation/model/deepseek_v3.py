"""DeepSeek-V3 (arXiv 2412.19437) and the Kimi K2 family, which is the same arithmetic under other names.

Multi-token-prediction layers, the vision tower and its projector are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from formation.model.config import Keys
from formation.model.decoder import Decoder, read_decoder, read_mlp, read_router, read_shape
from formation.model.latent_attention import LatentAttention
from formation.model.moe import MixtureOfExperts
from formation.model.quantisation import read_quantisation
from formation.model.rope import read_rope

METHODS = ("noaux_tc", "group_limited_greedy", "greedy")
UNUSED = (r"(vision_tower|mm_projector|multi_modal_projector)\..*", r".*rotary_emb\.inv_freq")


def read(config: Mapping[str, Any]) -> Decoder:
    """The model that `config.json` describes. Raises UnsupportedError, naming the key, for anything not understood."""
    keys, prefix = Keys(config), ""
    if config.get("model_type") == "kimi_k25":
        keys, prefix = _text_of_kimi_k25(keys), "language_model."
    keys.choice("model_type", ("kimi_k2", "deepseek_v3"))
    keys.skip("num_nextn_predict_layers", "num_mtp_layers")  # layers beyond num_hidden_layers, skipped
    shape = read_shape(keys, experts=keys.integer("n_routed_experts"), dense_layers=keys.integer("first_k_dense_replace", 0, low=0))
    mixers, dense = [_read_attention(keys)] * shape.layers, read_mlp(keys, "intermediate_size")
    return read_decoder(keys, shape, mixers, _read_moe(keys), dense, prefix=prefix, unused=UNUSED)


def _text_of_kimi_k25(keys: Keys) -> Keys:
    text = keys.section("text_config") or Keys(None, f"{keys.where}: text_config")
    keys.skip("model_type", "vision_config", "ignore_index", "media_placeholder_token_id", "use_unified_vision_chunk", "video_placeholder")
    keys.skip("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "projection_hidden_size")
    # The text model's own key decides; the outer one is a default of the wrapper class.
    keys.skip("projection_layer_norm_eps", "tie_word_embeddings", "quantization_config")
    keys.finish()
    return text


def _read_attention(keys: Keys) -> LatentAttention:
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
        quantisation=read_quantisation(keys),
    )


def _read_moe(keys: Keys) -> MixtureOfExperts:
    method = keys.choice("topk_method", METHODS, "noaux_tc")
    groups, kept = keys.integer("n_group", 1), keys.integer("topk_group", 1)
    router = read_router(
        keys,
        keys.integer("n_routed_experts"),
        groups=1 if method == "greedy" else groups,
        kept_groups=1 if method == "greedy" else kept,
        softmax=keys.choice("scoring_func", ("sigmoid", "softmax"), "sigmoid") == "softmax",
        group_top2=method == "noaux_tc",
        normalise=keys.flag("norm_topk_prob", True),
        scale=keys.number("routed_scaling_factor", 1.0),
    )
    width, shared = "moe_intermediate_size", keys.integer("n_shared_experts", 0, low=0)
    return MixtureOfExperts(router, method == "noaux_tc", read_mlp(keys, width), read_mlp(keys, width, shared) if shared else None)
