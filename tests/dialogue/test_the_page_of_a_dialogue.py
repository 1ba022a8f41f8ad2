"""formation explore of a dialogue: known by its files, one page, nothing of a torn line in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))  # the logs are those of the tests there

from dialogue_logs import log, said

from formation.cli.main import main
from formation.dialogue import events, page


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    folder = tmp_path / "talk.dlg"
    folder.mkdir()
    (folder / events.NAME).write_bytes(log("owl", "lamp").turn([said(b"Hello")], "tokens").end().data)
    return folder


def test_a_folder_is_known_by_what_is_in_it_and_a_log_by_its_name(talk: Path, tmp_path: Path) -> None:
    (tmp_path / "scored").mkdir()
    (tmp_path / "scored" / page.TOKENS).write_bytes(b"")
    assert (page.DIALOGUE, page.DIALOGUE, None) == (page.kind_of(talk), page.kind_of(talk / events.NAME), page.kind_of(tmp_path / "scored"))
    (tmp_path / "scored" / page.SUMMARY).write_bytes(b"{}")
    assert page.SCORED == page.kind_of(tmp_path / "scored")
    assert page.kind_of(tmp_path) is None and page.kind_of(tmp_path / "none") is None


def test_explore_writes_one_page_of_a_dialogue(talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "talk.html"
    assert 0 == main(["explore", str(talk), "--out", str(out), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert {"page": str(out), "bytes": out.stat().st_size, "kind": "dialogue", "dropped_bytes": 0} == told
    assert page.packed(talk).page == page.packed(talk / events.NAME).page == out.read_bytes()


def test_a_torn_line_is_not_in_the_page_and_said_to_be_left_out(talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = page.packed(talk).page
    with (talk / events.NAME).open("ab") as file:
        file.write(b'{"body"')
    assert 0 == main(["explore", str(talk), "--out", str(tmp_path / "talk.html")])
    assert "its 7 bytes are not in the page" in capsys.readouterr().err
    assert whole.replace(b'"dropped":0', b'"dropped":7') == (tmp_path / "talk.html").read_bytes()


@pytest.mark.parametrize("more", [["--serve"], ["--with", "b.ofb"]], ids=lambda more: more[0])
def test_what_only_a_bundle_can_is_refused_of_a_dialogue(talk: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "talk.html"
    assert 2 == main(["explore", str(talk), *more, *([] if "--serve" in more else ["--out", str(out)])])
    assert "expected a bundle with --serve and --with, got a dialogue" in capsys.readouterr().err
    assert not out.exists()


def test_claims_that_cannot_be_read_leave_no_page(talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "talk.html"
    assert 3 == main(["explore", str(talk), "--claims", str(tmp_path / "none.json"), "--out", str(out)])
    assert "none.json: expected a readable file, got No such file or directory" in capsys.readouterr().err
    assert not out.exists()


def test_claims_of_a_bundle_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["explore", str(tmp_path / "run.ofb"), "--claims", str(tmp_path / "claims.json")])
    assert "expected a dialogue with --claims and --forks, got a bundle" in capsys.readouterr().err
