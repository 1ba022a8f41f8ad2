"""Qwen3 with experts (arXiv 2505.09388; Qwen3-30B-A3B, Qwen3-235B-A22B): grouped-query attention with norms of q and k, and no shared expert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from formation.model.config import Keys
from formation.model.decoder import Decoder, read_decoder, read_mlp, read_router, read_shape
from formation.model.grouped_attention import read_grouped_attention
from formation.model.moe import MixtureOfExperts, Mlp
from formation.model.rope import read_rope


def read(config: Mapping[str, Any]) -> Decoder:
    """The model that `config.json` describes. Raises UnsupportedError, naming the key, for anything not understood."""
    keys = Keys(config)
    keys.choice("model_type", ("qwen3_moe",))
    experts = _read_experts(keys)
    shape = read_shape(keys, experts=experts, dense_layers=read_dense_layers(keys))
    attention = read_grouped_attention(keys, read_rope(keys, keys.integer("head_dim", low=2)), gated=False, centred=False)
    router = read_router(keys, experts, softmax=True, normalise=keys.flag("norm_topk_prob", False))
    moe = MixtureOfExperts(router, biased=False, expert=read_mlp(keys, "moe_intermediate_size"), shared=None)
    if keys.flag("use_sliding_window", False):
        raise keys.refusal("use_sliding_window", "false")
    keys.skip("sliding_window", "max_window_layers")  # of a window that is not used
    return read_decoder(keys, shape, [attention] * shape.layers, moe, read_dense(keys, shape.dense_layers))


def _read_experts(keys: Keys) -> int:
    """`num_experts`, or `num_local_experts` as newer versions of the transformers library save it"""
    name = "num_local_experts" if "num_local_experts" in keys.values else "num_experts"
    experts = keys.integer(name)
    if keys.integer("num_experts", experts) != experts:
        raise keys.refusal("num_experts", f"{experts} as in num_local_experts")
    return experts


def read_dense_layers(keys: Keys) -> int:
    """How many layers are without experts: those of `mlp_only_layers`, and all but every `decoder_sparse_step`-th. They must be the first."""
    layers, step, listed = keys.integer("num_hidden_layers"), keys.integer("decoder_sparse_step", 1), keys.values.get("mlp_only_layers") or []
    keys.skip("mlp_only_layers")
    if not isinstance(listed, list) or not all(type(layer) is int and 0 <= layer < layers for layer in listed):
        raise keys.refusal("mlp_only_layers", f"a list of layers from 0 to {layers - 1}")
    dense = [layer for layer in range(layers) if layer in listed or (layer + 1) % step]
    if dense != list(range(len(dense))):
        raise keys.refusal("decoder_sparse_step" if step > 1 else "mlp_only_layers", "layers without experts before all that have some")
    return len(dense)


def read_dense(keys: Keys, dense_layers: int) -> Mlp | None:
    """The MLP of layers without experts, if there are any."""
    keys.skip("intermediate_size")
    return read_mlp(keys, "intermediate_size") if dense_layers else None
