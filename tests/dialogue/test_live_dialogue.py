"""formation dialogue with two models, as a user types it."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.dialogue.local_server import LocalServer
from tests.dialogue.small_sides import two_checkpoints

from formation.cli import live_dialogue
from formation.cli.live_dialogue import style_of
from formation.cli.main import main
from formation.dialogue import events
from formation.dialogue.conduct import LOSSLESS, TEXT
from formation.dialogue.transcripts import formats

QUICK = ("--memory", "64MiB", "--threads", "1", "--no-bundles")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return two_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def begun(checkpoints: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dialogue of four messages"""
    folder = tmp_path_factory.mktemp("begun") / "talk.dlg"
    assert 0 == main([*words(checkpoints), "--stop", "4 messages", "--kickoff", "Go.", "--b-system", "Be brief.", "--out", str(folder)])
    return folder


def words(checkpoints: tuple[Path, Path]) -> list[str]:
    a, b = checkpoints
    return ["dialogue", "--a", f"owl={a}", "--b", f"lamp={b}", "--temperature", "1", "--tokens", "3", *QUICK]


def run(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> tuple[str, str]:
    assert code == main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_what_is_said_goes_to_stdout_and_what_is_said_about_it_to_stderr(
    capsys: pytest.CaptureFixture[str], checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:  # fmt: skip
    out, err = run(capsys, 0, *words(checkpoints), "--stop", "2 messages", "--out", tmp_path / "t.dlg")
    texts = [message.text for message in formats.read(tmp_path / "t.dlg" / TEXT).messages]
    assert ["owl", "lamp"] == re.findall(r"^(owl|lamp)$", out, re.M) and 2 == len(texts)
    assert "ended by '2 messages' after message 2\n2 messages, " in err and str(tmp_path / "t.dlg") in err
    budgets = re.findall(r"^(\w+): \w+, .* of weights in ([0-9.]+) MB of memory, up to 1024 tokens of context$", err, re.M)
    assert ["owl", "lamp"] == [name for name, _ in budgets]
    assert 67.1 >= sum(float(share) for _, share in budgets) > 66


def test_layers_and_the_time_left_are_told_while_a_token_is_streamed(
    capsys: pytest.CaptureFixture[str], checkpoints: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(live_dialogue, "PLAIN_EVERY_SECONDS", 0.0)
    _, err = run(capsys, 0, *words(checkpoints), "--stop", "2 messages", "--out", tmp_path / "t.dlg")
    for line in (
        r"owl · prompt of \d+ · layer 2/2 · 0\.\d\d GB read, .* left for the prompt",
        r"lamp · token 2/3 · layer 1/2 · .* left",
        "owl · .* · lm_head",
    ):
        assert re.search(line, err)


def test_json_is_one_object_on_stdout(capsys: pytest.CaptureFixture[str], checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    out, _ = run(capsys, 0, *words(checkpoints), "--json", "--stop", "3 messages", "--first", "b", "--out", tmp_path / "t.dlg")
    told = json.loads(out)
    assert (["owl", "lamp"], 3, [1, 2], 0, "3 messages") == (
        told["names"], told["messages"], told["by_side"], told["errors"], told["evidence"]["rule"]
    )  # fmt: skip
    assert [message.text for message in formats.read(tmp_path / "t.dlg" / TEXT).messages] == told["texts"]


def test_options_are_of_both_sides_or_of_one(begun: Path, capsys: pytest.CaptureFixture[str], checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = next(iter(events.read(begun))).body["sides"]
    assert ("0", "1") == (first["sampler"]["seed"], second["sampler"]["seed"])
    assert ("", "Be brief.", 3, 3) == (first["system"], second["system"], first["most_tokens"], second["most_tokens"])
    options = ["--a-context", "last 2", "--b-temperature", "0", "--seed", "7", "--b-tokens", "1", "--a-top-k", "5", "--repetition", "1.5"]
    code = main([*words(checkpoints), *options, "--stop", "1 message", "--out", str(tmp_path / "t.dlg")])
    assert (2, "side b: expected a temperature with a filter or a seed, got none") == (code, capsys.readouterr().err.splitlines()[0][11:])
    options[4:6] = ["--a-seed", "7"]
    assert 0 == main([*words(checkpoints), *options, "--stop", "1 message", "--out", str(tmp_path / "t.dlg"), "--no-kickoff"])
    first, second = next(iter(events.read(tmp_path / "t.dlg"))).body["sides"]
    assert ({"policy": "last_n", "limit": 2}, "7", 5) == (first["context"], first["sampler"]["seed"], first["sampler"]["top_k"])
    assert ({"method": "greedy"}, 1, 1.5) == (second["sampler"], second["most_tokens"], second["edits"]["repetition"])


def test_a_dialogue_is_resumed_from_its_folder_alone(begun: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "t.dlg"
    shutil.copytree(begun, folder)
    lines = (begun / events.NAME).read_bytes().splitlines(keepends=True)
    (folder / events.NAME).write_bytes(b"".join(lines[:9]) + lines[9][:50])
    (folder / LOSSLESS).unlink()
    out, err = run(capsys, 0, "dialogue", "--resume", folder, *QUICK)
    assert (begun / events.NAME).read_bytes() == (folder / events.NAME).read_bytes()
    assert formats.read(begun / LOSSLESS).messages == formats.read(folder / LOSSLESS).messages
    assert "goes on after 1 turns" in err and out.startswith("lamp\n")
    out, err = run(capsys, 0, "dialogue", "--resume", folder, *QUICK)
    assert "it is complete" in err and "lamp" not in out


def test_a_checkpoint_that_was_moved_is_named_again_and_another_is_refused(
    begun: Path, capsys: pytest.CaptureFixture[str], checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:  # fmt: skip
    folder = tmp_path / "t.dlg"
    shutil.copytree(begun, folder)
    (folder / events.NAME).write_bytes(b"".join((begun / events.NAME).read_bytes().splitlines(keepends=True)[:9]))
    (folder / "sides.json").unlink()
    _, err = run(capsys, 3, "dialogue", "--resume", folder, *QUICK)
    assert "sides.json: expected a readable file" in err
    a, b = checkpoints
    _, err = run(capsys, 1, "dialogue", "--resume", folder, "--a", f"owl={b}", "--b", f"lamp={b}", *QUICK)
    assert "side A: expected " in err and "as the dialogue was begun with" in err
    _, err = run(capsys, 2, "dialogue", "--resume", folder, "--a", f"bird={a}", "--b", f"lamp={b}", *QUICK)
    assert "--a: expected the name owl" in err
    run(capsys, 0, "dialogue", "--resume", folder, "--a", f"owl={a}", "--b", f"lamp={b}", *QUICK)
    assert (begun / events.NAME).read_bytes() == (folder / events.NAME).read_bytes()


WRONG: dict[str, tuple[list[str], int, str]] = {
    "a folder that is not there": (["--a", "owl=/nowhere/at/all", "--out", "N"], 3, "/nowhere/at/all: expected a checkpoint folder"),
    "the same name twice": (["--b", "owl=B", "--out", "N"], 2, "names of the sides: expected two different names"),
    "a name with the arrow": (["--b", "a ↔ b=B", "--out", "N"], 2, "names of the sides: expected two different names without an arrow"),
    "a name of two lines": (["--b", "a\nb=B", "--out", "N"], 2, "names of the sides: expected a name of one line"),
    "no source": (["--b", "lamp", "--out", "N"], 2, "--b: expected NAME=CKPT or NAME=URL, got 'lamp'"),
    "no name": (["--b", "=B", "--out", "N"], 2, "--b: expected NAME=CKPT or NAME=URL"),
    "stop words that are none": (["--stop", "both sing", "--out", "N"], 2, 'stop "both sing": expected a rule as in docs/dialogue.md'),
    "no folder": ([], 2, "dialogue: expected --out, got none"),
    "a dialogue that is there": (["--out", "BEGUN"], 3, "expected no dialogue in"),
    "a budget that holds nothing": (["--memory", "100KiB", "--out", "N"], 3, "memory budget: expected at least"),
    "a context that is none": (["--context", "some", "--out", "N"], 2, "context: expected full, 'last 6' or '4000 tokens', got 'some'"),
    "a temperature below zero": (["--temperature", "-1", "--out", "N"], 2, "temperature: expected a number above 0"),
    "thinking that its template does not know": (["--thinking", "--out", "N"], 2, "expected a chat template with a thinking switch"),
    "options with --resume": (["--resume", "BEGUN"], 2, "dialogue: expected --resume alone"),
    "a transcript too": (["--check", "BEGUN", "--out", "N"], 2, "dialogue: expected a dialogue or a transcript, got both"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_and_nothing_is_written(
    case: str, begun: Path, capsys: pytest.CaptureFixture[str], checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:  # fmt: skip
    options, code, sentence = WRONG[case]
    before = (begun / events.NAME).read_bytes()
    new = tmp_path / "new.dlg"
    places = {"N": str(new), "BEGUN": str(begun)}
    given = [places.get(word, word[:-1] + str(checkpoints[1]) if word.endswith("=B") else word) for word in options]
    _, err = run(capsys, code, *words(checkpoints), *given)
    assert sentence.replace('"', "'") in err.replace('"', "'") and "ended by" not in err
    assert not new.exists() and before == (begun / events.NAME).read_bytes()


def test_resuming_what_is_no_dialogue_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, err = run(capsys, 3, "dialogue", "--resume", tmp_path)
    assert "expected the folder of a dialogue, got no events.jsonl" in err
    (tmp_path / events.NAME).write_bytes(b"")
    _, err = run(capsys, 3, "dialogue", "--resume", tmp_path)
    assert "got an empty log" in err
    (tmp_path / events.NAME).write_bytes(b"{}\n")
    _, err = run(capsys, 1, "dialogue", "--resume", tmp_path)
    assert "event 0: expected the fields" in err


def test_ctrl_c_ends_it_with_a_transcript_and_its_own_exit_code(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    """In a terminal: both streams are one"""
    folder = tmp_path / "t.dlg"
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "formation.cli.main", *words(checkpoints), "--stop", "5000 messages", "--out", str(folder)]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "150"})
    os.close(slave)
    screen = b""
    while not (folder / events.NAME).exists() or (folder / events.NAME).read_bytes().count(b"\n") < 8:
        screen += os.read(master, 4096)
    process.send_signal(signal.SIGINT)
    with os.fdopen(master, "rb", buffering=0) as terminal:
        try:
            while data := terminal.read(4096):
                screen += data
        except OSError:  # how a terminal says that it is over
            pass
    assert 130 == process.wait()
    assert b"ended by 'Ctrl-C' in turn " in screen and b"\x1b[" in screen
    assert events.survey(folder).complete
    said = len(formats.read(folder / TEXT).messages)
    assert said == formats.read(folder / TEXT).stated_messages >= 1


def token(**fields: Any) -> dict[str, Any]:
    return {"measured": {"absent": "server"}, "reported": {"absent": "checkpoint"}} | fields


def test_colours_follow_the_surprisal_of_whoever_says_it() -> None:
    styles = ["dim", "", "yellow", "dark_orange", "red"]
    told = (-0.05, -0.9, -2.9, -5.0, -20.0)
    assert styles == [style_of(token(measured={"model": {"logprob_nats": nats}})) for nats in told]
    assert styles == [style_of(token(reported={"logprob_nats": nats})) for nats in told]
    assert "" == style_of(token(reported={"logprob_nats": {"absent": "not reported"}})) == style_of(token())


def test_a_forced_token_stands_in_brackets_and_no_token_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    from base64 import b64encode

    from formation.dialogue.events import Event
    from formation.dialogue.so_far import SoFar

    side = {"name": "owl", "stop_ids": [1], "most_tokens": 9}
    so_far = SoFar({"sides": [side, side], "first": 0})
    so_far.take(Event(1, "turn", {"turn": 1, "side": 0, "prompt_tokens": 1, "prompt_sha256": "", "left_out": 0}))
    with live_dialogue.LiveDialogue() as live:
        live.watch(Event(1, "turn", {}), so_far)
        for number, (spelt, method) in enumerate(((b"a", "sample"), (b"\x1b[2J", "forced"), (b"\xc2", "sample"), (b"\xae", "sample")), 5):
            measured = {"method": method, "model": {"logprob_nats": -1.0}}
            live.watch(Event(2, "token", token(id=number, bytes=b64encode(spelt).decode(), measured=measured)), so_far)
        live.watch(Event(3, "token", token(id=1, bytes=b64encode(b"<end>").decode())), so_far)
        live.watch(Event(4, "turn_end", {}), so_far)
    assert "owl\na⟦\\u001b[2J⟧®\n\n" == capsys.readouterr().out


def test_one_side_may_be_a_server_and_both_are_resumed(
    capsys: pytest.CaptureFixture[str], checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:  # fmt: skip
    folder = tmp_path / "t.dlg"
    with LocalServer() as server:
        sides = ["dialogue", "--a", f"owl={checkpoints[0]}", "--b", f"lamp={server.url}", "--b-patience", "20", *QUICK]
        out, err = run(capsys, 0, *sides, "--tokens", "10", "--stop", "2 messages", "--out", folder)
        assert f"lamp: {server.url}\n" in err and out.endswith("lamp\nI float. Café\n\n")
        record = next(iter(events.read(folder))).body["sides"][1]
        assert ("server", server.url.partition("#")[0]) == (record["source"], record["url"]) and len(record["capabilities"]) > 5
        (folder / events.NAME).write_bytes(b"".join((folder / events.NAME).read_bytes().splitlines(keepends=True)[:-6]))
        out, err = run(capsys, 0, "dialogue", "--resume", folder, "--a-key-variable", "NONE", *QUICK)
        assert "lamp: the dialogue was cut off in the middle of this turn" in err and out.endswith("\nI float. Café\n\n")
        _, err = run(capsys, 2, *sides, "--patience", "0", "--a-patience", "-1", "--out", tmp_path / "n.dlg")
        assert "patience: expected seconds above 0, got -1" in err
    _, err = run(capsys, 3, *sides, "--out", tmp_path / "n.dlg")
    assert server.url.partition("#")[0] in err and not (tmp_path / "n.dlg").exists()
