"""Selections that are pinned stay beside the current one: in the address, in the matrix, number by number; and all of it by keyboard."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from explorer_page import Opened, looked_at
from two_runs import two
from verdicts import FULL, GREEDY, SAMPLED

from formation.evidence.bundle import Bundle
from formation.explorer import view


@pytest.fixture(scope="module")
def opened(browser: Any, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Greedy, standard capture: tests leave it at whatever selection and pins they like"""
    found = Opened(browser, tmp_path_factory.mktemp("explorer"), view.explorer(bundles[GREEDY]))
    yield found
    found.close()


def chosen_of(bundle: Path, position: int, layer: int) -> Any:
    return next(cell for cell in Bundle(bundle).cells if (cell.position, cell.layer) == (position, layer))


def select(opened: Opened, **wanted: Any) -> None:
    pairs = ", ".join(f"{name}: {value}" for name, value in wanted.items())
    opened.page.evaluate(f"formation.view.selection.set({{ {pairs} }})")


def pins(opened: Opened) -> str:
    return unquote(opened.fragment().get("pins", ""))


def test_shift_and_enter_pins_the_selection_and_lets_it_go_again(opened: Opened) -> None:
    select(opened, position=2, layer=1, expert=-1, pins="[]")
    opened.page.keyboard.press("Shift+Enter")
    assert "2.1.-1" == pins(opened)
    assert "Unpin" == opened.text("#cell .controls button")
    assert 1 == opened.page.locator("#matrix .frame.pinned").count()
    opened.page.keyboard.press("ArrowRight")
    assert "Pin" == opened.text("#cell .controls button")
    opened.page.keyboard.press("ArrowLeft")
    opened.page.keyboard.press("Shift+Enter")
    assert "" == pins(opened)
    assert "Nothing is pinned." == opened.text("#pins .body")


def test_the_numbers_of_a_pin_stand_beside_the_selections_with_their_difference(opened: Opened, bundles: dict[str, Path]) -> None:
    select(opened, position=3, layer=2, expert=1, pins="[{ position: 2, layer: 1, expert: 0 }]")
    rows = {json.loads(row[1]): row for row in list(csv.reader(io.StringIO(opened.saved("pins", "CSV"))))[1:]}
    here, pinned = chosen_of(bundles[GREEDY], 3, 2), chosen_of(bundles[GREEDY], 2, 1)
    for name in ("residual_norm", "lens_logit", "lens_rank", "dla_mlp", "router_margin"):
        expected = [getattr(here, name), getattr(pinned, name), getattr(here, name) - getattr(pinned, name)]
        assert expected == [float(value) for value in rows[name][2:]]
    expert = {"gate": here.gates, "contribution to y": here.dla_experts}
    for name, values in expert.items():
        n = list(here.chosen).index(1) if 1 in here.chosen else None
        assert (float(rows[name][2]) == values[n]) if n is not None else ("not chosen" in rows[name][2])


def test_a_number_of_a_pin_opens_the_place_of_that_pin(opened: Opened) -> None:
    select(opened, position=3, layer=2, pins="[{ position: 2, layer: 1, expert: -1 }]")
    opened.page.locator("#pins [data-field=residual_norm]").nth(1).click()
    assert "layer 1, position 2" in opened.text("#drawer")
    opened.page.keyboard.press("Escape")


def test_an_address_with_pins_opens_them_and_one_that_is_none_is_left_out(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    content = view.explorer(bundles[GREEDY])
    for page in looked_at(browser, tmp_path, content, "#position=3&layer=1&pins=2.1.-1,999999.9.0,2.1.-1"):
        assert ["position 2, layer 1", "position 4, layer 2, expert 0"] == page.page.locator("#pins .pin-list .link").all_inner_texts()
        page.page.evaluate("location.hash = '#pins=2.1.%3Cb%3E'")
        page.page.evaluate("location.hash = '#position=4'")
        page.page.wait_for_selector("#cell .where >> text=position 4, layer 1")
        assert 2 == page.page.locator("#pins .pin-list li").count()
        page.page.locator("#pins .pin-list .link").first.click()
        assert "position 2, layer 1" == page.text("#cell .where")


def test_of_more_pins_than_fit_the_oldest_goes(opened: Opened) -> None:
    select(opened, pins="[]")
    for position in range(5):
        select(opened, position=position, layer=2, expert=-1)
        opened.page.evaluate("formation.view.selection.pin()")
    assert "1.2.-1,2.2.-1,3.2.-1,4.2.-1" == pins(opened)


def test_a_pinned_prompt_position_has_no_token_and_says_so(opened: Opened) -> None:
    select(opened, position=3, layer=2, pins="[{ position: 0, layer: 0, expert: -1 }]")
    assert "not a step" in opened.page.locator("#pins table").first.inner_text()
    assert "dense layer" in opened.page.evaluate("document.querySelector('#pins').textContent")


def test_shift_and_arrows_go_through_the_experts_that_were_chosen(opened: Opened, bundles: dict[str, Path]) -> None:
    chosen = list(chosen_of(bundles[GREEDY], 3, 2).chosen)
    select(opened, position=3, layer=2, expert=-1, pins="[]")
    found = []
    for key in ["Shift+ArrowRight"] * (len(chosen) + 1) + ["Shift+ArrowLeft"]:
        opened.page.keyboard.press(key)
        found.append(int(opened.fragment()["expert"]))
    assert [*chosen, chosen[0], chosen[-1]] == found
    opened.page.keyboard.press("Escape")
    assert "-1" == opened.fragment()["expert"]


def test_home_and_end_go_to_the_first_and_last_position_and_a_control_keeps_its_own_keys(opened: Opened) -> None:
    select(opened, position=3, layer=2)
    opened.page.keyboard.press("Home")
    assert "0" == opened.fragment()["position"]
    opened.page.keyboard.press("End")
    assert "4" == opened.fragment()["position"]
    opened.page.focus("#matrix select")
    opened.page.keyboard.press("Home")
    assert "4" == opened.fragment()["position"]
    opened.page.evaluate("document.activeElement.blur()")


def test_axe_finds_no_barrier_at_800_pixels_with_pins_two_runs_and_open_details(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="it brings axe-core")
    source = (Path(axe.__file__).parent / "axe.min.js").read_text("utf-8")
    for found in two(browser, tmp_path, bundles[FULL], bundles[SAMPLED], "#position=3&layer=2&expert=1&pins=2.1.0&share=runner_up&boundary=both"):
        found.page.set_viewport_size({"width": 800, "height": 900})
        found.page.click("#pins [data-field=surprisal_bits] >> nth=0")
        found.page.click("#evidence-b .word")
        found.page.evaluate(f"() => {{ {source} }}")
        result = found.page.evaluate("axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice'] })")
        assert [] == [(each["id"], each["nodes"][0]["html"]) for each in result["violations"]]
        assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
