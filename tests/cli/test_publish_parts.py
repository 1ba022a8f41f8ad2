"""The parts of a gallery: text never becomes markup, receipts' paths are those of the ledger's tree, a ZIP is the same bytes each time."""

from __future__ import annotations

import base64
import os
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from galleries import KNOWN
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evidence import whole_bundles
from tests.evidence.whole_bundles import Kind, edit_lines, make, reseal

from formation.cli.main import main
from formation.evidence.plain import INVISIBLE, counted, cut, number, size
from formation.explorer.gallery import copies, receipts
from formation.explorer.gallery.lens import RANKS, shade
from formation.explorer.gallery.markup import Markup, element, joined, text
from formation.ledger import merkle
from formation.ledger.tables import Absent

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;</style>{{BODY}}\u202e\u2066\x1b[2J\ud7ff\x00"


class Parsed(HTMLParser):
    def __init__(self, data: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, ...]] = []
        self.data = ""
        self.feed(data)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(value or "" for _, value in attrs)))

    def handle_data(self, data: str) -> None:
        self.data += data


@settings(deadline=None)
@given(st.text(), st.text())
def test_text_and_attributes_come_back_as_they_were_and_nothing_else(inside: str, attribute: str) -> None:
    visible = "".join(c for c in inside if unicodedata.category(c) not in INVISIBLE and c != "\r")
    shown = "".join(c for c in attribute if unicodedata.category(c) not in INVISIBLE)
    parsed = Parsed(element("p.a", visible, element("b", visible), title=shown))
    assert [("p", "a", shown), ("b",)] == parsed.found
    assert visible * 2 == parsed.data


@settings(deadline=None)
@given(st.text(st.characters(categories=["Cc", "Cf", "Co", "Zl", "Zp"], exclude_characters="\n"), min_size=1))
def test_nothing_invisible_is_left(hidden: str) -> None:
    told = text(hidden, "\n")
    assert not set(hidden) & set(told)
    assert told.startswith("\\u")


def test_markup_is_made_by_elements_alone() -> None:
    assert isinstance(joined("a", element("b")), Markup)
    assert "&lt;b&gt;<b></b>" == joined("<b>", element("b"))
    assert "&lt;b&gt;&lt;b&gt;" == joined("<b>", "".join(element("b"))[:3])


@settings(deadline=None)
@given(st.integers(1, 70))
def test_paths_from_below_are_the_paths_of_rfc_9162(size: int) -> None:
    leaves = [merkle.leaf_hash(bytes([n])) for n in range(size)]
    tree = receipts.levels(leaves)
    assert [merkle.root_of(leaves)] == tree[-1]
    assert [merkle.inclusion_path(leaves, n, size) for n in range(size)] == [receipts.path(tree, n) for n in range(size)]


def test_a_zip_has_stored_members_in_order_and_no_time(tmp_path: Path) -> None:
    names = {"b.json": 3, "a/00000000.safetensors": 5}
    for turn in range(2):
        folder = tmp_path / str(turn)
        for name, length in names.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"x" * length)
            os.utime(folder / name, (turn, turn))
            (folder / name).chmod(0o600 + turn)
        copies.pack(folder, names, tmp_path / f"{turn}.zip")
    assert (tmp_path / "0.zip").read_bytes() == (tmp_path / "1.zip").read_bytes()


def test_what_needs_zip64_is_no_zip() -> None:
    assert copies.fits_a_zip({"a": 1 << 30})
    assert not copies.fits_a_zip({"a": 1 << 31})
    assert not copies.fits_a_zip({"a": 1 << 30, "b": 1 << 30})
    assert not copies.fits_a_zip({str(n): 1 for n in range(1 << 16)})


def test_shades_follow_ranks_and_what_is_absent_has_the_faintest() -> None:
    assert [0, 1, 2, 3, 4, 5, 5] == [shade(rank) for rank in (1, 2, 4, 11, 101, 1001, Absent("not captured"))]
    assert 5 == len(RANKS)


def test_numbers_and_sizes_are_said_in_few_words() -> None:
    assert ["0.5", "1,234", "–", "x"] == [number(value) for value in (0.5, 1234, Absent("why"), "x")]
    assert ["1 byte", "999 bytes", "1 kB", "5.32 MB", "595 GB", "1.03 TB"] == [size(n) for n in (1, 999, 1000, 5_320_000, 595 * 10**9, 1030 * 10**9)]
    assert ["1 layer", "2 layers", "abc", "ab…"] == [counted(1, "layer"), counted(2, "layer"), cut("abc", 3), cut("abcd", 3)]


def hostile_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prompt, tokens, names of tensor types, the machine and the folder are all attack"""
    anchor_of, prompt = whole_bundles.anchor_of, HOSTILE.replace("\x00", "")
    monkeypatch.setattr(whole_bundles, "anchor_of", lambda kind: replace(anchor_of(kind), prompt_text=prompt))
    folder = make(tmp_path / "<img src=x onerror=alert(3)>\u202e\udcff.ofb", Kind(rows="none"))
    spelled = base64.b64encode(HOSTILE.encode()).decode()
    edit_lines(folder, lambda lines: [
        line | ({"measured": line["measured"] | {"bytes": spelled}} if line["slot"] == "token" else {}) for line in lines
    ])  # fmt: skip
    whole_bundles.edit_document(folder, "host.json", lambda host: host.update(system=HOSTILE * 50, kernels=HOSTILE))
    reseal(folder)
    return folder


def test_hostile_text_is_text_in_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hostile_bundle(tmp_path, monkeypatch)
    assert 0 == main(["publish", str(folder), str(tmp_path / "out"), *KNOWN])
    told = (tmp_path / "out" / "index.html").read_text("utf-8")
    parsed = Parsed(told)
    assert not {"script", "img"} & {tag for tag, *_ in parsed.found}
    assert 1 == told.count("<style>") == told.count("</style>") == told.count("<body")
    assert not {"\u202e", "\u2066", "\x1b", "\x00"} & set(told)
    assert "<script>alert(1)</script>" in parsed.data and "{{BODY}}\\u202e\\u2066\\u001b[2J" in parsed.data
    assert "<img src=x onerror=alert(3)>\\u202e?.ofb" in parsed.data
    assert len(told) < 200_000


def test_a_token_of_any_length_is_cut(tmp_path: Path) -> None:
    folder = make(tmp_path / "run.ofb", Kind(rows="none"))
    long = base64.b64encode(b"<" * 30_000).decode()
    edit_lines(folder, lambda lines: [
        line | ({"measured": line["measured"] | {"bytes": long}} if line["slot"] == "token" else {}) for line in lines
    ])  # fmt: skip
    reseal(folder)
    assert 0 == main(["publish", str(folder), str(tmp_path / "out"), *KNOWN])
    assert (tmp_path / "out" / "index.html").stat().st_size < 100_000
