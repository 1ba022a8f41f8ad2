"""What the explorer shows: one selection through all views, the ledger's numbers to the last digit, and hostile text as text."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from explorer_page import Opened, looked_at
from test_the_verify_page import HOSTILE
from verdicts import FULL, GREEDY, SAMPLED, copy_of, sealed_again

from formation.evidence.bundle import Bundle
from formation.explorer import view
from formation.ledger import canonical


@pytest.fixture(scope="module")
def opened(browser: Any, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Greedy, standard capture, all rows: tests leave it at whatever selection they like"""
    found = Opened(browser, tmp_path_factory.mktemp("explorer"), view.explorer(bundles[GREEDY]))
    yield found
    found.close()


# ---- one selection


def test_arrow_keys_move_one_selection_that_every_view_and_the_address_follow(opened: Opened) -> None:
    page = opened.page
    page.evaluate("formation.view.selection.set({ position: 2, layer: 1, expert: -1 })")
    page.mouse.click(3, 300)
    for key in ("ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    assert {"position": "3", "layer": "2"} == {name: opened.fragment()[name] for name in ("position", "layer")}
    assert "position 3, layer 2" == opened.text("#cell .where")
    assert opened.text("#matrix .readout").startswith("position 3, layer 2")
    assert opened.text("#lanes .readout").startswith("layer 2, x′: chosen: rank ")
    assert "Token 2, position 3" in opened.text(".token-name")
    page.keyboard.press("ArrowUp")
    assert "2" == opened.fragment()["layer"]


def test_a_click_in_the_matrix_selects_the_cell_under_it(opened: Opened) -> None:
    box = opened.page.locator("#matrix canvas").bounding_box()
    assert box
    opened.page.mouse.click(box["x"] + 46 + 56 * 0.5, box["y"] + 8 + 44 * 2.5)
    assert {"position": "0", "layer": "0"} == {name: opened.fragment()[name] for name in ("position", "layer")}
    assert "not a step" in opened.text("#waterfall") and "dense layer" in opened.text("#router")


def test_an_address_opens_its_selection_and_one_that_is_none_is_brought_into_range(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    content = view.explorer(bundles[SAMPLED])
    for page in looked_at(browser, tmp_path, content, "#position=3&layer=1&expert=5&metric=router_margin&grid=gate"):
        assert "position 3, layer 1" == page.text("#cell .where")
        assert "router_margin" == page.page.locator("#matrix select").input_value()
        assert page.text("#experts h3").startswith("Expert 5 of layer 1")
        page.page.evaluate("location.hash = '#position=999999&layer=-7&expert=x&metric=%3Cb%3E'")
        page.page.wait_for_selector("#cell .where >> text=position 4, layer 0")


# ---- what is shown


def test_the_waterfall_ends_at_the_engines_logit_and_prints_its_closing_gap(opened: Opened, bundles: dict[str, Path]) -> None:
    token = list(Bundle(bundles[GREEDY]).tokens)[1]
    opened.page.evaluate(f"formation.view.selection.set({{ position: {token.step}, layer: 2 }})")
    rows = list(csv.reader(io.StringIO(opened.saved("waterfall", "CSV"))))
    assert ["part", "layer", "contribution", "sum"] == rows[0]
    assert token.chosen_logit == float(rows[-1][2])
    assert token.chosen_logit == pytest.approx(float(rows[-2][3]), abs=1e-12)
    closing = opened.page.locator("#waterfall .closing li").all_inner_texts()
    assert closing[0].startswith("✓ closing gap") and closing[1].startswith("sum of parts")
    assert "The MoE of layer 2 in its experts" in opened.text("#waterfall")


def test_the_tables_and_csv_have_the_ledgers_numbers_to_the_last_digit(opened: Opened, bundles: dict[str, Path]) -> None:
    for metric in ("residual_norm", "lens_rank", "router_margin"):
        opened.page.evaluate(f"formation.view.selection.set({{ metric: '{metric}' }})")
        rows = list(csv.reader(io.StringIO(opened.saved("matrix", "CSV"))))
        expected = {(str(c.position), str(c.layer)): getattr(c, metric) for c in Bundle(bundles[GREEDY]).cells}
        found = {(row[0], row[1]): row[3] for row in rows[1:]}
        assert expected.keys() == found.keys()
        for place, value in expected.items():
            assert (json.loads(found[place]) == value.reason) if hasattr(value, "reason") else (float(found[place]) == value)


def test_every_chart_has_a_table_and_an_svg(opened: Opened) -> None:
    opened.page.evaluate("formation.view.selection.set({ position: 3, layer: 2, expert: 1 })")
    for card in ("tokens", "matrix", "lanes", "waterfall", "attention", "router", "experts"):
        assert opened.saved(card, "SVG").startswith("<svg ")
        button = opened.page.locator(f"#{card} .tools button", has_text="Table")
        button.click()
        assert opened.page.locator(f"#{card} .body tbody tr").count()
        button.click()
        assert 0 == opened.page.locator(f"#{card} .body table").count()


def test_a_derived_number_is_redone_in_the_page_with_its_own_gap(opened: Opened) -> None:
    page = opened.page
    page.evaluate("formation.view.selection.set({ position: 3, layer: 2 })")
    for selector, name in (("#tokens [data-field=surprisal_bits]", "surprisal_bits"), ("#waterfall [data-field=dla_logit]", "dla_logit")):
        page.click(selector)
        assert name == opened.text("#drawer-title")
        assert "derived" == opened.text("#drawer .tag")
        page.click("#drawer .recompute")
        assert opened.text("#drawer .recomputed").endswith("gap 0, bit-equal")
        page.keyboard.press("Escape")
        assert page.locator("#drawer").is_hidden()
        assert name == page.evaluate("document.activeElement.dataset.field")


def test_recomputing_a_number_that_was_changed_shows_how_far_it_is_off(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = copy_of(bundles[GREEDY], tmp_path)
    first, *rest = (bundle / "ledger.jsonl").read_bytes().splitlines()
    lines = [first, *(with_margin(line) for line in rest)]
    (bundle / "ledger.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    assert sealed_again(bundle)
    for page in looked_at(browser, tmp_path, view.explorer(bundle)):
        assert "✗ Failed" == page.text("#evidence .word")
        page.page.click("#tokens [data-field=top_margin]")
        page.page.click("#drawer .recompute")
        assert re.search("gap 0.2[45]", page.text("#drawer .recomputed"))


def with_margin(line: bytes) -> bytes:
    value = canonical.decode(line, limits=canonical.LINE)
    if value["slot"] == "lm_head":
        value["derived"]["top_margin"] += 0.25
    return canonical.encode(value)


def test_the_digest_of_a_row_that_the_bundle_keeps_is_taken_again_in_the_page(opened: Opened) -> None:
    page = opened.page
    page.evaluate("formation.view.selection.set({ position: 3, layer: 2 })")
    page.click("#cell summary >> text=Digests")
    for name in ("residual_sha256", "mlp_write_sha256", "router_selection_sha256"):
        page.click(f"#cell [data-field={name}]")
        page.click("#drawer .recompute")
        page.wait_for_selector("#drawer .recomputed >> text=: the same")
    assert page.evaluate("document.querySelector('#drawer').getBoundingClientRect().top >= document.querySelector('#top').offsetHeight - 1")
    page.keyboard.press("Escape")


def test_reading_and_waiting_are_shown_and_saved_as_a_trace(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = copy_of(bundles[GREEDY], tmp_path)
    part = {"part": "layer 1", "seconds_waited": 0.25, "disk_bytes": 96, "disk_uses": 1, "cache_bytes": 32, "cache_uses": 3}
    steps = [json.loads(line) | {"parts": [part]} for line in (bundle / "io.jsonl").read_text().splitlines()]
    (bundle / "io.jsonl").write_bytes(b"".join(canonical.encode(step) + b"\n" for step in steps))
    assert sealed_again(bundle)
    for page in looked_at(browser, tmp_path, view.explorer(bundle)):
        assert "75 % of 12 uses were hits, waited 0.75" in page.text("#track .after")
        with page.page.expect_download() as download:
            page.page.click("#track .controls button")
        events = json.loads(Path(download.value.path()).read_text())["traceEvents"]
        assert [0.25e6] * len(steps) == [event["dur"] for event in events if event["cat"] == "wait"]
        assert all(event["ph"] == "X" and event["args"]["disk_bytes"] == 96 for event in events)


def test_a_run_that_was_cut_off_is_shown_as_far_as_it_goes_and_is_no_success(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = copy_of(bundles[GREEDY], tmp_path)
    lines = (bundle / "ledger.jsonl").rename(bundle / "ledger.jsonl.part").read_bytes().splitlines(keepends=True)
    (bundle / "ledger.jsonl.part").write_bytes(b"".join(lines[:-2]))
    for name in ("attestation.json", "tree-head.txt", "parity.json"):
        (bundle / name).unlink()
    for page in looked_at(browser, tmp_path, view.explorer(bundle)):
        assert "✗ Failed" == page.text("#evidence .word")
        assert "shown as far as it can be read" in page.text(".broken")
        assert 4 == page.page.evaluate("formation.view.ledger.positions.length")


def test_the_router_shows_all_experts_where_their_row_is_kept_and_says_why_not_elsewhere(
    browser: Any, opened: Opened, bundles: dict[str, Path], tmp_path: Path
) -> None:
    opened.page.evaluate("formation.view.selection.set({ position: 3, layer: 2 })")
    opened.page.wait_for_selector("#router .after >> text=All experts")
    cell = next(c for c in Bundle(bundles[GREEDY]).cells if (c.position, c.layer) == (3, 2))
    rows = list(csv.reader(io.StringIO(opened.saved("router", "CSV"))))[1:]
    assert 8 == len(rows)
    assert list(cell.chosen) == [int(row[0]) for row in rows if json.loads(row[2]) == "chosen"]
    assert list(cell.gates) == [float(row[3]) for row in rows if json.loads(row[2]) == "chosen"]
    assert [cell.runners_up[0]] == [int(row[0]) for row in rows if json.loads(row[2]) == "first refused"]
    for page in looked_at(browser, tmp_path, view.explorer(bundles["no rows, no parity"])):
        assert "router/ is not in this bundle" in page.text("#router .after")


def test_hostile_text_is_shown_as_text_with_what_is_invisible_spelled_out(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = copy_of(bundles[GREEDY], tmp_path).rename(tmp_path / "<b onclick=x>&quot;.ofb")
    spelled = base64.b64encode(HOSTILE.encode() + b"\xff\n").decode()
    ledger = (bundle / "ledger.jsonl").read_bytes()
    (bundle / "ledger.jsonl").write_bytes(ledger.replace(b'"bytes":"4pyT"', f'"bytes":"{spelled}"'.encode()))
    assert sealed_again(bundle)
    for page in looked_at(browser, tmp_path, view.explorer(bundle)):
        assert "✓ Verified in this page" == page.text("#evidence .word")
        assert 0 == page.page.evaluate("document.querySelectorAll('img, main script, b[onclick]').length")
        assert "<b onclick=x>&quot;.ofb" == page.text("#name")
        shown = page.page.evaluate("document.body.textContent.replace(document.querySelector('body > script:last-child').textContent, '')")
        assert "<img src=x onerror=alert(1)>" in shown and "\\u{202e}" in shown and "\\u{1b}" in shown
        assert not {"\u202e", "\u2066", "\x1b"} & set(shown)


def test_a_token_without_text_is_shown_by_its_id(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = copy_of(bundles[GREEDY], tmp_path)
    ledger = (bundle / "ledger.jsonl").read_bytes()
    (bundle / "ledger.jsonl").write_bytes(ledger.replace(b'"bytes":"4pyT"', b'"bytes":""'))
    assert sealed_again(bundle)
    ids = [token.id for token in Bundle(bundle).tokens if not token.bytes]
    for page in looked_at(browser, tmp_path, view.explorer(bundle)):
        assert ids and [f"id {each}" for each in ids] == page.page.locator("#tokens .ribbon .chip .control").all_inner_texts()
        page.page.locator("#tokens .ribbon .chip", has_text=f"id {ids[0]}").first.click()
        assert f"id {ids[0]} a token without text" in page.text(".token-name") and "∅" not in page.text("body")


@pytest.mark.parametrize("name", [FULL, "no rows, no parity", "sampled, boundaries"])
def test_other_kinds_of_bundle_are_shown_without_a_word_on_the_console(browser: Any, bundles: dict[str, Path], tmp_path: Path, name: str) -> None:
    for page in looked_at(browser, tmp_path, view.explorer(bundles[name])):
        assert "✓ Verified in this page" == page.text("#evidence .word")
        assert 10 == page.page.locator("section.card").count()
        assert (name == FULL) == ("Lens of u" in page.text("#cell"))


DRAWN = "() => document.querySelector('#matrix canvas').toDataURL() + document.querySelector('#lanes svg').outerHTML"
DRAWN_AGAIN = f"""async (before) => {{
  for (let frames = 0; frames < 300 && ({DRAWN})() === before; frames++) await new Promise(requestAnimationFrame);
  return ({DRAWN})() !== before && document.documentElement.scrollWidth <= innerWidth;
}}"""


@pytest.mark.parametrize("change", ["size", "theme"])
def test_a_window_of_another_size_or_theme_draws_the_same_selection_again(
    browser: Any, bundles: dict[str, Path], tmp_path: Path, change: str
) -> None:
    for found in looked_at(browser, tmp_path, view.explorer(bundles[GREEDY]), "#position=3&layer=1"):
        before = found.page.evaluate(DRAWN)
        if change == "size":
            found.page.set_viewport_size({"width": 800, "height": 700})
        else:
            found.page.emulate_media(color_scheme="dark")
        assert found.page.evaluate(DRAWN_AGAIN, before)
        assert "position 3, layer 1" == found.text("#cell .where")


UNNAMED = """[...document.querySelectorAll('button, select, input, canvas, svg')]
  .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).length"""


def test_all_controls_are_reached_by_keyboard_and_have_names(opened: Opened) -> None:
    opened.page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    opened.page.mouse.click(3, 400)
    assert 0 == opened.page.evaluate(UNNAMED)
    opened.page.keyboard.press("Tab")
    assert "word" == opened.page.evaluate("document.activeElement.className")
    assert opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_barrier_for_people_who_do_not_see_or_point_well(browser: Any, bundles: dict[str, Path], tmp_path: Path, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="it brings axe-core")
    source = (Path(axe.__file__).parent / "axe.min.js").read_text("utf-8")
    for found in looked_at(browser, tmp_path, view.explorer(bundles[GREEDY]), "#position=3&layer=2&expert=1"):
        found.page.emulate_media(color_scheme=theme)
        found.page.click("#evidence .word")
        found.page.click("#tokens [data-field=surprisal_bits]")
        found.page.evaluate(f"() => {{ {source} }}")
        result = found.page.evaluate("axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice'] })")
        assert [] == [(each["id"], each["nodes"][0]["html"]) for each in result["violations"]]
        assert len(result["passes"]) > 20
