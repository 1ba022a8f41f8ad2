"""Parity of Qwen3-Next with transformers (binary32, eager, the library's own chunked delta rule), every dimension and option drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")

import numpy as np
import parity_twin as twin
import torch
from parity_checkpoints import add_tensors
from parity_measure import Record, Tally, examine, ids_of, logits_of, measure, written
from qwen3_next_cases import QwenCase, qwen_cases
from tools.synthetic_checkpoint import FP8

from formation.kernels import delta, ops
from formation.model import deltanet
from formation.model.deltanet import GatedDeltaNet
from formation.model.linear import Modules
from formation.model.moe import MixtureOfExperts

SMALL = {
    "model_type": "qwen3_next", "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 40, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32, "vocab_size": 160, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "hidden_act": "silu",
    "tie_word_embeddings": False, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "partial_rotary_factor": 0.25,
    "rope_theta": 1e7, "rope_scaling": None, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 24, "linear_conv_kernel_dim": 4, "full_attention_interval": 4, "num_experts": 12, "num_experts_per_tok": 3,
    "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "attention_bias": False, "use_sliding_window": False,
}  # fmt: skip


def test_any_configuration(record_property: Record) -> None:
    examine(qwen_cases(), 14, record_property, start=81, make_twin=twin.build_qwen)


def test_delta_layers_alone(record_property: Record) -> None:
    fixed = {"num_hidden_layers": 3, "layer_types": ["linear_attention"] * 3, "full_attention_interval": 4}
    examine(qwen_cases(**fixed), 3, record_property, start=82, make_twin=twin.build_qwen)


def test_attention_layers_alone(record_property: Record) -> None:
    fixed = {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2, "full_attention_interval": 1}
    examine(qwen_cases(**fixed), 3, record_property, start=83, make_twin=twin.build_qwen)


def test_hundreds_of_positions(record_property: Record) -> None:
    tally = Tally()
    measure(QwenCase(SMALL, "BF16", 400, 5), tally, twin.build_qwen)
    tally.finish(record_property)


def test_fp8_blocks(record_property: Record) -> None:
    tally = Tally()
    measure(QwenCase(SMALL | {"quantization_config": FP8}, "BF16", 40, 6), tally, twin.build_qwen)
    tally.finish(record_property)


def test_multi_token_prediction_changes_nothing() -> None:
    case = QwenCase(SMALL, "BF16", 20, 11)
    with written(case) as folder:
        before = logits_of(folder, ids_of(case))
        extra = {"mtp.fc.weight": (64, 128), "mtp.layers.0.self_attn.q_norm.weight": (32,), "mtp.layers.0.mlp.experts.0.up_proj.weight": (32, 64)}
        add_tensors(folder, {name: torch.randn(shape).bfloat16() for name, shape in extra.items()})
        assert before.tobytes() == logits_of(folder, ids_of(case)).tobytes()


def test_as_near_to_binary64_as_the_library_in_binary32() -> None:
    case = QwenCase(SMALL, "BF16", 200, 9)
    with written(case) as folder:
        weights, ours = twin.read_weights(folder), logits_of(folder, ids_of(case))
    model = twin.build_qwen(case.text, weights)
    single = twin.run(model, ids_of(case))
    double = twin.run(model.double(), ids_of(case))
    assert all((single.chosen[layer] == double.chosen[layer]).all() for layer in single.chosen)
    own, its = (float(np.abs(found - double.logits).max()) for found in (ours, single.logits))
    assert own < 2 * its, f"{own} against {its}"  # the library's own order of sums depends on the machine


# ---- the comparison itself: each of these slips, put into Formation, must break parity


def without(patch: pytest.MonkeyPatch, module: Any, name: str, changed: Callable[..., Any]) -> None:
    original = getattr(module, name)
    patch.setattr(module, name, lambda *a, **k: changed(original, *a, **k))


def delta_without_decay(original: Any, q: Any, k: Any, v: Any, decay: Any, *rest: Any, **k2: Any) -> Any:
    return original(q, k, v, decay * 0 + 1, *rest, **k2)


SLIPS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "a state that does not decay": lambda p: without(p, delta, "delta_rule", delta_without_decay),
    "q and k as they come": lambda p: p.setattr(delta, "l2norm", lambda x, eps, threads: x),
    "another epsilon of their norm": lambda p: p.setattr(deltanet, "UNIT_EPS", 1e-3),
    "the scale of q left out": lambda p: p.setattr(GatedDeltaNet, "scale", property(lambda self: 1.0)),
    "taps in the other order": lambda p: without(p, Modules, "taps", lambda taps, self, name: taps(self, name)[::-1].copy()),
    "norm weights as stored": lambda p: without(p, Modules, "norm", lambda norm, self, *a, centred=False: norm(self, *a)),
    "rotation of neighbours": lambda p: p.setattr(ops, "rope_halves", ops.rope_interleaved),
    "no rotation": lambda p: p.setattr(ops, "rope_halves", lambda x, cos, sin, threads: None),
    "attention without its gate": lambda p: p.setattr(ops, "sigmoid_mul", lambda gate, x, threads, out: x),
    "the shared expert without its gate": lambda p: p.setattr(ops, "sigmoid", lambda x: x * 0 + 1),
    "sigmoid scores": lambda p: without(p, MixtureOfExperts, "route", sigmoid_route),
}


def sigmoid_route(route: Any, self: Any, *arguments: Any) -> Any:
    return route(replace(self, router=replace(self.router, softmax=False)), *arguments)


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_breaks_parity(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = QwenCase(SMALL, "BF16", 24, 2)
    measure(case, Tally(), twin.build_qwen)
    SLIPS[name](monkeypatch)
    with pytest.raises(AssertionError):
        measure(case, Tally(), twin.build_qwen)
