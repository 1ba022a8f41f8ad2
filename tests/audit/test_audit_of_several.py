"""`formation audit A.ofb B.ofb …`: each bundle's result is written and told, and the exit code is that of all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from audit.forger import Forger, one_ulp
from audit.sealed_runs import MEMORY, sealed
from formation.cli.main import main
from formation.evidence import envelope
from formation.evidence.keys import PrivateKey
from formation.run.order import Order


@pytest.fixture(scope="module")
def bundles(standard: Path, k25_folder: Path, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [standard, sealed(k25_folder, tmp_path_factory.mktemp("other") / "run.ofb", key, order=Order((7, 8, 9), 1))]


def test_the_command_writes_a_result_for_each(
    bundles: list[Path], k25_folder: Path, tmp_path: Path, key: PrivateKey, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    forger = Forger(bundles[0], tmp_path / "forged.ofb", key)
    forger.row(3, 2, one_ulp(0))
    forged, honest = forger.finish(), Path(shutil.copytree(bundles[1], tmp_path / "honest.ofb"))
    command = ["audit", str(forged), str(honest), "--checkpoint", str(k25_folder), "--full", "--memory", MEMORY]
    assert 1 == main(command)
    told = capsys.readouterr().out
    assert "audits         1 passed, 1 FAILED" in told and "for 2 bundles together" in told
    assert told.index(str(forged)) < told.index("FAILED") < told.index(f"{honest}\n")
    outcomes = [envelope.read((each / "audit.json").read_bytes(), envelope.AUDIT).statement.predicate["outcome"] for each in (forged, honest)]
    assert ["failed", "passed"] == outcomes
    together = {each: (each / "audit.json").read_bytes() for each in (forged, honest)}
    for each in (forged, honest):
        assert (1 if each == forged else 0) == main(["audit", str(each), *command[3:]])
        assert together[each] == (each / "audit.json").read_bytes()


def test_the_command_names_what_it_refuses_and_goes_on(
    bundles: list[Path], k25_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    honest = Path(shutil.copytree(bundles[1], tmp_path / "honest.ofb"))
    command = ["audit", str(tmp_path / "none.ofb"), str(honest), "--checkpoint", str(k25_folder), "--column", "0", "--memory", MEMORY]
    assert 3 == main(command)
    told = capsys.readouterr().out
    assert "audit          REFUSED: " in told and "audits         1 passed, 1 REFUSED" in told
    assert 3 == main([*command, "--json"])
    refused, passed = json.loads(capsys.readouterr().out)["audits"]
    assert ("refused", "passed") == (refused["outcome"], passed["outcome"])
    assert (str(tmp_path / "none.ofb"), str(honest)) == (refused["bundle"], passed["bundle"])


def test_a_result_that_cannot_be_written_is_told_all_the_same(
    bundles: list[Path], k25_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    first, second = (Path(shutil.copytree(bundles[n], tmp_path / f"{n}.ofb")) for n in (0, 1))
    (first / "audit.json").mkdir()
    assert 3 == main(["audit", str(first), str(second), "--checkpoint", str(k25_folder), "--column", "0", "--memory", MEMORY])
    told = capsys.readouterr().out
    assert "NOT WRITTEN    " in told and "audits         2 passed" in told
    assert (second / "audit.json").is_file()


@pytest.mark.parametrize("more", [["--out", "x.json"], ["AGAIN"]], ids=["one file for two", "the same twice"])
def test_a_wrong_call_exits_2(bundles: list[Path], k25_folder: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    more = [str(bundles[0]) if word == "AGAIN" else word for word in more]
    assert 2 == main(["audit", str(bundles[0]), str(bundles[1]), *more, "--checkpoint", str(k25_folder), "--full"])
    captured = capsys.readouterr()
    assert "expected" in captured.err and "passed" not in captured.out
    assert not (bundles[1] / "audit.json").exists()
