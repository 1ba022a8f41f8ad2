"""Figures: what they draw lies within them and is what the ledger says; scales, numbers and texts for any input."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.evidence.whole_bundles import Kind, make

from formation.ledger.tables import Absent
from formation.note import figures, words
from formation.note.marks import Figure, Line, Rect, Scale, Words, ramp, settled, spaced
from formation.note.material import Material, gather

FINITE = st.floats(-(2.0**53), 2.0**53)  # as far as the ledger's numbers go


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return gather(make(tmp_path_factory.mktemp("figures") / "run.ofb", Kind(rows="none", tokens=5)), 2)


def drawn(m: Material) -> dict[str, Figure]:
    return {
        "lens": figures.lens(m.told, m.formation),
        "waterfall": figures.waterfall(m.formation),
        "routing": figures.routing(m.told, m.formation, m.bundle.run.shape.experts),
    }


@pytest.mark.parametrize("name", ["lens", "waterfall", "routing"])
def test_every_mark_lies_within_its_figure(material: Material, name: str) -> None:
    figure = drawn(material)[name]
    assert figure.marks
    for mark in figure.marks:
        right, bottom = (mark.x + mark.w, mark.y + mark.h) if isinstance(mark, Rect) else (mark.x, mark.y)
        assert 0 <= mark.x <= right <= figure.width + 1e-6
        assert 0 <= mark.y <= bottom <= figure.height + 1e-6


def test_the_bars_of_a_waterfall_add_up_to_the_engines_logit(material: Material) -> None:
    token = material.formation.token
    total = math.fsum(bar.value for bar in figures.bars(material.formation))
    assert token.chosen_logit == pytest.approx(total, abs=1e-9)
    assert 2 * len(material.formation.cells) + 3 == len(figures.bars(material.formation))


def test_the_largest_contributions_come_first_and_are_all_there_are(material: Material) -> None:
    found = figures.strongest(material.formation, 10_000)
    sizes = [abs(value) for _, _, value in found]
    assert sorted(sizes, reverse=True) == sizes
    assert len(found) == len({reference for _, reference, _ in found})
    cells = material.formation.cells
    dense = sum(not cell.chosen for cell in cells)
    assert 1 + len(cells) + dense + len(material.formation.experts) == len(found)


def test_ranks_are_darkest_at_one(material: Material) -> None:
    marks = figures.lens(material.told, material.formation).marks
    ranks = [rank for row in material.told.ranks for rank in row]
    cells = [mark for mark in marks if isinstance(mark, Rect) and mark.h == 13.0]
    assert len(ranks) == len(cells)
    assert {ramp(1.0)} == {cell.fill for cell, rank in zip(cells, ranks, strict=True) if rank == 1}
    assert ramp(1.0) not in {cell.fill for cell, rank in zip(cells, ranks, strict=True) if rank != 1}


def test_every_chosen_expert_is_framed(material: Material) -> None:
    marks = drawn(material)["routing"].marks
    frames = [mark for mark in marks if isinstance(mark, Rect) and not mark.fill]
    chosen = sum(len(cell.chosen) for cell in material.formation.cells if cell.chosen)
    assert chosen + 1 == len(frames)  # and the one of the legend


@given(FINITE, FINITE, st.integers(2, 9))
@example(-(2.0**53), 2.0**53, 5)
@example(0.0, 5e-324, 5)
def test_ticks_are_few_and_between_the_ends(low: float, high: float, most: int) -> None:
    ticks = Scale(low, high, 0.0, 100.0).ticks(most)
    room = abs(high - low) * 1e-9
    assert len(ticks) <= most + 1
    assert sorted(set(ticks)) == ticks
    assert all(min(low, high) - room <= tick <= max(low, high) + room for tick in ticks)


@given(st.integers(0, 100_000), st.integers(1, 50))
def test_labels_are_few(count: int, most: int) -> None:
    assert len(spaced(count, most)) <= most
    assert not count or 0 == spaced(count, most)[0]


@given(st.text())
@example("\u202e\x00\ud83d\ude00\u0301 中文 \\")
def test_any_text_is_shown_in_letters_of_the_typeface_and_can_be_read_back(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    told = words.shown(text)
    assert all(words.in_typeface(character) for character in told)
    assert text == json.loads(f'"{told}"')
    assert len(words.shown(text, 10)) <= 10


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.5, "0.5"), (-1234.5678, "−1234.6"), (1234567, "1,234,567"), (-1e-20, "−1e−20"), (Absent("dense layer"), "–")],
)
def test_numbers_are_rounded_for_print(value: object, told: str) -> None:
    assert told == words.number(value)


def test_places_are_settled_to_a_thousandth_of_a_point() -> None:
    figure = Figure(10.00004, 5.0, [Line(1 / 3, 0.0, 2 / 3, 1e-9), Words(0.12345, 1, "0.12345")])
    assert [0.333, 0.0, 0.667, 0.0] == [figure.document()["marks"][0][name] for name in ("x", "y", "to_x", "to_y")]
    assert "0.12345" == figure.document()["marks"][1]["text"]
    assert 10.0 == figure.document()["width"] == settled(10.00004)
