"""The tensors of the first sample under Kimi K2.5's names, and how they are spread over shards."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from . import published
from .experts import Mixture
from .int4 import pack, quantise
from .model import Sample

PREFIX = "language_model."
Tensors = dict[str, Tensor]


def ordinary_tensors(model: Sample) -> Tensors:
    """Everything but the routed experts, under the published names; BF16, the bias F32."""
    found = {}
    for name, tensor in model.state_dict().items():
        if name.endswith((".mlp.gate_up", ".mlp.down")):
            continue
        inner = name if name.startswith("lm_head") else f"model.{name}"
        exact = name.endswith("e_score_correction_bias")
        found[PREFIX + inner] = tensor.clone() if exact else tensor.bfloat16()
    return found


def expert_tensors(mixture: Mixture, layer: int) -> Iterator[tuple[str, Tensor]]:
    """The three published tensors of each of the three matrices of each routed expert."""
    for e in range(len(mixture.down)):
        gate, up = mixture.gate_up.detach()[e]
        matrices = {"gate_proj": gate, "up_proj": up, "down_proj": mixture.down.detach()[e]}
        for name, weight in matrices.items():
            q, scale = quantise(weight)
            place = f"{PREFIX}model.layers.{layer}.mlp.experts.{e}.{name}"
            yield f"{place}.weight_packed", pack(q)
            yield f"{place}.weight_scale", scale
            yield f"{place}.weight_shape", torch.tensor(weight.shape, dtype=torch.int32)


def vision_tensors(vision: dict[str, Any]) -> tuple[Tensors, Tensors]:
    """(projector, tower), untrained: small normal numbers from a fixed seed, BF16."""
    width, inner, merged = vision["vt_hidden_size"], vision["vt_intermediate_size"], vision["mm_hidden_size"] * 4
    block = "vision_tower.encoder.blocks.0."
    projector = {
        "mm_projector.pre_norm": (vision["mm_hidden_size"],),
        "mm_projector.proj.0": (merged, merged),
        "mm_projector.proj.2": (vision["text_hidden_size"], merged),
    }
    tower = {
        "vision_tower.patch_embed.proj": (width, 3, vision["patch_size"], vision["patch_size"]),
        block + "norm0": (width,),
        block + "norm1": (width,),
        block + "wqkv": (3 * width, width),
        block + "wo": (width, width),
        block + "mlp.fc0": (inner, width),
        block + "mlp.fc1": (width, inner),
        "vision_tower.encoder.final_layernorm": (width,),
    }
    generator = torch.Generator().manual_seed(0)
    positions = torch.randn(vision["init_pos_emb_height"], vision["init_pos_emb_width"], width, generator=generator)
    extra = {"vision_tower.patch_embed.pos_emb.weight": (positions * 0.02).bfloat16()}
    return _with_biases(projector, generator), _with_biases(tower, generator) | extra


def _with_biases(shapes: dict[str, tuple[int, ...]], generator: torch.Generator) -> Tensors:
    weights = {f"{name}.weight": (torch.randn(shape, generator=generator) * 0.02).bfloat16() for name, shape in shapes.items()}
    return weights | {f"{name}.bias": torch.zeros(shape[0], dtype=torch.bfloat16) for name, shape in shapes.items()}


def shards(model: Sample) -> list[Tensors]:
    """One shard a layer; embedding, head and final norm; the projector; the vision tower."""
    ordinary = ordinary_tensors(model)
    layers = []
    for i, block in enumerate(model.layers):
        here = f"{PREFIX}model.layers.{i}."
        tensors = {name: tensor for name, tensor in ordinary.items() if name.startswith(here)}
        layers.append(tensors | dict(expert_tensors(block.mlp, i) if isinstance(block.mlp, Mixture) else ()))
    rest = {name: tensor for name, tensor in ordinary.items() if ".layers." not in name}
    return [*layers, rest, *vision_tensors(published.vision_config(model.shape))]
