"""The page itself: one file, no network, hostile text shown as text, and never a good word about what was not verified."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import vectors
from verdicts import GREEDY, SAMPLED, copy_of

from formation.evidence import note, receipt
from formation.explorer import page as made
from formation.explorer.page import verify_page
from formation.ledger import canonical, merkle

KEY = vectors.key().public
SOURCES = sorted((made.STATIC / "verify").glob("*.js"))
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|fetch\(|XMLHttpRequest|WebSocket|sendBeacon|\bimport\("
    r"|localStorage|sessionStorage|indexedDB|document\.cookie|Math\.(?!abs|min|max|floor|ceil|sqrt|fround)"
)
COMMENT = re.compile(r"^ *(?://|/\*\*| \* ).*", re.MULTILINE)


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """As just opened, with the tester's key among the known signers"""
    with browser.new_context(offline=True) as context:
        page, said = context.new_page(), []
        page.goto(address)
        for event in ("request", "pageerror", "dialog"):
            page.on(event, lambda what, event=event: said.append(f"{event}: {what}"))
        page.click("#options summary")
        page.fill("#signers", f"test {KEY.text}")
        yield page
        assert [] == said


def verdict(page: Any, selector: str, path: Path) -> str:
    page.set_input_files(selector, str(path))
    page.wait_for_selector(".verdict, #status.wrong")
    return str(page.evaluate("(document.querySelector('.verdict h2') ?? document.querySelector('#status')).textContent"))


# ---- one file


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_module_reads_markup_or_code_from_text_asks_a_network_or_uses_inexact_arithmetic(source: Path) -> None:
    assert not FORBIDDEN.search(COMMENT.sub("", source.read_text()))


def test_the_page_refers_to_nothing_outside_of_it_and_its_policy_allows_only_its_own_script() -> None:
    text = verify_page().decode()
    script, style = re.search("<script>(.*?)</script>", text, re.DOTALL), re.search("<style>(.*?)</style>", text, re.DOTALL)
    policy = re.search('Content-Security-Policy" content="([^"]*)"', text)
    assert script and style and policy
    expected = f"default-src 'none'; script-src '{made.source_hash(script[1])}'; style-src '{made.source_hash(style[1])}'"
    assert policy[1].startswith(expected) and "unsafe" not in policy[1]
    outside = text.replace(script[1], "")
    assert not re.search(r"\b(?:src|href|srcset|action)=|url\(|@import|<link|<iframe", outside)
    assert verify_page() == verify_page()


def test_modules_that_need_each_other_or_speak_an_unknown_form_are_refused() -> None:
    circle = {"page.js": 'import { a } from "./b.js";\n', "b.js": 'import { c } from "./page.js";\nexport const a = 1;\n'}
    with pytest.raises(ValueError, match="without a circle"):
        made.bundle(circle)
    for source in ("export default 1;\n", "import x from './b.js';\n", 'export * from "./b.js";\n', "export let x = 1;\n"):
        with pytest.raises(ValueError, match="one of the forms known here"):
            made.bundle({"page.js": source})
    with pytest.raises(ValueError, match="end the script element"):
        made.bundle({"page.js": 'const x = "</script>";\n'})


def test_what_the_page_says_of_checks_and_fields_is_what_python_says(run) -> None:
    from dataclasses import asdict

    from formation.evidence import checks
    from formation.ledger import fields

    stored = run("() => [m['tables.js'].CHECKS.map((c) => [c.number, c.level, c.name, c.needs]), m['fields.js'].digest()]")
    expected = [[c["number"], c["level"], c["name"], list(c["needs"])] for c in map(asdict, checks.CHECKS)]
    assert [expected, fields.digest()] == stored


# ---- what a user sees


def test_a_folder_is_verified_with_its_levels_and_the_sentence_of_honesty(page: Any, bundles: dict[str, Path]) -> None:
    assert "✓ Verified: 0.ofb" == verdict(page, "#folder", bundles[GREEDY])
    assert ["passed"] * 4 == [text.split()[-1] for text in page.locator(".level summary .state").all_inner_texts()[:4]]
    proves = page.locator(".proves").inner_text()
    assert "only an audit proves the computation" in proves and "picked from many" in proves
    assert "Not said: the run began after" in page.locator(".level").last.inner_text()


def test_an_unknown_signer_is_no_success_and_an_allowed_one_is_not_claimed(page: Any, bundles: dict[str, Path]) -> None:
    page.fill("#signers", "")
    assert verdict(page, "#folder", bundles[GREEDY]).startswith("✗ Failed")
    assert "Verified" not in page.locator("#result").inner_text()
    page.check("#unknown")
    assert verdict(page, "#folder", bundles[GREEDY]).startswith("✓ Verified")
    assert "not claimed" in page.locator(".level").nth(1).inner_text()


NO_SIGNERS = {
    "not a key": "not a key",
    "a short key": "name AAAA",
    "one key twice": f"a {KEY.text}\nb {KEY.text}",
    "a name of two words": f"two names {KEY.text}",
    "a key of small order": "x " + "A" * 43 + "=",
}


@pytest.mark.parametrize("case", NO_SIGNERS)
def test_signers_that_are_none_are_refused_before_anything_is_said(page: Any, bundles: dict[str, Path], case: str) -> None:
    page.fill("#signers", NO_SIGNERS[case])
    assert verdict(page, "#folder", bundles[GREEDY]).startswith("Nothing was verified.")


def test_a_changed_byte_fails_in_the_page_and_opens_its_level(page: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = copy_of(bundles[SAMPLED], tmp_path)
    host = (bundle / "host.json").read_bytes()
    (bundle / "host.json").write_bytes(host.replace(b"avx2", b"avx9"))
    assert "✗ Failed: run.ofb" == verdict(page, "#folder", bundle)
    assert "V11 subjects: host.json: expected sha256" in page.locator(".verdict").inner_text()
    assert page.locator(".level details").first.evaluate("(details) => details.open")


def test_a_nonce_is_asked_for_only_if_one_is_typed(page: Any, bundles: dict[str, Path]) -> None:
    page.fill("#nonce", "mine")
    assert verdict(page, "#folder", bundles[GREEDY]).startswith("✗ Failed")
    page.fill("#nonce", "")
    assert verdict(page, "#folder", bundles[GREEDY]).startswith("✓ Verified")


def test_a_browser_that_cannot_check_signatures_says_so_and_verifies_nothing(page: Any, bundles: dict[str, Path]) -> None:
    page.evaluate("() => { crypto.subtle.importKey = () => Promise.reject(new DOMException('', 'NotSupportedError')); }")
    said = verdict(page, "#folder", bundles[GREEDY])
    assert said.startswith("Nothing was verified.") and "Ed25519" in said
    assert "Verified" not in page.locator("#result").inner_text()


def test_the_controls_are_reached_by_keyboard(page: Any) -> None:
    page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    page.mouse.click(5, 5)
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert ["folder", "file", "SUMMARY", "signers", "unknown", "nonce"] == reached


HOSTILE = "<img src=x onerror=alert(1)>\u202e\u2066\x1b[31m</pre><script>alert(2)</script>"


def hostile_receipt(folder: Path) -> Path:
    """Signed by a known key, about a line that is all attack"""
    run_id = "ab" * 32
    line = {"run_id": run_id, "position": 0, "slot": HOSTILE, "kind": HOSTILE, "measured": {"text": HOSTILE}, "derived": {}}
    root = merkle.root_of([merkle.leaf_hash(canonical.encode(line))])
    head = note.sign_tree_head(note.head_of(run_id, 1, root), vectors.key())
    path = folder / "hostile.receipt"
    path.write_bytes(receipt.encode(line, 0, [], head, KEY))
    receipt.read(path.read_bytes())
    return path


def test_hostile_text_is_shown_as_text_with_what_is_invisible_spelled_out(page: Any, tmp_path: Path) -> None:
    assert "✓ Verified: hostile.receipt" == verdict(page, "#file", hostile_receipt(tmp_path))
    assert 0 == page.evaluate("document.querySelectorAll('img, #result script').length")
    shown = page.evaluate("document.getElementById('result').textContent")
    assert "<img src=x onerror=alert(1)>\\u{202e}\\u{2066}\\u{1b}[31m</pre><script>" in shown
    assert not {"\u202e", "\u2066", "\x1b"} & set(shown)


def test_a_receipt_of_another_key_or_with_a_changed_byte_is_no_success(page: Any, tmp_path: Path) -> None:
    path = hostile_receipt(tmp_path)
    page.fill("#signers", "")
    assert verdict(page, "#file", path).startswith("✗ Failed")
    page.fill("#signers", f"test {KEY.text}")
    path.write_bytes(path.read_bytes().replace(b"index 0", b"index 1"))
    assert verdict(page, "#file", path).startswith("✗ Failed")
    assert "Verified" not in page.locator("#result").inner_text()


def test_a_file_of_another_kind_is_refused_by_the_first_check_and_named_by_its_digest(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"abc")
    assert "✗ Failed: notes.txt" == verdict(page, "#file", path)
    assert "V1 container" in page.locator(".verdict").inner_text()
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in page.locator(".verdict").inner_text()


def test_a_dropped_file_is_taken_like_a_chosen_one(page: Any, tmp_path: Path) -> None:
    text = hostile_receipt(tmp_path).read_bytes()
    page.evaluate("""(bytes) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(bytes)], "dropped.receipt"));
      document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }""", list(text))  # fmt: skip
    page.wait_for_selector(".verdict")
    assert "✓ Verified: dropped.receipt" == page.locator(".verdict h2").inner_text()
