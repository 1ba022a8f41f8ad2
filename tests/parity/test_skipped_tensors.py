"""Tensors of a published checkpoint that are no part of the text model change nothing; others are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")

import parity_twin as twin
import torch
from parity_cases import SMALL, Case, published
from parity_checkpoints import EXTRA, add_tensors
from parity_measure import Record, Tally, compare, ids_of, logits_of, plain_twin, written
from safetensors.torch import load_file
from tools.synthetic_checkpoint import FP8, INT4

import formation
from formation.errors import CheckpointError

LAYERS = SMALL["num_hidden_layers"]


def multi_token_prediction(folder: Path) -> dict[str, torch.Tensor]:
    """A layer after the last, as DeepSeek-V3 publishes it: a whole decoder layer, quantised too, and what joins it to the model."""
    (shard,) = folder.glob(f"model-*{LAYERS}-of-*.safetensors")
    layer = {name.replace(f"layers.{LAYERS - 1}.", f"layers.{LAYERS}."): tensor for name, tensor in load_file(shard).items()}
    hidden, vocabulary = SMALL["hidden_size"], SMALL["vocab_size"]
    shapes = {"eh_proj": (hidden, 2 * hidden), "enorm": (hidden,), "hnorm": (hidden,), "embed_tokens": (vocabulary, hidden)}
    shapes |= {"shared_head.norm": (hidden,), "shared_head.head": (vocabulary, hidden)}
    return layer | {f"model.layers.{LAYERS}.{name}.weight": torch.randn(shape).bfloat16() for name, shape in shapes.items()}


def vision(folder: Path) -> dict[str, torch.Tensor]:
    names = ("vision_tower.encoder.blocks.0.wqkv.weight", "vision_tower.patch_embed.proj.bias", "mm_projector.proj.0.weight")
    return {name: torch.randn(6, 10).bfloat16() for name in names}


def rotary_frequencies(folder: Path) -> dict[str, torch.Tensor]:
    return {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.randn(8) for layer in range(LAYERS)}


CASES = {
    "multi-token prediction of DeepSeek-V3": ("deepseek_v3", {"num_nextn_predict_layers": 1, "quantization_config": FP8}, multi_token_prediction),
    "vision of Kimi K2.5": ("kimi_k25", {"quantization_config": INT4}, vision),
    "rotary frequencies of Kimi K2": ("kimi_k2", {"quantization_config": FP8}, rotary_frequencies),
}


@pytest.mark.parametrize("name", CASES)
def test_known_and_not_of_the_text_model(name: str, record_property: Record) -> None:
    model_type, keys, extra = CASES[name]
    case, tally = Case(published(model_type, SMALL | keys), "BF16", 20, 11), Tally()
    with written(case) as folder:
        weights = twin.read_weights(folder)
        before = logits_of(folder, ids_of(case))
        add_tensors(folder, extra(folder))
        after = logits_of(folder, ids_of(case))
    assert before.tobytes() == after.tobytes()
    tally.count(case)
    compare(case, after, twin.run(plain_twin(case.text, weights), ids_of(case)).logits, case.positions, tally)
    tally.finish(record_property)


@pytest.mark.parametrize("name", ["model.layers.1.self_attn.k_norm.weight", "vision_tower", "model.layers.1.mlp.experts.4.up_proj.weight"])
def test_unknown_tensors_are_refused_by_name(name: str) -> None:
    with written(Case(published("deepseek_v3", SMALL), "BF16", 1, 11)) as folder:
        add_tensors(folder, {name: torch.zeros(3, 3)})
        with pytest.raises(CheckpointError, match=rf"^tensor {name} in {EXTRA}"):
            formation.Engine(formation.open(folder), memory="64MiB", threads=1)
