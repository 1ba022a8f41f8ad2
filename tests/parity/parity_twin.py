"""The same checkpoint in the transformers library: files read by `safetensors`, dequantised by their publishers' own code.

Nothing here comes from Formation: two readings and two arithmetics meet only in the tests.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM, logging

logging.set_verbosity_error()
torch.set_num_threads(1)

SCHEME = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(num_bits=4, type="int", symmetric=True, group_size=32, strategy="group"))
# Keys of published configs that the library's class neither has nor needs.
FOREIGN = ("model_type", "quantization_config", "scoring_func", "topk_method")
# What the measure asks of a router that has no groups, in the words of DeepSeek's configs.
ROUTER = {"scoring_func": "softmax", "topk_method": "greedy", "n_group": 1, "topk_group": 1}
State = dict[str, torch.Tensor]


def unpacked(packed: torch.Tensor, scale: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """int4 to bfloat16, by the library that the checkpoint was written with."""
    state = {"weight_packed": packed, "weight_scale": scale, "weight_shape": torch.Size(shape.tolist())}
    return PackedQuantizationCompressor.decompress(state, SCHEME)["weight"]


def from_blocks(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """fp8 to bfloat16: row r and column c take the scale of block [r // 128, c // 128]."""
    rows, cols = (torch.arange(n) // 128 for n in weight.shape)
    return (weight.float() * scale[rows][:, cols]).bfloat16()


def read_weights(folder: Path) -> State:
    """Every tensor in binary32, under the name of its plain form: `*.weight`, not `*.weight_packed`. No prefix of a wrapper."""
    raw: State = {}
    for file in sorted(folder.glob("*.safetensors")):
        raw |= load_file(file)
    raw = {name.removeprefix("language_model."): tensor for name, tensor in raw.items()}
    weights = {name: tensor.float() for name, tensor in raw.items() if not name.endswith(("_packed", "_scale", "_shape", "_scale_inv"))}
    for name, tensor in raw.items():
        module = name.rpartition(".")[0]
        if name.endswith(".weight_packed"):
            weights[f"{module}.weight"] = unpacked(tensor, raw[f"{module}.weight_scale"], raw[f"{module}.weight_shape"]).float()
        if name.endswith(".weight_scale_inv"):
            weights[f"{module}.weight"] = from_blocks(raw[f"{module}.weight"], tensor).float()
    return weights


def stacked(weights: State, text: Mapping[str, Any]) -> State:
    """The state the library's model has: experts of a layer in one tensor, the head also when tied, a shared expert of width 0."""
    state = {name: tensor for name, tensor in weights.items() if ".experts." not in name}
    for layer in range(text["first_k_dense_replace"], text["num_hidden_layers"]):
        mlp = f"model.layers.{layer}.mlp"
        state |= stacked_experts(weights, mlp, text["n_routed_experts"])
        if not text["n_shared_experts"]:
            nothing = torch.empty(0, text["hidden_size"])
            state |= {f"{mlp}.shared_experts.{kind}_proj.weight": nothing for kind in ("gate", "up")}
            state[f"{mlp}.shared_experts.down_proj.weight"] = nothing.T
    if text["tie_word_embeddings"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def stacked_experts(weights: State, mlp: str, count: int) -> State:
    """The experts of the layer whose MLP has this name, in two tensors."""
    gate, up, down = ([weights[f"{mlp}.experts.{e}.{kind}_proj.weight"] for e in range(count)] for kind in ("gate", "up", "down"))
    both = torch.stack([torch.cat(pair) for pair in zip(gate, up, strict=True)])
    return {f"{mlp}.experts.gate_up_proj": both, f"{mlp}.experts.down_proj": torch.stack(down)}


def build(text: Mapping[str, Any], state: State, dtype: torch.dtype = torch.float32) -> DeepseekV3ForCausalLM:
    """The library's model with these weights; the selection bias stays binary32, as the library keeps it."""
    config = DeepseekV3Config(**{name: value for name, value in text.items() if name not in FOREIGN})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        model = DeepseekV3ForCausalLM._from_config(config, attn_implementation="eager", experts_implementation="eager", dtype=dtype)
    for gate in gates(model).values():
        gate.e_score_correction_bias = gate.e_score_correction_bias.float()
    model.load_state_dict(state, strict=True)
    return model.eval()


def build_qwen(text: Mapping[str, Any], weights: State) -> Any:
    """The library's model of this `model_type` with these weights: experts of a layer in one tensor, the head also when tied."""
    state = {name: tensor for name, tensor in weights.items() if ".experts." not in name}
    for layer in range(text["num_hidden_layers"]):
        if f"model.layers.{layer}.mlp.gate.weight" in weights:
            state |= stacked_experts(weights, f"model.layers.{layer}.mlp", text["num_experts"])
    if text["tie_word_embeddings"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    config = AutoConfig.for_model(text["model_type"], **{name: value for name, value in text.items() if name not in {*FOREIGN, *ROUTER}})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32)
    model.load_state_dict(state, strict=True)
    return model.eval()


def gates(model: Any) -> dict[int, torch.nn.Module]:
    """The routers, by layer."""
    return {number: layer.mlp.gate for number, layer in enumerate(model.model.layers) if hasattr(layer.mlp, "gate")}


@dataclass(frozen=True)
class Twin:
    """What the library computed: logits [T, V]; by layer, router logits [T, E] and the ids it chose, ascending [T, K]."""

    logits: np.ndarray
    router_logits: dict[int, np.ndarray]
    chosen: dict[int, np.ndarray]


@torch.no_grad()
def run(model: Any, ids: list[int]) -> Twin:
    seen: dict[int, tuple[torch.Tensor, ...]] = {}
    hooks = [gate.register_forward_hook(lambda _, __, output, layer=layer: seen.update({layer: output})) for layer, gate in gates(model).items()]
    logits = model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
    for hook in hooks:
        hook.remove()
    router_logits = {layer: output[0].numpy() for layer, output in seen.items()}
    return Twin(logits, router_logits, {layer: output[2].sort().values.numpy() for layer, output in seen.items()})
