"""Qwen3-Next: gated delta nets, with full attention in every fourth layer, and experts as in Qwen3 with a shared one. Multi-token-prediction
layers are skipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from formation.model.config import Keys
from formation.model.decoder import Decoder, Mixer, read_decoder, read_mlp, read_router, read_shape
from formation.model.deltanet import GatedDeltaNet
from formation.model.grouped_attention import read_grouped_attention
from formation.model.moe import MixtureOfExperts
from formation.model.quantisation import read_quantisation
from formation.model.qwen3_moe import read_dense, read_dense_layers
from formation.model.rope import read_partial_rope

LAYER_TYPES = ("linear_attention", "full_attention")


def read(config: Mapping[str, Any]) -> Decoder:
    """The model that `config.json` describes. Raises UnsupportedError, naming the key, for anything not understood."""
    keys = Keys(config)
    keys.choice("model_type", ("qwen3_next",))
    shape = read_shape(keys, experts=keys.integer("num_experts"), dense_layers=read_dense_layers(keys))
    attention = read_grouped_attention(keys, read_partial_rope(keys, keys.integer("head_dim"), 0.25), gated=True, centred=True)
    kinds: dict[str, Mixer] = {"linear_attention": _read_delta(keys), "full_attention": attention}
    mixers = [kinds[name] for name in _read_layer_types(keys, shape.layers)]
    # All norms are those of 1 + what is stored, but for the one inside a delta layer.
    return read_decoder(keys, shape, mixers, _read_moe(keys), read_dense(keys, shape.dense_layers), unused=(r"mtp\..*",), centred=True)


def _read_layer_types(keys: Keys, layers: int) -> list[str]:
    """`layer_types`, or every `full_attention_interval`-th layer with full attention; both must agree."""
    interval = keys.integer("full_attention_interval", 4)
    regular = ["linear_attention" if (layer + 1) % interval else "full_attention" for layer in range(layers)]
    found = keys.values.get("layer_types")
    keys.skip("layer_types")
    if found is None:
        return regular
    if not isinstance(found, list) or len(found) != layers or any(name not in LAYER_TYPES for name in found):
        raise keys.refusal("layer_types", f"{layers} of {', '.join(LAYER_TYPES)}")
    if "full_attention_interval" in keys.values and found != regular:
        raise keys.refusal("layer_types", f"full attention in every layer that {interval} divides, as full_attention_interval says")
    return found


def _read_delta(keys: Keys) -> GatedDeltaNet:
    found = GatedDeltaNet(
        hidden=keys.integer("hidden_size"),
        key_heads=keys.integer("linear_num_key_heads"),
        value_heads=keys.integer("linear_num_value_heads"),
        key=keys.integer("linear_key_head_dim"),
        value=keys.integer("linear_value_head_dim"),
        taps=keys.integer("linear_conv_kernel_dim"),
        eps=keys.number("rms_norm_eps", low=1e-30, high=1.0),
        quantisation=read_quantisation(keys),
    )
    if found.value_heads % found.key_heads:
        raise keys.refusal("linear_num_key_heads", f"a divisor of {found.value_heads} value heads")
    return found


def _read_moe(keys: Keys) -> MixtureOfExperts:
    router = read_router(keys, keys.integer("num_experts"), softmax=True, normalise=keys.flag("norm_topk_prob", True))
    expert, shared = (read_mlp(keys, name) for name in ("moe_intermediate_size", "shared_expert_intermediate_size"))
    return MixtureOfExperts(router, False, expert, shared, shared_name="shared_expert", shared_gated=True)
