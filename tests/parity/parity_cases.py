"""Random small configurations of the DeepSeek-V3 family, as hypothesis strategies: what a parity example is run on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from tools.synthetic_checkpoint import FP8, INT4

MODEL_TYPES = ("kimi_k25", "kimi_k2", "deepseek_v3")
# A text config for tests that look at one thing: both kinds of layers, a shared expert, YaRN from a short original context.
SMALL = {
    "hidden_size": 64, "num_hidden_layers": 2, "first_k_dense_replace": 1, "intermediate_size": 64, "moe_intermediate_size": 32,
    "vocab_size": 160, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
    "num_attention_heads": 2, "num_key_value_heads": 2, "q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16, "v_head_dim": 24, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 256,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One example: a config, how its plain tensors are stored, and what is asked of it."""

    config: Mapping[str, Any]
    plain: str  # BF16, F32 or F16
    positions: int
    seed: int

    @property
    def slack(self) -> float:
        """How many times the usual bounds apply."""
        return 1.0

    @property
    def text(self) -> Mapping[str, Any]:
        """The config of the text model, which Kimi K2.5 nests."""
        return self.config.get("text_config", self.config)

    def features(self) -> dict[str, str]:
        """What a reader of the summary wants to see covered."""
        text, rope = self.text, self.text.get("rope_scaling") or self.text.get("rope_parameters") or {}
        layers, dense = text["num_hidden_layers"], text["first_k_dense_replace"]
        return {
            "model_type": str(self.config["model_type"]),
            "plain dtype": self.plain,
            "queries": "straight" if text["q_lora_rank"] is None else "low rank",
            "rope": "yarn" if "factor" in rope else "plain",
            "groups": "one" if text["n_group"] == 1 else "limited" if text["topk_group"] < text["n_group"] else "several, all kept",
            "shared": str(text["n_shared_experts"]),
            "gates": "normalised" if text["norm_topk_prob"] else "as scored",
            "head": "tied" if text["tie_word_embeddings"] else "own",
            "layers": "dense only" if dense >= layers else "experts only" if dense == 0 else "both",
        }


@dataclass(frozen=True)
class Widths:
    """Choices for every width; what a storage cannot hold is left out. Hypothesis begins with the first of each."""

    hidden: Sequence[int] = (104, 96, 136, 64, 50, 33)
    inner: Sequence[int] = (100, 64, 37, 20)  # of dense layers and of experts
    query_latent: Sequence[int | None] = (40, None, 64, 24, 17)
    latent: Sequence[int] = (33, 64, 20, 16)
    value: Sequence[int] = (24, 40, 8, 7)
    heads: Sequence[int] = (3, 5, 2, 1)


PLAIN = Widths()
INT4_EXPERTS = Widths(hidden=(96, 160, 64, 32), inner=(64, 96, 32))
INT4_EVERYWHERE = Widths((96, 64, 32), (96, 32), (32, None, 96), (64, 32), (24, 40, 8), (4, 8))
FP8_BLOCKS = Widths((200, 264, 136, 128, 96), (144, 128, 40), (136, None, 24), (136, 160, 128, 40), (40, 24, 64), (5, 3, 2))


def one_of(draw: st.DrawFn, choices: Sequence[Any]) -> Any:
    return draw(st.sampled_from(choices))


def yarn(draw: st.DrawFn, theta: float) -> dict[str, Any]:
    """rope_scaling as published, or rope_parameters as newer versions of the transformers library write it."""
    section = {
        one_of(draw, ("type", "rope_type")): "yarn",
        "factor": one_of(draw, (40, 64.0, 8, 2.5, 1.0)),
        "beta_fast": one_of(draw, (32, 8.0, 1.0)),
        "beta_slow": one_of(draw, (1, 0.25)),
        "original_max_position_embeddings": one_of(draw, (256, 16, 4096)),
    }
    # the pairs that the publisher's code and the transformers library read alike
    pair = one_of(draw, ((1, 1), (0.707, 1), (0.707, 0.707), (1, None), (None, None), (1, 0.0), (None, 0.0)))
    section |= {name: value for name, value in zip(("mscale", "mscale_all_dim"), pair, strict=True) if value is not None}
    if one_of(draw, (True, False)):
        return {"rope_scaling": section, "rope_theta": theta}
    return {"rope_parameters": section | {"rope_theta": theta}}


def rotary(draw: st.DrawFn) -> dict[str, Any]:
    theta = one_of(draw, (10000, 50000.0, 1e6))
    if one_of(draw, (True, False)):
        return yarn(draw, theta)
    return {"rope_theta": theta} | one_of(draw, ({}, {"rope_scaling": None}))


def experts(draw: st.DrawFn) -> dict[str, Any]:
    groups, width = one_of(draw, ((4, 4), (1, 12), (4, 3), (2, 4), (1, 5), (3, 2)))
    kept = one_of(draw, sorted(range(1, groups + 1), key=lambda n: abs(2 * n - groups)))
    return {
        "n_routed_experts": groups * width, "n_group": groups, "topk_group": kept,
        "num_experts_per_tok": one_of(draw, range(min(6, kept * width), 0, -1)), "n_shared_experts": one_of(draw, (1, 2, 0)),
        "norm_topk_prob": one_of(draw, (True, False)), "routed_scaling_factor": one_of(draw, (2.827, 2.5, 1.0)),
        "scoring_func": "sigmoid", "topk_method": "noaux_tc",
    }  # fmt: skip


def attention(draw: st.DrawFn, widths: Widths) -> dict[str, Any]:
    heads = one_of(draw, widths.heads)
    return {
        "num_attention_heads": heads, "num_key_value_heads": heads, "q_lora_rank": one_of(draw, widths.query_latent),
        "kv_lora_rank": one_of(draw, widths.latent), "qk_nope_head_dim": one_of(draw, (24, 40, 8, 5)),
        "qk_rope_head_dim": one_of(draw, (8, 24, 6, 2)), "v_head_dim": one_of(draw, widths.value),
    }  # fmt: skip


def text(draw: st.DrawFn, widths: Widths) -> dict[str, Any]:
    layers = one_of(draw, (3, 4, 2, 1))
    dense = one_of(draw, sorted(range(layers + 1), key=lambda n: abs(n - 1)))
    return {
        "hidden_size": one_of(draw, widths.hidden), "num_hidden_layers": layers, "first_k_dense_replace": dense,
        "intermediate_size": one_of(draw, widths.inner), "moe_intermediate_size": one_of(draw, widths.inner),
        "vocab_size": one_of(draw, (257, 160, 97)), "max_position_embeddings": 4096, "rms_norm_eps": one_of(draw, (1e-5, 1e-6, 1e-2)),
        "hidden_act": "silu", "tie_word_embeddings": draw(st.booleans()),
        **attention(draw, widths), **experts(draw), **rotary(draw),
    }  # fmt: skip


def published(model_type: str, keys: dict[str, Any]) -> dict[str, Any]:
    """The keys as the model type lays them out."""
    if model_type == "kimi_k25":
        return {"model_type": model_type, "text_config": keys | {"model_type": "kimi_k2"}}
    return keys | {"model_type": model_type}


@st.composite
def cases(draw: st.DrawFn, widths: Widths, quantisation: st.SearchStrategy[dict[str, Any] | None], **fixed: Any) -> Case:
    """`fixed` may name `model_type` and `plain`; any other name is a key of the text config."""
    keys = text(draw, widths)
    model_type = fixed.pop("model_type", None) or one_of(draw, MODEL_TYPES)
    plain = fixed.pop("plain", None) or one_of(draw, ("BF16", "F32", "F16"))
    section = draw(quantisation)
    if section is not None:
        keys["quantization_config"] = with_plain_embedding(section) if keys["tie_word_embeddings"] else section
    keys |= fixed
    return Case(published(model_type, keys), plain, one_of(draw, (33, 48, 17, 7, 2, 1)), draw(st.integers(0, 1 << 16)))


def int4(*ignore: str) -> dict[str, Any]:
    """compressed-tensors' `pack-quantized`, with another list of modules that stay plain."""
    return copy.deepcopy(INT4) | {"ignore": list(ignore)}


def with_plain_embedding(section: dict[str, Any]) -> dict[str, Any]:
    """A tied head is the embedding table, which is always plain: an int4 config says so."""
    return section | {"ignore": [*section["ignore"], "model.embed_tokens"]} if "ignore" in section else section


K25_IGNORE = tuple(INT4["ignore"])
MIXED = st.sampled_from(
    [
        int4(*K25_IGNORE, r"re:.*mlp\.experts\.[0-1]\..*"),
        int4(*K25_IGNORE, "model.layers.0.mlp.experts.2.down_proj", "re:.*layers.1.*"),
        int4("lm_head", "model.embed_tokens"),
        int4("model.embed_tokens", r"re:.*self_attn\.(q|kv_b).*", r"re:.*down_proj$"),
    ]
)
BLOCKS = st.sampled_from([FP8, FP8, FP8 | {"modules_to_not_convert": ["model.layers.0.self_attn.kv_b_proj", "model.layers.0.mlp.experts.1.up_proj"]}])
