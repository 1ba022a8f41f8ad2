"""The first sample's folder in transformers, F32. Experts are dequantised from the files by rule 5 of the numerics contract:
q * scale, rounded to bfloat16."""

import json
import pathlib
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from .int4 import dequantise, unpack

PREFIX = "language_model."
MATRICES = ("gate_proj", "up_proj", "down_proj")


def load(folder: pathlib.Path) -> DeepseekV3ForCausalLM:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    model = DeepseekV3ForCausalLM(_config(text)).eval()
    model.load_state_dict(_state(folder, text), strict=True)
    return model


def _config(text: dict[str, Any]) -> DeepseekV3Config:
    """transformers' config object of a `text_config`; the quantisation is undone before loading."""
    plain = {key: value for key, value in text.items() if key not in ("quantization_config", "model_type", "rope_scaling", "rope_theta")}
    rope = text["rope_scaling"] | {"rope_type": "yarn", "rope_theta": text["rope_theta"]}
    return DeepseekV3Config(**plain | {"dtype": "float32", "rope_parameters": rope, "attn_implementation": "eager"})


def _state(folder: pathlib.Path, text: dict[str, Any]) -> dict[str, Tensor]:
    """transformers' state dict, F32: the prefix dropped, vision left out, experts dequantised and stacked."""
    stored: dict[str, Tensor] = {}
    for file in sorted(set(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].values())):
        stored |= load_file(folder / file)
    stored = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items() if name.startswith(PREFIX)}
    state = {name: tensor.float() for name, tensor in stored.items() if ".mlp.experts." not in name}
    for layer in range(text["first_k_dense_replace"], text["num_hidden_layers"]):
        place = f"model.layers.{layer}.mlp.experts."
        experts = [[_matrix(stored, f"{place}{e}.{name}") for name in MATRICES] for e in range(text["n_routed_experts"])]
        state[f"{place}gate_up_proj"] = torch.stack([torch.cat([gate, up]) for gate, up, _ in experts])
        state[f"{place}down_proj"] = torch.stack([down for _, _, down in experts])
    return state


def _matrix(stored: dict[str, Tensor], name: str) -> Tensor:
    weight = dequantise(unpack(stored[f"{name}.weight_packed"]), stored[f"{name}.weight_scale"])
    if list(weight.shape) != stored[f"{name}.weight_shape"].tolist():
        raise ValueError(f"{name}: expected shape {stored[f'{name}.weight_shape'].tolist()}, got {list(weight.shape)}")
    return weight
