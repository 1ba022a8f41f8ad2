"""checkpoint.json: the quick reader takes what the slow one takes, with the same names, and leaves everything else to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.evidence import whole_bundles
from tests.evidence.broken_bundles import report_of

from formation.errors import EnvironmentFault
from formation.evidence import checkpoint_json
from formation.evidence.checkpoint_json import END, HEAD, ROOT, TABLE, Checkpoint, quickly, slowly
from formation.evidence.strict import Refused
from formation.ledger import canonical, merkle
from formation.ledger.anchor import Anchor

FILES = canonical.encode(whole_bundles.FILES)
SOUND = [canonical.encode(row) for row in whole_bundles.TENSORS]
BARE = whole_bundles.Kind(rows="none", parity="none")


def named(names: list[str]) -> list[bytes]:
    return [canonical.encode(whole_bundles.TENSORS[0] | {"name": name}) for name in names]


def whole(table: bytes) -> Iterator[bytes]:
    return checkpoint_json.blocks(table, range(len(table)))


def document(table: bytes, files: bytes = FILES) -> tuple[bytes, Anchor]:
    """With an anchor that agrees with it as far as one can: the root is over the rows as the quick reader tells them apart"""
    root = checkpoint_json.root_of(whole(table)).decode()
    frozen = replace(whole_bundles.anchor_of(BARE), tensor_table_root=root, checkpoint_sha256=sha256(files).hexdigest())
    return HEAD + files + TABLE + table + ROOT + root.encode() + END, frozen


def verdict(data: bytes, frozen: Anchor) -> Checkpoint | None:
    try:
        return slowly(data, frozen)
    except Refused:
        return None


def agrees(data: bytes, frozen: Anchor) -> Checkpoint | None:
    """What the quick reader takes, which the slow one must take alike"""
    found = quickly(data, frozen)
    assert found in (None, verdict(data, frozen))
    return found


def test_a_sound_table_is_taken_at_once_and_alike() -> None:
    assert Checkpoint(2, whole_bundles.NAMES) == agrees(*document(b",".join(SOUND)))


BETWEEN = [",", "\n", "}\n{", " ", ",,", "", "\r", "\u2028", ", ", "},{", ",{},", '{"', "\0"]
HOSTILE = [
    b"", b"{}", b"null", b"[]", b'{"name":"z"}', SOUND[0].replace(b'"F32"', b'"F3\\u0032"'), SOUND[0].replace(b":0,", b":00,"),
    SOUND[0].replace(b":0,", b":-0,"), SOUND[0].replace(b":0,", b":0.0,"), SOUND[0].replace(b":0,", b":17,"), SOUND[0].replace(b":16", b":1e2"),
    SOUND[0].replace(b"[2,2]", b"[]"), SOUND[0].replace(b"[2,2]", b"[2,]"), SOUND[0].replace(b"[2,2]", b"[,]"), SOUND[0].replace(b"[2,2]", b"[-1]"),
    SOUND[0].replace(b"[2,2]", b"[[2]]"), SOUND[0].replace(b'"model.safetensors"', b'"elsewhere"'), SOUND[0].replace(b'"model.', b'"\nmodel.'),
    SOUND[0].replace(b"a.weight", b'a"weight'), SOUND[0].replace(b"a.weight", b"a\\\\weight"), SOUND[0].replace(b"a.weight", b"a{weight}"),
    SOUND[0].replace(b"a.weight", b"a},{weight"), SOUND[0].replace(b"a.weight", "aé🙂".encode()), SOUND[0].replace(b"a.weight", b"a\xff"),
    SOUND[0].replace(b"a.weight", b"a\x1f"), SOUND[0].replace(b"a.weight", b"a\x7f"), SOUND[0].replace(b"a.weight", b""),
    SOUND[0].replace(b":16", b":9007199254740991"), SOUND[0].replace(b":16", b":9007199254740993"), SOUND[0].replace(b":16", b":" + b"1" * 400),
    SOUND[0].replace(b'"begin"', b'"begin":0,"begin"'), SOUND[0].replace(b'{"begin":0,', b"{").replace(b"}", b',"begin":0}'),
    SOUND[0].replace(b'"name"', b'"nam\\u0065"'), SOUND[0] + b" ", b" " + SOUND[0], SOUND[0][:-1], SOUND[0][1:], SOUND[0] + b"}",
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*SOUND, *SOUND, *HOSTILE]), st.sampled_from([*BETWEEN[:1] * 8, *BETWEEN])), min_size=1, max_size=5))
@example([(SOUND[0], "\n"), (SOUND[1], ",")])
@example([(SOUND[0], "\n"), (SOUND[1], ","), (b"{}", ",")])
@example([(SOUND[0], ",,"), (SOUND[1], ",")])
@example([(b"", ","), (SOUND[0], ",")])
def test_whatever_stands_in_the_table_the_quick_reader_takes_nothing_that_the_slow_one_refuses(rows: list[tuple[bytes, str]]) -> None:
    agrees(*document(b"".join(row + (between.encode() if n + 1 < len(rows) else b"") for n, (row, between) in enumerate(rows))))


@pytest.mark.parametrize("row", [row for row in HOSTILE if row], ids=lambda row: ascii(row)[2:60])
def test_a_hostile_row_after_a_sound_one_is_left_to_the_slow_reader(row: bytes) -> None:
    assert quickly(*document(SOUND[0] + b"," + row)) is None


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_one_byte_changed_anywhere_is_refused_by_both(data: st.DataObject) -> None:
    whole, frozen = document(b",".join(SOUND))
    at, byte = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.binary(max_size=2))
    changed = whole[:at] + byte + whole[at + 1 :]
    assert changed == whole or (quickly(changed, frozen) is None and verdict(changed, frozen) is None)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=4), min_size=1, max_size=8, unique=True))
@example(["\U00010000", "\uffff"])
@example(["", "a"])
def test_names_of_any_text_get_one_verdict(names: list[str]) -> None:
    for order in (names, sorted(names, key=lambda name: name.encode())):
        data, frozen = document(b",".join(named(order)))
        assert read_or_none(data, frozen) == verdict(data, frozen)


def read_or_none(data: bytes, frozen: Anchor) -> Checkpoint | None:
    try:
        return checkpoint_json.read(data, frozen)
    except Refused:
        return None


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(b"[]", id="no file"),
        pytest.param(FILES.replace(b"config.json", b"../config.json"), id="a path that climbs"),
        pytest.param(FILES.replace(b":2}", b":02}"), id="a number in another form"),
        pytest.param(FILES.replace(b'"file"', b'"fil\\u0065"'), id="an escape"),
        pytest.param(FILES[:-1] + b"," + FILES[1:], id="files twice"),
        pytest.param(FILES + b',"more":1', id="another field behind the files"),
    ],
)
def test_files_in_another_form_are_refused_by_both(files: bytes) -> None:
    data, frozen = document(b",".join(SOUND), files)
    assert quickly(data, frozen) is None
    with pytest.raises(Refused) as refusal:
        slowly(data, frozen)
    assert "checkpoint" == refusal.value.check


def test_an_empty_table_is_refused_even_if_the_anchor_has_the_root_of_nothing() -> None:
    data, frozen = document(b"")
    assert merkle.EMPTY_ROOT.hex() == frozen.tensor_table_root
    assert quickly(data, frozen) is None
    with pytest.raises(Refused, match="expected a list, got an empty one"):
        checkpoint_json.read(data, frozen)


# ---- large ones


def large(count: int) -> bytes:
    return b",".join(named([f"layers.{n:06}.weight" for n in range(count)]))


@pytest.fixture(scope="module")
def table() -> bytes:
    return large(8000)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 600, 1023])
@pytest.mark.parametrize("subtree", [1, 2, 8, 1024])
def test_the_root_is_that_of_the_tree_whatever_the_number_of_rows(count: int, subtree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_json, "SUBTREE", subtree)
    rows = named([f"{n:04}" for n in range(count)])
    assert merkle.root_of(map(merkle.leaf_hash, rows)).hex().encode() == checkpoint_json.root_of(whole(b",".join(rows)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*SOUND, *HOSTILE, *map(str.encode, BETWEEN)]), min_size=1, max_size=4), st.sampled_from([1, 100, 1 << 16]))
def test_rows_are_told_apart_as_their_leaves_are_wherever_a_block_ends(parts: list[bytes], size: int) -> None:
    """What is taken has one row for each leaf"""
    table = SOUND[0] + b"".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_json, "BLOCK", size)
        try:
            names = checkpoint_json.names_of(whole(table), frozenset({"model.safetensors"}))
        except checkpoint_json.Unsure:
            return
        leaves = [leaf for block in whole(table) for leaf in checkpoint_json.leaves_of(block)]
    rows = json.loads(b"[" + table + b"]")
    assert names == [row["name"] for row in rows]
    assert leaves == [merkle.leaf_hash(canonical.encode(row)) for row in rows]


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(checkpoint_json, "processes", lambda size_bytes: request.param)
    yield request.param


def test_a_table_of_many_blocks_is_taken_by_one_process_and_by_two(processes: int, table: bytes) -> None:
    data, frozen = document(table)
    assert len(table) > 10 * checkpoint_json.BLOCK
    assert slowly(data, frozen) == quickly(data, frozen)


def test_another_root_is_refused_in_words_by_one_process_and_by_two(processes: int, table: bytes) -> None:
    data, frozen = document(table)
    other = data.replace(b"layers.004000.", b"layers.004000,")
    assert quickly(other, frozen) is None
    with pytest.raises(Refused, match=f"checkpoint.json, tensor_table_root: expected '[0-9a-f]{{64}}', got '{frozen.tensor_table_root[:20]}"):
        checkpoint_json.read(other, frozen)


def test_a_process_that_dies_is_no_verdict(monkeypatch: pytest.MonkeyPatch, table: bytes) -> None:
    data, frozen = document(table)
    monkeypatch.setattr(checkpoint_json, "processes", lambda size_bytes: 2)
    monkeypatch.setattr(checkpoint_json, "root_of", lambda blocks: 1 // 0)
    with pytest.raises(EnvironmentFault, match="ended with code 1"):
        checkpoint_json.read(data, frozen)


def test_a_row_longer_than_a_line_of_a_ledger_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is text like any other; what a reader may not do is end without a verdict"""
    rows: list[Any] = [whole_bundles.TENSORS[0] | {"name": "n" * 2_000_000}]
    root = merkle.root_of(merkle.leaf_hash(canonical.encode(row, limits=canonical.DOCUMENT)) for row in rows).hex()
    checkpoint = {"files": whole_bundles.FILES, "tensor_table": rows, "tensor_table_root": root}
    folder = whole_bundles.make(tmp_path / "run.ofb", replace(BARE, checkpoint=checkpoint))
    assert () == report_of(folder).failed
    monkeypatch.setattr(checkpoint_json, "quickly", lambda data, frozen: None)
    assert () == report_of(folder).failed
