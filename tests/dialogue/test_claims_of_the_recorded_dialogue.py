"""The claims of the recorded dialogue: settled where it is here; the file alone says what it is about, and quotes little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.dialogue.golden import RECORDED, needs_recorded

from formation.cli.main import build_parser
from formation.dialogue.claims.claim import NOT_HERE, REFUTED, SUPPORTED
from formation.samples import folder

CLAIMS = Path(__file__).parents[2] / "examples" / "registered-mark.claims.toml"


def claims(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The document of the command"""
    args = build_parser(["claims"]).parse_args(["claims", str(RECORDED), "--claims", str(CLAIMS), *words, "--json"])
    assert 0 == args.run(args)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


GOLDEN = {SUPPORTED: 9, REFUTED: 12, NOT_HERE: 38}


def test_the_claims_of_the_recorded_dialogue_quote_little_and_say_what_they_are_about() -> None:
    text = CLAIMS.read_text()
    assert 45 <= text.count("[[claim]]") <= 60 and "transcript_sha256" in text
    assert max(len(line) for line in text.splitlines() if line.startswith("quote")) < 100


@needs_recorded
def test_the_claims_of_the_recorded_dialogue_are_settled(capsys: pytest.CaptureFixture[str]) -> None:
    told = claims(capsys)
    assert GOLDEN == {verdict: count for verdict, count in told["verdicts"].items() if count}
    assert 97 == told["transcript"]["messages"] and 59 == len(told["claims"])


@needs_recorded
def test_the_recorded_dialogue_with_a_sample_in_place_of_its_first_side(capsys: pytest.CaptureFixture[str]) -> None:
    told = claims(capsys, "--as", f"Kimi K2={folder('kimi_k25')}", "--memory", "64MiB", "--threads", "1", "--no-thinking")
    kimi = [each for each in told["claims"] if each["caveat"].startswith("under kimi_k25")]
    assert len(kimi) >= 12 and {SUPPORTED, REFUTED} == {each["verdict"] for each in kimi}
    assert next(each for each in kimi if each["procedure"] == "zero")["verdict"] == REFUTED
