"""In which order the explorer's views follow a selection: what is seen first, what has changed only, and nothing for a selection that is past."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from explorer_page import Opened
from verdicts import GREEDY

from formation.explorer import view

NOTED = """() => {
  globalThis.drawn = [];
  for (const follower of formation.view.selection.turns.followers) {
    const draw = follower.draw;
    follower.draw = (selection) => (drawn.push(follower.id), draw(selection));
  }
}"""
SET = "async (wanted) => { drawn.length = 0; await formation.view.selection.set(wanted); return drawn; }"


@pytest.fixture(scope="module")
def opened(browser: Any, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Greedy, standard capture: every drawing of a view is noted"""
    found = Opened(browser, tmp_path_factory.mktemp("explorer"), view.explorer(bundles[GREEDY]), "#position=3&layer=2")
    found.page.evaluate(NOTED)
    yield found
    found.close()


def test_a_view_is_drawn_again_only_if_what_it_shows_has_changed(opened: Opened) -> None:
    opened.page.evaluate(SET, {"position": 3, "layer": 2, "expert": -1})
    assert {"pins", "waterfall", "router", "experts"} == set(opened.page.evaluate(SET, {"expert": 1}))
    assert ["matrix"] == opened.page.evaluate(SET, {"metric": "residual_norm"})
    assert [] == opened.page.evaluate(SET, {"metric": "residual_norm"})
    assert {"experts", "track"}.isdisjoint(opened.page.evaluate(SET, {"boundary": "u"}))


def test_views_in_the_window_are_drawn_before_others(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 1280, "height": 400})
    opened.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    opened.page.wait_for_function(
        "() => { const { seen } = formation.view.selection.turns; return seen.has('track') && !seen.has('tokens') && !seen.has('matrix'); }"
    )
    seen = set(opened.page.evaluate("[...formation.view.selection.turns.seen]"))
    order = [name in seen or not name for name in opened.page.evaluate(SET, {"position": 4, "layer": 1})]
    assert sorted(order, reverse=True) == order and {True, False} == set(order)


def test_of_two_selections_the_later_is_what_every_view_shows(opened: Opened) -> None:
    opened.page.evaluate("""async () => {
      const first = formation.view.selection.set({ position: 2, layer: 0 });
      formation.view.selection.set({ position: 3, layer: 2 });
      await first;
    }""")
    assert "position 3, layer 2" == opened.page.inner_text("#cell .where")
    assert opened.page.inner_text("#lanes .readout").startswith("layer 2, x′")
    assert "The MoE of layer 2" in opened.page.inner_text("#waterfall .after")
    assert opened.page.inner_text("#track .readout").startswith("step at position 3") or "nothing about parts" in opened.page.inner_text("#track")


def test_only_views_that_need_no_lines_are_drawn_before_the_lines_are_here(opened: Opened) -> None:
    order = opened.page.evaluate("""async () => {
      const { Turns } = formation["turns.js"];
      const [turns, selection, drawn] = [new Turns(), { position: 1 }, []];
      const follow = (isQuick) => turns.follow(selection, ({ position }) => drawn.push([isQuick, position]), { names: ["position"], isQuick });
      [false, true].forEach(follow);
      drawn.length = 0;
      selection.position = 2;
      const turn = turns.next(false);
      await turns.draw(selection, turn, true);
      await turns.draw(selection, turn);
      return drawn;
    }""")
    assert [[True, 2], [False, 2]] == order


def test_a_turn_that_is_past_draws_nothing_more(opened: Opened) -> None:
    drawn = opened.page.evaluate("""async () => {
      const { Turns } = formation["turns.js"];
      const [turns, selection, drawn] = [new Turns(), { position: 1 }, []];
      const pass = () => new Promise((resolve) => setTimeout(resolve));
      const draw = (name) => async ({ position }) => (drawn.push(`${name}${position}`), pass());
      for (const name of ["a", "b"]) turns.follow(selection, draw(name), { names: ["position"], id: "" });
      drawn.length = 0;
      selection.position = 2;
      const first = turns.draw(selection, turns.next(false));
      selection.position = 3;
      const second = turns.next(false);
      await first;
      await turns.draw(selection, second);
      return drawn;
    }""")
    assert ["a2", "a3", "b3"] == drawn
