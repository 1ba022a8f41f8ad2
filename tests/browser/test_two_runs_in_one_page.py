"""Two bundles in one page: each verified by itself, linked by one selection, and the first departure is the one that formation compare names."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from explorer_page import Opened, looked_at
from two_runs import SECOND, departure, two
from verdicts import GREEDY, SAMPLED, copy_of, sealed_again

from formation.cli.main import main
from formation.evidence.bundle import Bundle
from formation.evidence.comparison import compare
from formation.explorer import view

OTHER = re.compile(r'<script type="application/gzip" data-side="b" data-file="([^"]*)">([^<]*)</script>')


@pytest.fixture(scope="module")
def opened(browser: Any, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A greedy, B sampled"""
    yield from two(browser, tmp_path_factory.mktemp("explorer"), bundles[GREEDY], bundles[SAMPLED], "#position=3&layer=2&metric=residual_norm")


def test_the_page_names_the_first_departure_that_the_command_names(opened: Opened, bundles: dict[str, Path]) -> None:
    first = compare(bundles[GREEDY], bundles[SAMPLED]).first
    assert first is not None
    assert departure(opened).startswith(
        f"They first differ in {first.slot} at position {first.position}, in {len(first.unequal)} of {first.compared} fields"
    )
    assert f"{first.unequal[0].field}: " in departure(opened)
    assert 1 == opened.page.locator("#compare .frame.departed").count()


def test_the_matrix_has_the_difference_of_both_ledgers_at_every_cell(opened: Opened, bundles: dict[str, Path]) -> None:
    rows = list(csv.reader(io.StringIO(opened.saved("compare", "CSV"))))[1:]
    ours, theirs = ({(c.position, c.layer): c.residual_norm for c in Bundle(bundles[name]).cells} for name in (GREEDY, SAMPLED))
    expected = [[*place, ours[place], theirs[place], theirs[place] - ours[place]] for place in ours if place in theirs]
    assert sorted(expected) == sorted([int(row[0]), int(row[1]), *map(float, row[2:])] for row in rows)


def test_tokens_stand_side_by_side_and_choosing_one_moves_every_view(opened: Opened, bundles: dict[str, Path]) -> None:
    found = compare(bundles[GREEDY], bundles[SAMPLED])
    marks = opened.page.locator("#compare .pair-mark").all_inner_texts()
    assert ["=" if pair.same else "≠" for pair in found.tokens] == marks
    opened.page.locator("#compare .pair button").last.click()
    last = found.tokens[-1].b
    assert last is not None and str(last.step) == opened.fragment()["position"]
    assert opened.text("#cell .where").startswith(f"position {opened.fragment()['position']},")


def test_numbers_of_b_open_their_provenance_in_b(opened: Opened, bundles: dict[str, Path]) -> None:
    opened.page.evaluate("formation.view.selection.set({ position: 3, layer: 2 })")
    value = next(token for token in Bundle(bundles[SAMPLED]).tokens if token.step == 3).chosen_logit
    opened.page.locator("#compare [data-field=chosen_logit]").first.click()
    assert value == float(opened.text("#drawer .big"))
    assert f"of {bundles[SAMPLED].name}" in opened.text("#drawer")
    opened.page.keyboard.press("Escape")
    assert opened.page.locator("#drawer").is_hidden()


def with_other_ledger(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    text = content.decode()
    found = next(each for each in OTHER.finditer(text) if each[1] == "ledger.jsonl")
    ledger = change(gzip.decompress(base64.b64decode(found[2])))
    return (text[: found.start(2)] + base64.b64encode(gzip.compress(ledger, mtime=0)).decode() + text[found.end(2) :]).encode()


def test_a_name_that_is_markup_is_text_and_one_changed_digit_of_b_fails_b_alone(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    hostile = copy_of(bundles[SAMPLED], tmp_path).rename(tmp_path / "<img src=x>\u202e.ofb")
    assert sealed_again(hostile)
    content = with_other_ledger(
        view.explorer(bundles[GREEDY], hostile),
        lambda ledger: re.sub(b'"residual_sha256":"[0-9a-f]{8}', b'"residual_sha256":"01234567', ledger, count=1),
    )
    for page in looked_at(browser, tmp_path, content):
        page.page.wait_for_selector(SECOND)
        assert "✓ Verified in this page" == page.text("#evidence .word")
        assert "✗ Failed" == page.text("#evidence-b .word")
        assert 0 == page.page.locator("img").count()
        assert "<img src=x>\\u{202e}.ofb" in page.text("#compare .sides")


def test_a_second_ledger_that_cannot_be_read_leaves_the_first_as_it_is(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    content = with_other_ledger(view.explorer(bundles[GREEDY], bundles[SAMPLED]), lambda ledger: b"[" + ledger[1:])
    for page in looked_at(browser, tmp_path, content):
        page.page.wait_for_selector(SECOND)
        assert "No position of B could be read: line 1" in page.text("#compare .nothing")
        assert "✓ Verified in this page" == page.text("#evidence .word") and "✗ Failed" == page.text("#evidence-b .word")
        assert 1 == page.page.locator("#matrix canvas").count()


def test_the_command_takes_a_second_bundle(bundles: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "two.html"
    assert 0 == main(["explore", str(bundles[GREEDY]), "--with", str(bundles[SAMPLED]), "--out", str(out), "--json"])
    assert json.loads(capsys.readouterr().out)["bytes"] == out.stat().st_size
    assert view.explorer(bundles[GREEDY], bundles[SAMPLED]) == out.read_bytes()
    assert 3 == main(["explore", str(bundles[GREEDY]), "--with", str(tmp_path / "nothing"), "--out", str(tmp_path / "none.html")])
    assert not (tmp_path / "none.html").exists() and "expected" in capsys.readouterr().err
