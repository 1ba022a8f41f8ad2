"""Where two ledgers first differ, whatever their lines are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formation.ledger import canonical
from formation.ledger.departure import first_departure

LINE = {"run_id": "00", "position": 3, "slot": "layer 2", "kind": "generated", "measured": {"a": 1, "b": [2]}, "derived": {"c": 0.5}}


def encoded(**changes: object) -> bytes:
    return canonical.encode(LINE | changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"run_id": "01"}, 'layer 2 at position 3, run_id: expected "00", got "01"'),
        ({"slot": "embed", "measured": {}}, 'layer 2 at position 3, slot: expected "layer 2", got "embed"'),
        ({"measured": {"a": 1, "b": [3]}, "derived": {}}, "layer 2 at position 3, b: expected [2], got [3]"),
        ({"measured": {"a": True, "b": [2]}}, "layer 2 at position 3, a: expected 1, got true"),
        ({"measured": {"b": [2]}}, 'layer 2 at position 3, a: expected 1, got "nothing"'),
        ({"derived": {"c": 0.25}}, "layer 2 at position 3, c: expected 0.5, got 0.25"),
        ({"derived": {"c": 0.5, "d": "x" * 500}}, 'layer 2 at position 3, d: expected "nothing", got "' + "x" * 79 + "…"),
        ({"derived": None}, "layer 2 at position 3, line: expected \"its bytes\", got \"others\""),
    ],
)
def test_the_first_field_that_differs_is_named(changes: dict, told: str) -> None:
    same = encoded(position=2)
    found = first_departure([same, encoded()], [same, encoded(**changes)])
    assert found is not None
    assert (1, told) == (found.line, str(found))


def test_a_ledger_that_ends_early_is_told() -> None:
    found = first_departure([encoded(), encoded(position=4)], [encoded()])
    assert 'line 2, line: expected "layer 2" at position 4, got the end of the ledger' == str(found)


@given(st.lists(st.binary(min_size=1), max_size=5), st.lists(st.binary(min_size=1), max_size=5))
def test_any_bytes_have_a_first_difference_or_none(one: list[bytes], other: list[bytes]) -> None:
    found = first_departure(one, other)
    assert (found is None) == (one == other)
    if found:
        assert one[: found.line] == other[: found.line]
        assert one[found.line : found.line + 1] != other[found.line : found.line + 1]


@given(st.dictionaries(st.sampled_from(sorted(LINE)), st.none() | st.integers(-9, 9) | st.text(max_size=3) | st.just([[]])))
def test_lines_of_any_form_are_explained(changes: dict) -> None:
    try:
        data = encoded(**changes)
    except canonical.CanonicalRefusal:
        return  # a lone surrogate
    assert (str(first_departure([encoded()], [data])) == "None") == (data == encoded())
