"""A dialogue of two small models: what its log holds, and that a cut at any event changes no byte of it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.dialogue.small_sides import StoppedClock, a_side, two_checkpoints

from formation.dialogue import conduct, events, times
from formation.dialogue.conduct import LOSSLESS, TEXT, Terms
from formation.dialogue.events import Event
from formation.dialogue.local import LocalSide, LocalSpeech
from formation.dialogue.so_far import SoFar
from formation.dialogue.transcripts import formats
from formation.errors import EnvironmentFault, EvidenceError, UsageError
from formation.kernels.tensor import F32
from formation.run.sample import Choice

TERMS = Terms(how="text", text="Hello <|im_end|>?", stops=("10 messages",))
Pair = tuple[LocalSide, LocalSide]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return two_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def sides(checkpoints: tuple[Path, Path]) -> Iterator[Pair]:
    with a_side("owl", checkpoints[0], 1) as first, a_side("lamp", checkpoints[1], 2, system="Be brief.") as second:
        yield first, second


@pytest.fixture(scope="module")
def whole(sides: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dialogue that nothing has cut off"""
    folder = tmp_path_factory.mktemp("whole") / "talk.dlg"
    with conduct.begin(folder, sides, TERMS, clock=StoppedClock()) as conductor:
        conductor.run()
    return folder


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on disk after a kill of the process needs no fsync"""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def files_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (events.NAME, TEXT, LOSSLESS)}


def test_the_log_holds_every_turn_and_token_and_why_it_ended(whole: Path, sides: Pair) -> None:
    found = list(events.read(whole))
    turns = [event.body for event in found if event.kind == "turn_end"]
    assert 10 == len(turns) and all(turn["tokens"] == 4 or turn["reason"] == "end of turn" for turn in turns)
    assert [0, 1] * 5 == [event.body["side"] for event in found if event.kind == "turn"]
    tokens = [event.body for event in found if event.kind == "token"]
    assert {"sample"} == {token["measured"]["method"] for token in tokens}
    evidence = {"rule": "10 messages", "after": 10, "within": False, "spans": [], "amounts": [{"what": "messages", "amount": 10}]}
    assert {"messages": 10, "evidence": evidence} == found[-1].body
    assert [side.describe() for side in sides] == found[0].body["sides"]


def test_the_transcripts_hold_what_was_said_and_the_lossless_one_what_was_given(whole: Path) -> None:
    text, lossless = formats.read(whole / TEXT), formats.read(whole / LOSSLESS)
    said = [event.body["text"] for event in events.read(whole) if event.kind == "turn_end"]
    assert said == [message.text for message in text.messages]
    assert [(1, "Be brief."), (0, TERMS.text)] == [(m.side, m.text) for m in lossless.messages if m.source == "prompt"]
    assert said == [message.text for number, message in lossless.said]
    assert [*range(1, 11)] == [number for number, _ in lossless.said] == [number for number, _ in text.said]
    assert ("owl", "lamp") == text.names and text.started == text.ended == StoppedClock().now()


def test_a_position_is_that_in_the_sides_own_context(whole: Path) -> None:
    prompt = 0
    for event in events.read(whole):
        if event.kind == "turn":
            prompt = event.body["prompt_tokens"]
        if event.kind == "token":
            assert prompt + event.body["index"] == event.body["position"]


def cut_at(whole: Path, folder: Path, count: int) -> None:
    """As a kill after `count` events leaves it"""
    folder.mkdir()
    for name, lines in ((events.NAME, count), (times.NAME, count - 1)):
        (folder / name).write_bytes(b"".join((whole / name).read_bytes().splitlines(keepends=True)[:lines]))


class Killed(BaseException):
    pass


def go_on(folder: Path, sides: Pair, last: int | None = None) -> None:
    """Until event `last` is on disk, as if the process were killed then"""

    def watch(event: Event, so_far: SoFar) -> None:
        if event.number == last:
            raise Killed

    with conduct.resume(folder, sides, watch=watch, clock=StoppedClock()) as conductor:
        conductor.run()


def test_killed_at_fifty_events_and_resumed_each_time_it_is_the_same(whole: Path, sides: Pair, tmp_path: Path, no_sync: None) -> None:
    """Two dialogues, each killed at twenty-five of its events, sometimes while the next line is written"""
    lines, source = (whole / events.NAME).read_bytes().splitlines(keepends=True), random.Random(11)
    for run in ("first", "second"):
        folder = tmp_path / run
        cuts = sorted(source.sample(range(1, len(lines) - 1), 25))
        cut_at(whole, folder, 1)
        for cut in cuts:
            with pytest.raises(Killed):
                go_on(folder, sides, cut)
            assert b"".join(lines[: cut + 1]) == (folder / events.NAME).read_bytes(), f"cut after event {cut}"
            with (folder / events.NAME).open("ab") as file:
                file.write(lines[cut + 1][: source.choice([0, 1, 100])])
        go_on(folder, sides)
        assert files_of(whole) == files_of(folder)


def test_cut_at_any_event_it_ends_with_the_same_transcripts(whole: Path, sides: Pair, tmp_path: Path, no_sync: None) -> None:
    count = events.survey(whole).events
    for cut in (1, 2, 9, count - 2, count - 1, count):
        cut_at(whole, tmp_path / str(cut), cut)
        go_on(tmp_path / str(cut), sides)
        assert files_of(whole) == files_of(tmp_path / str(cut)), f"cut after {cut} events"


def test_a_complete_dialogue_is_resumed_to_itself(whole: Path, sides: Pair, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "d")
    (tmp_path / "d" / TEXT).unlink()
    with conduct.resume(tmp_path / "d", sides, clock=StoppedClock()) as conductor:
        conductor.run()
    assert files_of(whole) == files_of(tmp_path / "d")


ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
WORKER = """
import os, signal, sys
from pathlib import Path
from tests.dialogue.small_sides import StoppedClock, a_side
from tests.dialogue.test_conduct import TERMS
from formation.dialogue import conduct
kimi, qwen, folder = map(Path, sys.argv[1:])
def watch(event, so_far):
    if event.number == 21:
        os.kill(os.getpid(), signal.SIGKILL)
sides = a_side("owl", kimi, 1), a_side("lamp", qwen, 2, system="Be brief.")
with conduct.begin(folder, sides, TERMS, watch=watch, clock=StoppedClock()) as conductor:
    conductor.run()
"""


def test_a_process_that_is_killed_leaves_what_another_goes_on_with(
    whole: Path, sides: Pair, checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:  # fmt: skip
    command = [sys.executable, "-c", WORKER, *map(str, checkpoints), str(tmp_path / "d")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert -signal.SIGKILL == done.returncode, done.stderr
    assert 22 == events.survey(tmp_path / "d").events
    go_on(tmp_path / "d", sides)
    assert files_of(whole) == files_of(tmp_path / "d")


def test_the_same_dialogue_elsewhere_has_the_same_log(whole: Path, checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    """With a wall clock, other memory, other threads, and a context that is computed anew at each turn"""
    with a_side("owl", checkpoints[0], 1) as first, a_side("lamp", checkpoints[1], 2, system="Be brief.") as second:
        for side in (first, second):
            side.engine.keep_cache, side.engine.threads = False, 2
        with conduct.begin(tmp_path / "d", (first, second), TERMS) as conductor:
            conductor.run()
    assert (whole / events.NAME).read_bytes() == (tmp_path / "d" / events.NAME).read_bytes()


def test_other_seeds_say_something_else(whole: Path, checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    with a_side("owl", checkpoints[0], 3) as first, a_side("lamp", checkpoints[1], 2, system="Be brief.") as second:
        with pytest.raises(EvidenceError, match=r"side A: expected sampler\.seed '1', as the dialogue was begun with, got '3'"):
            conduct.resume(whole, (first, second))
        with conduct.begin(tmp_path / "d", (first, second), Terms(how="text", text=TERMS.text, stops=("2 messages",))) as conductor:
            conductor.run()
    assert formats.read(whole / TEXT).messages[:2] != formats.read(tmp_path / "d" / TEXT).messages


def test_a_dialogue_is_never_written_over_another(whole: Path, sides: Pair) -> None:
    before = files_of(whole)
    with pytest.raises(EnvironmentFault, match=r"expected no dialogue in .*, got events\.jsonl"):
        conduct.begin(whole, sides, TERMS)
    assert before == files_of(whole)


def test_an_empty_log_is_no_dialogue(sides: Pair, tmp_path: Path) -> None:
    events.create(tmp_path / "d").close()
    with pytest.raises(EnvironmentFault, match="expected a dialogue that was begun, got an empty log"):
        conduct.resume(tmp_path / "d", sides)


def test_names_that_a_transcript_cannot_hold_are_refused_before_anything_is_written(sides: Pair, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected two different names"):
        conduct.begin(tmp_path / "d", (sides[0], sides[0]), TERMS)
    assert not (tmp_path / "d").exists()


def test_a_changed_log_is_not_gone_on_with(whole: Path, sides: Pair, tmp_path: Path) -> None:
    """Not even where its chain is whole: the prompt that the sides make is not the one in the log."""
    happened = [(event.kind, event.body) for event in events.read(whole)][:8]
    place = next(n for n, (kind, body) in enumerate(happened) if kind == "turn" and body["turn"] == 2)
    happened[place][1]["prompt_tokens"] += 1
    with events.create(tmp_path / "d") as log:
        for kind, body in happened[: place + 1]:
            log.append(kind, body)
    with (
        conduct.resume(tmp_path / "d", sides) as conductor,
        pytest.raises(EvidenceError, match=r"turn 2: expected prompt_tokens \d+, as the log has it, got \d+"),
    ):
        conductor.run()


def test_a_rule_of_tokens_ends_it_within_a_turn_after_a_cut_too(sides: Pair, tmp_path: Path, no_sync: None) -> None:
    terms = Terms(stops=("6 tokens",))
    with conduct.begin(tmp_path / "d", sides, terms, clock=StoppedClock()) as conductor:
        end = conductor.run()
    assert ("6 tokens", 1, True) == (end["evidence"]["rule"], end["evidence"]["after"], end["evidence"]["within"])
    found = list(events.read(tmp_path / "d"))
    assert ("turn_end", "stopped", 2) == (found[-2].kind, found[-2].body["reason"], found[-2].body["tokens"])
    for cut in range(len(found) - 3, len(found)):
        cut_at(tmp_path / "d", tmp_path / str(cut), cut)
        go_on(tmp_path / str(cut), sides)
        assert files_of(tmp_path / "d") == files_of(tmp_path / str(cut))


def interrupted(folder: Path, sides: Pair, *at: int) -> list[Event]:
    """A dialogue with Ctrl-C after these tokens"""
    seen = [0]

    def watch(event: Event, so_far: SoFar) -> None:
        seen[0] += event.kind == "token"
        for _ in range(at.count(seen[0]) if event.kind == "token" else 0):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with conduct.begin(folder, sides, TERMS, watch=watch) as conductor:
        conductor.run()
    assert signal.getsignal(signal.SIGINT) is before
    return list(events.read(folder))


def test_ctrl_c_once_ends_it_after_the_token(sides: Pair, tmp_path: Path) -> None:
    *_, turn_end, end = interrupted(tmp_path / "d", sides, 6)
    assert ("stopped", 2) == (turn_end.body["reason"], turn_end.body["tokens"])
    assert ("Ctrl-C", [{"what": "interrupts", "amount": 1}]) == (end.body["evidence"]["rule"], end.body["evidence"]["amounts"])
    assert 2 == len(formats.read(tmp_path / "d" / TEXT).messages)


def test_ctrl_c_twice_ends_it_within_the_token(sides: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = LocalSpeech.choose

    def choose(speech: LocalSpeech, logits: F32, position: int) -> Choice:
        for _ in range(2 if speech.ids else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return chosen(speech, logits, position)

    monkeypatch.setattr(LocalSpeech, "choose", choose)
    *_, turn_end, end = interrupted(tmp_path / "d", sides)
    assert ("stopped", 1) == (turn_end.body["reason"], turn_end.body["tokens"])
    assert [{"what": "interrupts", "amount": 2}] == end.body["evidence"]["amounts"]
    assert 1 == len(formats.read(tmp_path / "d" / LOSSLESS).said)


def test_a_side_whose_context_is_full_ends_it(checkpoints: tuple[Path, Path], tmp_path: Path, no_sync: None) -> None:
    with a_side("owl", checkpoints[0], 1, most_tokens=400) as first, a_side("lamp", checkpoints[1], 2, most_tokens=1) as second:
        with conduct.begin(tmp_path / "d", (first, second), Terms(how="text", text="x" * 900)) as conductor:
            end = conductor.run()
        *_, turn_end, _ = events.read(tmp_path / "d")
        assert ("context", 1, False) == (end["evidence"]["rule"], end["evidence"]["after"], end["evidence"]["within"])
        assert ("context", 1, 1024) == (turn_end.body["reason"], turn_end.body["turn"], len(first.past.ids))
        with conduct.begin(tmp_path / "e", (first, second), Terms(how="text", text="x" * 1200)) as conductor:
            end = conductor.run()
        assert (0, True) == (end["evidence"]["after"], end["evidence"]["within"])
        assert () == formats.read(tmp_path / "e" / TEXT).messages
