"""The second sample's tensors: their names, shapes, types and values, read from the bytes alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from samples.shards import ITEM_BYTES, Stored, header

LARGEST_BYTES = 8_000_000

Shapes = dict[str, tuple[int, ...]]


def mlp(place: str, width: int, hidden: int) -> Shapes:
    shapes = {"gate_proj": (width, hidden), "up_proj": (width, hidden), "down_proj": (hidden, width)}
    return {f"{place}.{name}.weight": shape for name, shape in shapes.items()}


def mixture(config: dict[str, Any], place: str) -> Shapes:
    hidden, experts = config["hidden_size"], config["num_experts"]
    shapes: Shapes = {f"{place}.gate.weight": (experts, hidden), f"{place}.shared_expert_gate.weight": (1, hidden)}
    shapes |= mlp(f"{place}.shared_expert", config["shared_expert_intermediate_size"], hidden)
    for e in range(experts):
        shapes |= mlp(f"{place}.experts.{e}", config["moe_intermediate_size"], hidden)
    return shapes


def delta_net(config: dict[str, Any], place: str) -> Shapes:
    hidden, heads, value = (config[key] for key in ("hidden_size", "linear_num_value_heads", "linear_value_head_dim"))
    keys, values = config["linear_num_key_heads"] * config["linear_key_head_dim"], heads * value
    return {
        f"{place}.in_proj_qkvz.weight": (2 * keys + 2 * values, hidden),
        f"{place}.in_proj_ba.weight": (2 * heads, hidden),
        f"{place}.conv1d.weight": (2 * keys + values, 1, config["linear_conv_kernel_dim"]),
        f"{place}.A_log": (heads,),
        f"{place}.dt_bias": (heads,),
        f"{place}.norm.weight": (value,),
        f"{place}.out_proj.weight": (hidden, values),
    }


def attention(config: dict[str, Any], place: str) -> Shapes:
    hidden, width = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    return {
        f"{place}.q_proj.weight": (2 * queries, hidden),
        f"{place}.k_proj.weight": (keys, hidden),
        f"{place}.v_proj.weight": (keys, hidden),
        f"{place}.o_proj.weight": (hidden, queries),
        f"{place}.q_norm.weight": (width,),
        f"{place}.k_norm.weight": (width,),
    }


def layer(config: dict[str, Any], place: str, full: bool) -> Shapes:
    norms = {f"{place}.{name}.weight": (config["hidden_size"],) for name in ("input_layernorm", "post_attention_layernorm")}
    mixer = attention(config, f"{place}.self_attn") if full else delta_net(config, f"{place}.linear_attn")
    return norms | mixer | mixture(config, f"{place}.mlp")


def text_model(config: dict[str, Any]) -> Shapes:
    hidden, rows, every = config["hidden_size"], config["vocab_size"], config["full_attention_interval"]
    shapes: Shapes = {"model.embed_tokens.weight": (rows, hidden), "lm_head.weight": (rows, hidden), "model.norm.weight": (hidden,)}
    for number in range(config["num_hidden_layers"]):
        shapes |= layer(config, f"model.layers.{number}", (number + 1) % every == 0)
    return shapes


def predictor(config: dict[str, Any]) -> Shapes:
    hidden = config["hidden_size"]
    norms = {f"mtp.{name}.weight": (hidden,) for name in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")}
    return {"mtp.fc.weight": (hidden, 2 * hidden)} | norms | layer(config, "mtp.layers.0", True)


def test_the_tensors_are_exactly_those_the_config_implies_all_bf16(qwen_stored: dict[str, Stored], qwen_config: dict[str, Any]) -> None:
    expected = {name: ("BF16", shape) for name, shape in (text_model(qwen_config) | predictor(qwen_config)).items()}
    assert expected == {name: (tensor.dtype, tensor.shape) for name, tensor in qwen_stored.items()}


def test_every_value_is_finite(qwen_stored: dict[str, Stored]) -> None:
    assert [] == [name for name, tensor in qwen_stored.items() if not np.isfinite(tensor.floats()).all()]


def test_norms_are_stored_around_zero_but_for_the_one_inside_a_delta_net(qwen_stored: dict[str, Stored]) -> None:
    norms = {name: tensor.floats() for name, tensor in qwen_stored.items() if "norm" in name and not name.startswith("mtp.")}
    inner = [norms.pop(name) for name in list(norms) if "linear_attn" in name]
    assert all(float(values.min()) > 0 for values in inner)
    assert all(float(values.min()) > -1 for values in norms.values())
    assert all(float(norms[name].min()) < 0 for name in norms)


def test_heads_of_a_delta_net_forget_at_different_rates(qwen_stored: dict[str, Stored], qwen_config: dict[str, Any]) -> None:
    """What is left of a state after one position, where the projections add nothing."""
    for number in range(qwen_config["full_attention_interval"] - 1):
        place = f"model.layers.{number}.linear_attn"
        steps = np.log1p(np.exp(qwen_stored[f"{place}.dt_bias"].floats()))
        decay = np.exp(-np.exp(qwen_stored[f"{place}.A_log"].floats()) * steps)
        assert ((0 < decay) & (decay < 1)).all()
        assert float(decay.max() - decay.min()) > 0.01


def test_the_index_agrees_with_the_shards(qwen_folder: Path, qwen_stored: dict[str, Stored]) -> None:
    index = json.loads((qwen_folder / "model.safetensors.index.json").read_text())
    assert {name: tensor.file for name, tensor in qwen_stored.items()} == index["weight_map"]
    assert sum(len(tensor.data) for tensor in qwen_stored.values()) == index["metadata"]["total_size"]


def test_shards_are_cut_by_size_also_within_a_layer(qwen_folder: Path, qwen_stored: dict[str, Stored]) -> None:
    names = sorted(path.name for path in qwen_folder.glob("*.safetensors"))
    assert [f"model-{number:05d}-of-{len(names):05d}.safetensors" for number in range(1, len(names) + 1)] == names
    places: dict[str, set[str]] = {}
    for name, tensor in qwen_stored.items():
        places.setdefault(".".join(name.split(".")[:3]), set()).add(tensor.file)
    assert any(len(files) > 1 for place, files in places.items() if place.startswith("model.layers."))


def test_tensors_tile_each_shard_in_order_and_none_is_misaligned(qwen_folder: Path, qwen_stored: dict[str, Stored]) -> None:
    for path in sorted(qwen_folder.glob("*.safetensors")):
        described, begin = header(path)
        spans = [entry["data_offsets"] for entry in described.values()]
        assert begin % 8 == 0
        assert [0, *(last for _, last in spans)] == [*(first for first, _ in spans), path.stat().st_size - begin]
    for name, tensor in qwen_stored.items():
        assert tensor.offset % ITEM_BYTES[tensor.dtype] == 0, name
        assert len(tensor.data) == math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype], name


def test_the_whole_folder_is_small(qwen_folder: Path) -> None:
    assert sum(path.stat().st_size for path in qwen_folder.iterdir()) < LARGEST_BYTES
