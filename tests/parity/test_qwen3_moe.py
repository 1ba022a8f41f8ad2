"""Parity of Qwen3 with experts with transformers (binary32, eager), every dimension and option drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")

import parity_twin as twin
from hypothesis import strategies as st
from parity_cases import Case, one_of
from parity_measure import Record, Tally, examine, measure
from tools.synthetic_checkpoint import FP8

from formation.kernels import ops
from formation.model.linear import Modules
from formation.model.moe import MixtureOfExperts

SMALL = {
    "model_type": "qwen3_moe", "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 40, "moe_intermediate_size": 32,
    "vocab_size": 160, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "rope_theta": 1e6, "rope_scaling": None, "num_experts": 12,
    "num_experts_per_tok": 3, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [0], "attention_bias": False,
    "use_sliding_window": False, "sliding_window": None, "max_window_layers": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Qwen3Case(Case):
    @property
    def text(self) -> Mapping[str, Any]:
        return {**self.config, **twin.ROUTER}

    def features(self) -> dict[str, str]:
        config = self.config
        rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
        return {
            "model_type": str(config["model_type"]),
            "plain dtype": self.plain,
            "dense layers": f"{len(config['mlp_only_layers'])}, step {config['decoder_sparse_step']}",
            "heads per key": str(config["num_attention_heads"] // config["num_key_value_heads"]),
            "rope": "yarn" if "factor" in rope else "plain",
            "gates": "normalised" if config["norm_topk_prob"] else "as scored",
            "head": "tied" if config["tie_word_embeddings"] else "own",
        }


def rotary(draw: st.DrawFn) -> dict[str, Any]:
    theta, scaling = one_of(draw, (1e6, 10000)), None
    if one_of(draw, (False, True)):
        scaling = {"rope_type": "yarn", "factor": one_of(draw, (4.0, 1.5)), "original_max_position_embeddings": one_of(draw, (64, 16, 256))}
    if one_of(draw, (True, False)):
        return {"rope_theta": theta, "rope_scaling": scaling}
    return {"rope_parameters": ({"rope_type": "default"} if scaling is None else scaling) | {"rope_theta": theta}}


def dense(draw: st.DrawFn) -> dict[str, Any]:
    """Layers without experts, as many as can be first."""
    layers, step = one_of(draw, ((3, 1), (4, 1), (2, 2), (1, 1), (3, 3), (2, 3)))
    listed = list(range(one_of(draw, range(layers + 1)))) if step == 1 else []
    return {"num_hidden_layers": layers, "decoder_sparse_step": step, "mlp_only_layers": listed, "intermediate_size": one_of(draw, (40, 64))}


@st.composite
def qwen3_cases(draw: st.DrawFn) -> Qwen3Case:
    experts, groups = one_of(draw, (12, 16, 5, 1)), one_of(draw, (2, 1, 3))
    keys = {
        "model_type": "qwen3_moe", "hidden_size": one_of(draw, (104, 64, 50, 33)), "vocab_size": one_of(draw, (257, 160, 97)),
        "max_position_embeddings": 4096, "rms_norm_eps": one_of(draw, (1e-6, 1e-2)), "hidden_act": "silu",
        "tie_word_embeddings": draw(st.booleans()), "moe_intermediate_size": one_of(draw, (32, 37, 20)), "num_experts": experts,
        "num_experts_per_tok": one_of(draw, range(min(8, experts), 0, -1)), "norm_topk_prob": one_of(draw, (True, False)),
        "num_key_value_heads": groups, "num_attention_heads": groups * one_of(draw, (2, 1, 4)), "head_dim": one_of(draw, (32, 24, 6)),
        **dense(draw), **rotary(draw),
    }  # fmt: skip
    plain = one_of(draw, ("BF16", "F32", "F16"))
    return Qwen3Case(keys, plain, one_of(draw, (33, 70, 17, 7, 2, 1)), draw(st.integers(0, 1 << 16)))


def test_any_configuration(record_property: Record) -> None:
    examine(qwen3_cases(), 16, record_property, start=91, make_twin=twin.build_qwen)


def test_hundreds_of_positions(record_property: Record) -> None:
    tally = Tally()
    measure(Qwen3Case(SMALL, "BF16", 400, 5), tally, twin.build_qwen)
    tally.finish(record_property)


def test_fp8_blocks(record_property: Record) -> None:
    tally = Tally()
    measure(Qwen3Case(SMALL | {"quantization_config": FP8}, "BF16", 40, 6), tally, twin.build_qwen)
    tally.finish(record_property)


# ---- the comparison itself: each of these slips, put into Formation, must break parity


def around(patch: pytest.MonkeyPatch, module: Any, name: str, changed: Callable[..., Any]) -> None:
    original = getattr(module, name)
    patch.setattr(module, name, lambda *a, **k: changed(original, *a, **k))


def of_router(**slip: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda p: around(p, MixtureOfExperts, "route", lambda route, self, *a: route(replace(self, router=replace(self.router, **slip)), *a))


SLIPS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "norm weights as if stored minus one": lambda p: around(p, Modules, "norm", lambda norm, self, *a, centred=False: norm(self, *a, centred=True)),
    "rotation of neighbours": lambda p: p.setattr(ops, "rope_halves", ops.rope_interleaved),
    "no rotation": lambda p: p.setattr(ops, "rope_halves", lambda x, cos, sin, threads: None),
    "another group's keys": lambda p: around(p, ops, "gqa_attend", lambda attend, q, *a, **k: attend(q[:, ::-1].copy(), *a, **k)[:, ::-1]),
    "sigmoid scores": of_router(softmax=False),
    "gates as scored": of_router(normalise=False),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_breaks_parity(slip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Qwen3Case(SMALL, "BF16", 24, 2)
    measure(case, Tally(), twin.build_qwen)
    SLIPS[slip](monkeypatch)
    with pytest.raises(AssertionError):
        measure(case, Tally(), twin.build_qwen)
