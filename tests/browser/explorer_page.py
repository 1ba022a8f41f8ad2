"""The explorer's page, opened in the browser as a reader has it: from disk, without a network, and with an ear on everything it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from formation.explorer import view

DONE = "#evidence.passed, #evidence.failed, #evidence.partial, #evidence.stopped"
ABOUT = re.compile(r'(<script type="application/json" data-about>)([^<]*)')
ELEMENT = re.compile(r'<script type="application/gzip" data-file="([^"]*)">([^<]*)</script>')


class Opened:
    """A page with a bundle in it, as a reader has it; what it said and asked for is kept."""

    def __init__(self, browser: Any, folder: Path, content: bytes, fragment: str = "") -> None:
        self.path = folder / "explorer.html"
        self.path.write_bytes(content)
        self.page = browser.new_context(offline=True, accept_downloads=True).new_page()
        self.said: list[str] = []
        for event in ("console", "pageerror", "dialog"):
            self.page.on(event, lambda what, event=event: self.said.append(f"{event}: {what}"))
        self.page.on("request", lambda request: self.said.append(f"request: {request.url}"))
        self.page.goto(self.path.as_uri() + fragment)
        self.page.wait_for_selector(DONE)

    def text(self, selector: str) -> str:
        """When every view has drawn what is selected"""
        self.page.evaluate("globalThis.formation.view?.selection.settled()")
        return str(self.page.locator(selector).inner_text())

    def fragment(self) -> dict[str, str]:
        return dict(part.split("=") for part in str(self.page.evaluate("location.hash.slice(1)")).split("&"))

    def saved(self, card: str, name: str) -> str:
        with self.page.expect_download() as download:
            self.page.locator(f"#{card} .tools button", has_text=name).click()
        return Path(download.value.path()).read_text("utf-8")

    def close(self) -> None:
        said = [each for each in self.said if not each.startswith(("request: blob:", f"request: {self.path.as_uri()}"))]
        self.page.context.close()
        assert [] == said


def looked_at(browser: Any, folder: Path, content: bytes, fragment: str = "") -> Iterator[Opened]:
    found = Opened(browser, folder, content, fragment)
    yield found
    found.close()


def with_file(content: bytes, name: str, data: bytes) -> bytes:
    """The page with another file in it, whole and well packed"""

    def resized(found: re.Match[str]) -> str:
        said = json.loads(found[2])
        return found[1] + json.dumps({**said, "sizes": {**said["sizes"], name: len(data)}})

    text = ABOUT.sub(resized, content.decode())
    found = [each for each in ELEMENT.finditer(text) if each[1] == name]
    packed = "".join(view.element(name, data[at : at + view.PIECE_BYTES]) for at in range(0, len(data), view.PIECE_BYTES))
    return (text[: found[0].start()] + packed + text[found[-1].end() :]).encode()
