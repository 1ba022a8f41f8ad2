"""Lines and rules: over honest ledgers and hundreds of mutants the browser finds the same rule broken, in the same place, by the same amount."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from small_ledger import KINDS, MAKERS, Line, at, edited, small_ledger
from test_norms_and_attention import EDITS as NORM_EDITS
from test_sum_rules import EDITS, EXTREMES, LAYER, LEDGER, NUMBERS, OTHER, OTHER_EDITS, STEP, VECTORS

from formation.ledger import canonical, lines, routing, rules
from formation.ledger.gaps import RuleResult, Tally

CHECK = """([ledger, kinds]) => {
  const { LINE, decode } = m["canonical.js"];
  const lines = new TextDecoder().decode(ledger).split("\\n").map((line) => decode(m["bytes.js"].utf8(line), LINE));
  return m["rules.js"].check(lines, kinds).map((r) => [r.rule, r.checked, r.worstGap, r.tolerance, r.where, r.violated]);
}"""
Outcome = list[tuple[Any, ...]]


def told(result: Any) -> tuple[Any, ...]:
    """A result, of its place only what was expected there"""
    rule, checked, gap, tolerance, where, violated = result
    return rule, checked, float(gap), float(tolerance), where.partition(", got")[0], violated


def python_outcome(ledger: list[Line], kinds: Any) -> Outcome:
    read = [canonical.decode(canonical.encode(line), limits=canonical.LINE) for line in ledger]
    return [told(as_list(result)) for result in rules.check(read, kinds)]


def as_list(r: RuleResult) -> list[Any]:
    return [r.rule, r.checked, r.worst_gap, r.tolerance, r.where, r.violated]


def browser_outcome(run: Any, ledger: list[Line], kinds: Any) -> Outcome:
    return [told(result) for result in run(CHECK, [b"\n".join(canonical.encode(line) for line in ledger), list(kinds)])]


def expect_same_words(run: Any, ledger: list[Line]) -> None:
    """What was found, too"""
    read = [canonical.decode(canonical.encode(line), limits=canonical.LINE) for line in ledger]
    expected = [result.where for result in rules.check(read, KINDS)]
    assert expected == [result[4] for result in run(CHECK, [b"\n".join(canonical.encode(line) for line in ledger), list(KINDS)])]


def expect_same(run: Any, ledger: list[Line], kinds: Any = KINDS) -> set[str]:
    expected = python_outcome(ledger, kinds)
    assert expected == browser_outcome(run, ledger, kinds)
    return {result[0] for result in expected if result[5]}


@pytest.mark.parametrize("name", MAKERS)
def test_honest_ledgers_obey_every_rule_in_the_browser_too(run, name):
    assert set() == expect_same(run, MAKERS[name].lines())


@pytest.mark.parametrize("rule", sorted({edit[0] for edit in EDITS + NORM_EDITS}))
def test_a_changed_value_violates_the_same_rule(run, rule):
    for _, slot, name, edit in (each for each in EDITS + NORM_EDITS if each[0] == rule):
        assert rule in expect_same(run, edited(LEDGER, STEP, slot, name, edit))


@pytest.mark.parametrize("rule", sorted({edit[0] for edit in OTHER_EDITS}))
def test_a_changed_value_of_a_delta_layer_or_a_softmax_violates_the_same_rule(run, rule):
    for _, slot, name, edit in (each for each in OTHER_EDITS if each[0] == rule):
        assert rule in expect_same(run, edited(OTHER, STEP, slot, name, edit))


def test_dropped_repeated_and_exchanged_lines_are_missed_alike(run):
    for index in range(len(LEDGER)):
        without, twice = LEDGER[:index] + LEDGER[index + 1 :], LEDGER[: index + 1] + LEDGER[index:]
        assert expect_same(run, without) and expect_same(run, twice)
    assert expect_same(run, LEDGER, KINDS[:3]) and expect_same(run, LEDGER, (*KINDS, "scored"))


ODD_VALUES: list[Any] = [*EXTREMES, None, True, False, "", "x", [], {}, 1.5, -1, 2**31, "AACAPw==", "AAAA", "ab" * 32, {"absent": "not a step"},
                         {"absent": "dense layer"}, {"absent": "zero norm"}, {"absent": "no shared expert"}, {"absent": "runner-up not known"},
                         {"absent": "never"}, {"absent": "greedy"}, {"absent": "zero norm", "also": 1}, {"absent": 1}, [{"absent": "never"}],
                         "layer 00", "layer -1", "layer 1 ", "prompt", "full"]  # fmt: skip


def mutant(source: random.Random, ledger: list[Line]) -> list[Line]:
    """One to two places of one to two lines hold something else"""
    changed = list(ledger)
    for _ in range(source.randint(1, 2)):
        index = source.randrange(len(changed))
        line = changed[index] = copy.deepcopy(changed[index])
        change(source, line, ledger)
    return changed


def change(source: random.Random, line: Line, ledger: list[Line]) -> None:
    inner = [line[tag] for tag in ("measured", "derived") if isinstance(line.get(tag), dict) and line[tag]]
    table = source.choice([line, *inner * 2])
    name = source.choice(sorted(table))
    other = source.choice(ledger)
    numbers = [key for key, stored in table.items() if type(stored) in (int, float)]
    kind = source.choice([0, 1, 2, 3, 3, 3, 3, 4, 5])
    name = source.choice(numbers) if kind == 3 and numbers else name
    if kind == 0:
        del table[name]
    elif kind == 1:
        table[source.choice(["more", "__proto__", "absent", name.upper()])] = 1
    elif kind == 2:
        table[name] = source.choice([*other["measured"].values(), *other["derived"].values()])
    elif kind == 3 and numbers:
        table[name] = canonical.number(min(max(float(table[name]) * source.choice([1 + 2**-52, 1 + 2**-30, -1, 0.5, 3]), -9e15), 9e15))
    elif kind == 4 and isinstance(table[name], list | dict) and table[name]:
        inner = table[name]
        inner[source.choice(range(len(inner)) if isinstance(inner, list) else sorted(inner))] = source.choice(ODD_VALUES)
    else:
        table[name] = source.choice(ODD_VALUES)


@pytest.mark.parametrize("name", MAKERS)
def test_mutants_break_the_same_rules(run, name):
    source = random.Random(name)
    ledger = MAKERS[name].lines()
    broken: set[str] = set()
    for _ in range(50):
        broken |= expect_same(run, mutant(source, ledger))
    assert {"census"} < broken


def test_extreme_numbers_break_the_same_rules(run):
    source = random.Random(11)
    for _ in range(80):
        place, value = source.choice(NUMBERS), source.choice(EXTREMES)
        expect_same(run, edited(LEDGER, *place, lambda _, value=value: value))
    for _ in range(30):
        data = canonical.encode_f32(source.choice([b"\xff\xff\x7f\x7f", b"\x01\x00\x00\x00", b"\x00\x00\x00\x80"]) * 2)
        expect_same(run, edited(LEDGER, *source.choice(VECTORS), lambda _, data=data: data))


def test_a_tolerance_that_a_lie_made_negative_is_broken_alike(run):
    assert "entropy" in expect_same(run, edited(LEDGER, 2, "lm_head", "mean_square_logit", lambda _: -(2**53 - 1)))


SHAPES = [("layers", 0), ("layers", 2**53 - 1), ("dense_layers", 4), ("dense_layers", 3), ("heads", 0), ("hidden", 0), ("experts", 0), ("experts", 7),
          ("chosen", 0), ("chosen", 9), ("vocabulary", 1), ("vocabulary", 30), ("vocabulary", 39)]  # fmt: skip
ROUTERS = [("groups", 0), ("groups", 3), ("groups", 8), ("kept_groups", 0), ("kept_groups", 2), ("softmax", True), ("normalise", False),
           ("scale", 0.1), ("scale", 2), ("biased", False), ("group_top2", 1)]  # fmt: skip


@pytest.mark.parametrize(("record", "name", "value"), [("shape", *each) for each in SHAPES] + [("router", *each) for each in ROUTERS])
def test_an_impossible_or_other_shape_is_refused_alike(run, record, name, value):
    ledger = [copy.deepcopy(LEDGER[0]), *LEDGER[1:]]
    ledger[0]["measured"][record][name] = value
    expect_same(run, ledger)
    expect_same_words(run, ledger)


# ---- with the logits of all experts

ROUTE = """([first, line, sidecar]) => {
  const { LINE, decode } = m["canonical.js"], { checkLine, readRun, valuesOf } = m["lines.js"], { Tally } = m["gaps.js"];
  const run = readRun(decode(first, LINE)), text = decode(line, LINE), place = checkLine(text, run), tally = new Tally(["all experts"]);
  tally.take(m["routing.js"].ofAllExperts(valuesOf(text, place), place, sidecar));
  return tally.results().map((r) => [r.rule, r.checked, r.worstGap, r.tolerance, r.where, r.violated])[0];
}"""


@pytest.mark.parametrize("name", MAKERS)
def test_the_whole_choice_is_redone_alike(run, name):
    maker = MAKERS[name]
    ledger = maker.lines()
    first = lines.read_run(ledger[0])
    source = random.Random(12)
    for (position, n), sidecar in maker.sidecars.items():
        if position >= len(KINDS):
            continue
        line = at(ledger, position, f"layer {n}")
        place = lines.check_line(line, first)
        flipped = bytearray(sidecar)
        flipped[source.randrange(len(flipped))] ^= 1
        for data in (sidecar, bytes(flipped), sidecar[:-4]):
            tally = Tally([routing.ALL_EXPERTS])
            tally.take(routing.of_all_experts(lines.values_of(line, place), place, data))
            found = run(ROUTE, [canonical.encode(ledger[0]), canonical.encode(line), data])
            assert told(as_list(tally.results()[0])) == told(found)


def test_the_samples_here_are_those_of_the_python_tests(run):
    assert set() == expect_same(run, small_ledger())
    assert LAYER in {line["slot"] for line in LEDGER}
