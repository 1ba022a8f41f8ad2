"""Each rule of the ledger holds of an honest one, and is violated, by name and place, by one that is broken on purpose."""

from __future__ import annotations

import copy
import math
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_ledger import KINDS, MAKERS, Line, Maker, at, edited, grouped, small_ledger, ulp_more, with_vector

from formation.ledger import canonical, derive, fields, formulas, routing, rules, sampling
from formation.ledger.gaps import RuleResult
from formation.ledger.lines import Place, read_run, vector

LEDGER = small_ledger()


def broken_rules(lines: list[Line]) -> dict[str, RuleResult]:
    return {result.rule: result for result in rules.violated(rules.check(lines, KINDS))}


def plus(x: float) -> Callable[[float], float]:
    return lambda value: value + x


# ---- honest ledgers


@pytest.mark.parametrize("name", MAKERS)
def test_an_honest_ledger_obeys_every_rule(name: str) -> None:
    lines = [canonical.decode(canonical.encode(line), limits=canonical.LINE) for line in MAKERS[name].lines()]
    results = rules.check(lines, KINDS)
    assert list(rules.RULES) == [result.rule for result in results]
    assert () == rules.violated(results)
    assert all(result.checked for result in results)


def test_a_rule_that_was_held_against_nothing_says_so() -> None:
    results = {result.rule: result.checked for result in rules.check([*LEDGER[:5]], KINDS[:1])}
    assert (5, 0, 0) == (results[rules.CENSUS], results[rules.ATTRIBUTION], results[sampling.DRAW])


@pytest.mark.parametrize("name", MAKERS)
def test_the_writer_derives_what_the_rules_ask_for(name: str) -> None:
    lines = MAKERS[name].lines()
    run = read_run(lines[0])
    bare = copy.deepcopy(lines)
    for line in bare:
        line["derived"] = {name: value for name, value in line["derived"].items() if name not in formulas.DERIVED}
    for position in range(len(KINDS)):
        derive.position([line for line in bare if line["position"] == position], run)
    assert () == rules.violated(rules.check(bare, KINDS))
    assert [set(line["derived"]) for line in lines] == [set(line["derived"]) for line in bare]


# ---- one value changed

STEP, LAYER = 1, "layer 1"
DRAWN, OF_SCORES = at(LEDGER, STEP, "sampler")["measured"], ("tempered", "sampler")
ZERO_KINDS = (("lm_head", ""), ("sampler", "tempered_"), ("sampler", "sampler_"))
EDITS: list[tuple[str, str, str, Callable[[Any], Any]]] = [
    # rule, slot, field, edit
    *((rules.FORMULAS, "lm_head", name, plus(2.0**-48)) for name in ("logprob", "surprisal_nats", "surprisal_bits", "varentropy")),
    *((rules.FORMULAS, "lm_head", name, plus(2.0**-48)) for name in ("entropy_nats", "top_margin", "dla_logit", "lm_head_rounding")),
    *((rules.FORMULAS, LAYER, name, plus(2.0**-48)) for name in ("gate_sum", "attention_relative", "mlp_relative")),
    (rules.FORMULAS, LAYER, "router_margin", plus(2.0**-48)),
    (rules.FORMULAS, LAYER, "residual_norm", lambda v: 2 * v),
    (rules.FORMULAS, LAYER, "mlp_relative", lambda v: {"absent": "zero norm"}),
    (rules.FORMULAS, "lm_head", "arrival_layer", lambda v: 0 if v != 0 else 1),
    (rules.FORMULAS, "lm_head", "log_sum_exp", plus(2.0**-40)),
    (rules.ATTRIBUTION, "embed", "dla", plus(1e-9)),
    *((rules.ATTRIBUTION, LAYER, name, plus(1e-9)) for name in formulas.PARTS),
    (rules.ATTRIBUTION, "lm_head", "exact_logit", plus(1e-9)),
    (rules.EXPERTS, LAYER, "dla_mlp", plus(1e-9)),
    (rules.EXPERTS, LAYER, "dla_experts", lambda v: [v[0], v[1] + 1e-9]),
    (rules.EXPERTS, LAYER, "dla_shared", plus(1e-9)),
    (rules.EXPERTS, LAYER, "dla_centred_combination_rounding", plus(1e-9)),
    (rules.EXPERTS, LAYER, "dla_runner_up_experts", lambda v: v[::-1][:1] * 2),
    (rules.LENS, "layer 2", "lens_logit", lambda v: 2 * v),
    (rules.LENS, "layer 2", "lens_rank", plus(1)),
    (rules.LENS, "layer 2", "lens_top", lambda v: [v[1], v[0], *v[2:]]),
    (rules.LENS, "layer 2", "lens_top_logits", ulp_more(0)),
    (rules.LENS, "layer 2", "lens_runner_up_logit", lambda v: 2 * v),
    *((routing.CHOICE, LAYER, "chosen", change) for change in (lambda v: v[::-1], lambda v: [v[0], v[0]])),
    (routing.CHOICE, LAYER, "runners_up", lambda v: [v[0], v[0], *v[2:]]),
    (routing.CHOICE, LAYER, "runners_up", lambda v: [at(LEDGER, STEP, LAYER)["measured"]["chosen"][0], *v[1:]]),
    (routing.CHOICE, LAYER, "runner_up_selection", with_vector(lambda v: v.reverse())),
    (routing.CHOICE, LAYER, "runner_up_selection", with_vector(lambda v: v.__setitem__(0, 2.0))),
    (routing.CHOICE, LAYER, "chosen_selection", with_vector(lambda v: v.__setitem__(1, -1.0))),
    (routing.SCORES, LAYER, "chosen_logits", with_vector(lambda v: v.__setitem__(0, v[0] + 2.0**-10))),
    (routing.SCORES, LAYER, "chosen_scores", ulp_more(0)),
    (routing.SCORES, LAYER, "chosen_biases", ulp_more(1)),
    (routing.SCORES, LAYER, "chosen_selection", ulp_more(1)),
    (routing.SCORES, LAYER, "runner_up_scores", ulp_more(5)),
    (routing.SCORES, LAYER, "runner_up_biases", ulp_more(2)),
    (routing.SCORES, LAYER, "runner_up_selection", ulp_more(3)),
    (routing.GATES, LAYER, "gates", ulp_more(0)),
    (routing.GATES, LAYER, "gates", ulp_more(1)),
    (rules.RANKS, "lm_head", "rank_low", plus(1)),
    (rules.RANKS, "lm_head", "rank_low", lambda v: 1),
    (rules.RANKS, "lm_head", "rank_high", plus(1)),
    (rules.RANKS, "lm_head", "top", lambda v: [v[0], v[0], *v[2:]]),
    (rules.RANKS, "lm_head", "top_logits", with_vector(lambda v: v.reverse())),
    (rules.RANKS, "lm_head", "chosen_logit", lambda v: 2 * v),
    (rules.RANKS, "token", "id", lambda v: (v + 1) % 40),
    (rules.RANKS, LAYER, "lens_rank", lambda v: 0),
    (rules.RANKS, LAYER, "lens_rank", lambda v: 41),
    (rules.RANKS, LAYER, "mid_lens_rank", lambda v: 1 if v != 1 else 2),
    (rules.RANKS, LAYER, "mid_lens_top", lambda v: v[:4] + v[:1]),
    (rules.ENTROPY, "lm_head", "entropy_nats", lambda v: -1e-9),
    (rules.ENTROPY, "lm_head", "entropy_nats", lambda v: math.log(40) + 1e-9),
    (rules.ENTROPY, "lm_head", "log_sum_exp", plus(-2.0)),
    (rules.ENTROPY, "lm_head", "log_sum_exp", plus(20.0)),
    (rules.ENTROPY, "lm_head", "varentropy", lambda v: -1e-9),
    (rules.ENTROPY, LAYER, "lens_entropy", lambda v: 4.0),
    (rules.ENTROPY, LAYER, "mid_lens_entropy", lambda v: -1e-9),
    *((sampling.DRAW, "sampler", "draw", lambda v, other=other: other) for other in (DRAWN["low"] - 1e-4, DRAWN["high"] + 1e-4)),
    *((sampling.DRAW, "sampler", "low", change) for change in (lambda v: DRAWN["high"], plus(1e-9))),
    (sampling.DRAW, "sampler", "high", lambda v: 1.5),
    *((sampling.DRAW, "sampler", "kept", lambda v, other=other: other) for other in (0, 1, 41)),
    *((sampling.DRAW, "sampler", "kept_mass", change) for change in (lambda v: 1.5, plus(1e-9))),
    *((sampling.DRAW, "sampler", "truncated_mass", change) for change in (plus(1e-9), lambda v: -v)),
    *((sampling.DRAW, "sampler", "tempered_rank_low", change) for change in (plus(1), lambda v: 0)),
    *((sampling.DRAW, "sampler", "tempered_rank_high", change) for change in (plus(-1), lambda v: 41)),
    *((sampling.DRAW, "sampler", f"{name}_logprob", plus(1e-9)) for name in OF_SCORES),
    *((sampling.DRAW, "sampler", f"{name}_entropy_nats", plus(5.0)) for name in OF_SCORES),
    *((sampling.DRAW, "sampler", f"{name}_entropy_nats", lambda v: -1e-9) for name in OF_SCORES),
    *((sampling.DRAW, "sampler", f"{name}_varentropy", lambda v: -1e-9) for name in OF_SCORES),
    *(
        (rules.FORMULAS, "sampler", f"{prefix}_{name}", plus(2.0**-48))
        for prefix in OF_SCORES
        for name in ("score", "log_sum_exp", "mean", "mean_square", "logprob", "logprob_bits", "entropy_nats", "varentropy")
    ),
    *((rules.FORMULAS, slot, f"{name}zero_kind", lambda v: "UNDERFLOW(float16)") for slot, name in ZERO_KINDS),
    (rules.FORMULAS, "lm_head", "top_masses", lambda v: [v[0], v[1], math.nextafter(v[2], 2.0)]),
]


# Of a ledger with delta layers, a softmax without biases, and a gate for the shared expert
OTHER = MAKERS["delta layers, softmax, a gate for the shared expert"].lines()
OTHER_EDITS: list[tuple[str, str, str, Callable[[Any], Any]]] = [
    (routing.GATES, LAYER, "delta_beta_min", lambda v: v / 2),
    (routing.GATES, LAYER, "delta_beta_min", lambda v: -v),
    (routing.GATES, LAYER, "delta_beta_mean", plus(2.0**-52)),
    (routing.GATES, LAYER, "delta_beta_max", lambda v: 1.5),
    (routing.GATES, LAYER, "delta_betas", ulp_more(1)),
    (routing.GATES, LAYER, "delta_decay_min", lambda v: 0),
    (routing.GATES, LAYER, "delta_decay_mean", lambda v: 1),
    (routing.GATES, LAYER, "delta_decay_max", lambda v: 1),
    (routing.GATES, LAYER, "delta_decays", with_vector(lambda v: v.reverse() or v.__setitem__(0, 0.5))),
    (routing.GATES, LAYER, "shared_gate", lambda v: 1.5),
    (routing.GATES, LAYER, "shared_gate", lambda v: -v),
    (routing.SCORES, LAYER, "chosen_logits", with_vector(lambda v: v.__setitem__(0, v[0] + 1e-5))),
    (routing.SCORES, LAYER, "chosen_logits", with_vector(lambda v: v.__setitem__(1, v[1] - 1))),
    (routing.SCORES, LAYER, "runner_up_logits", with_vector(lambda v: v.__setitem__(2, v[2] + 1e-3))),
    (routing.SCORES, LAYER, "chosen_scores", ulp_more(0)),
    (routing.SCORES, LAYER, "chosen_scores", with_vector(lambda v: v.__setitem__(0, 1.5))),
    (routing.SCORES, LAYER, "runner_up_scores", ulp_more(3)),
    (rules.CENSUS, LAYER, "delta_state_sha256", lambda v: {"absent": "attention layer"}),
    (rules.CENSUS, LAYER, "cache_entry_sha256", lambda v: "ab" * 32),
]


def broken_others(lines: list[Line]) -> dict[str, RuleResult]:
    return {result.rule: result for result in rules.violated(rules.check(lines, KINDS))}


@pytest.mark.parametrize(("rule", "slot", "name", "edit"), OTHER_EDITS, ids=[f"{e[0]}: {e[2]} {i}" for i, e in enumerate(OTHER_EDITS)])
def test_a_changed_value_of_a_delta_layer_or_a_softmax_violates_its_rule(rule: str, slot: str, name: str, edit: Callable[[Any], Any]) -> None:
    assert {} == broken_others(OTHER)
    assert rule in broken_others(edited(OTHER, STEP, slot, name, edit))


def test_all_scores_of_a_softmax_scaled_together_still_need_their_total() -> None:
    """Scores that are a quarter of the true ones have the right ratios, but the terms that are not listed are too small for such a total; and none
    is as small as that of scores twice as large"""
    for factor in (0.25, 2.0):
        lines = OTHER
        for prefix in ("chosen", "runner_up"):
            for name in ("scores", "selection"):
                scale = with_vector(lambda v, by=factor: v.__setitem__(slice(None), [s * by for s in v]))
                lines = edited(lines, STEP, LAYER, f"{prefix}_{name}", scale)
        assert "one total of a softmax for the scores in layer 1 at position 1" == broken_others(lines)[routing.SCORES].where


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([1e-30, 1e-8, 1e-6, 1e-3, 1.0, 10.0, 60.0, 1e3]),
    experts=st.sampled_from([2, 3, 8, 40, 512]),
)
def test_no_honest_softmax_breaks_the_rule_of_one_total(seed: int, spread: float, experts: int) -> None:
    """Whatever the logits: all alike, apart by less than a score can tell, or far beyond what exp can hold"""
    shape = {"layers": 1, "dense_layers": 0, "hidden": 16, "heads": 2, "experts": experts, "chosen": min(3, experts), "vocabulary": 40}
    chosen = replace(grouped(softmax=True), experts=experts, chosen=min(3, experts))
    maker = Maker(chosen, biased=False, shape=shape)
    maker.random = Spread(seed, spread)
    run = read_run(maker.run())
    values = {name: vector(value) if isinstance(value, str) and not name.endswith("256") else value for name, value in maker.routing(0, 0).items()}
    gaps = list(routing.one_total(values, Place(run, 0, "generated", "layer 0", 0)))
    assert not any(gap.violated for gap in gaps)


class Spread(random.Random):
    """Normal numbers of another width"""

    def __init__(self, seed: int, width: float) -> None:
        super().__init__(seed)
        self.width = width

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        return super().gauss(mu, sigma) * self.width


def test_a_shared_expert_with_a_gate_cannot_be_missing_and_one_without_writes_its_output() -> None:
    missing = OTHER
    for name in [name for tag in fields.TAGS for name in at(OTHER, STEP, LAYER)[tag]]:
        if name.startswith(("shared_output", "shared_write")) or name.endswith("_shared"):
            missing = edited(missing, STEP, LAYER, name, lambda _: {"absent": "no shared expert"})
    assert "fields of the shared expert in layer 1 at position 1" == broken_others(missing)[rules.CENSUS].where
    other = broken_rules(edited(LEDGER, STEP, LAYER, "shared_write_norm", lambda v: v / 2))
    assert "shared_write_norm in layer 1 at position 1" == other[routing.GATES].where


@pytest.mark.parametrize(("rule", "slot", "name", "edit"), EDITS, ids=[f"{e[0]}: {e[2]} of {e[1]} {i}" for i, e in enumerate(EDITS)])
def test_a_changed_value_violates_its_rule(rule: str, slot: str, name: str, edit: Callable[[Any], Any]) -> None:
    found = broken_rules(edited(LEDGER, STEP, slot, name, edit))
    assert rule in found
    assert f"at position {STEP}" in found[rule].where
    assert found[rule].worst_gap > found[rule].tolerance


def allowed(slot: str, component: str, norms: str) -> float:
    """What the contributions of the components may be off, in the step's ledger: 16 wide, two chosen experts"""
    head, line = at(LEDGER, STEP, "lm_head"), at(LEDGER, STEP, slot)["measured"]
    values = [line[name] for name in norms.split()] + [*canonical.values_f32(canonical.decode_f32(line["expert_write_norms"]))]
    slope = head["derived"][f"direction_norm{component}"] / head["measured"]["final_scale"]
    return (16 / 16 + 2 + 12) * 2.0**-53 * slope * math.fsum(values)


@pytest.mark.parametrize("component", fields.COMPONENTS)
def test_experts_may_be_off_by_the_rounding_of_their_shares_and_no_more(component: str) -> None:
    line, norms = at(LEDGER, STEP, LAYER)["derived"], "mlp_write_norm shared_write_norm"
    names = [f"dla{component}_{name}" for name in ("shared", "combination_rounding")]
    terms = [*line[f"dla{component}_experts"], *(line[name] for name in names)]
    limit = 64 * 2.0**-53 * math.fsum(map(abs, terms)) + allowed(LAYER, component, norms)
    for factor, holds in ((0.9, True), (1.1, False)):
        found = broken_rules(edited(LEDGER, STEP, LAYER, f"dla{component}_mlp", plus(factor * limit)))
        assert holds is (rules.EXPERTS not in found)


def test_a_longer_direction_allows_more_and_one_without_a_scale_nothing() -> None:
    moved = edited(LEDGER, STEP, LAYER, "dla_centred_mlp", plus(1e-9))
    assert rules.EXPERTS in broken_rules(moved)
    longer = edited(moved, STEP, "lm_head", "direction_norm_centred", lambda _: 1e9)
    assert rules.EXPERTS not in broken_rules(longer)
    for scale in (0, -2.5, 5e-324):
        assert rules.EXPERTS in broken_rules(edited(longer, STEP, "lm_head", "final_scale", lambda _, r=scale: r))


def test_a_greedy_token_that_is_not_the_first_of_the_largest_is_named() -> None:
    top = at(LEDGER, 2, "lm_head")["measured"]["top"]
    assert "greedy token in lm_head at position 2" == broken_rules(edited(LEDGER, 2, "token", "id", lambda _: top[1]))[sampling.DRAW].where


def test_a_token_outside_the_largest_must_lie_behind_them() -> None:
    logits = canonical.values_f32(canonical.decode_f32(at(LEDGER, 3, "lm_head")["measured"]["top_logits"]))
    assert rules.RANKS in broken_rules(edited(LEDGER, 3, "lm_head", "chosen_logit", lambda _: logits[0]))
    assert rules.RANKS in broken_rules(edited(LEDGER, 3, "lm_head", "rank_low", lambda _: 20))
    assert rules.RANKS in broken_rules(edited(LEDGER, 3, "lm_head", "rank_high", lambda _: 41))


# ---- census


def refused(change: Callable[[list[Line]], None], kinds: tuple[str, ...] = KINDS) -> str:
    copied = copy.deepcopy(LEDGER)
    change(copied)
    results = rules.check(copied, kinds)
    census = next(result for result in results if result.rule == rules.CENSUS)
    assert census.violated and math.inf == census.worst_gap
    return census.where


@pytest.mark.parametrize("index", range(len(LEDGER)))
def test_a_dropped_line_is_missed(index: int) -> None:
    refused(lambda lines: lines.pop(index))


@pytest.mark.parametrize("index", range(len(LEDGER)))
def test_a_line_twice_is_noticed(index: int) -> None:
    refused(lambda lines: lines.insert(index, lines[index]))


@pytest.mark.parametrize("index", range(1, len(LEDGER) - 1))
def test_two_lines_in_the_other_order_are_noticed(index: int) -> None:
    refused(lambda lines: lines.insert(index, lines.pop(index + 1)))


def test_the_census_says_what_it_expected() -> None:
    assert "expected layer 1 at position 1 of kind generated, got layer 2 at position 1 of kind generated" == refused(lambda lines: lines.pop(7))
    assert "expected token at position 3, got the end of the ledger" == refused(lambda lines: lines.pop())
    assert "expected embed at position 4, got the end of the ledger" == refused(lambda lines: None, (*KINDS, "generated"))
    assert "expected the end after position 2, got embed at position 3" == refused(lambda lines: None, KINDS[:3])


def test_a_step_of_another_kind_is_noticed() -> None:
    refused(lambda lines: None, ("prompt", "generated", "generated", "forced"))
    refused(lambda lines: None, ("prompt", "generated", "prompt", "scored"))


def test_a_line_of_another_run_is_noticed() -> None:
    assert "run_id" in refused(lambda lines: lines[5].update(run_id="cd" * 32))


def test_a_shared_expert_is_there_with_all_its_values_or_with_none() -> None:
    broken = edited(LEDGER, STEP, LAYER, "dla_shared", lambda _: {"absent": "no shared expert"})
    assert "fields of the shared expert in layer 1 at position 1" == broken_rules(broken)[rules.CENSUS].where


@pytest.mark.parametrize(
    ("family", "slot", "name"),
    [
        ("dla", LAYER, "dla_runner_up_mlp"),
        ("dla", "lm_head", "direction_norm_runner_up"),
        ("lens", LAYER, "lens_runner_up_rank"),
        ("mid_lens", LAYER, "mid_lens_runner_up_logit"),
    ],
)
def test_a_runner_up_is_known_to_a_whole_step_or_not_at_all(family: str, slot: str, name: str) -> None:
    broken = edited(LEDGER, STEP, slot, name, lambda _: {"absent": "runner-up not known"})
    assert f"{family} of the runner-up at position 1" == broken_rules(broken)[rules.CENSUS].where


def test_an_attribution_may_know_no_runner_up() -> None:
    lines = LEDGER
    for line in (each for each in LEDGER if each["position"] == STEP):
        for name, value in line["derived"].items():
            if name.startswith(("dla_runner_up", "direction_norm_runner_up")) and not isinstance(value, dict):
                lines = edited(lines, STEP, line["slot"], name, lambda _: {"absent": "runner-up not known"})
    assert {} == broken_rules(lines)


@pytest.mark.parametrize("slot", ["embed", "layer 0", "layer 2", "lm_head"])
def test_no_absence_ends_the_check_with_anything_but_results(slot: str) -> None:
    for field in (each for each in fields.FIELDS if each.slot == slot.split(" ")[0] and each.tag == "derived"):
        for reason in field.absent:
            broken = edited(LEDGER, STEP, slot, field.name, lambda _, reason=reason: {"absent": reason})
            assert len(rules.RULES) == len(rules.check(broken, KINDS))


NUMBERS = [(line["position"], line["slot"], name) for line in LEDGER[5:] for tag in fields.TAGS for name, value in line[tag].items()
           if type(value) in (int, float)]  # fmt: skip
VECTORS = [(line["position"], line["slot"], name) for line in LEDGER[5:] for name, value in line["measured"].items()
           if isinstance(value, str) and len(value) % 64 and value.endswith("=") and name != "bytes"]  # fmt: skip
EXTREMES = [0, 1, -1, 2.0**-149, -(2.0**-149), 2.0**53 - 1, -(2.0**53 - 1), 5e-324, 1e-9, -1e9]


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from(NUMBERS), value=st.sampled_from(EXTREMES))
def test_no_number_ends_the_check_with_anything_but_results(place: tuple[int, str, str], value: float) -> None:
    assert len(rules.RULES) == len(rules.check(edited(LEDGER, *place, lambda _: value), KINDS))


@settings(max_examples=80, deadline=None)
@given(place=st.sampled_from(VECTORS), value=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_no_vector_ends_the_check_with_anything_but_results(place: tuple[int, str, str], value: float) -> None:
    assert len(rules.RULES) == len(rules.check(edited(LEDGER, *place, with_vector(lambda v: v.__setitem__(0, value))), KINDS))


def test_an_empty_ledger_has_no_run_line() -> None:
    assert all(result.checked == int(result.rule == rules.CENSUS) for result in rules.check([], KINDS))
    assert [rules.CENSUS] == [result.rule for result in rules.violated(rules.check([], KINDS))]


def test_memory_does_not_grow_with_the_ledger() -> None:
    def peak(repeats: int) -> int:
        def lines() -> Any:
            yield LEDGER[0]
            for n in range(repeats):
                for line in LEDGER[1:5]:
                    yield {**line, "position": n}

        kinds = ["prompt"] * repeats
        tracemalloc.start()
        results = rules.check(lines(), kinds)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert 1 + 4 * repeats == results[0].checked and not rules.violated(results)
        return used

    peak(2)
    assert peak(60) < 2 * peak(3)
