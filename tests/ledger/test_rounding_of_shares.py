"""Contributions in a model as wide as the largest, recorded honestly: their sums close within the tolerance, where that of the terms alone refuses.

Rows are made of random numbers; the shares, and what is measured beside them, come from the probe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from formation.kernels import readout
from formation.ledger import rules
from formation.ledger.fields import COMPONENTS
from formation.ledger.gaps import TOLERANCE, Gap
from formation.ledger.lines import Place, Run, Shape
from formation.probe import step
from formation.probe.readout import final_scale

WIDTH, CHOSEN, LAYERS = 7168, 8, 2
SHAPE = Shape(layers=LAYERS, dense_layers=0, hidden=WIDTH, heads=1, experts=384, chosen=CHOSEN, vocabulary=163840)
RUN = Run("", "minimal", "standard", SHAPE, None, {})
ACROSS = (0.0, 0.99)  # how much of a row's share in y's logit is taken out of it: what is left of a sum shrinks, its rounding does not
F32 = np.float32


@dataclass(frozen=True)
class Recorded:
    """Values of a step: its embedding, its layers, its head"""

    embed: dict[str, Any]
    layers: list[dict[str, Any]]
    head: dict[str, Any]

    def gaps(self) -> Iterator[Gap]:
        """Of every closure, the step's first"""
        place = Place(RUN, 0, "generated", "lm_head", -1)
        inputs = {"arrival_layer": 0, "dla_logit": 0.0, "lm_head_rounding": 0.0, "chosen_logit": 0.0}
        yield from (gap for gap in rules.attribution(self.embed, self.layers, self.head | inputs, place) if gap.rule == rules.ATTRIBUTION)
        for n, layer in enumerate(self.layers):
            yield from rules.expert_closures(layer, self.head, replace(place, slot=f"layer {n}", layer=n))

    def terms(self) -> Iterator[list[float]]:
        """What each closure adds up"""
        yield [self.embed["dla"], *(layer[name] for layer in self.layers for name in rules.PARTS)]
        for layer in self.layers:
            for c in COMPONENTS:
                yield [*layer[f"dla{c}_experts"], layer[f"dla{c}_shared"], layer[f"dla{c}_combination_rounding"]]


def recorded(seed: int, across: float) -> Recorded:
    """`across`: see ACROSS"""
    random = np.random.default_rng(seed)

    def row(scale: float) -> np.ndarray:
        made = random.standard_normal(WIDTH) * scale
        return (made - across * (made @ d) / (d @ d) * d).astype(F32)

    weight = (1 + random.standard_normal(WIDTH) / 8).astype(F32)
    w = {c: random.standard_normal(WIDTH) / 50 for c in COMPONENTS}
    d = w[""] * weight
    start = x = row(1.0)
    layers, measured = [], []
    for _ in range(LAYERS):
        a, writes, shared = row(2.0), np.stack([row(scale) for scale in np.geomspace(0.01, 4, CHOSEN)]), row(1.0)
        m = np.add.accumulate(np.stack([*writes, shared]), dtype=F32)[-1]
        u = x + a
        after = u + m
        layers.append((x, step.StepLayer(a, u, m, after, writes, shared)))
        measured.append(norms(attention_write=a, mlp_write=m, residual=after, shared_write=shared))
        measured[-1]["expert_write_norms"] = readout.norms(writes, threads=1).tolist()
        x = after
    aim = step.Target(w, weight, final_scale(x, 1e-6))
    embed = step.embed_attribution(start, aim) | norms(residual=start)
    values = [more | step.layer_attribution(before, layer, aim) | {"lens_rank": 1} for more, (before, layer) in zip(measured, layers, strict=True)]
    return Recorded(embed, values, step.head_attribution(x, aim) | {"final_scale": aim.scale})


def norms(**rows: np.ndarray) -> dict[str, Any]:
    return {f"{name}_norm": float(readout.norms(row[None], threads=1)[0]) for name, row in rows.items()}


CASES = [(seed, across) for seed in range(24) for across in ACROSS]


@pytest.fixture(scope="module")
def steps() -> list[Recorded]:
    return [recorded(*case) for case in CASES]


def test_honest_contributions_close_at_any_width(steps: list[Recorded]) -> None:
    gaps = [gap for each in steps for gap in each.gaps()]
    assert len(CASES) * (1 + LAYERS * len(COMPONENTS)) == len(gaps)
    assert [] == [gap for gap in gaps if gap.violated]


def test_the_terms_alone_would_refuse_some_of_them(steps: list[Recorded]) -> None:
    pairs = [pair for each in steps for pair in zip(each.gaps(), each.terms(), strict=True)]
    refused = {gap.rule for gap, terms in pairs if gap.size > TOLERANCE * sum(map(abs, terms))}
    assert {rules.ATTRIBUTION, rules.EXPERTS} == refused


def test_a_share_moved_by_a_billionth_is_caught(steps: list[Recorded]) -> None:
    for each in steps[:: len(ACROSS)]:  # with nothing taken out
        assert moved(each, "dla_attention", 0, rules.ATTRIBUTION)
        for c in COMPONENTS:
            assert moved(each, f"dla{c}_experts", int(np.argmax(np.abs(each.layers[1][f"dla{c}_experts"]))), rules.EXPERTS)


def moved(recorded: Recorded, name: str, at: int, rule: str) -> bool:
    """Whether the rule is violated when one share of the last layer (number `at` of several) is a billionth larger"""
    value = recorded.layers[-1][name]
    changed = [v * (1 + 1e-9 * (i == at)) for i, v in enumerate(value)] if isinstance(value, list) else value * (1 + 1e-9)
    broken = replace(recorded, layers=[*recorded.layers[:-1], recorded.layers[-1] | {name: changed}])
    return any(gap.violated for gap in broken.gaps() if gap.rule == rule)


def test_the_tolerance_covers_the_largest_rounding_that_the_arithmetic_can_make(steps: list[Recorded]) -> None:
    """Each share is within γ_n |d| |c| / r of the exact one, n = D/16 + 5 (Higham, Accuracy and Stability of Numerical Algorithms, 3.1)"""
    n = WIDTH // 16 + 5
    gamma = n * 2.0**-53 / (1 - n * 2.0**-53)
    for each in steps:
        layer, slope = each.layers[0], each.head["direction_norm_centred"] / each.head["final_scale"]
        sizes = [layer["mlp_write_norm"], *layer["expert_write_norms"], layer["shared_write_norm"]]
        found = rules.share_roundings(each.head, "_centred", sizes, Place(RUN, 0, "generated", "layer 0", 0))
        assert found > (1 + 2.0**-15) * gamma * slope * sum(sizes)  # norms are binary32
