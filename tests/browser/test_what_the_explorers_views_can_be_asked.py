"""The choices that views offer: attribution along three directions, the lens of either row, attention by head, and only what is seen is painted."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from explorer_page import Opened, looked_at
from tests.evidence import whole_bundles
from verdicts import FULL, GREEDY, LONG

from formation.evidence.bundle import Bundle
from formation.explorer import view

STEP = 3


@pytest.fixture(scope="module")
def opened(browser: Any, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Full capture"""
    found = Opened(browser, tmp_path_factory.mktemp("explorer"), view.explorer(bundles[FULL]), f"#position={STEP}&layer=2")
    yield found
    found.close()


def rows_of(opened: Opened, card: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(opened.saved(card, "CSV"))))


def cells_of(bundle: Path) -> list[Any]:
    return [cell for cell in Bundle(bundle).cells if cell.position == STEP]


# ---- the waterfall's three directions


@pytest.mark.parametrize("share", ["centred", "runner_up"])
def test_attribution_along_another_direction_has_that_directions_parts(opened: Opened, bundles: dict[str, Path], share: str) -> None:
    opened.page.locator("#waterfall select").select_option(share)
    assert share == opened.fragment()["share"]
    rows = rows_of(opened, "waterfall")
    expected = [value for cell in cells_of(bundles[FULL]) for value in (getattr(cell, f"dla_{share}_attention"), getattr(cell, f"dla_{share}_mlp"))]
    assert expected == [float(row[2]) for row in rows if row[1].isdigit()]
    assert "derived" in rows[-1][0]
    assert "✓ closing gap" not in opened.text("#waterfall .closing >> nth=0")
    assert opened.text("#waterfall p.closing").startswith("✓ Σ = ")


def test_the_lead_over_the_runner_up_is_held_against_the_engines_own_two_logits(opened: Opened, bundles: dict[str, Path]) -> None:
    opened.page.locator("#waterfall select").select_option("runner_up")
    token = next(token for token in Bundle(bundles[FULL]).tokens if token.step == STEP)
    last = cells_of(bundles[FULL])[-1]
    assert token.chosen_logit - last.lens_runner_up_logit == float(rows_of(opened, "waterfall")[-1][2])
    assert opened.text("#waterfall .closing >> nth=0").startswith("– parts, and the difference of the engine's two logits")


def test_the_bar_of_an_moe_opens_into_its_experts_along_every_direction(opened: Opened, bundles: dict[str, Path]) -> None:
    cell = cells_of(bundles[FULL])[2]
    for share, name in (("raw", "dla_experts"), ("centred", "dla_centred_experts")):
        opened.page.locator("#waterfall select").select_option(share)
        shown = opened.page.evaluate(
            "[...document.querySelectorAll('#waterfall .expert-row')].map((row) => [row.children[0].textContent, row.children[2].textContent])"
        )
        for expert, value in zip(cell.chosen, getattr(cell, name), strict=True):
            written = next(text for title, text in shown if title == f"expert {expert}")
            assert value == pytest.approx(float(written.replace("−", "-")), rel=1e-3)
    opened.page.locator("#waterfall .link").first.click()
    assert int(opened.fragment()["expert"]) in cell.chosen


# ---- the lens


def test_the_lens_of_the_row_after_attention_is_offered_where_it_was_captured(
    browser: Any, opened: Opened, bundles: dict[str, Path], tmp_path: Path
) -> None:
    opened.page.locator("#lanes select").first.select_option("both")
    rows = rows_of(opened, "lanes")[1:]
    expected = [value for cell in cells_of(bundles[FULL]) for value in (cell.mid_lens_rank, cell.lens_rank)]
    assert expected == [int(row[3]) for row in rows if json.loads(row[0]) == "chosen"]
    assert {"u", "x'"} == {json.loads(row[2]) for row in rows}
    for page in looked_at(browser, tmp_path, view.explorer(bundles[GREEDY]), "#position=3&layer=2&boundary=u"):
        assert "x" == page.page.locator("#lanes select").first.input_value()
        assert 2 == page.page.locator("#lanes option[disabled]").count()
        assert "capture full" in page.text("#lanes select >> nth=0")


def test_lanes_can_be_ranks_or_probabilities_alone_and_name_the_layers_leader(opened: Opened, bundles: dict[str, Path]) -> None:
    opened.page.locator("#lanes select").first.select_option("x")
    for lane, texts in (("rank", ["rank"]), ("logprob", ["log probability, nats"]), ("both", ["rank", "probability"])):
        opened.page.locator("#lanes select").nth(1).select_option(lane)
        assert lane == opened.fragment()["lane"]
        drawn = opened.page.locator("#lanes svg text").all_text_contents()
        assert texts == [text for text in drawn if text in ("rank", "probability", "log probability, nats")]
    cell = cells_of(bundles[FULL])[2]
    assert [
        f"id {token}" in item for token, item in zip(cell.lens_top, opened.page.locator("#lanes .leaders li").all_inner_texts(), strict=True)
    ] == [True] * 5
    leaders = [row for row in rows_of(opened, "lanes") if "leader" in row[0]]
    assert [f"leader, id {each.lens_top[0]}" for each in cells_of(bundles[FULL])] == [json.loads(row[0]) for row in leaders]


# ---- attention


def test_attention_has_the_recorded_weights_of_every_head_and_the_ribbon_underlines_their_sources(opened: Opened, bundles: dict[str, Path]) -> None:
    opened.page.evaluate(f"formation.view.selection.set({{ position: {STEP}, layer: 2 }})")
    cell = cells_of(bundles[FULL])[2]
    found = sorted((int(row[2]), int(row[3]), float(row[5])) for row in rows_of(opened, "attention")[1:])
    assert sorted((each["head"], each["position"], each["weight"]) for each in cell.attention_strongest_by_head) == found
    underlined = opened.page.evaluate("[...document.querySelectorAll('#tokens .chip')].filter((chip) => chip.style.boxShadow).length")
    assert len({each["position"] for each in cell.attention_strongest_by_head}) == underlined
    source = found[0][1]
    mark = f"[...document.querySelectorAll('#attention .pick')].find((rect) => Number(rect.getAttribute('x')) >= {46 + source * 48} - 1)"
    opened.page.evaluate(f"{mark}.dispatchEvent(new MouseEvent('click', {{ bubbles: true }}))")
    assert str(source) == opened.fragment()["position"]


def test_attention_that_was_not_captured_is_absent_with_its_reason(opened: Opened, browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    opened.page.evaluate("formation.view.selection.set({ position: 0, layer: 1 })")
    assert "not captured here" in opened.text("#attention .nothing")
    for page in looked_at(browser, tmp_path, view.explorer(bundles[GREEDY]), "#position=3&layer=2"):
        assert "only the layer's eight largest" in page.text("#attention .sentence")
        strongest = cells_of(bundles[GREEDY])[2].attention_strongest
        assert [each["weight"] for each in strongest] == [float(row[5]) for row in rows_of(page, "attention")[1:]]


# ---- delta layers


class OfDeltaLayers(whole_bundles.BundleMaker):
    """Lines of a run whose last two layers have a delta net in attention's place, and a gate for the shared expert"""

    def __init__(self, kind: whole_bundles.Kind, **shape: Any) -> None:
        super().__init__(kind, **shape)
        self.kinds, self.gated = ("attention", "delta", "delta"), True


@pytest.mark.parametrize("steps", ["standard", "full"])
def test_a_delta_layer_shows_its_own_numbers_and_that_attention_is_absent(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: str
) -> None:
    monkeypatch.setattr(whole_bundles, "BundleMaker", OfDeltaLayers)
    bundle = whole_bundles.make(tmp_path / "run.ofb", whole_bundles.Kind(steps=steps))
    for page in looked_at(browser, tmp_path, view.explorer(bundle), f"#position={STEP}&layer=2&metric=attention_entropy"):
        assert "✓ Verified in this page" == page.text("#evidence .word")
        assert f"position {STEP}, layer 2: absent, delta layer" == page.text("#matrix .readout")
        assert "delta layer" == page.text("#attention .absent")
        cell = cells_of(bundle)[2]
        rows = rows_of(page, "attention")[1:]
        expected = list(cell.delta_decays) if steps == "full" else [cell.delta_decay_min, cell.delta_decay_mean, cell.delta_decay_max]
        assert expected == [float(row[3]) for row in rows]
        assert "Delta rule" in page.text("#cell") and 0 == page.page.locator("#tokens .chip[style*=box-shadow]").count()
        assert "gate 0.50000" in page.text("#router .after")
        titles = page.page.locator("#matrix option").all_inner_texts()
        assert {"Attribution: attention or delta net", "Norm of the attention or delta write"} <= set(titles)
        assert "attention or delta net (light)" in page.saved("waterfall", "SVG") and '"""delta net"""' in page.saved("waterfall", "CSV")
        page.page.evaluate("formation.view.selection.set({ layer: 0, metric: 'delta_decay_mean' })")
        assert f"position {STEP}, layer 0: absent, attention layer" == page.text("#matrix .readout")


def test_a_run_without_delta_layers_is_not_asked_about_them(opened: Opened) -> None:
    assert "delta" not in opened.page.locator("#matrix select").inner_text().lower()


# ---- only what is seen is painted


def test_of_a_long_run_only_the_columns_in_sight_are_painted(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    for found in looked_at(browser, tmp_path, view.explorer(bundles[LONG])):
        page = found.page
        page.set_viewport_size({"width": 420, "height": 700})
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        canvas, sheet = (page.locator(f"#matrix {name}").bounding_box() for name in ("canvas", ".sheet"))
        assert canvas["width"] < sheet["width"]
        page.evaluate("formation.view.selection.set({ position: 64, layer: 1 })")
        left = page.evaluate("document.querySelector('#matrix .scrolls-x').scrollLeft")
        assert left > 0
        size = page.evaluate(
            "(() => { const f = document.querySelector('#matrix .frame'); return [parseFloat(f.style.left) + 2, parseFloat(f.style.width) - 3]; })()"
        )
        page.locator("#matrix").scroll_into_view_if_needed()
        box = page.locator("#matrix canvas").bounding_box()
        page.mouse.click(box["x"] + size[0] - left - size[1] / 2, box["y"] + 12)
        assert {"position": "63", "layer": "2"} == {name: found.fragment()[name] for name in ("position", "layer")}
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert found.saved("matrix", "SVG").count("<rect") >= 65 * 3
