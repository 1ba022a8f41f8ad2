"""formation dialogue as a user types it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tests.dialogue.golden import OWN, RECORDED, needs_recorded

from formation.cli.main import main


def run(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> tuple[str, str]:
    assert code == main(["dialogue", *map(str, arguments)])
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_check_says_what_holds(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, 0, "--check", OWN)
    assert "messages  14: 7 and 7; stated: 14" in out and "93 s" in out and "[END]     4 messages of nothing else, 8 that end in it" in out
    assert ("what the header states holds, and the sides take turns", "") == (out.splitlines()[-1], err)


def test_check_fails_where_the_header_does_not_hold(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "t.md").write_text(OWN.read_text().replace("**Messages:** 14", "**Messages:** 15"))
    out, _ = run(capsys, 1, "--check", tmp_path / "t.md")
    assert "MISMATCH  count: expected 15 messages, as the header states, got 14" in out
    assert "holds" not in out
    told, _ = run(capsys, 1, "--check", tmp_path / "t.md", "--json")
    assert [{"fact": "count", "sentence": "expected 15 messages, as the header states, got 14"}] == json.loads(told)["mismatches"]


def test_convert_there_and_back_gives_the_same_bytes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, _ = run(capsys, 0, "--convert", OWN, "--out", tmp_path / "t.jsonl")
    assert "14 messages" in out
    told, _ = run(capsys, 0, "--convert", tmp_path / "t.jsonl", "--out", tmp_path / "t.md", "--json")
    assert len(OWN.read_bytes()) == json.loads(told)["bytes"]
    assert OWN.read_bytes() == (tmp_path / "t.md").read_bytes()
    _, err = run(capsys, 3, "--convert", OWN, "--out", tmp_path / "t.md")
    assert "expected a new file" in err


@needs_recorded
def test_the_recorded_dialogue_goes_there_and_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, 0, "--convert", RECORDED, "--out", tmp_path / "t.jsonl")
    run(capsys, 0, "--convert", tmp_path / "t.jsonl", "--out", tmp_path / "t.md")
    digest = hashlib.sha256((tmp_path / "t.md").read_bytes()).hexdigest()
    assert "c7ae7b14695dd4ae7577b940636ae8bd1e8215fdcad2027206dd60a9846367bc" == digest


def test_simulated_stops_name_rule_message_and_characters(capsys: pytest.CaptureFixture[str]) -> None:
    rules = ("both end", "--stop", "any ends and 9 messages", "--stop", "500 messages", "--stop", "3 tokens")
    out, _ = run(capsys, 0, "--simulate-stops", OWN, "--stop", *rules)
    assert [
        "rule                     ends after message, of 14",
        'both end                 7     6[3:8] "[END]" 7[13:18] "[END]"',
        'any ends and 9 messages  9     9[0:5] "[END]"',
        "500 messages             never",
        "3 tokens                 cannot be told: nothing here says its tokens",
    ] == out.splitlines()
    told, _ = run(capsys, 0, "--simulate-stops", OWN, "--stop", *rules, "--json")
    first, second, never, unknown = json.loads(told)["outcomes"]
    spans = [{"message": 6, "start": 3, "end": 8}, {"message": 7, "start": 13, "end": 18}]
    assert {"rule": "both end", "after": 7, "within": False, "spans": spans, "amounts": []} == first["evidence"]
    assert [{"what": "messages", "amount": 9}] == second["evidence"]["amounts"]
    assert (None, [], None, ["tokens"]) == (never["evidence"], never["unknown"], unknown["evidence"], unknown["unknown"])


def test_hostile_text_moves_no_cursor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = "# A\u202e ↔ B\n\n**Messages:** 1\n\n---\n\n### A\u202e\n\n\x1b[2J[END]\n\n---\n\n"
    (tmp_path / "t.md").write_text(text)
    out, _ = run(capsys, 0, "--simulate-stops", tmp_path / "t.md", "--stop", "any says nothing", "--stop", "cycle", "--stop", "any ends")
    assert "\x1b" not in out and "\u202e" not in out
    checked, _ = run(capsys, 0, "--check", tmp_path / "t.md")
    assert "\u202e" not in checked


WRONG = {
    "out without convert": (("--check", OWN, "--out", "x"), 2, "expected --convert with --out, got no --convert"),
    "convert without out": (("--convert", OWN), 2, "got no --out"),
    "stop without simulate": (("--check", OWN, "--stop", "any ends"), 2, "expected --simulate-stops with --stop"),
    "a form that is none": (("--convert", OWN, "--out", "x.txt"), 2, "ends in .md or .jsonl"),
    "a rule that is none": (("--simulate-stops", OWN, "--stop", "any sleeps"), 2, "got 'sleeps'"),
    "no file": (("--check", "none.md"), 3, "none.md"),
    "no transcript": (("--check", Path(__file__)), 3, "expected a log that begins with the heading"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_inputs_give_one_sentence(capsys: pytest.CaptureFixture[str], name: str) -> None:
    arguments, code, sentence = WRONG[name]
    out, err = run(capsys, code, *arguments)
    assert "" == out
    assert err.startswith("formation: ") and sentence in err and "Traceback" not in err
