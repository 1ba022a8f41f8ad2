"""A ledger as tables: every value of its lines is in a record, as it stands there, and nothing else is read."""

from __future__ import annotations

import gc
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_ledger import MAKERS, SHAPE, Line, Maker, at, edited, small_ledger

from formation.errors import EnvironmentFault
from formation.ledger import canonical, fields
from formation.ledger.lines import vector
from formation.ledger.tables import (
    EXPERT,
    SHARED,
    TABLES,
    Absent,
    CellRecord,
    ExpertRecord,
    Record,
    TokenRecord,
    read_first,
    records,
)
from small_bundles import ANCHOR, long_ledger, small_bundle, with_bytes, write_bundle

LEDGER = small_ledger()


def read(folder: Path) -> list[Record]:
    return list(records(folder))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return read(small_bundle(tmp_path_factory.mktemp("tables") / "run.ofb"))


def of(kind: type, found: list[Record]) -> list[Any]:
    return [record for record in found if type(record) is kind]


def values(line: Line) -> dict[str, Any]:
    return line["measured"] | line["derived"]


def expected(dtype: str, stored: Any) -> Any:
    """What a stored value is in Python, written anew"""
    if isinstance(stored, dict):
        return Absent(stored["absent"])
    if dtype == "f32[]":
        return vector(stored)
    return tuple(stored) if isinstance(stored, list) else stored


# ---- what is in the tables


def test_every_value_of_a_cell_is_the_ledgers(found: list[Record]) -> None:
    cells = of(CellRecord, found)
    assert 4 * SHAPE["layers"] == len(cells)
    for cell in cells:
        line = at(LEDGER, cell.position, f"layer {cell.layer}")
        assert line["kind"] == cell.kind
        for field in fields.fields_of("layer", "full"):
            stored = values(line).get(field.name, {"absent": "not captured"})
            assert expected(field.dtype, stored) == getattr(cell, field.name), field.name


def test_every_value_of_a_token_is_the_ledgers(found: list[Record]) -> None:
    tokens = of(TokenRecord, found)
    assert [(1, 1, 2), (2, 2, 3), (3, 3, 4)] == [(t.token, t.step, t.position) for t in tokens]
    for token in tokens:
        for slot, prefix in (("lm_head", ""), ("sampler", ""), ("embed", "embed_"), ("token", "")):
            for field in fields.fields_of(slot, "full"):
                stored = values(at(LEDGER, token.step, slot))[field.name]
                if field.dtype != "bytes":
                    assert expected(field.dtype, stored) == getattr(token, prefix + field.name), field.name
        assert ("✓".encode(), "✓") == (token.bytes, token.text)
        assert math.exp(token.logprob) == pytest.approx(token.probability, rel=1e-15)


def test_experts_stand_in_the_order_of_their_gates_and_the_shared_one_last(found: list[Record]) -> None:
    for cell in of(CellRecord, found):
        own = [e for e in of(ExpertRecord, found) if (e.position, e.layer) == (cell.position, cell.layer)]
        if not cell.chosen:
            assert [] == own
            continue
        captured = cell.kind != "prompt"
        assert [*cell.chosen, *([SHARED] if captured else [])] == [e.expert for e in own]
        for name, of_chosen, of_shared in EXPERT:
            column = getattr(cell, of_chosen)
            assert [getattr(e, name) for e in own if not e.shared] == (list(column) if column else [column] * len(cell.chosen)), name
            if captured:
                assert (getattr(cell, of_shared) if of_shared else Absent("shared expert")) == getattr(own[-1], name)


def test_every_field_of_the_table_has_a_column() -> None:
    columns = {name: {c.name for c in record.columns} for name, record in TABLES.items()}
    assert {f.name for f in fields.FIELDS if f.slot == "layer"} <= columns["cells"]
    assert {f.name for f in fields.FIELDS if f.slot in ("lm_head", "sampler", "token")} <= columns["tokens"]
    assert {f"embed_{f.name}" for f in fields.FIELDS if f.slot == "embed"} <= columns["tokens"]
    assert {f.name for f in fields.FIELDS if f.length == "K"} - {"chosen"} == {source for _, source, _ in EXPERT}
    shared = {f.name for f in fields.FIELDS if fields.NO_SHARED in f.absent or fields.UNGATED in f.absent}
    assert shared == {source for _, _, source in EXPERT if source}
    for record in TABLES.values():
        assert len(record.columns) == len({c.name for c in record.columns})


@pytest.mark.parametrize("name", MAKERS)
def test_ledgers_of_other_models_are_read(name: str, tmp_path: Path) -> None:
    maker = MAKERS[name]
    lines = Maker(maker.router, biased=maker.biased, shared=maker.shared).lines()
    found = read(write_bundle(tmp_path / "run.ofb", lines))
    experts = of(ExpertRecord, found)
    assert {maker.shared} == {any(e.shared for e in experts)}
    biases = {e.bias for e in experts if not e.shared}
    assert maker.biased == (Absent("no bias") not in biases)


def test_an_absence_says_why_and_is_no_number(found: list[Record]) -> None:
    greedy = of(TokenRecord, found)[1]
    assert Absent("greedy") == greedy.draw
    assert not greedy.draw
    assert "absent: greedy" == str(greedy.draw)
    with pytest.raises(TypeError):
        greedy.draw + 1
    assert Absent("not captured") == of(CellRecord, found)[0].lens_rank
    assert Absent("dense layer") == of(CellRecord, found)[3].gates


def test_bytes_that_are_no_text_are_kept_as_bytes(tmp_path: Path) -> None:
    token = of(TokenRecord, read(write_bundle(tmp_path / "run.ofb", with_bytes(LEDGER, b"\xff\xe2"))))[0]
    assert (b"\xff\xe2", Absent("not UTF-8")) == (token.bytes, token.text)


def test_a_record_cannot_be_changed_and_tells_where_it_stands(found: list[Record]) -> None:
    token = of(TokenRecord, found)[0]
    with pytest.raises(AttributeError):
        token.stored = {}
    with pytest.raises(AttributeError):
        token.mood  # noqa: B018
    assert "TokenRecord(token=1, step=1, position=2" in repr(token)
    assert "surprisal_nats" in dir(TokenRecord)
    assert ANCHOR.run_id == token.run_id


# ---- what is not there, or should not be


@pytest.mark.parametrize("end", [0, 1, 2, 5, 8, 9, 12])
def test_an_incomplete_ledger_is_read_as_far_as_it_goes(end: int, tmp_path: Path, found: list[Record]) -> None:
    folder = write_bundle(tmp_path / "run.ofb", LEDGER[: 1 + end], complete=False, tail=b'{"torn')
    assert [r.stored for r in found][: len(read(folder))] == [r.stored for r in read(folder)]
    assert len([line for line in LEDGER[1 : 1 + end] if line["slot"].startswith("layer")]) == len(of(CellRecord, read(folder)))


def test_an_incomplete_ledger_ends_before_a_line_that_is_not_canonical(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "run.ofb", LEDGER[:5], complete=False, tail=b"{ }\n" + canonical.encode(LEDGER[5]) + b"\n")
    assert 3 == len(of(CellRecord, read(folder)))


def refusal(folder: Path) -> str:
    with pytest.raises(EnvironmentFault) as caught:
        read(folder)
    return str(caught.value)


def test_a_complete_ledger_that_is_torn_is_refused(tmp_path: Path) -> None:
    assert f"line {len(LEDGER) + 1}: expected a whole line" in refusal(write_bundle(tmp_path / "a", LEDGER, tail=b'{"torn'))
    assert "expected canonical JSON" in refusal(write_bundle(tmp_path / "b", LEDGER, tail=b"{ }\n"))
    assert "expected whole positions" in refusal(write_bundle(tmp_path / "c", LEDGER[:-1]))
    assert "expected the run line" in refusal(write_bundle(tmp_path / "d", []))
    assert "expected whole positions" not in refusal(write_bundle(tmp_path / "e", [], complete=False))
    assert "expected a ledger" in refusal(tmp_path)


def test_lines_out_of_order_are_refused(tmp_path: Path) -> None:
    swapped = [*LEDGER[:6], LEDGER[7], LEDGER[6], *LEDGER[8:]]
    assert "line 7: expected layer 0 of generated position 1, got layer 1" in refusal(write_bundle(tmp_path / "swapped", swapped))
    assert "line 6: expected embed of generated position 1" in refusal(write_bundle(tmp_path / "lacking", [*LEDGER[:5], *LEDGER[6:]]))
    assert "line 8: expected layer 1" in refusal(write_bundle(tmp_path / "twice", [*LEDGER[:7], LEDGER[6], *LEDGER[7:]]))


def test_a_line_that_is_not_of_the_field_table_is_refused_by_its_number(tmp_path: Path) -> None:
    broken = edited(LEDGER, 1, "layer 1", "gates", lambda _: 0.5)
    assert "line 8: expected gates" in refusal(write_bundle(tmp_path / "run.ofb", broken))


def test_a_probability_above_one_is_refused(tmp_path: Path) -> None:
    broken = edited(LEDGER, 1, "lm_head", "logprob", lambda _: 1e15)
    assert "expected a log probability of at most 0" in refusal(write_bundle(tmp_path / "run.ofb", broken))


def test_a_ledger_of_another_field_table_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "run.ofb", edited(LEDGER, -1, "run", "fields_sha256", lambda _: "00" * 32))
    with pytest.raises(EnvironmentFault, match="field table"):
        read_first(folder)


@settings(max_examples=60, deadline=None)
@given(number=st.integers(0, len(LEDGER) - 1), at=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_any_byte_of_a_ledger_may_be_another_and_gives_records_or_one_refusal(
    number: int, at: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = small_bundle(tmp_path_factory.mktemp("byte") / "run.ofb")
    lines = (folder / "ledger.jsonl").read_bytes().split(b"\n")
    line = bytearray(lines[number])
    line[at % len(line)] = byte
    lines[number] = bytes(line)
    (folder / "ledger.jsonl").write_bytes(b"\n".join(lines))
    try:
        read(folder)
    except EnvironmentFault as refusal:
        place = "line " if number == 0 else f"line {number + 1}: "  # all others are read by the first
        assert place in str(refusal) or byte == 10


# ---- cost


def test_no_more_records_live_in_a_long_ledger_than_in_a_short_one(tmp_path: Path) -> None:
    most = 0
    folder = write_bundle(tmp_path / "run.ofb", list(long_ledger(300)))
    for number, _ in enumerate(records(folder)):
        if number % 500 == 0:
            most = max(most, sum(isinstance(each, Record) for each in gc.get_objects()))
    standing = sum(isinstance(each, Record) for each in gc.get_objects())
    assert number > 300 * SHAPE["layers"]
    assert most - standing < 10
