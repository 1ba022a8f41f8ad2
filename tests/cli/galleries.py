"""Galleries as several tests publish and read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.evidence import vectors

from formation.cli.main import main
from formation.explorer import page

KEY = vectors.key().public
KNOWN = ("--signer", KEY.text)


def scripts_once() -> Iterator[None]:
    """The scripts of explorer and verify page are assembled once: they are the same in every gallery"""
    with pytest.MonkeyPatch.context() as patch:
        made: dict[str, str] = {}
        bundle = page.bundle
        patch.setattr(page, "bundle", lambda sources, entry=page.ENTRY: made.get(entry) or made.setdefault(entry, bundle(sources, entry)))
        yield


def run(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> tuple[str, str]:
    assert code == main(["publish", *map(str, arguments)])
    captured = capsys.readouterr()
    return captured.out, captured.err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Text(HTMLParser):
    """What a reader reads, and where links lead"""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(data.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))


def index(folder: Path) -> Text:
    return Text((folder / "index.html").read_bytes())
