"""Bundles of what the sides of a dialogue said: of the log they name, every number the same bit for bit; whatever ended it, after any cut."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.dialogue.small_sides import two_checkpoints

import formation.dialogue.local
from formation.cli.main import main
from formation.dialogue import events
from formation.dialogue.agreement import agree, nonce_of
from formation.dialogue.given import Heard, names, sequences
from formation.dialogue.side import SideFault
from formation.errors import EvidenceError
from formation.evidence.container import open_container
from formation.evidence.verify import verify
from formation.ledger import canonical
from formation.ledger.progress import Watch
from formation.ledger.start import read_anchor
from formation.recording import Means, ensure
from formation.run.order import order_of
from formation.weights.checkpoint import open_checkpoint
from recorded_runs import Cut, contents, ledger

BRIEF = ["--tokens", "4", "--memory", "64MiB", "--threads", "2", "--parity", "none"]
HOT = ["--temperature", "0.8", "--top-p", "0.9", "--seed", "5"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return two_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    main(["key", "new", "--key", str(path)])
    return str(path)


@pytest.fixture
def dialogue(checkpoints: tuple[Path, Path], key: str) -> Callable[..., int]:
    sides = ["--a", f"owl={checkpoints[0]}", "--b", f"lamp={checkpoints[1]}"]
    return lambda out, *more: main(["dialogue", *sides, *BRIEF, "--key", key, "--kickoff", "Hello?", "--out", str(out), *more])


@pytest.fixture(scope="module")
def talk(checkpoints: tuple[Path, Path], key: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("talk") / "talk.dlg"
    sides = ["--a", f"owl={checkpoints[0]}", "--b", f"lamp={checkpoints[1]}"]
    proof = ["--tokens", "4", "--memory", "64MiB", "--threads", "2"]  # with parity
    assert 0 == main(["dialogue", *sides, *proof, *HOT, "--key", key, "--kickoff", "Hello?", "--stop", "4 messages", "--out", str(out)])
    return out


def bundles_of(out: Path) -> list[Path]:
    return sorted(out.glob("*.ofb"))


# ---- what they are


def test_each_side_has_its_bundles_which_are_verified_and_name_the_dialogue(talk: Path) -> None:
    assert {"a", "b"} == {path.name[0] for path in bundles_of(talk)}
    for path in bundles_of(talk):
        with open_container(path) as container:
            found = verify(container, signers={}, allow_unknown_signer=True, nonce=nonce_of(talk)).document()
        assert [] == [each["name"] for each in found["checks"] if each["state"] == "failed"]
        assert ["passed"] * 4 == [found["levels"][name] for name in ("INTEGRITY", "LEDGER", "PARITY", "TIME")]


def test_every_token_stands_in_one_ledger_with_the_numbers_of_the_log(talk: Path) -> None:
    """Read here without the code that the command compares by"""
    logged = [event.body for event in events.read(talk) if event.kind == "token"]
    found = {}
    for path in bundles_of(talk):
        lines = {(line["position"], line["slot"]): line for line in ledger(path)}
        prompt = read_anchor(path).prompt_ids
        for position, slot in lines:
            if slot == "token":
                head, sampler = lines[position, "lm_head"], lines[position, "sampler"]
                found[path.name[0], position + 1, lines[position, slot]["measured"]["id"], prompt[: position + 1]] = head, sampler
    assert len(logged) == len(found) == sum(1 for path in bundles_of(talk) for line in ledger(path) if line["slot"] == "token")
    by_place = {(letter, position, token): lines for (letter, position, token, _), lines in found.items()}
    sides = {event.body["turn"]: event.body["side"] for event in events.read(talk) if event.kind == "turn"}
    for token in logged:
        head, sampler = by_place["ab"[sides[token["turn"]]], token["position"], token["id"]]
        told = token["measured"]
        assert told["model"]["logprob_nats"] == head["derived"]["logprob"]
        assert told["model"]["top_masses"] == head["derived"]["top_masses"]
        assert (told["draw"], told["truncated_mass"]) == (sampler["measured"]["draw"], sampler["measured"]["truncated_mass"])
        assert told["sampler"]["logprob_nats"] == sampler["derived"]["sampler_logprob"]
        assert told["tempered"]["entropy_nats"] == sampler["derived"]["tempered_entropy_nats"]
        assert told["sampler"]["zero"] == sampler["derived"]["sampler_zero_kind"]


def test_the_command_says_that_they_agree_and_check_says_it_again(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["dialogue", "--check", str(talk)])
    out = capsys.readouterr().out
    assert "whose chain is whole" in out and "transcript.jsonl says the same" in out
    assert 2 == out.count("the same, bit for bit")
    assert 0 == main(["dialogue", "--check", str(talk), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["complete"] and told["tokens"] == sum(each["tokens"] for each in told["bundles"])
    assert [1, 2, 3, 4] == sorted(number for each in told["bundles"] for number in each["turns"])


# ---- what they are not


def copy(talk: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(talk, tmp_path / "copy.dlg"))


def test_one_bit_of_one_logprob_is_found(talk: Path, tmp_path: Path) -> None:
    out = copy(talk, tmp_path)
    path = bundles_of(out)[0] / "ledger.jsonl"
    lines = path.read_bytes().splitlines()
    number = next(n for n, line in enumerate(lines) if line.endswith(b'"slot":"lm_head"}'))
    value = canonical.decode(lines[number], limits=canonical.LINE)
    value["derived"]["logprob"] *= 1 + 2**-52
    lines[number] = canonical.encode(value)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    with pytest.raises(EvidenceError, match=r"expected model\.logprob_nats .* in turn 1, token 1, as the log has it, got"):
        agree(events.located(out), bundles_of(out))


def test_a_turn_without_a_bundle_and_a_bundle_of_another_dialogue_are_found(
    talk: Path, tmp_path: Path, dialogue: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    out = copy(talk, tmp_path)
    last = bundles_of(out)[-1]
    shutil.rmtree(last)
    with pytest.raises(EvidenceError, match="expected every turn that was said here in one bundle, got none of turn"):
        agree(events.located(out), bundles_of(out))
    other = tmp_path / "other.dlg"
    assert 0 == dialogue(other, *HOT[:-1], "6", "--stop", "4 messages")
    shutil.copytree(bundles_of(other)[-1], last)
    capsys.readouterr()
    assert 1 == main(["dialogue", "--check", str(out)])
    said = capsys.readouterr()
    assert f"expected a bundle that names {nonce_of(out)}" in said.err and "bit for bit" not in said.out


def test_a_log_that_was_cut_off_has_no_bundles_and_check_fails(talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = copy(talk, tmp_path)
    log = out / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    (out / "transcript.jsonl").unlink()
    assert 1 == main(["dialogue", "--check", str(out)])
    assert "was cut off: --resume goes on with it" in capsys.readouterr().out
    with pytest.raises(EvidenceError, match="expected a dialogue that is over"):
        nonce_of(log)


# ---- whenever they are made


def test_bundles_made_later_and_bundles_cut_off_have_the_same_bytes(
    talk: Path, tmp_path: Path, key: str, checkpoints: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    out = copy(talk, tmp_path)
    first, *others = bundles_of(out)
    order = order_of(read_anchor(first))
    for path in (first, *others):
        shutil.rmtree(path)
    seen = []

    def cut(step: object) -> None:
        seen.append(step)
        if len(seen) == 2:
            raise Cut

    with pytest.raises(Cut):
        ensure(open_checkpoint(checkpoints[0]), [order], Watch("minimal", "minimal", "boundaries"), [first], Means("64MiB", 2, on_step=cut))
    assert 0 == main(["dialogue", "--resume", str(out), "--memory", "64MiB", "--key", key])
    assert "it is complete" in capsys.readouterr().err
    for path in (first, *others):
        assert contents(talk / path.name) == contents(path), path.name


def test_none_are_made_if_none_are_wanted(tmp_path: Path, dialogue: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == dialogue(tmp_path / "talk.dlg", "--no-bundles", "--stop", "1 messages", "--json")
    assert [] == json.loads(capsys.readouterr().out)["bundles"] and [] == bundles_of(tmp_path / "talk.dlg")


def test_a_folder_with_a_recording_of_something_else_is_not_touched(
    talk: Path, tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    out = copy(talk, tmp_path)
    first, *_, last = bundles_of(out)
    shutil.rmtree(first)
    shutil.copytree(last, first)
    assert 1 == main(["dialogue", "--resume", str(out), "--memory", "64MiB", "--key", key])
    said = capsys.readouterr()
    assert "expected a recording of run" in said.err and "bit for bit" not in said.err


def test_after_an_error_and_after_ctrl_c_there_are_bundles_of_what_was_said(
    tmp_path: Path, dialogue: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    measure, count = formation.dialogue.local.measure, 0

    def fails(*given: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == 7:
            raise SideFault("the disk is gone", again=False)
        return measure(*given, **named)

    monkeypatch.setattr(formation.dialogue.local, "measure", fails)
    assert 3 == dialogue(tmp_path / "failed.dlg")
    assert "the disk is gone" in (err := capsys.readouterr().err) and "bit for bit" in err
    assert 4 <= sum(line["slot"] == "token" for path in bundles_of(tmp_path / "failed.dlg") for line in ledger(path))

    def interrupted(times: int) -> Callable[..., Any]:
        def presses(*given: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == 6:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
            return measure(*given, **named)

        return presses

    for times, expected in ((1, True), (2, False)):
        count, out = 0, tmp_path / f"interrupted {times}.dlg"
        monkeypatch.setattr(formation.dialogue.local, "measure", interrupted(times))
        assert 130 == dialogue(out)
        err = capsys.readouterr().err
        assert expected is ("bit for bit" in err) is bool(bundles_of(out))
        assert expected is not ("no bundles yet: formation dialogue --resume" in err)


# ---- whatever a side was given


def test_a_side_that_is_given_less_has_a_bundle_for_each_sequence(tmp_path: Path, dialogue: Callable[..., int]) -> None:
    out = tmp_path / "talk.dlg"
    assert 0 == dialogue(out, "--context", "last 1", "--stop", "6 messages")
    assert {"a-1.ofb", "a-3.ofb", "b-1.ofb", "b-3.ofb"} <= {path.name for path in bundles_of(out)}


def test_a_side_whose_logits_are_edited_has_its_tokens_given(tmp_path: Path, dialogue: Callable[..., int]) -> None:
    """No anchor holds penalties: who chose its tokens is in the log alone"""
    out = tmp_path / "talk.dlg"
    assert 0 == dialogue(out, *HOT, "--a-presence", "0.5", "--stop", "3 messages")
    methods = {path.name[0]: read_anchor(path).sampler["method"] for path in bundles_of(out)}
    assert {"a": "forced", "b": "sample"} == methods


def turn(number: int, ids: tuple[int, ...], begin: int) -> Heard:
    return Heard(0, ids, ((begin, len(ids)),), (number,))


def test_a_turn_goes_on_with_a_sequence_if_it_begins_with_all_of_it() -> None:
    first, second, third = turn(1, (1, 2, 3), 1), turn(3, (1, 2, 3, 9, 4), 4), turn(5, (1, 2, 8, 9, 4, 5), 5)
    together, apart = sequences([first, second, third])
    assert Heard(0, (1, 2, 3, 9, 4), ((1, 3), (4, 5)), (1, 3)) == together
    assert third == apart
    assert [turn(1, (1, 2), 1), turn(3, (1, 2, 3), 2)] == list(sequences([turn(1, (1, 2), 1), turn(3, (1, 2, 3), 2)]))  # nothing between them
    assert [] == list(sequences([]))
    assert (["b.ofb"], ["a-1.ofb", "a-2.ofb"]) == (names("b", 1), names("a", 2))
