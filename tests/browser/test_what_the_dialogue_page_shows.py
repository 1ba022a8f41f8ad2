"""What the page of a dialogue shows: one selection through all views, what has no number as absent and never as 0, hostile text as text."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dialogue_logs import LN2, STOP, log, reported, said, spelt
from explorer_page import Opened, looked_at
from test_the_verify_page import HOSTILE

from formation.dialogue import events
from formation.dialogue import page as made

BIDI = "\u202etxt.exe\u2066"
NONE = {name: {"absent": "no probability"} for name in ("logprob_nats", "logprob_bits", "rank_low", "rank_high")}
CUT = {**NONE, "score": -2.0, "zero": "TRUNCATED(top-p)", "entropy_nats": 0.1, "varentropy": 0.1, "top_masses": [1], "support": 1}
NOT_DRAWN = {name: {"absent": "not sampled"} for name in ("draw", "low", "high")}


def a_page(folder: Path, data: bytes, claims: Any = None, forks: Any = None) -> bytes:
    (folder / "talk.dlg").mkdir(exist_ok=True)
    (folder / "talk.dlg" / events.NAME).write_bytes(data)
    given = []
    for name, value in (("claims.json", claims), ("tree.json", forks)):
        if value is not None:
            (folder / name).write_text(json.dumps(value))
        given.append(folder / name if value is not None else None)
    return made.packed(folder / "talk.dlg", *given).page


def the_log() -> bytes:
    """owl is a checkpoint, lamp a server: what they say is forced, cut off, hostile, in parts of characters, without a number"""
    talk = log("owl", "lamp", server=True)
    forced = said(b" zero", -40.0, method="forced", sampler=CUT, **NOT_DRAWN)
    talk.turn([said(b"It is"), forced, said(b" caf\xc3"), said(b"\xa9 \xf0\x9f"), said(b"\xa6\x89!"), said(b"<|im_end|>", id=STOP)])
    attack = [reported(HOSTILE.encode(), None, "SENTINEL(null)"), reported(BIDI.encode(), -9999, "SENTINEL(-9999.0)")]
    words = [reported(b"ok", -1.5, "POSITIVE", [(b"<b>", -0.5)]), reported(b"?", None, "BELOW_REPORT(at most -12.5)")]
    talk.turn([*attack, *words], "tokens", fault_after=2)
    return talk.turn([said(b"\xff\xfe\x00x"), said(b"\n\n"), said(b"[END]")], "tokens").end([(1, 5, 10), (3, 5, 9)]).data


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Tests leave it at whatever selection they like"""
    folder = tmp_path_factory.mktemp("dialogue")
    yield from looked_at(browser, folder, a_page(folder, the_log()))


def choose(opened: Opened, **wanted: Any) -> None:
    opened.page.evaluate(f"formation.view.selection.set({json.dumps(wanted)})")


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# ---- one selection


def test_arrow_keys_move_one_selection_that_every_view_and_the_address_follow(opened: Opened) -> None:
    choose(opened, token=0)
    opened.page.mouse.click(3, 400)
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowRight"):
        opened.page.keyboard.press(key)
    assert {"message": "2", "token": "1"} == {name: opened.fragment()[name] for name in ("message", "token")}
    assert opened.text("#glance .readout").startswith("message 2, token 2 of 4, lamp")
    assert opened.text("#curves .readout").startswith("message 2, token 2 of 4")
    assert "lamp, message 2, token 2 of 4" in opened.text("#token .token-name")
    assert "7" == opened.page.locator(".t.current").get_attribute("data-n")
    for key, place in (("ArrowUp", "0"), ("End", "2"), ("Home", "0")):
        opened.page.keyboard.press(key)
        assert place == opened.fragment()["token"]


def test_a_click_on_a_cell_of_the_map_or_on_a_word_selects_that_token(opened: Opened) -> None:
    box = opened.page.locator("#glance canvas").bounding_box()
    width = opened.page.evaluate("formation['glance.js'] && formation.view && document.querySelector('#glance .frame').offsetWidth")
    assert box and width
    opened.page.mouse.click(box["x"] + 40 + 2.5 * (width - 3), box["y"] + 9)
    assert {"message": "1", "token": "2"} == {name: opened.fragment()[name] for name in ("message", "token")}
    opened.page.locator(".t", has_text="[END]").click()
    assert {"message": "3", "token": "2"} == {name: opened.fragment()[name] for name in ("message", "token")}


def test_an_address_opens_its_token_and_one_that_is_none_is_brought_into_range(browser: Any, tmp_path: Path) -> None:
    for page in looked_at(browser, tmp_path, a_page(tmp_path, the_log()), "#message=2&token=99&value=rank&claim=7"):
        assert "lamp, message 2, token 4 of 4" in page.text("#token .token-name")
        assert "rank" == page.page.locator("#glance select").input_value() == page.page.locator("#said select").input_value()
        page.page.evaluate("location.hash = '#message=%3Cb%3E&token=-1&value=%3Cb%3E'")
        assert "message 2, token 4" in page.text("#token .token-name")


# ---- numbers, and where there are none


def test_a_token_of_a_server_without_a_number_is_absent_with_its_reason_and_never_zero(opened: Opened) -> None:
    found = rows(opened.saved("said", "CSV"))
    server = [row for row in found if row["side"] == '"lamp"']
    bits = [row["surprisal_bits"] for row in server]
    assert ['"absent"', '"absent"', '"absent"'] == [*bits[:2], bits[3]] and 1.5 / LN2 == float(bits[2])
    assert {'"absent"'} == {row["entropy_bits"] for row in server} | {row["rank_low"] for row in server} | {row["truncated_mass"] for row in server}
    choose(opened, token=6, value="surprisal")
    readout = opened.text("#glance .readout").lower()
    assert "surprisal, bits absent: the server's number is none: the server's way to say that it has no value" in readout
    assert 3 == opened.page.locator("#said .t.none").count()
    assert "SENTINEL (null): the server's way to say that it has no value; no probability at all" in opened.text("#token")
    choose(opened, token=9)
    assert "BELOW_REPORT (at most -12.5)" in opened.text("#token")


def test_a_forced_token_that_the_sampler_had_cut_off_says_so_in_words_and_keeps_the_models_probability(opened: Opened) -> None:
    choose(opened, token=1)
    said = opened.text("#token")
    assert "forced: it was put there, not chosen" in said and "TRUNCATED (top-p): a filter of the sampler cut the token off" in said
    model = opened.page.locator(".distributions tr", has_text="logprob_nats").locator("td").all_inner_texts()
    assert ["−40", "= model", "= model", "no probability"] == model
    assert 1 == opened.page.locator(".t.given-token").count()


def test_the_zero_kinds_can_be_seen_over_the_whole_dialogue(opened: Opened) -> None:
    choose(opened, token=1, value="zero")
    assert opened.text("#glance .readout").endswith("zero kind TRUNCATED(top-p)")
    kinds = [row["zero"] for row in rows(opened.saved("glance", "CSV"))]
    assert ['"POSITIVE"', '"TRUNCATED(top-p)"'] == kinds[:2] and not set(kinds) & {"0", "1", ""}
    assert kinds[6].startswith('"absent: SENTINEL (null)') and kinds[9].startswith('"absent: BELOW_REPORT')
    choose(opened, value="surprisal")


def test_the_numbers_that_are_saved_are_those_of_the_log(opened: Opened) -> None:
    with opened.page.expect_download() as download:
        opened.page.locator("#said button", has_text="JSON").click()
    saved = json.loads(Path(download.value.path()).read_text("utf-8"))
    tokens = [event for event in events.read(opened.path.parent / "talk.dlg") if event.kind == "token"]
    tokens = [*tokens[:6], *tokens[8:]]  # two of them are void
    assert [{"event": event.number, **event.body} for event in tokens] == saved["tokens"]


def test_what_a_fault_made_void_was_not_said(opened: Opened) -> None:
    assert 13 == opened.page.evaluate("formation.view.talk.tokens.length")
    assert "turn 2, lamp, attempt 1: 2 tokens void, again: the server hung up" in opened.text("#ending .faults")


def test_the_end_names_its_rule_and_leads_to_the_characters_that_it_saw(opened: Opened) -> None:
    assert "Ended by 3 messages after message 3." in opened.text("#ending")
    assert "message 1[5:10]" in opened.text("#ending .spans")
    opened.page.locator("#ending .spans button").first.click()
    assert {"message": "1", "token": "1"} == {name: opened.fragment()[name] for name in ("message", "token")}


# ---- text


def test_hostile_tokens_are_text_with_what_is_invisible_spelled_out(opened: Opened) -> None:
    assert 0 == opened.page.evaluate("document.querySelectorAll('img, main script, main b b, main link').length")
    shown = opened.page.evaluate("document.getElementById('said').textContent")
    assert "<img src=x onerror=alert(1)>" in shown and "\\u{202e}txt.exe\\u{2066}" in shown and "\\u{1b}[31m" in shown
    assert "\\u{0}x" in shown and not any(each in shown for each in "\u202e\u2066\x1b\x00")


def test_a_character_in_three_tokens_stands_once_where_it_is_complete(opened: Opened) -> None:
    texts = opened.page.locator(".message").first.locator(".t").all_text_contents()
    assert ["It is", " zero", " caf", "é ", "🦉!", "<|im_end|>"] == texts
    spans = opened.page.evaluate("formation.view.talk.tokens.slice(0, 6).map(({ begin, end }) => [begin, end])")
    assert [[0, 5], [5, 10], [10, 14], [14, 16], [16, 18], [18, 18]] == spans


# ---- claims


def claim(message: int, begin: int, end: int, quote: str, verdict: str = "refuted", **more: Any) -> dict[str, Any]:
    how = {"predicate": "it is zero", "procedure": "zero", "inputs": {"text": quote}, "scope": "local run", "caveat": HOSTILE}
    found = {"value": "POSITIVE", "unit": "", "interval": None, "verdict": verdict}
    return {"message": message, "span": [begin, end], "quote": quote, **how, **found, **more}


def test_a_claim_leads_to_its_words_and_a_word_to_its_claim(browser: Any, tmp_path: Path) -> None:
    claims = [claim(1, 6, 10, "zero"), claim(1, 16, 17, "🦉", "supported"), claim(2, 0, 3, "what"), claim(9, 0, 1, HOSTILE, "undetermined")]
    for page in looked_at(browser, tmp_path, a_page(tmp_path, the_log(), {"claims": [*claims, {"message": 1}]})):
        counts = page.page.locator(".verdict-counts span").all_inner_texts()
        assert ["✓ 1 supported", "✗ 2 refuted", "? 1 undetermined", "– 0 not measurable here"] == counts
        assert "claim 5 has not the form of one" in page.text("#claims .broken")
        page.page.locator(".claim-line").nth(1).click()
        assert {"message": "1", "token": "4", "claim": "1"} == page.fragment()
        assert "supported message 1[16:17], the quote stands there" in page.text(".claim").replace("\n", " ")
        assert ["4"] == [node.get_attribute("data-n") for node in page.page.locator(".t.of-claim").all()]
        assert "🦉!" == page.text(".claim tbody .link")
        page.page.locator(".t", has_text=" zero").click()
        page.page.locator(".claims-here button").click()
        assert "0" == page.fragment()["claim"]
        page.page.locator(".claim-line").nth(2).click()
        assert "the message has another text there" in page.text(".claim")
        page.page.locator(".claim-line").nth(3).click()
        assert "this page has no such message" in page.text(".claim") and HOSTILE[:20] in page.text(".claim")
        assert 0 == page.page.evaluate("document.querySelectorAll('img, main script').length")
        page.page.keyboard.press("Escape")
        assert "claim" not in page.fragment()


# ---- forks


def node(token: int, kind: str, text: bytes, p: float, *children: dict[str, Any], q: float | None = None) -> dict[str, Any]:
    number = {"logprob_nats": -1.0, "rank_low": 1, "rank_high": 1, "zero": "POSITIVE", "entropy_nats": 1.0}
    under = {"p": {"probability": p, **number}, "q": {"probability": p if q is None else q, **number}}
    place = {"id": 0, "parent": 0, "side": 0, "message": 1, "token": token, "kind": kind}
    return {**place, "token_id": 7, "bytes": spelt(text), **under, "children": list(children)}


def undecided(token: int, *children: dict[str, Any]) -> dict[str, Any]:
    absent = {"absent": "no token"}
    place = {"id": 0, "parent": None, "side": 0, "message": 1, "token": token, "kind": "undecided", "token_id": absent, "bytes": absent}
    leaders = {"entropy_nats": 1.25, "top": [{"id": 7, "bytes": spelt(b"<i>"), "logprob_nats": -0.25}]}
    return {**place, "next": leaders, "children": list(children)}


def test_edges_of_the_tree_are_as_wide_as_their_tokens_are_probable(browser: Any, tmp_path: Path) -> None:
    base = node(2, "sampled", b" zero", 0.5, node(3, "sampled", b" caf", 1.0))
    tree = {"format": "formation-fork-tree/1", "root": undecided(1, base, node(2, "forced", HOSTILE.encode(), 0.25), undecided(1))}
    for page in looked_at(browser, tmp_path, a_page(tmp_path, the_log(), forks=tree)):
        widths = page.page.evaluate("[...document.querySelectorAll('#forks polyline')].map((line) => Number(line.getAttribute('stroke-width')))")
        assert [0.75, 6, 12, 3, 0.75] == widths
        assert "6 3" == page.page.locator("#forks polyline").nth(3).get_attribute("stroke-dasharray")
        found = rows(page.saved("forks", "CSV"))
        assert ['"absent: no token"', "0.5", "1", "0.25", '"absent: no token"'] == [row["p"] for row in found]
        page.page.evaluate("formation.view.selection.set({ node: 0 })")
        assert "forced, p 0.25000: 0.50000 times the base branch's" in page.text("#forks") and "not to be compared" in page.text("#forks")
        page.page.locator("#forks rect.pick").nth(1).click(force=True)
        assert {"message": "1", "token": "1", "node": "1"} == page.fragment()
        assert 0 == page.page.evaluate("document.querySelectorAll('img, main script, #forks i').length")


def a_fork(folder: Path, **tables: Any) -> bytes:
    """The page of the dialogue with a fork's folder: two branches, one of which is the base's tokens again"""
    base = {**node(2, "sampled", b" zero", 0.5, {**node(3, "sampled", b" caf", 1.0), "id": 2}), "id": 1}
    other = {**node(2, "forced", HOSTILE.encode(), 0.25), "id": 3}
    (folder / "what-if").mkdir()
    (folder / "what-if" / "tree.json").write_text(json.dumps({"format": "formation-fork-tree/1", "root": undecided(1, base, other)}))
    branches = [{"choice": "free", "sample": 0, "leaf": 2}, {"choice": HOSTILE, "sample": 0, "leaf": 3}]
    far = {"choice": HOSTILE, "sample": 0, "offset": 1, "kl_nats": 2.5, "js_nats": 0.5}
    near = {"choice": "free", "sample": 0, "offset": 1, "kl_nats": 0, "js_nats": 0}
    (folder / "what-if" / "fork.json").write_text(json.dumps({"branches": branches, "divergences": [near, far], **tables}))
    (folder / "talk.dlg").mkdir()
    (folder / "talk.dlg" / events.NAME).write_bytes(the_log())
    return made.packed(folder / "talk.dlg", forks=folder / "what-if").page


def test_branches_are_drawn_token_by_token_and_share_the_selection_with_the_tree(browser: Any, tmp_path: Path) -> None:
    for page in looked_at(browser, tmp_path, a_fork(tmp_path)):
        found = rows(page.saved("branches", "CSV"))
        names = ("token", "kl_nats", "js_nats")
        assert [["1", "0", "0"], ["2", '"absent"', '"absent"'], ["1", "2.5", "0.5"]] == [[row[name] for name in names] for row in found]
        assert pytest.approx([1 / LN2] * 3) == [float(row["surprisal_bits"]) for row in found]
        page.page.locator("#branches rect.pick").last.click(force=True)
        assert "3" == page.fragment()["node"]
        assert "token 1: surprisal 1.4427 bits, entropy 1.4427 bits, then KL 2.5000 nats and JS 0.50000 nats from the base" in page.text("#branches")
        page.page.locator("#forks rect.pick").nth(1).click(force=True)
        assert "free, sample 0, token 1" in page.text("#branches") and "KL 0 nats" in page.text("#branches")
        assert 0 == page.page.evaluate("document.querySelectorAll('img, main script, #branches i').length")
        assert "✓ Chain checked in this page" == page.text("#evidence .word")


NO_TABLES = {
    "no branches": {"branches": {}},
    "no object": {"divergences": [1]},
    "another tree's leaf": {"branches": [{"choice": "x", "sample": 0, "leaf": 9}]},
}


@pytest.mark.parametrize("case", NO_TABLES)
def test_tables_that_are_none_of_the_tree_are_said_to_be_so(browser: Any, tmp_path: Path, case: str) -> None:
    for page in looked_at(browser, tmp_path, a_fork(tmp_path, **NO_TABLES[case])):
        assert "The tables of the fork could not be read" in page.text("#branches")
        assert "✓ Chain checked in this page" == page.text("#evidence .word")


NO_TREES = {
    "a list": [],
    "an empty root": {"root": {}},
    "a probability of 2": {"root": undecided(1, node(2, "sampled", b"x", 2))},
    "no base64": {"root": undecided(1, {**node(2, "sampled", b"x", 0.5), "bytes": "?"})},
}


@pytest.mark.parametrize("case", NO_TREES)
def test_a_tree_that_is_none_is_said_to_be_so(browser: Any, tmp_path: Path, case: str) -> None:
    for page in looked_at(browser, tmp_path, a_page(tmp_path, the_log(), forks=NO_TREES[case])):
        assert "The tree could not be read" in page.text("#forks")
        assert "✓ Chain checked in this page" == page.text("#evidence .word")


# ---- a scored transcript


def scored(folder: Path, **changed: Any) -> bytes:
    """A folder as formation score leaves it, of one side"""
    texts = [(1, b"Hello", False), (1, b"<|end|>", True), (3, HOSTILE.encode(), False)]
    table = []
    for n, (message, text, ends) in enumerate(texts):
        index = sum(each["message"] == message for each in table)
        place = {"side": "owl", "message": message, "index": index, "position": n, "id": 9 if ends else n, "bytes": base64.b64encode(text).decode()}
        numbers = {"logprob_nats": -1.5, "surprisal_bits": 1.5 / LN2, "rank_low": 2, "rank_high": 2, "entropy_nats": 0.5, "varentropy": 0.25}
        table.append({**place, "ends_turn": ends, **numbers, "event_probability": 0.125})
    count = {"event": "end of turn", "ids": [9], "observed": 1}
    side = {"name": "owl", "tokens": 3, "messages": 2, "nats": 4.5, "nats_per_token": 1.5, "count": count}
    folder.mkdir()
    (folder / "tokens.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in table))
    (folder / "summary.json").write_text(json.dumps({"sides": [side | changed]}))
    return made.packed(folder).page


def test_the_sums_of_a_scored_transcript_are_checked_and_no_signature_is_claimed_for_them(browser: Any, tmp_path: Path) -> None:
    for page in looked_at(browser, tmp_path, scored(tmp_path / "scored"), "#message=3"):
        assert "– Sums agree, nobody signed them here" == page.text("#evidence .word")
        assert "partial" == page.page.locator("#evidence").get_attribute("class")
        assert "scored: it was said elsewhere" in page.text("#token") and "nothing was sampled here" in page.text("#token")
        offered = page.page.locator("#glance option").evaluate_all("(options) => options.map(({ value }) => value)")
        assert ["surprisal", "entropy", "excess", "rank", "chance"] == offered
        assert 0 == page.page.evaluate("document.querySelectorAll('img, main script').length")


@pytest.mark.parametrize("changed", [{"nats": 4.4}, {"tokens": 4}, {"count": {"ids": [9], "observed": 2}}], ids=["nats", "tokens", "event"])
def test_a_sum_that_is_not_that_of_its_rows_turns_the_bar_red(browser: Any, tmp_path: Path, changed: dict[str, Any]) -> None:
    for page in looked_at(browser, tmp_path, scored(tmp_path / "scored", **changed)):
        assert "failed" == page.page.locator("#evidence").get_attribute("class")
        assert "✗ Failed" == page.text("#evidence .word") and "agree" not in page.text("#evidence .word")
