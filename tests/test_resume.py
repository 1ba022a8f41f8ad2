"""`record --resume`: a recording that was cut off goes on to the bytes it would have had, and with nothing else than it was begun with."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

import formation
from formation import forming, recording
from formation.cli.main import main
from formation.errors import EnvironmentFault, EvidenceError
from formation.ledger import canonical, progress, reader
from formation.ledger.progress import Watch
from formation.note.material import gather
from formation.note.sections import of_machine
from formation.recording import Recording, resume
from formation.run.order import Order
from recorded_runs import HERE, IDS, WATCH, WATCHED, asked, check_resumed, contents, cut, means, run
from small_models import small_checkpoint


@pytest.fixture(scope="module")
def whole(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Never cut off"""
    return run(k25_folder, tmp_path_factory.mktemp("whole") / "run.ofb", asked(k25_folder), WATCHED, parity="none")


def test_a_recorder_cut_off_again_and_again_goes_on(whole: Recording, k25_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.ofb"
    cut(k25_folder, out, after=2)
    for after in (1, 1):
        cut(k25_folder, out, after=after, going_on=True)
    check_resumed(k25_folder, out, whole)


def test_a_killed_recorder_leaves_nothing_of_its_own_behind(k25_folder: Path, whole: Recording, tmp_path: Path) -> None:
    out = tmp_path / "run.ofb"
    cut(k25_folder, out, after=3)
    (out / ".progress.json.4242.part").write_bytes(b"{")
    with (out / reader.PART_NAME).open("ab") as file:
        file.write(b'{"derived":{},"ki')
    check_resumed(k25_folder, out, whole)


# ---- Ctrl-C, and a run cut off after so many tokens


SAMPLED = Order(IDS, 6, formation.Sample(temperature=1.3, top_k=60, seed=9), stop=(511,), nonce="ab")


@pytest.mark.parametrize(
    ("watch", "options"),
    [
        (replace(WATCH, rows="none"), {}),
        (Watch("full", "minimal", "boundaries"), {"keep_cache": False}),
        (Watch("minimal", "full", "all"), {"threads": 1}),
    ],
    ids=["no rows", "no cache, full capture", "one thread, minimal capture"],
)
def test_a_sampled_run_goes_on_with_the_same_draws(k25_folder: Path, tmp_path: Path, watch: Watch, options: dict) -> None:
    run(k25_folder, tmp_path / "whole.ofb", SAMPLED, watch, parity="none")
    cut(k25_folder, tmp_path / "cut.ofb", after=3, order=SAMPLED, watch=watch)
    resume(formation.open(k25_folder), tmp_path / "cut.ofb", means(parity="none", **options))
    assert contents(tmp_path / "whole.ofb") == contents(tmp_path / "cut.ofb")


def test_ctrl_c_leaves_a_shorter_ledger_that_is_incomplete(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, k25_folder: Path, whole: Recording, tmp_path: Path
) -> None:
    from formation.cli.speech import LiveText

    add, out = LiveText.add, tmp_path / "run.ofb"

    def interrupted(live: LiveText, text: str) -> None:
        add(live, text)
        if live.done == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(LiveText, "add", interrupted)
    assert 130 == main(["record", str(k25_folder), *HERE, "--out", str(out)])
    monkeypatch.undo()
    found = reader.survey(out)
    assert not found.complete and found.dropped_bytes == 0
    assert (len(IDS) - 1) * 5 + 3 * 8 + 1 == found.readable.lines
    assert main(["show", str(out)]) == 0
    assert "INCOMPLETE" in capsys.readouterr().err
    check_resumed(k25_folder, out, whole)


# ---- what comes after the steps


def test_a_run_cut_off_in_its_parity_proof_computes_no_step_again(monkeypatch: pytest.MonkeyPatch, k25_folder: Path, tmp_path: Path) -> None:
    order, out = Order(IDS, 3), tmp_path / "run.ofb"
    run(k25_folder, tmp_path / "whole.ofb", order)

    def fail(*_: object) -> None:
        raise EnvironmentFault("cut")

    with monkeypatch.context() as patch, pytest.raises(EnvironmentFault, match="cut"):
        patch.setattr(recording.parity, "in_fresh_process", fail)
        run(k25_folder, out, order)
    assert not (out / reader.NAME).exists()
    with monkeypatch.context() as patch:
        patch.setattr(formation.Engine, "generate", fail)
        assert "passed" == resume(formation.open(k25_folder), out, means()).parity
    assert contents(tmp_path / "whole.ofb") == contents(out)


# ---- refusals


@pytest.fixture(scope="module")
def cut_off(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording that was cut off after two tokens"""
    out = tmp_path_factory.mktemp("cut") / "begun.ofb"
    cut(k25_folder, out, after=2)
    return out


@pytest.fixture
def begun(cut_off: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cut_off, tmp_path / "begun.ofb"))


def said(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    assert code == main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--ids", "5,6,7"], "prompt: expected"),
        (["--prompt", "abc"], "prompt: expected"),
        (["--tokens", "6"], "--tokens: expected 5"),
        (["--temperature", "1"], "the choice of tokens: expected"),
        (["--nonce", "x"], "--nonce: expected None"),
        (["--capture", "full"], "--capture: expected standard"),
        (["--rows", "none"], "--rows: expected all"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_other_than_those_it_was_begun_with_are_refused(
    capsys: pytest.CaptureFixture[str], k25_folder: Path, begun: Path, options: list[str], named: str
) -> None:
    before = contents(begun, without=())
    assert named in said(capsys, 2, "record", k25_folder, "--resume", "--out", begun, *options)
    assert before == contents(begun, without=())


def test_going_on_needs_no_options(capsys: pytest.CaptureFixture[str], k25_folder: Path, begun: Path, whole: Recording) -> None:
    assert 0 == main(["record", str(k25_folder), "--resume", "--out", str(begun), "--parity", "none", "--memory", "24MiB"])
    assert whole.commit.root.hex() in capsys.readouterr().out
    assert contents(whole.folder) == contents(begun)


def test_another_checkpoint_is_refused_and_named(capsys: pytest.CaptureFixture[str], begun: Path, tmp_path: Path) -> None:
    other = small_checkpoint(tmp_path / "other", seed=1)
    (other / "chat_template.jinja").write_text("{{ messages }}")
    before = contents(begun, without=())
    err = said(capsys, 1, "record", other, "--resume", "--out", begun)
    assert "checkpoint: not that of the anchor: chat_template.jinja: expected size" in err
    assert before == contents(begun, without=())


def test_another_contract_is_refused_and_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, k25_folder: Path, begun: Path
) -> None:
    from formation.kernels import golden

    monkeypatch.setattr(golden, "CONTRACT", "f32x16/9")
    assert "numerics contract: expected f32x16/1" in said(capsys, 1, "record", k25_folder, "--resume", "--out", begun)


def test_another_anchor_is_not_put_before_the_lines(capsys: pytest.CaptureFixture[str], k25_folder: Path, begun: Path) -> None:
    anchor = canonical.decode((begun / "anchor.json").read_bytes(), limits=canonical.DOCUMENT)
    (begun / "anchor.json").write_bytes(canonical.encode(anchor | {"nonce": "later"}))
    assert "which the anchor names, got that of" in said(capsys, 1, "record", k25_folder, "--resume", "--out", begun)


def test_a_changed_ledger_is_not_gone_on_with(capsys: pytest.CaptureFixture[str], k25_folder: Path, begun: Path) -> None:
    data = bytearray((begun / reader.PART_NAME).read_bytes())
    data[3000] ^= 1
    (begun / reader.PART_NAME).write_bytes(data)
    assert "record anew" in said(capsys, 3, "record", k25_folder, "--resume", "--out", begun)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[1]", b'{"a":1,"a":2}', b"\xff", b'{"commit":{},"kind":"formation-progress/1","watch":{}}',
        b'{"commit":{},"kind":"formation-progress/1","watch":{"capture":"all","capture_prompt":"full","rows":"all"}}',
        b'{"commit":{"lines":1,"root":"zz","size_bytes":1},"kind":"formation-progress/1","watch":{"capture":"full","capture_prompt":"full","rows":"all"}}',
    ],
)
def test_progress_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], k25_folder: Path, begun: Path, data: bytes) -> None:
    (begun / progress.NAME).write_bytes(data)
    assert progress.NAME in said(capsys, 3, "record", k25_folder, "--resume", "--out", begun)


def test_a_complete_ledger_is_not_resumed(capsys: pytest.CaptureFixture[str], k25_folder: Path, whole: Recording) -> None:
    before = contents(whole.folder, without=())
    assert "got a complete one" in said(capsys, 3, "record", k25_folder, "--resume", "--out", whole.folder)
    assert before == contents(whole.folder, without=())


def test_nothing_to_go_on_with_needs_a_prompt(capsys: pytest.CaptureFixture[str], k25_folder: Path, tmp_path: Path) -> None:
    assert "got none" in said(capsys, 2, "record", k25_folder, "--resume", "--out", tmp_path / "none.ofb")
    with pytest.raises(EnvironmentFault, match="got none"):
        resume(formation.open(k25_folder), tmp_path / "none.ofb", means())


def test_a_second_recorder_is_refused(capsys: pytest.CaptureFixture[str], k25_folder: Path, tmp_path: Path) -> None:
    told: list[str] = []

    def intrude(step: object) -> None:
        for option in ([], ["--resume"]):
            told.append(said(capsys, 3, "record", k25_folder, *HERE[:2], *HERE[4:], "--tokens", "2", *option, "--out", tmp_path / "run.ofb"))

    run(k25_folder, tmp_path / "run.ofb", replace(asked(k25_folder), tokens=2), WATCHED, on_step=intrude, parity="none")
    assert 4 == len(told)
    assert all("another recorder" in err for err in told)


def test_a_run_line_of_another_version_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch, k25_folder: Path, begun: Path) -> None:
    values = forming.run_values
    monkeypatch.setattr(forming, "run_values", lambda *a: values(*a) | {"norm_eps": 0.5})
    with pytest.raises(EvidenceError, match="run, norm_eps: expected"):
        resume(formation.open(k25_folder), begun, means())


def test_the_note_of_progress_is_canonical_and_says_where_the_ledger_stands(begun: Path) -> None:
    found = canonical.decode((begun / progress.NAME).read_bytes(), limits=canonical.DOCUMENT)
    assert (begun / reader.PART_NAME).stat().st_size == found["commit"]["size_bytes"]
    assert {"capture": "standard", "capture_prompt": "standard", "rows": "all"} == found["watch"]


# ---- where it went on


def test_the_machines_that_went_on_are_told_wherever_the_first_is(k25_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.ofb"
    cut(k25_folder, out, after=2)
    assert 0 == main(["show", str(out)])
    before = capsys.readouterr().out
    assert "declared       2 threads on " in before and "resumed at line" not in before
    assert 0 == main(["record", str(k25_folder), *HERE, "--threads", "1", "--resume", "--out", str(out)])
    assert {"guessed_bytes", "guessed_unused_bytes"} < json.loads(capsys.readouterr().out).keys()
    assert 0 == main(["show", str(out), "--json"])
    host = json.loads(capsys.readouterr().out)["host"]
    (again,) = host["resumed"]
    assert (2, 1) == (host["threads"], again["threads"]) and 0 < again["from_line"]
    assert 0 == main(["show", str(out)])
    assert f"\n               resumed at line {again['from_line']}: 1 thread on " in capsys.readouterr().out
    assert ("resumed", "on 1 machine more, declared", "host.json/resumed") in list(of_machine(gather(out)))
    assert 0 == main(["publish", str(out), str(tmp_path / "gallery")])
    assert "and 1 machine more on which it was resumed;" in (tmp_path / "gallery" / "index.html").read_text()


def test_a_machine_that_cannot_be_read_is_said_and_the_tokens_are_shown(whole: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.ofb"
    shutil.copytree(whole.folder, out)
    (out / "host.json").write_bytes(b'{"threads":"\x1b[2J"}')
    assert 0 == main(["show", str(out)])
    told = capsys.readouterr().out
    assert "declared       no machine: " in told and "\x1b" not in told and "surprisal and entropy in nats" in told
