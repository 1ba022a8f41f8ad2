"""Rules that need more than the lines: the router's sidecar, and the rows; and how far a rule is missed."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_ledger import MAKERS, Maker, at, base64_of, edited, grouped, ulp_more

from formation.kernels import reference_choose
from formation.ledger import routing, rules
from formation.ledger.gaps import Gap, RuleResult, Tally, closure, same, within
from formation.ledger.lines import Place, check_line, read_run, values_of

# ---- with the router's sidecar


def routing_gaps(maker: Maker, change: Callable[[bytes], bytes] = lambda b: b) -> list[Gap]:
    lines = maker.lines()
    run = read_run(lines[0])
    gaps = []
    for (position, layer), row in maker.sidecars.items():
        line = at(lines, position, f"layer {layer}")
        place = check_line(line, run)
        gaps += list(routing.of_all_experts(values_of(line, place), place, change(row)))
    return gaps


@pytest.mark.parametrize("name", MAKERS)
def test_the_whole_choice_follows_from_all_logits(name: str) -> None:
    gaps = routing_gaps(MAKERS[name])
    assert len(gaps) >= 8 and not any(gap.violated for gap in gaps)


@pytest.mark.parametrize("name", ["plain", "softmax"])
def test_other_logits_in_the_sidecar_are_noticed(name: str) -> None:
    assert any(gap.violated for gap in routing_gaps(MAKERS[name], lambda row: row[:28] + struct.pack("<f", 3.0)))
    assert any(gap.violated for gap in routing_gaps(MAKERS[name], lambda row: row[:28]))


@pytest.mark.parametrize("field", ["chosen_scores", "runner_up_scores", "runner_up_logits", "chosen_selection"])
def test_a_softmax_score_that_its_logits_do_not_give_is_noticed(field: str) -> None:
    maker = Maker(grouped(softmax=True), biased=False)
    lines = maker.lines()
    line = at(edited(lines, 1, "layer 1", field, ulp_more(0)), 1, "layer 1")
    place = check_line(line, read_run(lines[0]))
    gaps = [gap for gap in routing.of_all_experts(values_of(line, place), place, maker.sidecars[1, 1]) if gap.violated]
    assert [f"{field} in layer 1 at position 1"] == [gap.where for gap in gaps]


@settings(max_examples=40, deadline=None)
@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=8, max_size=8),
    biased=st.booleans(),
    softmax=st.booleans(),
    groups=st.sampled_from([(1, 1), (2, 1), (4, 2), (4, 3)]),
    top2=st.booleans(),
)
def test_the_plain_router_has_the_bits_of_the_kernels_reference(
    logits: list[float], biased: bool, softmax: bool, groups: tuple[int, int], top2: bool
) -> None:
    router = grouped(softmax=softmax, groups=groups[0], kept_groups=groups[1], group_top2=top2)
    maker = Maker(router, biased=biased)
    found = routing.route(read_run(maker.run()), 1, logits)
    bias = np.array(maker.biases[1], np.float32) if biased else None
    expected = reference_choose.route(router, np.array([logits], np.float32), bias)
    assert expected.scores[0].tolist() == found.scores
    assert expected.selection[0].tolist() == found.selection
    assert expected.chosen[0].tolist() == sorted(found.ranking[:2])


def test_ties_in_selection_go_to_the_lower_expert() -> None:
    run = read_run(Maker(biased=False).run())
    assert list(range(8)) == routing.route(run, 1, [0.5] * 8).ranking
    place = Place(run, 1, "generated", "layer 1", 1)
    tied = {"chosen": [2, 3], "runners_up": [1], "chosen_selection": [0.5, 0.5], "runner_up_selection": [0.5]}
    assert ["expert 3 chosen before 1 in layer 1 at position 1"] == [gap.where for gap in routing.choice(tied, place) if gap.violated]


# ---- with rows


def row(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


F32 = st.floats(-(2.0**100), 2.0**100, width=32)


@given(pairs=st.lists(st.tuples(F32, F32), min_size=1, max_size=40))
def test_sums_of_rows_are_those_of_binary32(pairs: list[tuple[float, float]]) -> None:
    x, write = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    u = x + write
    assert Gap("addition", 0.0, 0.0, "u") == rules.addition(x.tobytes(), write.tobytes(), u.tobytes(), "u")
    u[-1] = np.nextafter(u[-1], np.float32(math.inf))
    assert rules.addition(x.tobytes(), write.tobytes(), u.tobytes(), "u").violated


@pytest.mark.parametrize(
    "rows",
    [
        (row(1), row(2), row(3, 4)),
        (row(0), row(0), row(-0.0)),
        (row(3e38), row(3e38), row(3.4e38)),
        (b"abc", b"abc", b"abc"),
        (row(1, 2), row(1, 2), row(2, math.nan)),
    ],
    ids=["other length", "other zero", "beyond binary32", "no rows", "not a number"],
)
def test_rows_that_do_not_add_up_are_noticed(rows: tuple[bytes, bytes, bytes]) -> None:
    assert rules.addition(*rows, "u").violated


# ---- gaps


def test_a_gap_that_is_no_number_violates() -> None:
    assert Gap("rule", math.nan, 1.0, "here").violated
    assert same("rule", [1.0, math.nan], [1.0, 2.0], "here").violated
    assert same("rule", [math.inf], [2.0], "here").violated
    assert same("rule", [1.0], [], "here").violated


def test_a_closure_allows_the_rounding_of_its_terms_and_no_more() -> None:
    terms = [2.0**60, -(2.0**60), 1.0]
    allowed = 64 * 2.0**-53 * 2.0**61
    assert not closure("rule", 1.0 + allowed, terms, 0.0, "here").violated
    assert closure("rule", 1.0 + 2 * allowed, terms, 0.0, "here").violated
    assert not closure("rule", 1.0 + 2 * allowed, terms, allowed, "here").violated
    assert 0.0 == closure("rule", 1.0, terms, 0.0, "here").size


def test_the_tally_keeps_the_worst_gap_of_each_rule() -> None:
    tally = Tally(["a", "b"])
    tally.take([Gap("a", 5.0, 9.0, "wide"), Gap("a", 2.0, 1.0, "broken"), Gap("a", 1.5, 1.0, "less"), within("b", 0, 0.5, 1, 0, "in")])
    assert (RuleResult("a", 3, 2.0, 1.0, "broken", True), RuleResult("b", 1, 0.0, 0, "in", False)) == tally.results()


def test_vectors_of_the_small_ledger_are_little_endian() -> None:
    assert "AACAPwAAAEA=" == base64_of([1.0, 2.0])
