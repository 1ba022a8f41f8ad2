"""The parts that training is fast by agree with their plain forms, and the model trained is transformers' model."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("safetensors")

from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.train_sample import kind
from tools.train_sample.export import export, round_to_export
from tools.train_sample.parts import Arrangement, GroupedExperts
from tools.train_sample.qwen3_next import tokens
from tools.train_sample.qwen3_next.delta import CHUNK, delta_rule, delta_rule_by_position
from tools.train_sample.qwen3_next.model import Sample
from tools.train_sample.qwen3_next.shape import Shape
from tools.train_sample.workers import Workers

SMALL = Shape(hidden_size=32, head_dim=16, linear_key_head_dim=8, linear_value_head_dim=12, num_experts=6, num_experts_per_tok=2)


@settings(deadline=None, max_examples=8)
@given(
    length=st.integers(1, 2 * CHUNK + 1),
    key=st.integers(1, 9),
    value=st.integers(1, 9),
    decay=st.sampled_from([0.0, 0.1, 30.0]),
    seed=st.integers(0, 99),
)
def test_the_delta_rule_in_chunks_is_the_one_by_position(length: int, key: int, value: int, decay: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    q, v = (torch.randn(2, 3, length, width, generator=random, dtype=torch.float64) for width in (key, value))
    k = torch.nn.functional.normalize(torch.randn(2, 3, length, key, generator=random, dtype=torch.float64), dim=-1)
    log_decay, beta = (torch.rand(2, 3, length, generator=random, dtype=torch.float64) for _ in range(2))
    inputs = (q, k, v, -decay * log_decay, beta)
    torch.testing.assert_close(delta_rule(*inputs), delta_rule_by_position(*inputs), rtol=1e-9, atol=1e-9)


def plain_experts(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """One token and one expert at a time."""
    rows = []
    for n, row in enumerate(x):
        gates = [torch.nn.functional.silu(gate_up[e, 0] @ row) * (gate_up[e, 1] @ row) for e in chosen[n]]
        rows.append(sum(weights[n, j] * (down[e] @ gates[j]) for j, e in enumerate(chosen[n])))
    return torch.stack(rows)


def test_grouped_experts_and_their_gradients_are_those_of_one_token_at_a_time() -> None:
    random = torch.Generator().manual_seed(1)
    shapes = ((70, 6), (5, 2, 3, 6), (5, 6, 3), (70, 2))  # of x, gate and up, down, weights
    inputs = [torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_() for shape in shapes]
    chosen = torch.stack([torch.randperm(4, generator=random)[:2] for _ in range(70)])  # the fifth expert is never chosen
    fast = GroupedExperts.apply(*inputs, Arrangement.of(chosen, torch.bincount(chosen.flatten(), minlength=5)))
    plain = plain_experts(*inputs, chosen)
    torch.testing.assert_close(plain, fast)
    towards = torch.randn(fast.shape, generator=random, dtype=torch.float64)
    for one, other in zip(torch.autograd.grad(plain, inputs, towards), torch.autograd.grad(fast, inputs, towards), strict=True):
        torch.testing.assert_close(one, other)


def test_workers_share_parameters_and_give_the_mean_gradient_of_their_parts() -> None:
    torch.manual_seed(2)
    model, ids = Sample(SMALL), torch.randint(0, tokens.ORDINARY, (4, 24))
    pair = Workers(model, 2)
    loss = pair.gradients(ids, ids)
    together = [parameter.grad.clone() for parameter in model.parameters()]
    apart = []
    for part in ids.chunk(2):
        model.zero_grad()
        apart.append(Workers(model, 1).gradients(part, part))
        for mean, parameter in zip(together, model.parameters(), strict=True):
            mean -= parameter.grad / 2
    assert loss == pytest.approx(sum(apart) / 2, rel=1e-5)
    assert max(float(rest.abs().max()) for rest in together) < 1e-6
    with torch.no_grad():
        model.norm.weight += 1
    assert torch.equal(model.norm.weight, pair.models[1].norm.weight)


def test_what_is_exported_is_what_transformers_runs(tmp_path: Path, qwen_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    monkeypatch.setattr("tools.train_sample.qwen3_next.published.Shape", lambda: SMALL)
    sample = kind.by_name("qwen3_next")
    model = Sample(SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    export(sample, model, qwen_folder, tmp_path)
    ids = torch.randint(0, tokens.ORDINARY, (2, 3 * CHUNK + 5))
    with torch.no_grad():
        torch.testing.assert_close(sample.reference(tmp_path)(ids).logits, round_to_export(model)(ids), rtol=0, atol=5e-5)
