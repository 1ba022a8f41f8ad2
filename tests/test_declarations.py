"""What a recording declares beside its ledger: every machine that recorded a part of it, and what was read for each step, from where, and why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import formation
from formation.audit import parity
from formation.cli.main import main
from formation.errors import EnvironmentFault, EvidenceError
from formation.evidence.container import open_container
from formation.evidence.verify import verify
from formation.ledger import accounts, files, progress
from formation.recording import Recording, resume
from formation.run import child
from formation.run.identity import host_of_resumed
from recorded_runs import HERE, HOW, TOKENS, WATCHED, asked, contents, cut, means, run


@pytest.fixture(scope="module")
def whole(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Never cut off"""
    return run(k25_folder, tmp_path_factory.mktemp("whole") / "run.ofb", asked(k25_folder), WATCHED, parity="none")


def host(out: Path) -> dict[str, Any]:
    return files.read_document(out / "host.json")


def declarations(out: Path) -> str:
    """What V33 found"""
    with open_container(out) as container:
        report = verify(container, signers={}, allow_unknown_signer=True)
    assert report.verified
    return next(outcome.finding.checked for outcome in report.outcomes if outcome.check.id == "V33")


# ---- machines


def test_a_recording_that_another_machine_resumes_names_both(whole: Recording, k25_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.ofb"
    cut(k25_folder, out, after=2)
    lines = progress.read(out)[1].lines
    assert [] == host(out)["resumed"]
    assert 0 == main(["record", str(k25_folder), *HERE, "--threads", "1", "--no-guess", "--resume", "--out", str(out)])
    first, second = host(out), host(out)["resumed"][0]
    assert (1, lines, 1, False, True) == (len(first["resumed"]), second["from_line"], second["threads"], second["guess"], first["guess"])
    assert host(whole.folder) == first | {"resumed": []}
    assert contents(whole.folder) == contents(out)
    assert declarations(out).startswith("machines of host.json: 2;")


def test_the_same_machine_that_goes_on_is_named_once(k25_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.ofb"
    cut(k25_folder, out, after=1)
    cut(k25_folder, out, after=1, going_on=True)
    resume(formation.open(k25_folder), out, means(parity="none"))
    assert [] == host(out)["resumed"]


def test_a_machine_that_wrote_nothing_is_not_named(k25_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.ofb"
    cut(k25_folder, out, after=2)
    with pytest.raises(KeyboardInterrupt):
        resume(formation.open(k25_folder), out, means(parity="none", threads=3, progress=stop))
    assert [3] == [each["threads"] for each in host(out)["resumed"]]
    resume(formation.open(k25_folder), out, means(parity="none", threads=1))
    assert [1] == [each["threads"] for each in host(out)["resumed"]]


def stop(_: object) -> None:
    raise KeyboardInterrupt


def test_whoever_goes_on_before_the_first_line_is_the_machine_that_began() -> None:
    class Engine:
        """Where a run goes on, with facts of its own"""

    begun = {"cores": 2, "resumed": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("formation.run.identity.machine_of", lambda engine: {"cores": engine.cores})
        here = Engine()
        here.cores = 8
        assert {"cores": 8, "resumed": []} == host_of_resumed(begun, here, 0)
        two = host_of_resumed(begun, here, 7)
        assert {"cores": 2, "resumed": [{"cores": 8, "from_line": 7}]} == two
        assert two == host_of_resumed(two, here, 7) == host_of_resumed(two, here, 9)
        here.cores = 2
        assert begun == host_of_resumed(two, here, 7)
        assert [7, 9] == [each["from_line"] for each in host_of_resumed(two, here, 9)["resumed"]]


@pytest.mark.parametrize("broken", [b"{}", b"[]", b'{"resumed":[]}', b""], ids=["no field", "a list", "no machine", "nothing"])
def test_a_host_document_in_another_form_is_not_gone_on_with(broken: bytes, k25_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.ofb"
    cut(k25_folder, out, after=1)
    (out / "host.json").write_bytes(broken)
    with pytest.raises(EvidenceError, match=r"host\.json: expected"):
        resume(formation.open(k25_folder), out, means(parity="none"))
    assert broken == (out / "host.json").read_bytes()


# ---- reads


def sums(out: Path) -> dict[str, int]:
    names = ("disk_bytes", "mirror_bytes", "unused_bytes", "guessed_bytes", "guessed_unused_bytes")
    steps = list(accounts.read(out))
    assert {1} == {step["shared_by"] for step in steps}
    return {name: sum(step[name] for step in steps) for name in names} | {"used": sum(p["disk_bytes"] for step in steps for p in step["parts"])}


def record(folder: Path, out: Path, *more: str) -> None:
    assert 0 == main(["record", str(folder), *HERE, "--memory", "2MB", "--tokens", str(TOKENS), "--out", str(out), *more])


def test_guesses_are_told_apart_from_what_was_asked_for_and_can_be_left_out(k25_folder: Path, tmp_path: Path) -> None:
    record(k25_folder, tmp_path / "with.ofb", "--parity", "none")
    record(k25_folder, tmp_path / "without.ofb", "--parity", "none", "--no-guess")
    guessed, plain = sums(tmp_path / "with.ofb"), sums(tmp_path / "without.ofb")
    assert 0 < guessed["guessed_bytes"] <= guessed["used"] <= guessed["disk_bytes"]
    assert guessed["guessed_unused_bytes"] <= guessed["unused_bytes"]
    assert guessed["used"] + guessed["unused_bytes"] <= guessed["disk_bytes"]
    assert 0 == plain["guessed_bytes"] == plain["guessed_unused_bytes"] == plain["mirror_bytes"]
    assert (True, False) == (host(tmp_path / "with.ofb")["guess"], host(tmp_path / "without.ofb")["guess"])
    assert contents(tmp_path / "with.ofb") == contents(tmp_path / "without.ofb")


@pytest.mark.parametrize(("method", "repetitions"), [("replay", 1), ("full", 4)])
def test_a_mirror_is_read_by_the_recording_and_by_its_repetitions(
    method: str, repetitions: int, k25_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    mirror, out, asked_for = tmp_path / "mirror", tmp_path / "run.ofb", []

    def ask(module: str, asked: dict[str, Any]) -> Any:
        asked_for.append(asked["mirrors"])
        return child.ask(module, asked)

    monkeypatch.setattr(parity, "ask", ask)
    mirror.mkdir()
    for shard in k25_folder.glob("*.safetensors"):
        shutil.copy(shard, mirror)
    record(k25_folder, out, "--parity", method, "--mirror", str(mirror))
    read = sums(out)
    assert 0 < read["mirror_bytes"] <= read["disk_bytes"]
    assert [{"kind", "source"}] == [set(each) for each in host(out)["mirrors"]]
    assert [(str(mirror),)] * repetitions == asked_for
    record(k25_folder, tmp_path / "alone.ofb", "--parity", "none")
    without = (*HOW, "parity.json")
    assert contents(tmp_path / "alone.ofb", without=without) == contents(out, without=without)


def test_a_repetition_without_the_mirror_it_was_told_of_is_no_parity(k25_folder: Path, tmp_path: Path) -> None:
    place = parity.Place(str(k25_folder), (str(tmp_path / "gone"),), 24 << 20, 1)
    with pytest.raises(EnvironmentFault, match="to end, got exit code 1"):
        parity.by_replay([(tmp_path, asked(k25_folder), [])], place)
