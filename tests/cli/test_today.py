"""A chat template that asks which day it is: it is told the day that was declared, by every command that renders one, and no clock is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import formation
from formation.cli.main import main
from formation.dialogue import events
from formation.dialogue.transcripts import jsonl
from formation.dialogue.transcripts.transcript import Message, Transcript
from formation.ledger.start import read_anchor
from formation.text import load_tokenizer
from formation.text.prompt import read_day
from recorded_runs import contents
from small_models import K2_TEMPLATE

HOW = ["--memory", "32MiB", "--threads", "1"]
RECORDED = [*HOW, "--tokens", "2", "--parity", "none"]
DAY = ["--today", "2026-01-02"]
ASKED = "Today is {{ strftime_now('%d %B %Y') }}.<|im_end|>"


@pytest.fixture(scope="module")
def dated(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dated") / "model"
    shutil.copytree(k25_folder, folder)
    (folder / "chat_template.jinja").write_text(ASKED + K2_TEMPLATE)
    return folder


def prompt_of(folder: Path, bundle: Path) -> str:
    return load_tokenizer(folder, formation.open(folder).config).decode(read_anchor(bundle).prompt_ids)


def test_the_day_is_frozen_in_the_anchors_ids(dated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.ofb"
    assert 0 == main(["record", str(dated), "--chat", "hi", *DAY, *RECORDED, "--out", str(out)])
    assert "Today is 02 January 2026.<|im_end|><|im_user|>user<|im_middle|>hi<|im_end|>" in prompt_of(dated, out)
    assert 0 == main(["verify", str(out)])
    assert 0 == main(["record", str(dated), "--anchor", str(out), *RECORDED, "--out", str(tmp_path / "again.ofb")])
    assert "same ledger root" in capsys.readouterr().out
    assert 0 == main(["audit", str(out), "--checkpoint", str(dated), "--full", *HOW])


def test_each_line_of_a_file_of_prompts_has_its_own_day(dated: Path, tmp_path: Path) -> None:
    lines = [{"chat": "hi", "today": "2026-01-02", "name": "winter"}, {"chat": "hi", "today": "2026-07-02", "name": "summer"}]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert 0 == main(["record", str(dated), "--prompts", str(tmp_path / "prompts.jsonl"), *RECORDED, "--out", str(tmp_path / "all")])
    for name, month in (("winter", "January"), ("summer", "July")):
        assert f"Today is 02 {month} 2026." in prompt_of(dated, tmp_path / "all" / f"{name}.ofb")
    alone = formation.record(
        dated, chat="hi", today=read_day("2026-07-02"), tokens=2, out=tmp_path / "one.ofb", parity="none", memory="32MiB"
    )  # fmt: skip
    assert contents(alone.folder) == contents(tmp_path / "all" / "summer.ofb")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--chat", "hi"], "expected a declared date, which the chat template asks for, got none"),
        (["--chat", "hi", "--today", "2026-02-30"], "today: expected a day as YYYY-MM-DD, got '2026-02-30'"),
        (["--chat", "hi", "--today", "20260102"], "today: expected a day as YYYY-MM-DD, got '20260102'"),
        (["--prompt", "hi", *DAY], "prompt: expected --chat with --system, --thinking or --today, got none"),
    ],
)
def test_a_day_that_is_missing_or_is_none_is_refused(
    dated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert 2 == main(["record", str(dated), *words, *RECORDED, "--out", str(tmp_path / "run.ofb")])
    said = capsys.readouterr()
    assert sentence in said.err and not said.out and not (tmp_path / "run.ofb").exists()
    assert ("--today YYYY-MM-DD" in said.err) == (sentence.startswith("expected a declared date"))


def test_a_day_that_nobody_asks_for_is_refused(k25_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["record", str(k25_folder), "--chat", "hi", *DAY, *RECORDED, "--out", str(tmp_path / "run.ofb")])
    assert "expected a chat template that asks which day it is, got one that does not" in capsys.readouterr().err


def test_a_dialogue_keeps_its_day_in_its_log_and_goes_on_with_it(
    dated: Path, k25_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    whole = tmp_path / "whole.dlg"
    sides = ["--a", f"owl={dated}", "--b", f"lamp={k25_folder}", "--tokens", "2", "--stop", "3 messages", "--no-bundles", *HOW]
    assert 2 == main(["dialogue", *sides, *DAY, "--out", str(whole)])
    told = capsys.readouterr().err
    assert "asks which day it is, got one that does not" in told and "give it to one side of a dialogue: --a-today" in told
    assert 0 == main(["dialogue", *sides, "--a-today", "2026-01-02", "--out", str(whole)])
    assert ["2026-01-02", {"absent": "not told"}] == [side["today"] for side in next(iter(events.read(whole))).body["sides"]]
    cut = tmp_path / "cut.dlg"
    shutil.copytree(whole, cut)
    (cut / events.NAME).write_bytes(b"".join((whole / events.NAME).read_bytes().splitlines(keepends=True)[:6]))
    assert 0 == main(["dialogue", "--resume", str(cut), "--no-bundles", *HOW])
    assert (whole / events.NAME).read_bytes() == (cut / events.NAME).read_bytes()
    scores = ["score", str(whole / "transcript.jsonl"), "--as", f"owl={dated}", "--parity", "none", *HOW]
    assert 2 == main([*scores, "--out", str(tmp_path / "none")])
    assert "expected a declared date" in capsys.readouterr().err
    assert 0 == main([*scores, *DAY, "--out", str(tmp_path / "scored")])
    assert "Today is 02 January 2026." in prompt_of(dated, tmp_path / "scored" / "a.ofb")


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.jsonl"
    path.write_bytes(jsonl.write(Transcript(("owl", "lamp"), (Message(0, "hi"), Message(1, "ho")))))
    return path


def scored(talk: Path, out: Path, owl: Path, lamp: Path, *words: str) -> int:
    return main(["score", str(talk), "--as", f"owl={owl}", "--as", f"lamp={lamp}", *words, "--parity", "none", *HOW, "--out", str(out)])


def test_of_two_sides_that_are_scored_each_is_told_what_its_template_asks(dated: Path, k25_folder: Path, talk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "thinks"
    shutil.copytree(k25_folder, folder)
    (folder / "chat_template.jinja").write_text("{% if thinking is false %}Be quick.<|im_end|>{% endif %}" + K2_TEMPLATE)
    assert 0 == scored(talk, tmp_path / "both", dated, folder, *DAY, "--no-thinking")
    owl, lamp = prompt_of(dated, tmp_path / "both" / "a.ofb"), prompt_of(folder, tmp_path / "both" / "b.ofb")
    assert ["Today is 02 January 2026.", "Be quick."] == [owl.partition("<|")[0], lamp.partition("<|")[0]]


def test_what_no_side_that_is_scored_asks_for_is_refused(
    dated: Path, k25_folder: Path, talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert 2 == scored(talk, tmp_path / "none", k25_folder, k25_folder, *DAY)
    assert "asks which day it is, got one that does not" in capsys.readouterr().err
    assert 2 == scored(talk, tmp_path / "none", dated, k25_folder, *DAY, "--thinking")
    assert "with a thinking switch, got one without" in capsys.readouterr().err
    assert 2 == main(["score", str(talk), "--as", f"lamp={k25_folder}", *DAY, *HOW, "--out", str(tmp_path / "none")])
    said = capsys.readouterr()
    assert "asks which day it is, got one that does not" in said.err and not said.out and not (tmp_path / "none").exists()
