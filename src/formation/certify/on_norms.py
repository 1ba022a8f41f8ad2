"""Attacks on norms, angles and attention by whoever holds the right key: lengths that no rows have together, weights that no softmax has."""

from __future__ import annotations

import math
from typing import Any

from formation.certify.attack import RECORDER, Group, NotApplicable
from formation.certify.forgery import Forgery, f32_text, f32s, value_in
from formation.certify.on_values import experts_layer, recomputed

GROUP = Group("norms")
attack = GROUP.attack


def changed(f: Forgery, slot: str, **values: Any) -> None:
    """Values of the first step, and what follows from them"""
    recomputed(f, f.scene.steps[0], {slot: values})


def attention_layer(f: Forgery) -> str:
    for slot in (f"layer {n}" for n in range(f.scene.run.shape.layers)):
        if isinstance(f.line(f.scene.steps[0], slot)["measured"].get("attention_strongest"), list):
            return slot
    raise NotApplicable("nothing is recorded of attention")


@attack(RECORDER, "norms")
def write_longer_than_its_row(f: Forgery) -> None:
    """an attention write of four times its length, which no sum of the rows around it has; shares follow"""
    changed(f, "layer 0", attention_write_norm=4 * value_in(f.line(f.scene.steps[0], "layer 0"), "attention_write_norm"))


@attack(RECORDER, "norms")
def cosine_beyond_one(f: Forgery) -> None:
    """a write lies along x' with a cosine of 1.5"""
    line = f.line(f.scene.steps[0], "layer 0")
    projection = 1.5 * value_in(line, "mlp_write_norm") / value_in(line, "residual_norm")
    changed(f, "layer 0", mlp_cosine=1.5, mlp_projection=projection)


@attack(RECORDER, "norms")
def expert_that_wrote_more_than_its_gate_lets(f: Forgery) -> None:
    """the first chosen expert's write is twice as long as its gate times its output"""
    slot = experts_layer(f)
    first, *rest = f32s(value_in(f.line(f.scene.steps[0], slot), "expert_write_norms"))
    changed(f, slot, expert_write_norms=f32_text([2 * first, *rest]))


@attack(RECORDER, "norms")
def experts_that_do_not_make_their_sum(f: Forgery) -> None:
    """the first chosen expert's write turns round: its cosine with the sum that it is part of"""
    slot = experts_layer(f)
    first, *rest = value_in(f.line(f.scene.steps[0], slot), "expert_write_cosines")
    changed(f, slot, expert_write_cosines=[-first, *rest])


@attack(RECORDER, "norms")
def scale_that_lets_attribution_be_off(f: Forgery) -> None:
    """the final scale is a millionth of a millionth of what the last row has, so that any contribution lies within its own rounding"""
    position = f.scene.steps[0]
    scale, logit = (value_in(f.line(position, "lm_head"), name) for name in ("final_scale", "exact_logit"))
    recomputed(f, position, {"lm_head": {"final_scale": scale * 2.0**-40, "exact_logit": logit + 1e-6}})


@attack(RECORDER, "attention")
def attention_in_another_order(f: Forgery) -> None:
    """the two largest attention weights change places"""
    first, second, *rest = value_in(f.line(f.scene.steps[0], attention_layer(f)), "attention_strongest")
    if first["weight"] == second["weight"]:
        raise NotApplicable("the two largest weights are equal")
    changed(f, attention_layer(f), attention_strongest=[second, first, *rest])


@attack(RECORDER, "attention")
def attention_beyond_its_positions(f: Forgery) -> None:
    """more uncertain than a choice among the positions so far can be"""
    changed(f, attention_layer(f), attention_entropy=math.log(f.scene.steps[0] + 1) + 1)


@attack(RECORDER, "attention")
def attention_of_more_than_one(f: Forgery) -> None:
    """the weights of one head make more than 1"""
    found = value_in(f.line(f.scene.steps[0], attention_layer(f)), "attention_strongest")
    changed(f, attention_layer(f), attention_strongest=[{**row, "weight": 1.0} for row in found])
