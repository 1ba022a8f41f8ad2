"""The field table and what it refuses: by name, whatever the line."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_ledger import DELTA, KINDS, MAKERS, Maker, at, edited, grouped, small_ledger
from tools import field_table

from formation.ledger import canonical, fields, formulas, lines, sampling
from formation.ledger.lines import LineRefusal, check_line, read_run

LEDGER = small_ledger()
RUN = read_run(LEDGER[0])
SPEC = Path(__file__).parents[2] / "docs" / "spec" / "ledger.md"


def refusal(broken: list[dict[str, Any]], position: int, slot: str) -> str:
    with pytest.raises(LineRefusal) as caught:
        check_line(at(broken, position, slot), RUN)
    return str(caught.value)


def run_refusal(name: str, edit: Any) -> str:
    with pytest.raises(LineRefusal) as caught:
        read_run(edited(LEDGER, -1, "run", name, edit)[0])
    return str(caught.value)


# ---- the table


def test_the_printed_table_in_the_spec_is_the_one_in_the_code() -> None:
    page = SPEC.read_text(encoding="utf-8")
    assert field_table.page_with_table(page) == page
    assert fields.digest() in page


def test_a_changed_field_changes_the_printed_table(monkeypatch: pytest.MonkeyPatch) -> None:
    page = SPEC.read_text(encoding="utf-8")
    monkeypatch.setattr(field_table, "FIELDS", fields.FIELDS[:-1])
    assert field_table.page_with_table(page) != page


def test_the_example_of_the_spec_obeys_the_formulas() -> None:
    block = SPEC.read_text(encoding="utf-8").split("```")[1].replace("\n ", "").replace(",…]", "]")
    head, sampler = (json.loads(line) for line in block.strip().splitlines())
    for name in ("logprob", "surprisal_nats", "surprisal_bits", "entropy_nats", "varentropy"):
        assert formulas.recompute(name, head["measured"] | head["derived"]) == head["derived"][name]
    drawn = sampler["measured"]
    assert drawn["low"] <= drawn["draw"] < drawn["high"]
    for name, value in sampler["derived"].items():
        assert formulas.recompute(name, drawn | sampler["derived"]) == value
    place = lines.Place(RUN, 1, "generated", "sampler", method="sample")
    assert [] == [gap for gap in sampling.of_step(drawn | sampler["derived"], head["measured"] | head["derived"], 7, place) if gap.violated]


def test_a_name_stands_once_in_a_slot() -> None:
    names = [(field.slot, field.name) for field in fields.FIELDS]
    assert len(names) == len(set(names))


def test_every_field_says_what_it_is() -> None:
    for field in fields.FIELDS:
        assert field.slot in fields.SLOTS and field.tag in fields.TAGS and field.level in fields.LEVELS and field.definition
        assert bool(field.formula) == bool(field.recompute) == (field.tag == "derived")
        assert field.recompute in ("", "ledger", "weights")
        assert field.dtype.endswith("[]") == bool(field.length)
        assert field.dtype.startswith("record") == bool(field.keys)


def test_every_level_holds_the_fields_of_the_one_before() -> None:
    for slot in fields.SLOTS:
        minimal, standard, full = (fields.fields_of(slot, level) for level in fields.LEVELS)
        assert set(minimal) <= set(standard) <= set(full)
        assert full == tuple(field for field in fields.FIELDS if field.slot == slot)


def test_a_field_of_a_layer_is_of_attention_of_a_delta_net_or_of_both() -> None:
    absent = {field.name: set(field.absent) & {"delta layer", "attention layer"} for field in fields.fields_of("layer", "full")}
    of_delta = {name for name, reasons in absent.items() if reasons == {"attention layer"}}
    of_attention = {name for name, reasons in absent.items() if reasons == {"delta layer"}}
    assert of_delta == {name for name in absent if name.startswith("delta_")}
    assert {"cache_entry_sha256", "attention_entropy", "attention_entropies", "attention_strongest", "attention_strongest_by_head"} == of_attention
    assert {"attention_write_sha256", "attention_relative", "dla_attention"} <= {name for name, reasons in absent.items() if not reasons}


def test_a_dense_layer_can_have_all_but_the_fields_of_experts() -> None:
    left = set(fields.fields_of("layer", "full")) - set(fields.fields_of("layer", "full", moe=False))
    assert {"chosen", "gates", "gate_sum", "dla_experts", "shared_output_norm"} <= {field.name for field in left}
    assert all("dense layer" in field.absent for field in left)


def test_every_reason_of_the_table_is_either_demanded_or_free() -> None:
    demanded = {"dense layer", "not a step", "no experts", "no bias", "all chosen", "greedy", "forced"}
    demanded |= {"delta layer", "attention layer", "no delta layer", "no gate"}
    assert demanded | lines.FREE == {reason for field in fields.FIELDS for reason in field.absent}
    assert not demanded & lines.FREE


def test_the_table_is_canonical_json_and_its_digest_follows_every_cell() -> None:
    data = canonical.encode(fields.table(), limits=canonical.DOCUMENT)
    assert canonical.decode(data, limits=canonical.DOCUMENT) == fields.table()
    assert len(fields.table()) == len(fields.FIELDS)


# ---- lines that are right


@pytest.mark.parametrize(
    "maker",
    [
        Maker(),
        Maker(biased=False, shared=False),
        Maker(grouped(softmax=True)),
        Maker(grouped(groups=4, kept_groups=1), biased=False),
        Maker(grouped(normalise=False, groups=2, kept_groups=1, group_top2=False)),
        MAKERS["delta layers, softmax, a gate for the shared expert"],
    ],
    ids=["plain", "no bias, no shared expert", "softmax", "all chosen", "groups", "delta layers"],
)
def test_honest_lines_pass(maker: Maker) -> None:
    made = [canonical.decode(canonical.encode(line), limits=canonical.LINE) for line in maker.lines()]
    run = read_run(made[0])
    places = [check_line(line, run) for line in made[1:]]
    assert len(KINDS) - 1 == [place.slot for place in places].count("token")


# ---- lines that are wrong


@pytest.mark.parametrize("slot", ["embed", "layer 0", "layer 2", "lm_head", "sampler", "token"])
def test_every_missing_field_is_named(slot: str) -> None:
    for tag in fields.TAGS:
        for name in at(LEDGER, 1, slot)[tag]:
            broken = copy.deepcopy(LEDGER)
            del at(broken, 1, slot)[tag][name]
            assert f"expected {tag} field {name} in {slot} at position 1, got none" == refusal(broken, 1, slot)


@pytest.mark.parametrize("slot", ["embed", "layer 0", "layer 2", "lm_head", "sampler", "token"])
def test_every_ill_typed_value_is_named(slot: str) -> None:
    for tag in fields.TAGS:
        for name in at(LEDGER, 1, slot)[tag]:
            for wrong in (None, True, "", float("nan"), -1 - 2**60, {"absent": "lost"}, {"absent": "zero norm", "x": 1}, {"absent": []}, [[]], {}):
                if (name == "bytes" or name.endswith("zero_kind")) and wrong == "":
                    continue
                sentence = refusal(edited(LEDGER, 1, slot, name, lambda _, wrong=wrong: wrong), 1, slot)
                assert name in sentence or (name == "method" and "method" in sentence)


def test_an_unknown_field_is_named() -> None:
    broken = copy.deepcopy(LEDGER)
    at(broken, 1, "layer 1")["derived"]["mood"] = 1
    assert "mood" in refusal(broken, 1, "layer 1")


def test_a_field_moved_between_measured_and_derived_is_named() -> None:
    broken = copy.deepcopy(LEDGER)
    line = at(broken, 1, "lm_head")
    line["measured"]["logprob"] = line["derived"].pop("logprob")
    assert "logprob" in refusal(broken, 1, "lm_head")


def test_a_field_above_the_level_of_the_line_is_named() -> None:
    broken = copy.deepcopy(LEDGER)
    at(broken, 0, "layer 1")["measured"]["attention_entropy"] = 0.5
    assert "attention_entropy" in refusal(broken, 0, "layer 1")


@pytest.mark.parametrize(
    ("position", "slot", "name", "value"),
    [
        (1, "layer 0", "chosen", [0, 1]),  # a dense layer has no experts
        (1, "layer 1", "chosen", {"absent": "dense layer"}),
        (1, "layer 1", "dla_mlp", {"absent": "not a step"}),
        (1, "layer 1", "chosen_biases", {"absent": "no bias"}),
        (1, "layer 1", "router_margin", {"absent": "all chosen"}),
        (1, "sampler", "draw", {"absent": "greedy"}),
        (2, "sampler", "draw", 0.5),
        (2, "sampler", "draw", {"absent": "forced"}),
        (1, "sampler", "method", "forced"),
        (3, "sampler", "method", "replayed"),
        (1, "layer 1", "mlp_cosine", {"absent": "never"}),
        (1, "layer 1", "residual_norm", 0.1),  # no binary32 number
        (1, "layer 1", "chosen", [1, 8]),  # no such expert
        (1, "layer 1", "chosen", [1, 2, 3]),
        (1, "layer 1", "expert_write_cosines", [0.5]),
        (1, "layer 1", "gates", base64.b64encode(bytes(4)).decode()),
        (1, "layer 1", "gates", base64.b64encode(b"\x00\x00\xc0\x7f" * 2).decode()),
        (1, "layer 1", "residual_largest_dimension", 16),
        (1, "layer 1", "residual_largest_dimension", 1.5),
        (1, "layer 1", "residual_sha256", "AB" * 32),
        (1, "layer 1", "attention_strongest", []),
        (1, "layer 1", "attention_strongest", [{"head": 0, "position": 2, "weight": 0.5}] * 4),  # a later position
        (1, "layer 1", "attention_strongest", [{"head": 2, "position": 0, "weight": 0.5}] * 4),
        (1, "layer 1", "attention_strongest", [{"head": 0, "position": 0}] * 4),
        (1, "token", "id", 40),
        (1, "token", "bytes", "4pyT="),
    ],
)
def test_a_value_that_cannot_stand_there_is_named(position: int, slot: str, name: str, value: Any) -> None:
    assert name in refusal(edited(LEDGER, position, slot, name, lambda _: value), position, slot)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("run_id", "cd" * 32, "run_id"),
        ("position", -1, "position"),
        ("position", True, "position"),
        ("slot", "layer 3", "slot"),
        ("slot", "layer 01", "slot"),
        ("slot", "layer ²", "slot"),
        ("slot", "layer", "slot"),
        ("slot", 3, "slot"),
        ("kind", "drawn", "kind"),
        ("kind", ["prompt"], "kind"),
        ("measured", [], "measured"),
    ],
)
def test_a_line_that_stands_nowhere_is_refused(key: str, value: Any, sentence: str) -> None:
    broken = copy.deepcopy(at(LEDGER, 1, "layer 1"))
    broken[key] = value
    with pytest.raises(LineRefusal, match=sentence):
        check_line(broken, RUN)


def test_a_prompt_position_has_no_head() -> None:
    broken = copy.deepcopy(at(LEDGER, 1, "lm_head"))
    broken["kind"] = "prompt"
    with pytest.raises(LineRefusal, match="slot of a prompt position"):
        check_line(broken, RUN)


DELTA_LEDGER = MAKERS["delta layers, softmax, a gate for the shared expert"].lines()


@pytest.mark.parametrize(
    ("slot", "name", "value"),
    [
        ("layer 0", "delta_state_sha256", "ab" * 32),  # a layer with attention
        ("layer 0", "attention_entropy", {"absent": "delta layer"}),
        ("layer 0", "cache_entry_sha256", {"absent": "delta layer"}),
        ("layer 1", "cache_entry_sha256", "ab" * 32),
        ("layer 1", "attention_strongest", []),
        ("layer 1", "attention_entropy", {"absent": "attention layer"}),
        ("layer 1", "delta_state_sha256", {"absent": "attention layer"}),
        ("layer 1", "delta_beta_min", {"absent": "delta layer"}),
        ("layer 1", "delta_betas", base64.b64encode(bytes(8)).decode()),  # two of three heads
        ("layer 1", "delta_state_norm", 0.1),
        ("layer 1", "shared_gate", {"absent": "no gate"}),
        ("layer 0", "shared_gate", 0.5),  # dense
    ],
)
def test_values_of_another_kind_of_layer_are_named(slot: str, name: str, value: Any) -> None:
    broken = edited(DELTA_LEDGER, 1, slot, name, lambda _: value)
    with pytest.raises(LineRefusal, match=name):
        check_line(at(broken, 1, slot), read_run(DELTA_LEDGER[0]))


# ---- the first line


@pytest.mark.parametrize(
    ("name", "edit", "sentence"),
    [
        ("fields_sha256", lambda v: "0" * 64, "field table"),
        ("capture", lambda v: v | {"steps": "everything"}, "capture levels"),
        ("capture", lambda v: {"steps": "full"}, "capture"),
        ("shape", lambda v: v | {"layers": 0}, "shape"),
        ("shape", lambda v: v | {"layers": 1.5}, "shape"),
        ("shape", lambda v: v | {"dense_layers": 4}, "shape"),
        ("shape", lambda v: v | {"chosen": 9}, "shape"),
        ("shape", lambda v: v | {"colour": 1}, "shape"),
        ("router", lambda v: v | {"groups": 0}, "shape"),
        ("router", lambda v: v | {"softmax": 0}, "router"),
        ("router", lambda v: {"absent": "no experts"}, "router"),
        ("router_biases", lambda v: v[:1], "router_biases"),
        ("router_biases", lambda v: v[::-1], "router biases"),
        ("router_biases", lambda v: {"absent": "no bias"}, "router_biases"),
        ("layer_kinds", lambda v: v[:2], "layer_kinds"),
        ("layer_kinds", lambda v: [*v[:2], "mamba"], "layer_kinds"),
        ("layer_kinds", lambda v: [*v[:2], ["delta"]], "layer_kinds"),
        ("layer_kinds", lambda v: [*v[:2], "delta"], "delta"),  # whose sizes are not there
        ("delta", lambda v: DELTA, "delta absent"),
    ],
)
def test_a_run_line_that_no_model_has_is_refused(name: str, edit: Any, sentence: str) -> None:
    assert sentence in run_refusal(name, edit)


@pytest.mark.parametrize("change", [{"heads": 0}, {"key_heads": 2}, {"taps": 0}, {"key": 1.5}, {"colour": 1}])
def test_sizes_that_no_delta_layer_has_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LineRefusal, match="delta"):
        read_run(edited(DELTA_LEDGER, -1, "run", "delta", lambda v: v | change)[0])


def test_a_ledger_of_another_field_table_is_refused_by_its_table_whatever_its_fields() -> None:
    older = copy.deepcopy(LEDGER[0])
    del older["measured"]["layer_kinds"]
    older["measured"]["fields_sha256"] = "ab" * 32
    with pytest.raises(LineRefusal, match=f"expected the field table {fields.digest()}, got 'abab"):
        read_run(older)


def test_a_model_without_experts_has_no_router() -> None:
    none = {"absent": "no experts"}
    shape = lambda v: v | {"dense_layers": 3, "experts": 0, "chosen": 0}  # noqa: E731
    dense = edited(edited(edited(LEDGER, -1, "run", "shape", shape), -1, "run", "router", lambda _: none), -1, "run", "router_biases", lambda _: none)
    run = read_run(dense[0])
    assert (None, 0) == (run.router, run.runners_up)
    assert "layer 0" == check_line(at(LEDGER, 1, "layer 0"), run).slot
    with pytest.raises(LineRefusal, match=r"chosen absent \(dense layer\)"):
        check_line(at(LEDGER, 1, "layer 1"), run)


def test_the_first_line_must_be_the_run_line() -> None:
    for line in (None, LEDGER[1]):
        with pytest.raises(LineRefusal):
            read_run(line)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["absent", "head", "layer", "x"]), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(line=st.sampled_from(LEDGER[:12]), path=st.tuples(st.integers(0, 5), st.integers(0, 60)), value=JSON)
def test_whatever_stands_in_a_line_is_accepted_or_refused_and_nothing_else(line: dict[str, Any], path: tuple[int, int], value: Any) -> None:
    broken = copy.deepcopy(line)
    key = sorted(broken)[path[0]]
    if isinstance(broken[key], dict) and broken[key]:
        broken[key][sorted(broken[key])[path[1] % len(broken[key])]] = value
    else:
        broken[key] = value
    for reader in (read_run, lambda each: check_line(each, RUN)):
        try:
            reader(broken)
        except LineRefusal:
            continue
