"""Attacks on values by whoever holds the right key: one lie at a time, with everything that follows from it made to agree, so that one rule is
left that tells. Where a committed row would tell too, the rows are left out: a bundle need not have any.
"""

from __future__ import annotations

import math
from functools import partial
from hashlib import sha256
from typing import Any

from formation.certify.attack import KEY, RECORDER, Group, NotApplicable
from formation.certify.forgery import Forgery, Line, f32s, tag_of, ulp, value_in
from formation.exact32 import f32
from formation.ledger.fields import Field
from formation.ledger.formulas import DERIVED
from formation.ledger.lines import Router

GROUP = Group("values")
attack = GROUP.attack


def last_layer(f: Forgery) -> str:
    return f"layer {f.scene.run.shape.layers - 1}"


def experts_layer(f: Forgery) -> str:
    if f.scene.run.router is None:
        raise NotApplicable("the model has no experts")
    return last_layer(f)


def router(f: Forgery) -> Router:
    if f.scene.run.router is None:
        raise NotApplicable("the model has no experts")
    return f.scene.run.router


def up(x: float) -> float:
    """The next binary64 number, towards 0 where that would be too large"""
    return math.nextafter(x, math.inf if abs(x) < 1e15 else 0.0)


def f32_step(x: float, towards: float) -> float:
    """The next binary32 number"""
    n = 2.0 ** (math.frexp(x)[1] - 24) if x else 2.0**-149
    return f32(x + n if towards > x else x - n)


# ---- what follows from the ledger


def derived_value(f: Forgery, field: Field) -> None:
    for position, slot in f.scene.slots:
        if slot.partition(" ")[0] == field.slot and position in f.scene.steps:
            line = f.line(position, slot)
            tag, found = "derived", line["derived"].get(field.name)
            if found is not None and not isinstance(found, dict):
                line[tag][field.name] = one_off(found, field.dtype, f.scene.run.shape.layers)
                f.put(line)
                f.seal()
                return
    raise NotApplicable(f"no step has {field.name}")


def one_off(found: Any, dtype: str, layers: int) -> Any:
    if dtype == "text":
        return "POSITIVE" if found != "POSITIVE" else "UNDERFLOW(float16)"
    if isinstance(found, list):
        return [up(found[0]), *found[1:]]
    return (found + 1) % layers if isinstance(found, int) and dtype == "int" else up(found)


for derived in DERIVED.values():
    made = partial(derived_value, field=derived)
    GROUP.add(f"derived value {derived.name}", KEY, f"{derived.name} is one step off, nothing else", "formulas", made)


def recomputed(f: Forgery, position: int, changed: dict[str, dict[str, Any]]) -> None:
    """Slot -> values that are changed in a step; what follows from them is derived anew, and all is signed"""
    step = f.step(position)
    for slot, values in changed.items():
        for name, value in values.items():
            step[slot][tag_of(step[slot], name)][name] = value
    f.derive(step)
    f.seal()


# ---- attribution, lens, ranks, entropy


@attack(RECORDER, "attribution")
def attribution_that_does_not_add_up(f: Forgery) -> None:
    """the embedding's contribution is larger by 1; sum and rounding follow"""
    position = f.scene.steps[0]
    recomputed(f, position, {"embed": {"dla": value_in(f.line(position, "embed"), "dla") + 1.0}})


@attack(RECORDER, "experts")
def expert_that_takes_the_credit(f: Forgery) -> None:
    """the first chosen expert's contribution is larger by 1, its layer's stays"""
    position, slot = f.scene.steps[0], experts_layer(f)
    line = f.line(position, slot)
    first, *rest = value_in(line, "dla_experts")
    f.change(position, slot, dla_experts=[first + 1.0, *rest])
    f.seal()


@attack(RECORDER, "lens")
def lens_of_another_head(f: Forgery) -> None:
    """the lens at the last layer gives the token one binary32 step more than the head did"""
    position, slot = f.scene.steps[0], last_layer(f)
    line = f.line(position, slot)
    found = value_in(line, "lens_logit")
    f.change(position, slot, lens_logit=f32_step(found, math.inf))
    f.seal()


@attack(RECORDER, "ranks")
def ranks_that_cross(f: Forgery) -> None:
    """the last rank that the token can have lies before the first"""
    position = f.scene.steps[0]
    f.change(position, "lm_head", rank_high=value_in(f.line(position, "lm_head"), "rank_low") - 1)
    f.seal()


@attack(RECORDER, "entropy")
def entropy_below_zero(f: Forgery) -> None:
    """the mean logit is larger than log Σ exp z; entropies follow"""
    position = f.scene.steps[0]
    total = value_in(f.line(position, "lm_head"), "log_sum_exp")
    recomputed(f, position, {"lm_head": {"mean_logit": total + 1.0, "mean_square_logit": (total + 1.0) ** 2 + 1.0}})


@attack(RECORDER, "entropy")
def normaliser_below_the_largest_logit(f: Forgery) -> None:
    """log Σ exp z is smaller than the largest logit: probabilities above 1"""
    position = f.scene.steps[0]
    line = f.line(position, "lm_head")
    total = f32s(value_in(line, "top_logits"))[0] - 1.0
    recomputed(f, position, {"lm_head": {"log_sum_exp": total, "mean_logit": total - 0.5, "mean_square_logit": (total - 0.5) ** 2 + 1.0}})


# ---- the choice of the token


@attack(RECORDER, "draw")
def greedy_choice_of_the_second(f: Forgery) -> None:
    """the last token is the second best, with all its logits, ranks, lenses and contributions; the run is still called greedy"""
    if f.scene.frozen.sampler["method"] != "greedy":
        raise NotApplicable("the run is sampled")
    position = f.scene.steps[-1]
    step = f.step(position)
    second_best(step, last_layer(f))
    f.derive(step)
    f.seal()


def second_best(step: dict[str, Line], last: str) -> None:
    """In place, in the lines of a greedy step"""
    head = step["lm_head"]["measured"]
    first, second, *_ = f32s(head["top_logits"])
    if first == second:
        raise NotApplicable("the two largest logits are equal")
    step["token"]["measured"] = {"id": head["top"][1], "bytes": "4pyT"}
    head |= {"chosen_logit": second, "rank_low": 2, "rank_high": 1 + sum(z == second for z in f32s(head["top_logits"]))}
    if "exact_logit" not in step["lm_head"]["derived"]:
        return
    change = second - first
    step["embed"]["derived"]["dla"] += change
    step["lm_head"]["derived"]["exact_logit"] += change
    lens = step[last]["derived"]
    lens |= {"lens_logit": second, "lens_logprob": lens["lens_logprob"] + change, "lens_rank": 2}
    if not isinstance(lens["lens_runner_up_logit"], dict):
        lens |= {"lens_runner_up_logit": first, "lens_runner_up_logprob": lens["lens_runner_up_logprob"] - change, "lens_runner_up_rank": 1}


@attack(RECORDER, "draw")
def draw_outside_its_interval(f: Forgery) -> None:
    """the token's interval lies elsewhere, as wide as before; the draw is the generator's"""
    if f.scene.frozen.sampler["method"] != "sample":
        raise NotApplicable("the run is greedy")
    position = f.scene.steps[0]
    line = f.line(position, "sampler")
    low, high, draw = (value_in(line, name) for name in ("low", "high", "draw"))
    width = high - low
    begin = (draw + 1e-6) if draw + 1e-6 + width <= 1 else draw - width - 1e-6
    if not 0 <= begin < begin + width <= 1:
        raise NotApplicable("the interval is nearly all there is")
    f.change(position, "sampler", low=begin, high=begin + width)
    f.seal()


@attack(RECORDER, "sampler")
def draw_of_another_generator(f: Forgery) -> None:
    """the draw is one step off: a number that suits, and not the generator's"""
    if f.scene.frozen.sampler["method"] != "sample":
        raise NotApplicable("the run is greedy")
    position = f.scene.steps[0]
    line = f.line(position, "sampler")
    f.change(position, "sampler", draw=math.nextafter(value_in(line, "draw"), 1.0))
    f.seal()


def drawn(f: Forgery) -> tuple[int, Line]:
    """The first step, and its line of the sampler"""
    if f.scene.frozen.sampler["method"] != "sample":
        raise NotApplicable("nothing is drawn")
    return f.scene.steps[0], f.line(f.scene.steps[0], "sampler")


@attack(RECORDER, "draw")
def truncated_mass_that_is_not_the_rest(f: Forgery) -> None:
    """the filters are said to have cut off twice as much and a little, while as much is kept"""
    position, line = drawn(f)
    recomputed(f, position, {"sampler": {"truncated_mass": 2 * value_in(line, "truncated_mass") + 1e-3}})


@attack(RECORDER, "draw")
def token_more_likely_than_its_interval(f: Forgery) -> None:
    """what is left adds up to less, so that the token's probability is larger; the interval stays"""
    position, line = drawn(f)
    smaller = value_in(line, "sampler_log_sum_exp") - 1e-4
    recomputed(f, position, {"sampler": {"sampler_log_sum_exp": smaller, "sampler_mean": value_in(line, "sampler_mean") - 1e-4}})


@attack(RECORDER, "sampler")
def scores_of_another_temperature(f: Forgery) -> None:
    """all scores at the sampler's temperature are larger by 1, and their sum with them: every probability stays"""
    position, line = drawn(f)
    score, total, mean, square = (value_in(line, f"tempered_{name}") for name in ("score", "log_sum_exp", "mean", "mean_square"))
    moved = {"score": score + 1, "log_sum_exp": total + 1, "mean": mean + 1, "mean_square": square + 2 * mean + 1}
    recomputed(f, position, {"sampler": {f"tempered_{name}": value for name, value in moved.items()}})


@attack(RECORDER, "sampler")
def top_masses_rounded_up(f: Forgery) -> None:
    """the most likely tokens have a little more probability at the sampler's temperature"""
    position, line = drawn(f)
    recomputed(f, position, {"sampler": {"tempered_top_masses": [up(mass) for mass in value_in(line, "tempered_top_masses")]}})


@attack(RECORDER, "inputs")
def one_id_spelled_twice(f: Forgery) -> None:
    """a token that occurs again spells something else the second time"""
    seen: set[int] = set()
    for position in f.scene.steps:
        line = f.line(position, "token")
        if line["measured"]["id"] in seen:
            f.change(position, "token", bytes="AA==" if line["measured"]["bytes"] != "AA==" else "AQ==")
            return f.seal()
        seen.add(line["measured"]["id"])
    raise NotApplicable("no token occurs twice")


@attack(RECORDER, "inputs")
def one_id_embedded_twice(f: Forgery) -> None:
    """an id that occurs again has another embedding the second time; no rows are committed that would tell"""
    ids = f.scene.inputs
    again = next((n for n in range(len(ids)) if ids[n] in ids[:n]), None)
    if again is None:
        raise NotApplicable("no id occurs twice")
    f.change(again, "embed", residual_sha256="ab" * 32)
    f.drop_rows()
    f.seal()


# ---- committed rows


def rows_of(f: Forgery) -> list[str]:
    found = [name for name in f.files if name.startswith("rows/")]
    if not found:
        raise NotApplicable("the bundle has no rows/")
    return found


@attack(KEY, "rows")
def row_one_step_off(f: Forgery) -> None:
    """one number of a committed row is one binary32 step off; the line keeps its digest"""
    position, layer = f.scene.steps[0], f.scene.run.shape.layers
    f.set_row("rows", position, "residual", layer, ulp(f.row("rows", position, "residual", layer)))
    f.seal()


@attack(KEY, "rows")
def rows_of_two_positions_swapped(f: Forgery) -> None:
    """the rows of two positions change places"""
    a, b = 0, f.scene.steps[-1]
    rows = [f.row("rows", at, "residual", 1) for at in (a, b)]
    for at, row in zip((b, a), rows, strict=True):
        f.set_row("rows", at, "residual", 1, row)
    f.seal()


@attack(KEY, "rows")
def rows_without_router(f: Forgery) -> None:
    """rows/ is there and router/ is not"""
    f.layout("router")
    for name in [name for name in f.files if name.startswith("router/")]:
        del f.files[name]
    f.seal()


@attack(KEY, "rows")
def missing_challenged_row(f: Forgery) -> None:
    """the last position's rows are cut off"""
    name = max(rows_of(f))
    f.files[name] = f.files[name][: -f.layout("rows").position_bytes]
    f.seal()


@attack(KEY, "rows")
def row_header_that_lies(f: Forgery) -> None:
    """the header of a file of rows claims another type"""
    name = min(rows_of(f))
    f.files[name] = f.files[name].replace(b'"F32"', b'"I32"', 1)
    f.seal()


@attack(RECORDER, "addition")
def write_that_was_not_added(f: Forgery) -> None:
    """an attention write is another row, with its digest: x + a + m is not x' then"""
    position, layer = f.scene.steps[0], f.scene.run.shape.layers - 1
    if not any(name == "attention_write" for name, _, _ in f.layout("rows").tensors):
        raise NotApplicable("the writes were not kept")
    row = bytearray(f.row("rows", position, "attention_write", layer))
    row[3] ^= 0x40 if row[3] & 0x40 else 0x01
    f.set_row("rows", position, "attention_write", layer, bytes(row))
    f.change(position, last_layer(f), attention_write_sha256=sha256(bytes(row)).hexdigest())
    f.seal()


@attack(RECORDER, "all experts")
def router_row_that_selects_otherwise(f: Forgery) -> None:
    """the router's row of all logits is another one, with its digest; selection does not follow from it"""
    position, shape = f.scene.steps[0], f.scene.run.shape
    row = bytearray(f.row("router", position, "logits", shape.layers - 1 - shape.dense_layers))
    row[2] ^= 0x40
    f.set_row("router", position, "logits", shape.layers - 1 - shape.dense_layers, bytes(row))
    f.change(position, last_layer(f), router_logits_sha256=sha256(bytes(row)).hexdigest())
    f.seal()
