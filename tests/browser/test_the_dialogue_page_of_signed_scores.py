"""The page of a scored transcript, and the signed ledgers that its rows were copied from: good is said of rows that are in them only."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from explorer_page import Opened, looked_at

from formation.cli.main import main
from formation.dialogue import page
from formation.dialogue.transcripts import jsonl
from formation.dialogue.transcripts.transcript import Message, Transcript
from formation.evidence import keys
from formation.samples import folder

TALK = Transcript(("lamp", "owl"), (Message(0, "What does len do?"), Message(1, "It counts."), Message(0, "[END]")))
GOOD = "✓ Rows are those of signed ledgers"


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both sides by the shipped sample; no test may change it"""
    place = tmp_path_factory.mktemp("scored")
    (place / "talk.jsonl").write_bytes(jsonl.write(TALK))
    sides = [word for name in TALK.names for word in ("--as", f"{name}={folder('kimi_k25')}")]
    machine = ["--rows", "none", "--parity", "none", "--threads", "1", "--key", str(place / "key")]
    keys.create(place / "key")
    assert 0 == main(["score", str(place / "talk.jsonl"), *sides, "--out", str(place / "out"), *machine])
    return place / "out"


def pills(opened: Opened) -> dict[str, str]:
    return {each.locator(".pill-name").inner_text(): each.locator(".pill-text").inner_text() for each in opened.page.locator(".pill").all()}


def test_rows_are_held_against_the_signed_ledgers_and_the_signer_is_one_that_the_page_does_not_know(
    browser: Any, scored: Path, tmp_path: Path
) -> None:
    key = keys.load(scored.parent / "key").public
    for found in looked_at(browser, tmp_path, page.packed(scored).page, "#message=2&token=1"):
        assert (GOOD, "passed") == (found.text("#evidence .word"), found.page.locator("#evidence").get_attribute("class"))
        assert ["✓"] * 7 == list(pills(found).values())[:7]
        assert f"by {key.fingerprint[:23]}, who is unknown to this page" == pills(found)["signed"]
        found.page.click("#evidence .word")
        answers = {key.text: "✓ The key that you know", f"sha256:{'0' * 64}": "✗ Another key", "?": "public key: expected", "": "expected a key"}
        for typed, said in answers.items():
            found.page.fill("#signer", typed)
            found.page.click(".signer button")
            assert found.page.locator(".signer [role=status]").inner_text().startswith(said)


def test_the_likeliest_tokens_come_from_the_line_of_the_ledger(browser: Any, scored: Path, tmp_path: Path) -> None:
    row = next(row for row in map(json.loads, (scored / "tokens.jsonl").read_text().splitlines()) if (row["message"], row["index"]) == (2, 1))
    lines = [json.loads(line) for line in (scored / "b.ofb" / "ledger.jsonl").read_bytes().splitlines()]
    line = next(line for line in lines if (line["slot"], line["position"]) == ("lm_head", row["position"] - 1))
    for found in looked_at(browser, tmp_path, page.packed(scored).page, "#message=2&token=1"):
        shown = found.page.locator("#token .leaders li").all_inner_texts()
        assert line["measured"]["top"][:10] == [int(re.findall(r"id (\d+),", each)[0]) for each in shown]


def a_row(name: str, value: Any) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        rows = [json.loads(line) for line in (place / "tokens.jsonl").read_text().splitlines()]
        rows[1][name] = value
        (place / "tokens.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    return change


def a_file(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        data = (place / name).read_bytes()
        assert old in data and len(old) == len(new)
        (place / name).write_bytes(data.replace(old, new, 1))

    return change


def exchanged(place: Path) -> None:
    """The two bundles under each other's names"""
    shutil.move(place / "a.ofb", place / "c.ofb")
    shutil.move(place / "b.ofb", place / "a.ofb")
    shutil.move(place / "c.ofb", place / "b.ofb")


BROKEN: dict[str, tuple[str, Callable[[Path], None]]] = {
    "an entropy of its own": ("copies", a_row("entropy_nats", 0.5)),
    "bytes of its own": ("copies", a_row("bytes", "eA==")),
    "a position that no step has": ("copies", a_row("position", 9999)),
    "a changed line of the ledger": ("root", a_file("a.ofb/ledger.jsonl", b'"rank_high":1', b'"rank_high":2')),
    "a changed tree head": ("signature", a_file("a.ofb/tree-head.txt", b"=\n", b"A\n")),
    "bundles of other sides": ("signature", exchanged),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_in_the_signed_ledgers_turns_the_bar_red(browser: Any, scored: Path, tmp_path: Path, case: str) -> None:
    check, change = BROKEN[case]
    place = tmp_path / "out"
    shutil.copytree(scored, place)
    change(place)
    for found in looked_at(browser, tmp_path, page.packed(place).page):
        assert ("✗ Failed", "✗", "failed") == (
            found.text("#evidence .word"),
            pills(found)[check],
            found.page.locator("#evidence").get_attribute("class"),
        )
        assert GOOD[2:] not in found.text("#evidence") and "by sha256" not in pills(found)["signed"]
        assert 0 == found.page.locator("#signer").count()


def test_without_a_bundle_the_rows_are_said_to_be_signed_by_nobody(browser: Any, scored: Path, tmp_path: Path) -> None:
    shutil.copytree(scored, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "b.ofb")
    for found in looked_at(browser, tmp_path, page.packed(tmp_path / "out").page):
        assert ("– Sums agree, nobody signed them here", "nobody") == (found.text("#evidence .word"), pills(found)["signed"])
        assert "signature" not in pills(found) and 0 == found.page.locator("#token .leaders").count()
