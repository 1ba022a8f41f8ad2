"""Norms and attention: one value that is changed is noticed; rows and weights as they come, of many sizes and cancellations, are not refused, with
room to spare."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_ledger import at, edited, f32, with_vector
from test_sum_rules import LAYER, LEDGER, STEP, broken_rules, plus

from formation.kernels.tensor import F32
from formation.ledger import attention, canonical, norms
from formation.ledger.attention import ATTENTION
from formation.ledger.gaps import Gap
from formation.ledger.lines import Place, Run, Shape
from formation.ledger.norms import NORMS
from formation.probe import readout

# rule, slot, field, edit
EDITS: list[tuple[str, str, str, Callable[[Any], Any]]] = [
    *((NORMS, LAYER, f"{name}_norm", lambda v: f32(1.001 * v)) for name in ("attention_write", "after_attention", "mlp_write", "residual")),
    *((NORMS, LAYER, name, lambda v: -v) for name in ("attention_write_norm", "after_attention_norm", "attention_cosine", "mlp_projection")),
    *((NORMS, LAYER, name, lambda v: {"absent": "zero norm"}) for name in ("attention_cosine", "mlp_projection", "shared_write_cosine")),
    (NORMS, "embed", "residual_norm", lambda v: f32(20 * v)),
    (NORMS, "embed", "residual_norm", lambda v: -v),
    (NORMS, LAYER, "residual_largest", lambda v: f32(v / 8)),
    (NORMS, LAYER, "residual_largest", lambda v: f32(v * 8)),
    (NORMS, LAYER, "attention_projection", plus(1e-4)),
    (NORMS, LAYER, "mlp_cosine", lambda v: 1 + 2.0**-40),
    (NORMS, LAYER, "expert_output_norms", with_vector(lambda v: v.__setitem__(0, 1.001 * v[0]))),
    (NORMS, LAYER, "expert_output_norms", with_vector(lambda v: v.__setitem__(1, -v[1]))),
    (NORMS, LAYER, "expert_write_norms", with_vector(lambda v: v.__setitem__(1, 1.001 * v[1]))),
    (NORMS, LAYER, "expert_write_cosines", lambda v: [v[0] + 1e-3, v[1]]),
    (NORMS, LAYER, "expert_write_cosines", lambda v: [v[0], -1 - 2.0**-40]),
    (NORMS, LAYER, "expert_write_cosines", lambda v: {"absent": "zero norm"}),
    (NORMS, LAYER, "shared_write_norm", lambda v: f32(1.001 * v)),
    (NORMS, LAYER, "shared_write_cosine", lambda v: v + 1e-3),
    (NORMS, "lm_head", "final_scale", lambda v: 0.999 * v),
    (ATTENTION, LAYER, "attention_entropy", lambda v: math.log(2) + 1e-5),
    (ATTENTION, LAYER, "attention_entropy", lambda v: -1e-5),
    (ATTENTION, LAYER, "attention_entropy", plus(2.0**-50)),
    (ATTENTION, LAYER, "attention_entropies", lambda v: [v[0] + 2.0**-50, v[1]]),
    (ATTENTION, LAYER, "attention_strongest", lambda v: v[::-1]),
    (ATTENTION, LAYER, "attention_strongest", lambda v: [v[0], *v[:-1]]),
    (ATTENTION, LAYER, "attention_strongest", lambda v: [dict(v[0], weight=1.5), *v[1:]]),
    (ATTENTION, LAYER, "attention_strongest", lambda v: [*v[:-1], dict(v[-1], weight=-1)]),
    (ATTENTION, LAYER, "attention_strongest", lambda v: [*v[:-1], dict(v[-1], head=1 - v[-1]["head"])]),
    (ATTENTION, LAYER, "attention_strongest_by_head", lambda v: [v[1], v[0], *v[2:]]),
    (ATTENTION, LAYER, "attention_strongest_by_head", lambda v: [*v[2:], *v[:2]]),
    (ATTENTION, LAYER, "attention_strongest_by_head", lambda v: [*v[:-1], dict(v[-1], weight=v[-1]["weight"] / 2)]),
]


@pytest.mark.parametrize(("rule", "slot", "name", "edit"), EDITS, ids=[f"{e[0]}: {e[2]} of {e[1]} {i}" for i, e in enumerate(EDITS)])
def test_a_changed_value_is_noticed(rule: str, slot: str, name: str, edit: Callable[[Any], Any]) -> None:
    found = broken_rules(edited(LEDGER, STEP, slot, name, edit))[rule]
    assert f"at position {STEP}" in found.where
    assert found.worst_gap > found.tolerance


def test_weights_that_agree_with_each_other_must_make_one() -> None:
    """At position 1 every weight of both heads is listed, twice"""
    rows = [[{"head": h, "position": p, "weight": w} for p, w in enumerate(row)] for h, row in enumerate(((0.75, 0.25), (0.5, 0.375)))]
    values = {
        "attention_strongest": [rows[0][0], *rows[1], rows[0][1]], "attention_strongest_by_head": [*rows[0], *rows[1]],
        "attention_entropies": [0.625, math.log(2)], "attention_entropy": (0.625 + math.log(2)) / 2,
    }  # fmt: skip
    broken = LEDGER
    for name, value in values.items():
        broken = edited(broken, STEP, LAYER, name, lambda _, value=value: value)
    found = broken_rules(broken)[ATTENTION]
    assert ("sum of attention weights in layer 1 at position 1", 0.125) == (found.where, found.worst_gap)


@pytest.mark.parametrize(("less", "holds"), [(-1e-12, True), (1e-5, False)])
def test_a_head_cannot_be_less_uncertain_than_its_largest_weight_says(less: float, holds: bool) -> None:
    line = at(LEDGER, STEP, LAYER)["measured"]
    largest, entropies = line["attention_strongest"][0], list(line["attention_entropies"])
    entropies[largest["head"]] = -math.log(largest["weight"]) - less
    one = edited(LEDGER, STEP, LAYER, "attention_entropies", lambda _: entropies)
    assert holds is (ATTENTION not in broken_rules(edited(one, STEP, LAYER, "attention_entropy", lambda _: (entropies[0] + entropies[1]) / 2)))


# ---- as they come

widths = st.sampled_from([1, 3, 16, 40, 1024, 7168])
seeds = st.integers(0, 2**32)
NO_SHARED = {name: {"absent": "no shared expert"} for name in ("shared_output_norm", "shared_write_norm", "shared_gate", "shared_write_cosine")}
ROOM = 0.5  # of what is allowed, at most used


def place(position: int = 0, **sizes: int) -> Place:
    shape = {"layers": 1, "dense_layers": 0, "hidden": 1, "heads": 1, "experts": 9, "chosen": 1, "vocabulary": 9} | sizes
    return Place(Run("ab" * 32, "full", "full", Shape(**shape), None, {}), position, "generated", "layer 0", 0)


def row(random: np.random.Generator, width: int) -> F32:
    """Gaussian; of numbers of all sizes; one that towers; all of one size; all equal; one that is not zero; tiny; none"""
    plain, kind = random.standard_normal(width), random.integers(8)
    if kind == 1:
        plain *= 10.0 ** random.uniform(-6, 4, width)
    if kind == 2:
        plain[random.integers(width)] = 1e5
    if kind == 3:
        plain = np.sign(plain) * random.uniform(0.5, 2)
    if kind == 4:
        plain = np.full(width, random.uniform(0.5, 2))
    if kind >= 5:
        plain = np.where(np.arange(width) == random.integers(width), plain, 0) if kind == 5 else plain * (1e-37 if kind == 6 else 0)
    return np.asarray(plain * 10.0 ** random.uniform(-3, 3), np.float32)


def against(random: np.random.Generator, other: F32) -> F32:
    """A row that takes most of the other away"""
    return np.asarray(-other * np.float32(1 + 10.0 ** random.uniform(-7, 0)), np.float32)


def cell(seed: int, width: int, chosen: int) -> tuple[float, dict[str, Any]]:
    """The norm of x, and what is recorded of a layer's rows"""
    random = np.random.default_rng(seed)
    x, outputs, gates = row(random, width), np.stack([row(random, width) for _ in range(chosen)]), random.random(chosen, np.float32) * np.float32(2.8)
    a = against(random, x) if random.random() < 0.3 else row(random, width)
    writes, u = readout.gated(outputs, gates), x + a
    total = writes.sum(axis=0, dtype=np.float32)
    output = [row(random, width), against(random, total), against(random, u) - total, None][random.choice([0, 1, 2, 3])]
    gate = random.random(1, np.float32) if random.random() < 0.5 else None
    shared = output if output is None or gate is None else gate * output
    m = np.zeros(width, np.float32)
    for write in writes if shared is None else [*writes, shared]:
        m = m + write
    after = u + m
    values = readout.row_values(a, u, m, after) | readout.share_values(a, m, after) | readout.expert_values(outputs, writes, m)
    values |= NO_SHARED if output is None or shared is None else readout.shared_values(output, gate, shared, m)
    vectors = {name: canonical.values_f32(canonical.decode_f32(values[name])) for name in ("expert_output_norms", "expert_write_norms")}
    return readout.embed_values(x)["residual_norm"], values | vectors | {"gates": gates.tolist()}


def holds(gap: Gap) -> bool:
    return gap.size <= ROOM * gap.tolerance if gap.tolerance else not gap.violated


@settings(max_examples=120, deadline=None)
@given(seeds, widths, st.sampled_from([1, 2, 8]))
def test_rows_as_they_come_have_norms_that_fit(seed: int, width: int, chosen: int) -> None:
    x, values = cell(seed, width, chosen)
    assert [] == [gap for gap in norms.of_cell(x, values, place(hidden=width, chosen=chosen)) if not holds(gap)]


@settings(max_examples=80, deadline=None)
@given(seeds, widths)
def test_the_scale_of_a_row_is_no_less_than_its_norm_says(seed: int, width: int) -> None:
    x = row(np.random.default_rng(seed), width)
    found = norms.of_scale(readout.embed_values(x)["residual_norm"], readout.final_scale(x, 1e-6), place(hidden=width))
    assert found.size <= ROOM * found.tolerance


@settings(max_examples=80, deadline=None)
@given(seeds, st.integers(1, 4), st.sampled_from([1, 2, 3, 9, 64, 3000]), st.sampled_from([0.0, 0.1, 3.0, 40.0]))
def test_softmaxes_as_they_come_have_weights_and_entropies_that_fit(seed: int, heads: int, keys: int, spread: float) -> None:
    scores = np.asarray(np.random.default_rng(seed).standard_normal((heads, keys)) * spread, np.float32)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True), dtype=np.float32)
    sums = np.array([sum_in_lanes(each) for each in powers], np.float32)
    values = readout.attention_values(np.ascontiguousarray(powers / sums[:, None]), by_head=True)
    assert [] == [gap for gap in attention.of_line(values, place(keys - 1, heads=heads)) if not holds(gap)]


def sum_in_lanes(values: F32) -> np.float32:
    """As rule 2 of the contract adds"""
    lanes = np.zeros(16, np.float32)
    for begin in range(0, len(values), 16):
        lanes[: len(values[begin : begin + 16])] += values[begin : begin + 16]
    while len(lanes) > 1:
        lanes = lanes[::2] + lanes[1::2]
    return np.float32(lanes[0])


def test_a_layer_that_says_nothing_of_attention_is_held_against_nothing() -> None:
    assert [] == list(attention.of_line({}, place()))
    assert [] == list(attention.of_line({"attention_strongest": {"absent": "of another kind"}}, place()))


@pytest.mark.parametrize("row_norm", [0.0, -1.0, 2.0**53 - 1])
def test_norms_of_nothing_end_the_rule_with_results(row_norm: float) -> None:
    values: dict[str, Any] = {f"{name}_norm": row_norm for name in ("attention_write", "after_attention", "mlp_write", "residual")}
    values |= {f"{write}_{what}": 2.0**53 - 1 for write in ("attention", "mlp") for what in ("cosine", "projection")}
    values |= {"residual_largest": row_norm, "expert_write_norms": {"absent": "dense layer"}}
    assert any(gap.violated for gap in norms.of_cell(row_norm, values, place(hidden=7168)))
