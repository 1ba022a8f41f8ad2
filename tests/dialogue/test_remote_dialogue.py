"""Whole dialogues with servers: through the conductor and its log, beside a checkpoint, and against the checkpoint's own numbers."""

from __future__ import annotations

import threading
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.dialogue.local_server import LocalServer, Said
from tests.dialogue.small_sides import StoppedClock, a_side, two_checkpoints

from formation.dialogue import conduct, events
from formation.dialogue.chain import Chain
from formation.dialogue.conduct import Terms
from formation.dialogue.local import LocalSide
from formation.dialogue.remote.http import Patience
from formation.dialogue.remote.side import RemoteSide, connect
from formation.dialogue.side import Manner, Turn
from formation.run.distributions import distributions

QUICK = Patience(connect_seconds=5, pause_seconds=10, answer_seconds=20, attempts=2, first_wait_seconds=0.001)
PAGE = Path(__file__).parents[2] / "docs" / "remote.md"
TERMS = Terms(how="text", text="Hello?", stops=("4 messages", "4 errors"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_checkpoints(tmp_path_factory.mktemp("checkpoints"))[0]


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


def lamp(server: LocalServer, name: str = "lamp", **given: Any) -> RemoteSide:
    return connect(name, server.url, Manner(most_tokens=10), patience=QUICK, **given)


def kinds(folder: Path) -> list[str]:
    return [event.kind for event in events.read(folder)]


def held(folder: Path, sides: Sequence[Any]) -> list[dict[str, Any]]:
    with conduct.begin(folder, sides, TERMS, clock=StoppedClock()) as conductor:
        conductor.run()
    return [event.body for event in events.read(folder) if event.kind == "turn_end"]


def test_two_servers_talk_and_every_token_is_in_the_log(server: LocalServer, tmp_path: Path) -> None:
    turns = held(tmp_path / "d", (lamp(server), lamp(server, "moth")))
    assert ["I float. Café"] * 4 == [turn["text"] for turn in turns]
    tokens = [event.body for event in events.read(tmp_path / "d") if event.kind == "token"]
    assert 28 == len(tokens)
    assert {"POSITIVE"} == {token["reported"]["zero"] for token in tokens}
    last = server.chats()[-1]["messages"]
    assert [("user", "I float. Café"), ("assistant", "I float. Café"), ("user", "I float. Café")] == [(m["role"], m["content"]) for m in last]


def test_a_server_talks_to_a_checkpoint(server: LocalServer, checkpoint: Path, tmp_path: Path) -> None:
    with a_side("owl", checkpoint, 1) as owl:
        turns = held(tmp_path / "d", (owl, lamp(server)))
    assert [0, 1, 0, 1] == [event.body["side"] for event in events.read(tmp_path / "d") if event.kind == "turn"]
    assert ["I float. Café"] * 2 == [turn["text"] for turn in turns[1::2]]
    assert turns[0]["text"] == server.chats()[-1]["messages"][0]["content"]


def test_what_came_before_an_accident_stays_in_the_log_and_the_turn_begins_anew(server: LocalServer, tmp_path: Path) -> None:
    sides = (lamp(server), lamp(server, "moth"))
    server.once = [set(), {"drop in the middle"}, {"malformed"}]
    turns = held(tmp_path / "d", sides)
    assert ["I float. Café"] * 4 == [turn["text"] for turn in turns]
    tokens = ["token"] * 3
    expected = ["dialogue", "turn", *["token"] * 7, "turn_end", "turn", *tokens, "fault", *["token"] * 2, "fault", *["token"] * 7, "turn_end"]
    assert expected == kinds(tmp_path / "d")[: len(expected)]
    faults = [event.body["sentence"] for event in events.read(tmp_path / "d") if event.kind == "fault"]
    assert faults[0].startswith(f"server {server.root}/v1: expected the whole answer, got a connection that was dropped after ")
    assert faults[1].startswith(f"server {server.root}/v1: expected JSON, got an error at character ")


def test_a_server_that_refuses_ends_the_dialogue_with_its_sentence(server: LocalServer, tmp_path: Path) -> None:
    sides = (lamp(server), lamp(server, "moth"))
    server.once = [set(), {"401"}]
    turns = held(tmp_path / "d", sides)
    assert [("end of turn", "I float. Café"), ("failed", "")] == [(turn["reason"], turn["text"]) for turn in turns]
    (fault,) = [event.body for event in events.read(tmp_path / "d") if event.kind == "fault"]
    assert "given up" == fault["then"]
    assert "got HTTP 401: 'no: 401'; name the environment variable that holds its key" in fault["sentence"]


def test_a_dialogue_that_was_cut_off_goes_on_with_what_was_found_at_its_start(server: LocalServer, tmp_path: Path) -> None:
    sides = (lamp(server), lamp(server, "moth"))
    held(tmp_path / "whole", sides)
    lines = (tmp_path / "whole" / events.NAME).read_bytes().splitlines(keepends=True)
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / events.NAME).write_bytes(b"".join(lines[:13]))  # in the middle of the second turn
    (cut / "times.jsonl").write_bytes(b"".join((tmp_path / "whole" / "times.jsonl").read_bytes().splitlines(keepends=True)[:12]))
    records = next(events.read(cut)).body["sides"]
    server.habits = {"seed ignored", "few tops", "no completions"}  # a new probe would find something else
    again = tuple(lamp(server, record["name"], record=record) for record in records)
    with conduct.resume(cut, again, clock=StoppedClock()) as conductor:
        conductor.run()
    assert ["turn", "token", "token", "fault", *["token"] * 7, "turn_end"] == kinds(cut)[10:22]
    assert [event.body["text"] for event in events.read(tmp_path / "whole") if event.kind == "turn_end"] == [
        event.body["text"] for event in events.read(cut) if event.kind == "turn_end"
    ]


# ---- a server that runs a checkpoint: its numbers are the checkpoint's


class Checkpoint:
    """Answers with a checkpoint; log probabilities are those of the raw logits."""

    def __init__(self, side: LocalSide, tops: int = 20) -> None:
        self.side, self.tops, self.lock = side, tops, threading.Lock()

    def speak(self, messages: Sequence[dict[str, str]], most: int, settings: dict[str, Any]) -> tuple[list[Said], str]:
        turns = [Turn(n, message["role"] == "assistant", message["content"]) for n, message in enumerate(messages)]
        side, said = self.side, []
        with self.lock:
            for step in side.engine.generate(side.prompt(turns), most, stop=side.stop):
                found = distributions(Chain().sampler, step.logits, Chain().edited(step.logits)).model
                best = np.argsort(-step.logits, kind="stable")[: self.tops]
                top = tuple((side.tokenizer.token_bytes(int(each)), float(found.logprob_nats(int(each)) or 0)) for each in best)
                said.append(Said(side.tokenizer.token_bytes(step.id), float(found.logprob_nats(step.id) or 0), top))
        return said, "stop" if step.id in side.stop else "length"

    def echo(self, text: str) -> list[Said]:
        return []


def test_the_log_probabilities_of_a_server_are_those_of_its_checkpoint_bit_for_bit(checkpoint: Path) -> None:
    context = [Turn(0, False, "Hello?")]
    with a_side("owl", checkpoint, 1, chain=Chain(), most_tokens=6) as owl, LocalServer(Checkpoint(owl), {"no completions"}) as server:
        remote = connect("owl", server.url, owl.manner, patience=QUICK)
        here, there = [piece.event for piece in owl.speak(context)], [piece.event for piece in remote.speak(context)]
    views = [event["measured"]["model"] for event in here]
    assert [view["logprob_nats"] for view in views] == [event["reported"]["logprob_nats"] for event in there]
    assert [view["zero"] for view in views] == [event["reported"]["zero"] for event in there]
    assert [event["reported"]["logprob_nats"] for event in there] == [event["reported"]["top"][0]["logprob_nats"] for event in there]
    spelt = [b"".join(b64decode(event["bytes"]) for event in each).decode("utf-8", "replace") for each in (here, there)]
    assert spelt[0] == spelt[1]


def test_a_side_is_the_same_wherever_it_is_asked_who_it_is(server: LocalServer) -> None:
    side = lamp(server)
    assert side.describe() == replace(side).describe()
    assert f"{server.root}/v1" == side.describe()["url"]


# ---- the page


def test_the_page_names_every_capability_and_its_code_runs(server: LocalServer, capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text()
    table = [line.split("`")[1] for line in page.split("| capability |")[1].split("\n\n")[0].splitlines() if line.startswith("| `")]
    assert table == [found["what"] for found in lamp(server).describe()["capabilities"]]
    names: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)
    assert "end of turn" == names["ask"](server.url)
    assert "logprobs: streamed" in capsys.readouterr().out
