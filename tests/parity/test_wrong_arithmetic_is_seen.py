"""The comparison itself: each of these slips, put into Formation, must break parity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")

import torch
from parity_cases import SMALL, Case, published
from parity_measure import Tally, margins, measure

from formation.kernels import ops
from formation.model import latent_attention
from formation.model.rope import Rope

CASE = Case(
    published("deepseek_v3", SMALL | {
        "n_routed_experts": 12, "n_group": 3, "topk_group": 2, "rms_norm_eps": 1e-2,
        "rope_scaling": SMALL["rope_scaling"] | {"mscale": 0.707},
    }),
    "BF16", 24, 2,
)  # fmt: skip


def router(**slip: Any) -> Callable[[pytest.MonkeyPatch], None]:
    route = ops.route
    return lambda patch: patch.setattr(ops, "route", lambda r, logits, bias, **k: route(replace(r, **slip), logits, bias, **k))


def unbiased(patch: pytest.MonkeyPatch) -> None:
    route = ops.route
    patch.setattr(ops, "route", lambda r, logits, bias, **k: route(r, logits, None, **k))


def turned_backwards(patch: pytest.MonkeyPatch) -> None:
    rotate = ops.rope_interleaved
    patch.setattr(ops, "rope_interleaved", lambda x, cos, sin, **k: rotate(x, cos, -sin, **k))


SLIPS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "inner norms with rms_norm_eps": lambda patch: patch.setattr(latent_attention, "INNER_NORM_EPS", 1e-2),
    "softmax scale without YaRN": lambda patch: patch.setattr(Rope, "score_factor", property(lambda self: 1.0)),
    "rotary tables without their factor": lambda patch: patch.setattr(Rope, "table_factor", property(lambda self: 1.0)),
    "rotation backwards": turned_backwards,
    "groups by their best expert": router(group_top2=False),
    "all groups": router(kept_groups=3),
    "gates as scored": router(normalise=False),
    "gates without the scaling factor": router(scale=1.0),
    "softmax scores": router(softmax=True),
    "selection without the bias": unbiased,
}


def test_without_a_slip_the_case_passes() -> None:
    measure(CASE, Tally())


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_breaks_parity(slip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    SLIPS[slip](monkeypatch)
    with pytest.raises(AssertionError):
        measure(CASE, Tally())


@pytest.mark.parametrize(
    "method,margin",
    [
        ("greedy", 0.5),  # 6 5.5 | 5
        ("group_limited_greedy", 0.5),  # groups 6, 5.5 | 5; then 6 5.5 | 1.25
        ("noaux_tc", 0.25),  # groups 6 + 1, 5 + 2.5 | 5.5 + 1.25; then 6 5 | 2.5
    ],
)
def test_router_margins_by_hand(method: str, margin: float) -> None:
    text = {"topk_method": method, "n_group": 3, "topk_group": 2, "num_experts_per_tok": 2}
    assert margins(text, torch.tensor([[6.0, 1.0, 2.5, 5.0, 1.25, 5.5]])).tolist() == [margin]
