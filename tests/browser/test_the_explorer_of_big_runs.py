"""The explorer of ledgers that are not read at once: in one page, piece by piece, and from its own server, which answers this machine only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from explorer_page import DONE, Opened, with_file
from tests.evidence.whole_bundles import Kind, make
from tests.served_bundles import serving
from verdicts import GREEDY, copy_of, files_of

from formation.explorer import view

TOKENS, LAST = 300, 303  # more than 2 MiB, which is no longer held whole


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("long") / "long.ofb", Kind(prompt=(3, 5, 3, 5, 7), tokens=TOKENS, rows="none", repeat=True))


@dataclass
class Reader:
    """A page from a server, open in the browser; what it said, and every address that it asked"""

    page: Any
    address: str
    said: list[str]
    asked: list[str]

    def word(self) -> str:
        return str(self.page.inner_text("#evidence .word"))


@contextmanager
def reading(browser: Any, address: str, fragment: str = "") -> Iterator[Reader]:
    with browser.new_context() as context:
        reader = Reader(context.new_page(), address, [], [])
        for event in ("console", "pageerror", "dialog"):
            reader.page.on(event, lambda what, event=event: reader.said.append(f"{event}: {what}"))
        reader.page.on("request", lambda request: reader.asked.append(request.url))
        reader.page.goto(address + fragment)
        reader.page.wait_for_selector(DONE)
        yield reader


# ---- from a server


def test_a_served_page_verifies_the_bundle_and_asks_nobody_but_its_server(browser: Any, bundles: dict[str, Path]) -> None:
    with serving(bundles[GREEDY]) as server, reading(browser, server.address) as found:
        assert "✓ Verified in this page" == found.word()
        assert ["INTEGRITY✓", "LEDGER✓"] == [found.page.locator(".pill").all_text_contents()[n] for n in (0, 2)]
        beyond = [url for url in found.asked if not url.startswith((server.address, f"blob:{server.address.split('/', 3)[0]}//127.0.0.1"))]
        assert [] == beyond and [] == found.said
        files = {url.removeprefix(f"{server.address}files/") for url in found.asked if "/files/" in url}
        assert {str(path.relative_to(bundles[GREEDY])) for path in files_of(bundles[GREEDY])} == files


def test_a_served_page_may_ask_its_own_server_only_and_runs_its_own_script_only(browser: Any, bundles: dict[str, Path]) -> None:
    ask = "(address) => fetch(address).then(() => 'answered', () => 'refused')"
    with serving(bundles[GREEDY]) as server, serving(bundles[GREEDY]) as other, reading(browser, server.address) as found:
        assert "answered" == found.page.evaluate(ask, server.address)
        assert "refused" == found.page.evaluate(ask, other.address)
        found.page.evaluate("document.body.append(Object.assign(document.createElement('script'), { textContent: 'globalThis.ran = true' }))")
        assert found.page.evaluate("globalThis.ran") is None


@pytest.mark.parametrize("name", ["ledger.jsonl", "rows/00000000.safetensors"])
def test_one_changed_byte_of_a_served_file_turns_the_bar_red(browser: Any, bundles: dict[str, Path], tmp_path: Path, name: str) -> None:
    file = copy_of(bundles[GREEDY], tmp_path) / name
    data = bytearray(file.read_bytes())
    with serving(tmp_path / "run.ofb") as server, reading(browser, server.address) as found:
        assert "✓ Verified in this page" == found.word()
        data[data.index(b'"residual_norm":') + 19 if name == "ledger.jsonl" else -3] ^= 1
        file.write_bytes(data)
        found.page.reload()
        found.page.wait_for_selector(DONE)
        assert "✗ Failed" == found.word()
        assert "Verified" not in found.page.inner_text("#evidence")


def test_a_server_that_is_gone_leaves_nothing_verified(browser: Any, long: Path) -> None:
    with serving(long) as server:
        site = server.site
        with browser.new_context() as context:
            page = context.new_page()
            page.route("**/files/**", lambda route: route.abort() if "tree-head" in route.request.url else route.continue_())
            page.goto(server.address)
            page.wait_for_selector(DONE)
            assert "stopped" == page.locator("#evidence").get_attribute("class")
            assert "– Not checked: the server that gave this page does not answer" == page.inner_text("#evidence .word")
            assert 0 == page.locator(".pill").count() and site.sizes["tree-head.txt"]


def test_a_long_served_ledger_answers_clicks_and_keys_with_lines_it_had_not(browser: Any, long: Path) -> None:
    with serving(long) as server, reading(browser, server.address, "#position=5&layer=1") as found:
        moved_about(found.page)
        assert "✓ Verified in this page" == found.word() and [] == found.said


# ---- in one page


def test_a_page_of_300_tokens_answers_clicks_and_keys_while_it_verifies(browser: Any, long: Path, tmp_path: Path) -> None:
    found = Opened(browser, tmp_path, view.explorer(long), "#position=5&layer=1")
    moved_about(found.page)
    assert "✓ Verified in this page" == found.text("#evidence .word")
    found.close()


def moved_about(page: Any) -> None:
    """By keys and by mouse, to positions whose lines are not here; those that were read are"""
    has = "(position) => formation.view.ledger.has(position)"
    assert [True, False, False] == [page.evaluate(has, n) for n in (5, 6, LAST)]
    page.mouse.click(3, 300)
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#cell .where >> text=position 6, layer 1")
    page.keyboard.press("End")
    page.wait_for_selector(f"#cell .where >> text=position {LAST}, layer 1")
    assert page.evaluate("formation.view.ledger.values(303, 'token').id") == page.evaluate("formation.view.ledger.positions[303].id")
    canvas = page.locator("#matrix canvas")
    canvas.click(position={"x": canvas.bounding_box()["width"] - 60, "y": 20})
    page.wait_for_function("() => formation.view.selection.layer === 2 && formation.view.ledger.has(formation.view.selection.position)")
    position = page.evaluate("formation.view.selection.position")
    assert position < LAST and f"position {position}, layer 2" == page.inner_text("#cell .where")
    assert [False, True] == [page.evaluate(has, 7), page.evaluate(has, 6)]


def test_all_positions_of_a_long_ledger_are_there_as_the_ledger_has_them(browser: Any, long: Path, tmp_path: Path) -> None:
    found = Opened(browser, tmp_path, view.explorer(long))
    values = "(n) => Object.fromEntries(['lm_head', 'token'].map((slot) => [slot, formation.view.ledger.values(n, slot)]))"
    for position in (4, 150, LAST):
        found.page.evaluate("(n) => formation.view.ledger.want(n)", position)
        line, summary = found.page.evaluate(values, position), found.page.evaluate("(n) => formation.view.ledger.positions[n]", position)
        assert [line["lm_head"]["surprisal_bits"], line["token"]["bytes"]] == [summary["surprisal_bits"], summary["bytes"]]
        cells = found.page.evaluate("(n) => [0, 1, 2].map((layer) => formation.view.ledger.cell(n, layer))", position)
        assert [cell["residual_norm"] for cell in cells] == summary["columns"]["residual_norm"]
        assert [cell["gates"] for cell in cells[1:]] == [layer["gates"] for layer in summary["experts"][1:]]
    assert LAST + 1 == found.page.evaluate("formation.view.ledger.positions.length")
    assert 0 == found.page.evaluate("formation.view.ledger.positions.filter(({ pending }) => pending).length")
    found.close()


def test_a_long_ledger_that_breaks_in_the_middle_is_shown_up_to_there(browser: Any, long: Path, tmp_path: Path) -> None:
    lines = (long / "ledger.jsonl").read_bytes().split(b"\n")
    at = next(n for n, line in enumerate(lines) if b'"position":200,' in line)
    lines[at] = lines[at].replace(b'"position":200,', b'"position":201,')
    found = Opened(browser, tmp_path, with_file(view.explorer(long), "ledger.jsonl", b"\n".join(lines)), "#position=250")
    assert "✗ Failed" == found.text("#evidence .word")
    assert f"line {at + 1}: expected embed at position 200" in found.text(".broken")
    assert [200, 199] == found.page.evaluate("[formation.view.ledger.positions.length, formation.view.selection.position]")
    found.close()
