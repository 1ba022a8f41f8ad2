"""Random small configurations of Qwen3-Next, as hypothesis strategies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from parity_cases import Case, one_of
from parity_twin import ROUTER


@dataclass(frozen=True)
class QwenCase(Case):
    """The norm of what a row reads from a state enlarges rounding wherever little is read: the library in binary32 is then as far from itself
    in binary64 as Formation is (`test_as_near_to_binary64_as_the_library_in_binary32`)."""

    @property
    def slack(self) -> float:
        return 20.0

    @property
    def text(self) -> Mapping[str, Any]:
        return {**self.config, **ROUTER}

    def features(self) -> dict[str, str]:
        config = self.config
        kinds = layer_types(config)
        return {
            "model_type": str(config["model_type"]),
            "plain dtype": self.plain,
            "layers": "both" if len(set(kinds)) > 1 else kinds[0],
            "dense layers": f"{len(config['mlp_only_layers'])}, step 1",
            "value heads per key head": str(config["linear_num_value_heads"] // config["linear_num_key_heads"]),
            "heads per key": str(config["num_attention_heads"] // config["num_key_value_heads"]),
            "taps": str(config["linear_conv_kernel_dim"]),
            "rope": "yarn" if config.get("rope_scaling") else "plain",
            "gates": "normalised" if config["norm_topk_prob"] else "as scored",
            "head": "tied" if config["tie_word_embeddings"] else "own",
        }


def layer_types(config: Mapping[str, Any]) -> list[str]:
    interval = config.get("full_attention_interval", 4)
    regular = ["linear_attention" if (layer + 1) % interval else "full_attention" for layer in range(config["num_hidden_layers"])]
    return list(config.get("layer_types") or regular)


def mixing(draw: st.DrawFn) -> dict[str, Any]:
    layers = one_of(draw, (3, 4, 2, 1))
    if one_of(draw, (True, False)):
        return {"num_hidden_layers": layers, "full_attention_interval": one_of(draw, (2, 1, 3, 5))}
    return {"num_hidden_layers": layers, "layer_types": [one_of(draw, ("linear_attention", "full_attention")) for _ in range(layers)]}


def heads(draw: st.DrawFn) -> dict[str, Any]:
    key_heads, groups = one_of(draw, (2, 1, 3)), one_of(draw, (2, 1, 3))
    return {
        "linear_num_key_heads": key_heads, "linear_num_value_heads": key_heads * one_of(draw, (2, 1, 3)),
        "linear_key_head_dim": one_of(draw, (24, 16, 33, 5)), "linear_value_head_dim": one_of(draw, (20, 16, 37)),
        "linear_conv_kernel_dim": one_of(draw, (4, 4, 2, 3)), "num_key_value_heads": groups,
        "num_attention_heads": groups * one_of(draw, (2, 1, 4)),
    }  # fmt: skip


def rotary(draw: st.DrawFn) -> dict[str, Any]:
    width, share = one_of(draw, ((32, 0.25), (24, 0.5), (16, 1.0), (40, 0.25)))
    theta, scaling = one_of(draw, (1e7, 10000)), None
    if one_of(draw, (False, True)):
        scaling = {"rope_type": "yarn", "factor": one_of(draw, (4.0, 1.5)), "original_max_position_embeddings": one_of(draw, (64, 16, 256))}
    if one_of(draw, (True, False)):
        return {"head_dim": width, "partial_rotary_factor": share, "rope_theta": theta, "rope_scaling": scaling}
    section = {"rope_type": "default"} if scaling is None else scaling
    return {"head_dim": width, "rope_parameters": section | {"rope_theta": theta, "partial_rotary_factor": share}}


@st.composite
def qwen_cases(draw: st.DrawFn, **fixed: Any) -> QwenCase:
    experts = one_of(draw, (12, 16, 5, 1))
    keys = {
        "model_type": "qwen3_next", "hidden_size": one_of(draw, (104, 64, 50, 33)), "vocab_size": one_of(draw, (257, 160, 97)),
        "max_position_embeddings": 4096, "rms_norm_eps": one_of(draw, (1e-6, 1e-2)), "hidden_act": "silu",
        "tie_word_embeddings": draw(st.booleans()), "moe_intermediate_size": one_of(draw, (32, 37, 20)),
        "shared_expert_intermediate_size": one_of(draw, (32, 20)), "num_experts": experts,
        "num_experts_per_tok": one_of(draw, range(min(10, experts), 0, -1)), "norm_topk_prob": one_of(draw, (True, False)),
        "intermediate_size": 40, "decoder_sparse_step": 1, **mixing(draw), **heads(draw), **rotary(draw),
    }  # fmt: skip
    keys["mlp_only_layers"] = one_of(draw, ([], [], [0]))
    plain = one_of(draw, ("BF16", "F32", "F16"))
    return QwenCase(keys | fixed, plain, one_of(draw, (33, 70, 17, 7, 2, 1)), draw(st.integers(0, 1 << 16)))
