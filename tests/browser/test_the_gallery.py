"""A gallery as a reader has it: opened from disk, without a network, its links followed, its files dropped on its own verify page."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import vectors, whole_bundles
from tests.evidence.whole_bundles import SAMPLE, Kind, edit_lines, make, reseal

from formation.cli.main import main

KEY = vectors.key().public
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e\u2066\x1b[2J"
NAME = "<img src=x onerror=alert(3)>\u202e.ofb"


class Visit:
    """A page of a gallery, and what it said and asked for"""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_context(offline=True, **options).new_page()
        self.said: list[str] = []
        for event in ("console", "pageerror", "dialog"):
            self.page.on(event, lambda what, event=event: self.said.append(f"{event}: {what}"))
        self.page.on("request", lambda request: self.said.append(f"request: {request.url}"))
        self.page.goto(path.as_uri())
        assert [f"request: {path.as_uri()}"] == self.said
        self.said.clear()

    def close(self) -> None:
        self.page.context.close()
        assert [] == self.said


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    make(folder / "run.ofb", Kind(sampler=SAMPLE))
    assert 0 == main(["publish", str(folder / "run.ofb"), str(folder / "site"), "--signer", KEY.text])
    return folder / "site"


@pytest.fixture
def visit(browser: Any, gallery: Path) -> Iterator[Visit]:
    found = Visit(browser, gallery / "index.html")
    yield found
    found.close()


def test_the_first_page_opens_from_disk_and_says_the_verdict(visit: Visit) -> None:
    assert "How 3 tokens formed" == visit.page.title() == visit.page.locator("h1").inner_text()
    assert "✓ Verified" == visit.page.locator(".verdict h2").inner_text()
    assert ["Output", "What this is", "Verification result", "The evidence path", "Scope, and what is not proven", "Files"] == (
        visit.page.locator("main h2").all_inner_texts()
    )
    assert 4 == visit.page.locator(".path li").count()
    assert "none" != visit.page.locator(".verdict.passed").evaluate("(node) => getComputedStyle(node).borderLeftStyle"), "its style applies"


def test_levels_open_without_a_script(visit: Visit) -> None:
    assert 0 == visit.page.evaluate("document.scripts.length")
    check = visit.page.locator(".checks li", has_text="V1 container")
    assert not check.is_visible()
    visit.page.locator(".level summary").first.click()
    assert check.is_visible()


def test_a_token_leads_to_itself_in_the_explorer(visit: Visit, gallery: Path) -> None:
    visit.page.locator("a.chip").nth(1).click()
    visit.page.wait_for_selector("#evidence.passed")
    assert "position=3" in visit.page.url and visit.page.url.startswith((gallery / "explorer.html").as_uri())
    visit.said = [each for each in visit.said if not each.startswith(("request: blob:", f"request: {(gallery / 'explorer.html').as_uri()}"))]


@pytest.mark.parametrize("name", ["run.ofb.zip", "receipts/token-2.tlog-proof"])
def test_the_gallerys_own_page_verifies_what_can_be_downloaded(browser: Any, gallery: Path, name: str) -> None:
    found = Visit(browser, gallery / "verify.html")
    found.page.click("#options summary")
    found.page.fill("#signers", f"test {KEY.text}")
    found.page.set_input_files("#file", str(gallery / name))
    found.page.wait_for_selector(".verdict")
    assert f"✓ Verified: {Path(name).name}" == found.page.locator(".verdict h2").inner_text()
    found.said = [each for each in found.said if not each.startswith("request: blob:")]
    found.close()


@pytest.mark.parametrize("width", [1280, 800, 400])
def test_the_page_is_never_wider_than_the_screen(browser: Any, gallery: Path, width: int) -> None:
    found = Visit(browser, gallery / "index.html", viewport={"width": width, "height": 900})
    assert width == found.page.evaluate("document.documentElement.scrollWidth")
    found.close()


def axe(page: Any) -> list[tuple[str, str]]:
    """What axe-core finds; run by the test, past the page's policy"""
    module = pytest.importorskip("axe_playwright_python", reason="it brings axe-core")
    page.evaluate(f"() => {{ {(Path(module.__file__).parent / 'axe.min.js').read_text('utf-8')} }}")
    result = page.evaluate("axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice'] })")
    assert len(result["passes"]) > 20
    return [(each["id"], each["nodes"][0]["html"]) for each in result["violations"]]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_barrier(browser: Any, gallery: Path, theme: str) -> None:
    found = Visit(browser, gallery / "index.html", color_scheme=theme)
    for summary in found.page.locator("summary").all():
        summary.click()
    assert [] == axe(found.page)
    found.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose name, prompt and tokens are attacks, and which was then changed: published as one that fails"""
    folder = tmp_path_factory.mktemp("hostile")
    anchor_of = whole_bundles.anchor_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole_bundles, "anchor_of", lambda kind: replace(anchor_of(kind), prompt_text=HOSTILE))
        bundle = make(folder / NAME, Kind(rows="none"))
    spelled = base64.b64encode(HOSTILE.encode()).decode()
    edit_lines(bundle, lambda lines: [
        line | ({"measured": line["measured"] | {"bytes": spelled}} if line["slot"] == "token" else {}) for line in lines
    ])  # fmt: skip
    reseal(bundle)
    whole_bundles.edit_document(bundle, "host.json", lambda host: host.update(system=HOSTILE))
    assert 0 == main(["publish", str(bundle), str(folder / "site"), "--signer", KEY.text, "--allow-unverified"])
    return folder / "site"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_hostile_names_and_tokens_do_nothing_and_a_failure_stands_first(browser: Any, hostile: Path, theme: str) -> None:
    found = Visit(browser, hostile / "index.html", color_scheme=theme)
    said = found.page.locator("body").inner_text()
    assert said.startswith("✗ This bundle does not verify") and "✓ Verified" not in said
    assert 0 == found.page.evaluate("document.querySelectorAll('script, img').length")
    assert not {"\u202e", "\u2066", "\x1b"} & set(found.page.evaluate("document.documentElement.textContent"))
    assert (
        HOSTILE.replace("\u202e", "\\u202e").replace("\u2066", "\\u2066").replace("\x1b", "\\u001b") == found.page.locator(".chip").first.inner_text()
    )
    assert NAME.replace("\u202e", "\\u202e") in said
    assert 1280 == found.page.evaluate("document.documentElement.scrollWidth")
    assert [] == axe(found.page)
    found.close()
