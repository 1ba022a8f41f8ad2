"""`formation record --prompts`: a file of prompts, a bundle for each line, the same as recorded alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from formation.cli.main import main
from formation.evidence.bundle import Bundle
from formation.ledger import reader
from recorded_runs import contents

LINES = ('{"ids": [5, 6, 7], "name": "first"}', "", '{"prompt": "ab", "tokens": 2}', '{"chat": "hello", "system": "be brief"}')
HOW = ["--memory", "24MiB", "--threads", "2", "--tokens", "3", "--parity", "none"]


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    (tmp_path / "prompts.jsonl").write_text("\n".join(LINES))
    return tmp_path / "prompts.jsonl"


def record(folder: Path, asked: Path, out: Path, *more: str) -> int:
    return main(["record", str(folder), "--prompts", str(asked), "--out", str(out), *HOW, *more])


def test_each_line_gets_the_bundle_that_it_gets_alone_and_all_are_sealed(
    k25_folder: Path, asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == record(k25_folder, asked, tmp_path / "all", "--json")
    found = json.loads(capsys.readouterr().out)["bundles"]
    assert [str(tmp_path / "all" / name) for name in ("first.ofb", "2.ofb", "3.ofb")] == [each["bundle"] for each in found]
    assert [3, 2, 3] == [each["tokens"] for each in found]
    alone = (["--ids", "5,6,7"], ["--prompt", "ab", "--tokens", "2"], ["--chat", "hello", "--system", "be brief"])
    for each, words in zip(found, alone, strict=True):
        assert 0 == main(["record", str(k25_folder), "--out", str(tmp_path / "one.ofb"), *HOW, *words])
        assert contents(tmp_path / "one.ofb") == contents(Path(each["bundle"]))
        assert Bundle(tmp_path / "one.ofb").run_id == each["run_id"]
        assert 0 == main(["verify", each["bundle"]])
        (tmp_path / "one.ofb").rename(tmp_path / f"alone {each['run_id']}")


def test_a_budget_for_fewer_prompts_takes_them_in_turns(
    k25_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "many.jsonl").write_text('{"ids": [5, 6, 7]}\n' * 5)
    monkeypatch.setattr("formation.recording.fitting", lambda engine, orders, watch: min(2, len(orders)))
    assert 0 == record(k25_folder, tmp_path / "many.jsonl", tmp_path / "all")
    said = capsys.readouterr().err
    assert "holds 2 of the 5 prompts" in said and "holds 2 of the 3 prompts" in said and "of the 1" not in said
    assert len(set(map(str, (contents(tmp_path / "all" / f"{number}.ofb") for number in range(1, 6))))) == 1


def test_what_was_cut_off_is_finished_and_what_is_there_is_kept(k25_folder: Path, asked: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "all"
    assert 0 == record(k25_folder, asked, whole)
    asked.write_text(LINES[0])
    assert 0 == record(k25_folder, asked, out)
    (out / "first.ofb" / "attestation.json").unlink()  # closed, and not sealed yet
    asked.write_text("\n".join(LINES))
    assert 3 == record(k25_folder, asked, out)
    assert 0 == record(k25_folder, asked, out, "--resume")
    for name in ("first.ofb", "2.ofb", "3.ofb"):
        assert contents(whole / name) == contents(out / name)
        assert (out / name / reader.NAME).exists()
        assert 0 == main(["verify", str(out / name)])


def test_a_bundle_of_another_run_is_not_taken_for_that_of_its_line(
    k25_folder: Path, asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == record(k25_folder, asked, tmp_path / "all")
    asked.write_text('{"ids": [5, 6, 8], "name": "first"}')
    before = contents(tmp_path / "all" / "first.ofb", without=())
    assert 1 == record(k25_folder, asked, tmp_path / "all", "--resume")
    assert "first.ofb: expected a recording of run " in capsys.readouterr().err
    assert before == contents(tmp_path / "all" / "first.ofb", without=())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1]", "line 1: expected an object, got list"),
        ('{"chat": "a", "ids": [1]}', "line 1: expected one of chat, prompt, ids, got 2"),
        ("{}", "line 1: expected one of chat, prompt, ids, got 0"),
        ('{"chat": 1}', "line 1: expected fields of"),
        ('{"chat": "a", "seed": 1}', "line 1: expected fields of"),
        ('{"ids": [true]}', "line 1: expected ids that are whole numbers"),
        ('{"ids": [1], "name": "../x"}', "line 1: expected a name of letters"),
        ('{"ids": [1], "name": ".x"}', "line 1: expected a name of letters"),
        ('{"ids": [1], "ids": [2]}', "line 1: expected each name once"),
        ('{"ids": [1]', "line 1: expected JSON"),
        ('{"ids": [1], "name": "2"}\n{"ids": [2]}', "line 2: expected a name of its own, got '2' again"),
        (" \n", "expected at least one prompt, got none"),
        ('{"ids": [100000]}', "expected ids from 0 to 511"),
        ('{"ids": [1], "tokens": 0}', "tokens: expected 1 or more, got 0"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_its_line_and_nothing_is_made(
    k25_folder: Path, asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    asked.write_text(line)
    assert 2 == record(k25_folder, asked, tmp_path / "all")
    assert said in capsys.readouterr().err
    assert not (tmp_path / "all").exists()


def test_a_prompt_beside_the_file_and_a_file_that_is_not_there_are_refused(
    k25_folder: Path, asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--chat", "a"], ["--nonce", "n"], ["--anchor", "a"]):
        assert 2 == record(k25_folder, asked, tmp_path / "all", *words)
        assert "--prompts: expected no other prompt" in capsys.readouterr().err
    assert 3 == record(k25_folder, tmp_path / "none", tmp_path / "all")
    assert "expected a file of prompts, got: No such file" in capsys.readouterr().err
