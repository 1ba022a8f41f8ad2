"""Attacks on routing by whoever holds the right key: experts, scores and gates that do not follow from the router's logits, and gates beyond one.
What a committed row would tell too is tried without rows: a bundle need not have any.
"""

from __future__ import annotations

from typing import Any

from formation.certify.attack import RECORDER, Group, NotApplicable
from formation.certify.forgery import Forgery, Line, f32_text, f32s, tag_of, value_in
from formation.certify.on_values import experts_layer, f32_step, recomputed, router
from formation.exact32 import f32
from formation.ledger.routing import gates_of

GROUP = Group("routing")
attack = GROUP.attack


def unrowed(f: Forgery, slot: str, **values: Any) -> None:
    """Values of the first step's layer, in a bundle without rows"""
    step = f.step(f.scene.steps[0])
    for name, value in values.items():
        step[slot][tag_of(step[slot], name)][name] = value
    f.derive(step)
    f.drop_rows()
    f.seal()


def routing(f: Forgery) -> tuple[str, Line]:
    slot = experts_layer(f)
    return slot, f.line(f.scene.steps[0], slot)


ROWS_OF_EXPERTS = ("logits", "scores", "selection")


@attack(RECORDER, "choice")
def runner_up_listed_twice(f: Forgery) -> None:
    """an expert is listed twice among the runners-up, so that another need not be shown"""
    slot, line = routing(f)
    refused = value_in(line, "runners_up")
    if len(refused) < 2:
        raise NotApplicable("there are fewer than two runners-up")
    names = [f"runner_up_{name}" for name in (*ROWS_OF_EXPERTS, *(("biases",) if router(f).biased else ()))]
    rows = {name: f32s(value_in(line, name)) for name in names}
    unrowed(f, slot, runners_up=[refused[0], refused[0], *refused[2:]], **{n: f32_text([r[0], r[0], *r[2:]]) for n, r in rows.items()})


@attack(RECORDER, "choice")
def wrong_expert(f: Forgery) -> None:
    """an expert that was refused stands among the chosen, with its own scores; gates follow"""
    slot, line = routing(f)
    chosen, refused = list(value_in(line, "chosen")), list(value_in(line, "runners_up"))
    if not refused:
        raise NotApplicable("all experts are chosen")
    chosen[0], refused[0] = refused[0], chosen[0]
    order = sorted(range(len(chosen)), key=chosen.__getitem__)
    values: dict[str, Any] = {"chosen": sorted(chosen), "runners_up": refused}
    for name in (*ROWS_OF_EXPERTS, *(("biases",) if router(f).biased else ())):
        ins, outs = f32s(value_in(line, f"chosen_{name}")), f32s(value_in(line, f"runner_up_{name}"))
        ins[0], outs[0] = outs[0], ins[0]
        values |= {f"chosen_{name}": f32_text(ins[n] for n in order), f"runner_up_{name}": f32_text(outs)}
    unrowed(f, slot, **values)


@attack(RECORDER, "scores")
def router_logit_that_gives_no_such_score(f: Forgery) -> None:
    """the last runner-up's logit is smaller by 1, its score stays"""
    if router(f).softmax:
        raise NotApplicable("a softmax needs all logits")
    slot, line = routing(f)
    found = f32s(value_in(line, "runner_up_logits"))
    unrowed(f, slot, runner_up_logits=f32_text([*found[:-1], f32(found[-1] - 1.0)]))


@attack(RECORDER, "scores")
def scores_of_another_total(f: Forgery) -> None:
    """all scores of a softmax that are listed are too small by one factor, as if other experts had the rest; selection and gates follow"""
    settings = router(f)
    if not settings.softmax or settings.biased or settings.groups > 1:
        raise NotApplicable("the scores are not those of one softmax alone")
    slot, line = routing(f)
    factor = 0.5 ** (f.scene.run.shape.experts.bit_length() + 2)  # more than all others together could have
    names = [f"{prefix}_{name}" for prefix in ("chosen", "runner_up") for name in ("scores", "selection") if f"{prefix}_{name}" in line["measured"]]
    rows = {name: [s * factor for s in f32s(value_in(line, name))] for name in names}
    unrowed(f, slot, gates=f32_text(gates_of(rows["chosen_scores"], settings)), **{name: f32_text(row) for name, row in rows.items()})


@attack(RECORDER, "scores")
def another_bias(f: Forgery) -> None:
    """a chosen expert's bias is not the one in the first line"""
    if not router(f).biased:
        raise NotApplicable("the router has no bias")
    slot, line = routing(f)
    unrowed(f, slot, chosen_biases=f32_text([f32(b + 0.5) for b in f32s(value_in(line, "chosen_biases"))]))


@attack(RECORDER, "gates")
def gate_one_step_off(f: Forgery) -> None:
    """a gate is one binary32 step off; their sum follows"""
    slot, line = routing(f)
    first, *rest = f32s(value_in(line, "gates"))
    recomputed(f, f.scene.steps[0], {slot: {"gates": f32_text([f32_step(first, 0.0), *rest])}})


@attack(RECORDER, "gates")
def gates_from_selection(f: Forgery) -> None:
    """the gates weigh by what selects, bias included: a known published error"""
    settings = router(f)
    if not settings.biased or not settings.normalise:
        raise NotApplicable("selection and scores are the same")
    slot, line = routing(f)
    found = f32s(value_in(line, "chosen_selection"))
    gates = f32_text([f32(c / sum(found) * settings.scale) for c in found])
    recomputed(f, f.scene.steps[0], {slot: {"gates": gates}})


# ---- gates that are no expert's


@attack(RECORDER, "gates")
def shared_gate_beyond_one(f: Forgery) -> None:
    """the shared expert's gate is 2, and its write as long as before: its output is said to be half of that"""
    slot, line = routing(f)
    write = value_in(line, "shared_write_norm")
    if not router(f).shared_gated:
        raise NotApplicable("the shared expert has no gate")
    recomputed(f, f.scene.steps[0], {slot: {"shared_gate": 2.0, "shared_output_norm": write / 2}})


@attack(RECORDER, "gates")
def delta_layer_that_remembers_more_than_all(f: Forgery) -> None:
    """the largest decay of a delta layer's heads is above 1: its state grows by itself"""
    if "delta" not in f.scene.run.kinds:
        raise NotApplicable("the model has no delta layer")
    f.change(f.scene.steps[0], f"layer {f.scene.run.kinds.index('delta')}", delta_decay_max=1.5)
    f.seal()
