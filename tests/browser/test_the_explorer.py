"""The explorer: one file with a bundle in it, which verifies that bundle itself, asks no network, and says nothing good of what fails."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from explorer_page import ELEMENT, Opened, looked_at, with_file
from test_the_verify_page import COMMENT, FORBIDDEN
from tests.evidence import vectors
from verdicts import GREEDY, copy_of, python_verdict

from formation.cli.main import main
from formation.explorer import page as made
from formation.explorer import view

MODULES = sorted((made.STATIC / "explore").glob("*.js"))
ARITHMETIC = re.compile(r"\|Math.*$")


@pytest.fixture(scope="module")
def opened(browser: Any, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Greedy, standard capture, all rows: tests leave it at whatever selection they like"""
    found = Opened(browser, tmp_path_factory.mktemp("explorer"), view.explorer(bundles[GREEDY]))
    yield found
    found.close()


# ---- one file


@pytest.mark.parametrize("source", MODULES, ids=lambda path: path.name)
def test_no_module_of_the_explorer_reads_markup_or_code_from_text_or_asks_a_network(source: Path) -> None:
    """But one, which asks the server that gave the page, and is allowed no other"""
    forbidden = re.compile(ARITHMETIC.sub("", FORBIDDEN.pattern))
    found = forbidden.findall(COMMENT.sub("", source.read_text()))
    assert forbidden.search("x.innerHTML") and (["fetch("] if source.name == "served.js" else []) == found


def test_the_page_holds_the_bundles_own_bytes_and_nothing_from_outside(bundles: dict[str, Path]) -> None:
    content = view.explorer(bundles[GREEDY]).decode()
    held: dict[str, bytes] = {}
    for name, text in ELEMENT.findall(content):
        held[name] = held.get(name, b"") + gzip.decompress(base64.b64decode(text))
    assert {str(path.relative_to(bundles[GREEDY])): path.read_bytes() for path in bundles[GREEDY].rglob("*") if path.is_file()} == held
    script, style = re.search("<script>(.*?)</script>", content, re.DOTALL), re.search("<style>(.*?)</style>", content, re.DOTALL)
    policy = re.search('Content-Security-Policy" content="([^"]*)"', content)
    assert script and style and policy
    expected = f"default-src 'none'; script-src '{made.source_hash(script[1])}'; style-src '{made.source_hash(style[1])}'"
    assert f"{expected}; base-uri 'none'; form-action 'none'; worker-src blob:" == policy[1]
    assert not re.search(r"\b(?:src|href|srcset|action)=|url\(|@import|<link|<iframe", content.replace(script[1], ""))
    assert view.explorer(bundles[GREEDY]) == content.encode()


def test_two_modules_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("verify", "explore"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.js").write_text("export const a = 1;\n")
    monkeypatch.setattr(made, "STATIC", tmp_path)
    with pytest.raises(ValueError, match="a name of its own"):
        made.modules("verify", "explore")


# ---- evidence, computed in the page


def test_the_bar_says_what_the_verifier_says(opened: Opened, bundles: dict[str, Path]) -> None:
    expected = python_verdict(bundles[GREEDY], known=False, allow_unknown_signer=True)
    marks = {"passed": "✓", "not claimed": "– not claimed"}
    pills = [pill.replace("\n", "") for pill in opened.page.locator(".pill").all_inner_texts()]
    assert [f"{level}{marks[state]}" for level, state in expected["levels"].items()] == pills[: len(expected["levels"])]
    assert "✓ Verified in this page" == opened.text("#evidence .word")
    census = next(check for check in expected["checks"] if check["name"] == "census")
    assert f"census✓ {census['checked']}" in pills


def test_one_changed_byte_of_the_ledger_turns_the_bar_red(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    content, ledger = view.explorer(bundles[GREEDY]), (bundles[GREEDY] / "ledger.jsonl").read_bytes()
    at = ledger.index(b'"residual_norm":') + 18
    changed = ledger[:at] + (b"1" if ledger[at : at + 1] != b"1" else b"2") + ledger[at + 1 :]
    assert len(changed) == len(ledger) and changed != ledger
    for found in looked_at(browser, tmp_path, with_file(content, "ledger.jsonl", changed)):
        assert "failed" == found.page.locator("#evidence").get_attribute("class")
        assert "✗ Failed" == found.text("#evidence .word")
        assert "INTEGRITY✗" == found.text(".pill >> nth=0").replace("\n", "")
        assert "Verified" not in found.text("#evidence")


def test_a_damaged_page_verifies_nothing_and_says_which_file(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    text = view.explorer(bundles[GREEDY]).decode()
    found = next(each for each in ELEMENT.finditer(text) if each[1] == "ledger.jsonl")
    middle = (found.start(2) + found.end(2)) // 2
    damaged = text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]
    for page in looked_at(browser, tmp_path, damaged.encode()):
        assert "✗ Failed" == page.text("#evidence .word")
        page.page.click("#evidence .word")
        assert "ledger.jsonl: expected whole gzip data in this page, got damaged" in page.text("#verdict")
        assert "Verified" not in page.text("body")


def test_a_line_that_is_none_ends_the_reading_and_what_came_before_is_shown(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    lines = (bundles[GREEDY] / "ledger.jsonl").read_bytes().split(b"\n")
    lines[-3] = b'{"__proto__":[' + lines[-3]
    content = with_file(view.explorer(bundles[GREEDY]), "ledger.jsonl", b"\n".join(lines))
    for page in looked_at(browser, tmp_path, content):
        assert "✗ Failed" == page.text("#evidence .word")
        assert f"line {len(lines) - 2}" in page.text(".broken")
        assert 1 == page.page.locator("#matrix canvas").count()


def test_a_key_that_the_reader_brings_decides_about_the_signer(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    for page in looked_at(browser, tmp_path, view.explorer(bundles[GREEDY])):
        assert "SIGNER– not claimed" == page.text(".pill >> nth=1").replace("\n", "")
        page.page.click("#evidence .word")
        page.page.fill("#signer", vectors.key().public.text)
        page.page.click(".signer button")
        page.page.wait_for_selector("#evidence.passed .pill:nth-child(2).passed")
        page.page.fill("#signer", "sha256:" + "0" * 64)
        page.page.click(".signer button")
        page.page.wait_for_selector("#evidence.failed .pill:nth-child(2).failed")


# ---- what is not in the page


def test_rows_too_big_for_a_page_are_left_out_and_the_bar_claims_nothing_of_them(
    browser: Any, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sorted(str(path.relative_to(bundles[GREEDY])) for path in bundles[GREEDY].glob("ro*/*"))
    size = sum(path.stat().st_size for path in bundles[GREEDY].rglob("*") if path.is_file())
    monkeypatch.setattr(view, "MOST_BYTES", size - 1)
    out = tmp_path / "run.html"
    assert 0 == main(["explore", str(bundles[GREEDY]), "--out", str(out), "--json"])
    said = capsys.readouterr()
    assert rows and rows == json.loads(said.out)["left_out"] and "does not show or check them" in said.err
    for found in looked_at(browser, tmp_path, out.read_bytes()):
        assert "partial" == found.page.locator("#evidence").get_attribute("class")
        assert "– Checked in part" == found.text("#evidence .word")
        pills = [pill.replace("\n", "") for pill in found.page.locator(".pill").all_inner_texts()]
        assert ["INTEGRITY– not claimed", "LEDGER– not claimed", "PARITY✓"] == [pills[0], *pills[2:4]]
        assert f"not checked– router/, rows/ ({len(rows)} files)" in pills
        found.page.click("#evidence .word")
        verdict = str(found.page.locator("#verdict").text_content())
        assert all(name in verdict for name in rows) and '"verdict": "checked in part"' in verdict
        assert "Verified" not in found.text("#evidence") and "a verified bundle" not in verdict


def test_a_changed_byte_turns_the_bar_red_with_rows_left_out_too(
    browser: Any, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(path.stat().st_size for path in bundles[GREEDY].rglob("*") if path.is_file())
    monkeypatch.setattr(view, "MOST_BYTES", size - 1)
    changed = (bundles[GREEDY] / "host.json").read_bytes().replace(b'"cores":2', b'"cores":4')
    for found in looked_at(browser, tmp_path, with_file(view.explorer(bundles[GREEDY]), "host.json", changed)):
        assert "✗ Failed" == found.text("#evidence .word")


# ---- where it works


def test_a_browser_without_workers_verifies_in_the_page_itself(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    page.write_bytes(view.explorer(bundles[GREEDY]))
    with browser.new_context(offline=True) as context:
        opened = context.new_page()
        opened.add_init_script("delete globalThis.Worker")
        opened.goto(page.as_uri())
        opened.wait_for_selector("#evidence.passed")
        assert [] == opened.workers and "✓ Verified in this page" == opened.inner_text("#evidence .word")


# ---- the command


def test_the_command_writes_the_page_and_says_where(bundles: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.html"
    assert 0 == main(["explore", str(bundles[GREEDY]), "--out", str(out), "--json"])
    assert {"page": str(out), "bytes": out.stat().st_size, "left_out": []} == json.loads(capsys.readouterr().out)
    assert view.explorer(bundles[GREEDY]) == out.read_bytes()


def test_what_is_no_bundle_or_too_big_is_refused_and_nothing_is_written(
    bundles: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, out = copy_of(bundles[GREEDY], tmp_path), tmp_path / "run.html"
    (bundle / "strange.txt").write_text("x")
    for path in (bundle, tmp_path / "nothing"):
        assert 3 == main(["explore", str(path), "--out", str(out)])
        assert "expected" in capsys.readouterr().err and not out.exists()
    monkeypatch.setattr(view, "MOST_BYTES", 100)
    assert 3 == main(["explore", str(bundles[GREEDY]), "--out", str(out)])
    err = capsys.readouterr().err
    assert "at most 100 bytes" in err and "--serve" in err and not out.exists()
