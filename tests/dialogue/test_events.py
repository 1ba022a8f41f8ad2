"""The event log: chained, on disk event by event, readable after any accident, refused after any change."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formation.dialogue import event_table, events
from formation.dialogue.chain import Chain, documents
from formation.dialogue.event_table import EVENTS, RECORDS, EventRefusal
from formation.dialogue.measure import document, measure
from formation.dialogue.stops.rules import Stops
from formation.dialogue.stops.words import DEFAULT
from formation.errors import EnvironmentFault, EvidenceError
from formation.ledger import canonical
from formation.run.sample import Sample

CHAIN = Chain(Sample(0.8, 3, seed=2**63))
DIGEST = "ab" * 32


def side(name: str, server: bool = False) -> dict[str, Any]:
    source: dict[str, Any] = {
        "source": "server",
        "url": "http://localhost:1",
        "checkpoint_sha256": {"absent": "server"},
        "template_sha256": {"absent": "server"},
    }
    source["capabilities"] = [{"what": "logprobs", "found": "of 5 tokens"}]
    local: dict[str, Any] = {"source": "checkpoint", "url": {"absent": "checkpoint"}, "checkpoint_sha256": DIGEST, "template_sha256": DIGEST}
    local["capabilities"] = {"absent": "checkpoint"}
    rest = {
        "name": name,
        "model": "m",
        "system": "",
        "thinking": "off",
        "today": {"absent": "not told"},
        "context": {"policy": "full", "limit": 0},
        "most_tokens": 50,
        "stop_ids": [7],
    }
    return rest | (source if server else local) | documents(CHAIN)


def a_dialogue() -> list[tuple[str, dict[str, Any]]]:
    """A small one: a local side says two tokens, a server fails once and says one"""
    z = np.array([0.5, 1.5, -1.0, 0.0], np.float32)
    happened: list[tuple[str, dict[str, Any]]] = [
        ("dialogue", {
            "format": event_table.FORMAT, "formation": "0", "contract": "f32x16/1",
            "sides": [side("A"), side("B", True)],
            "first": 0, "kickoff": {"how": "empty", "text": ""}, "stops": list(DEFAULT)}),
        ("turn", {"turn": 1, "side": 0, "prompt_tokens": 4, "prompt_sha256": DIGEST, "left_out": 0}),
    ]  # fmt: skip
    for index in (0, 1):
        choice = CHAIN.choose(z, 4 + index)
        token = {"turn": 1, "index": index, "position": 4 + index, "id": choice.id, "bytes": "YQ==", "reported": {"absent": "checkpoint"}}
        happened.append(("token", token | {"measured": document(measure(CHAIN, z, choice, "sample"))}))
    reported = {"logprob_nats": -0.25, "zero": "POSITIVE", "top": [{"bytes": "wq4=", "logprob_nats": -0.25}]}
    heard = {
        "turn": 2,
        "index": 0,
        "position": {"absent": "server"},
        "id": {"absent": "not reported"},
        "bytes": "wq4=",
        "measured": {"absent": "server"},
    }
    return [
        *happened,
        ("turn_end", {"turn": 1, "reason": "end of turn", "tokens": 2, "text": "aa"}),
        ("turn", {"turn": 2, "side": 1, "prompt_tokens": {"absent": "server"}, "prompt_sha256": {"absent": "server"}, "left_out": 0}),
        ("token", heard | {"reported": reported}),
        ("fault", {"turn": 2, "attempt": 1, "then": "again", "sentence": "the connection was dropped"}),
        ("token", heard | {"reported": reported}),
        ("turn_end", {"turn": 2, "reason": "stopped", "tokens": 1, "text": "®"}),
        ("dialogue_end", {"messages": 2, "evidence": Stops([]).interrupted(1).document()}),
    ]


def written(folder: Path, count: int | None = None) -> bytes:
    with events.create(folder) as log:
        for kind, body in a_dialogue()[:count]:
            log.append(kind, body)
    return (folder / events.NAME).read_bytes()


def test_what_is_written_is_read_and_each_line_names_the_one_before(tmp_path: Path) -> None:
    data = written(tmp_path / "d")
    assert a_dialogue() == [(event.kind, event.body) for event in events.read(tmp_path / "d")]
    lines = data.splitlines()
    before = ["0" * 64, *(hashlib.sha256(line).hexdigest() for line in lines)]
    assert before[:-1] == [json.loads(line)["previous"] for line in lines]
    assert events.Survey(len(lines), len(data), before[-1], True, 0) == events.survey(tmp_path / "d" / events.NAME)


def test_cut_anywhere_it_is_read_to_the_last_whole_event_and_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    data, happened = written(tmp_path / "whole"), a_dialogue()
    ends = [0, *(place + 1 for place, byte in enumerate(data) if byte == 10)]
    cuts = sorted({*ends, *(end - 1 for end in ends[1:]), *random.Random(5).sample(range(len(data)), 40)})
    for cut in cuts:
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / events.NAME).write_bytes(data[:cut])
        count = sum(end <= cut for end in ends) - 1
        found = events.survey(folder)
        assert (count, ends[count], cut - ends[count], cut == len(data)) == (found.events, found.size_bytes, found.dropped_bytes, found.complete)
        log, so_far = events.resume(folder)
        with log:
            assert happened[:count] == [(event.kind, event.body) for event in so_far]
            for kind, body in happened[count:]:
                log.append(kind, body)
        assert data == (folder / events.NAME).read_bytes()


def test_any_changed_byte_is_refused_and_the_event_named(tmp_path: Path) -> None:
    data, source = written(tmp_path / "d"), random.Random(7)
    starts = [0, *(place + 1 for place, byte in enumerate(data[:-1]) if byte == 10)]
    for place in source.sample(range(len(data) - 1), 150):
        changed = bytearray(data)
        changed[place] ^= 1 << source.randrange(8)
        (tmp_path / "d" / events.NAME).write_bytes(changed)
        with pytest.raises(EvidenceError) as caught:
            list(events.read(tmp_path / "d"))
        event = sum(start <= place for start in starts) - 1
        named = int(str(caught.value).split(": event ")[1].split(":")[0])
        assert named in (event, event + 1)  # the value itself, or the digest that the next line has of it
        with pytest.raises(EvidenceError):
            events.resume(tmp_path / "d")
        assert bytes(changed) == (tmp_path / "d" / events.NAME).read_bytes()


def lines_of(folder: Path) -> list[bytes]:
    return written(folder).splitlines(keepends=True)


def chained(bodies: list[tuple[str, dict[str, Any]]]) -> bytes:
    """A log of these events with right numbers and digests, whatever they are"""
    previous, data = "0" * 64, b""
    for number, (kind, body) in enumerate(bodies):
        line = canonical.encode({"body": body, "event": number, "kind": kind, "previous": previous}, limits=events.LIMITS)
        previous, data = hashlib.sha256(line).hexdigest(), data + line + b"\n"
    return data


def test_a_line_that_is_left_out_doubled_or_moved_is_refused(tmp_path: Path) -> None:
    lines = lines_of(tmp_path / "d")
    for changed, named in (
        (lines[:3] + lines[4:], 3), (lines[:3] + lines[2:], 3), ([*lines[:2], lines[3], lines[2], *lines[4:]], 2), (lines[1:], 0),
        ([*lines, lines[-1]], 11),
    ):  # fmt: skip
        (tmp_path / "d" / events.NAME).write_bytes(b"".join(changed))
        with pytest.raises(EvidenceError, match=f"event {named}:"):
            list(events.read(tmp_path / "d"))


def test_bytes_behind_the_end_are_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "d")
    (tmp_path / "d" / events.NAME).write_bytes(data + b"{")
    with pytest.raises(EvidenceError, match="expected nothing after event 10, which ends the dialogue"):
        events.survey(tmp_path / "d")


def test_a_log_without_a_line_feed_costs_no_memory_and_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LIMITS", canonical.Limits(1000, 16))
    (tmp_path / events.NAME).write_bytes(b"{" * 5000)
    with pytest.raises(EvidenceError, match="event 0: expected a line of at most 1000 bytes"):
        events.survey(tmp_path)


def changed(place: int, **fields: Any) -> list[tuple[str, dict[str, Any]]]:
    happened = a_dialogue()
    happened[place] = (happened[place][0], happened[place][1] | fields)
    return happened


MEASURED = a_dialogue()[2][1]["measured"]
ORDERS = {
    "no header": (a_dialogue()[1:], 0, "expected dialogue, got 'turn'"),
    "a header twice": ([a_dialogue()[0], *a_dialogue()], 1, "expected turn or dialogue_end"),
    "a token outside a turn": ([a_dialogue()[0], a_dialogue()[2]], 1, "expected turn or dialogue_end, got 'token'"),
    "a turn in a turn": ([*a_dialogue()[:2], ("turn", a_dialogue()[1][1] | {"turn": 2})], 2, "expected token or fault or turn_end"),
    "a turn left out": (changed(1, turn=2), 1, "turn.turn: expected 1, got 2"),
    "a token left out": (changed(2, index=1), 2, "token.index: expected 0, got 1"),
    "tokens miscounted": (changed(4, tokens=3), 4, "turn_end.tokens: expected 2, got 3"),
    "tokens of a void attempt counted": (changed(8, index=1), 8, "token.index: expected 0, got 1"),
    "messages miscounted": (changed(10, messages=3), 10, "dialogue_end.messages: expected 2, got 3"),
    "one side": (changed(0, sides=[side("A")]), 0, "expected two sides"),
    "a third side": (changed(1, side=2), 1, "turn.side: expected 0 or 1, got 2"),
    "another format": (changed(0, format="formation-dialogue/2"), 0, "dialogue.format: expected formation-dialogue/1"),
    "a reason that is none": (changed(4, reason="bored"), 4, "turn_end.reason: expected end of turn, tokens"),
    "a field more": (changed(4, mood="good"), 4, "turn_end: expected the fields"),
    "a text that is a number": (changed(4, text=5), 4, "turn_end.text: expected text, got 5"),
    "absent without a reason": (changed(4, text={"absent": "server"}), 4, "turn_end.text: expected it absent for no reason"),
    "a wrong reason": (changed(2, measured={"absent": "tired"}), 2, "token.measured: expected it absent for server"),
    "a zero that is none": (
        changed(6, reported={"logprob_nats": -1, "zero": "SMALL", "top": []}), 6, "token.reported.zero: expected one of POSITIVE"),
    "a view of one behind it": (
        changed(2, measured=MEASURED | {"edited": "sampler"}), 2, "token.measured.edited: expected a view or the name of"),
    "a model that is another": (changed(2, measured=MEASURED | {"model": "model"}), 2, "token.measured.model: expected a view"),
    "bytes that are none": (changed(2, bytes="YQ="), 2, "token.bytes: expected base64"),
    "a true for a number": (changed(2, position=True), 2, "token.position: expected an integer from 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_an_event_that_cannot_follow_is_refused_by_reader_and_writer(name: str, tmp_path: Path) -> None:
    happened, number, sentence = ORDERS[name]
    (tmp_path / events.NAME).write_bytes(chained(happened))
    with pytest.raises(EvidenceError) as caught:
        list(events.read(tmp_path))
    assert f"event {number}: " in str(caught.value) and sentence in str(caught.value)
    with events.create(tmp_path / "new") as log:
        for kind, body in happened[:number]:
            log.append(kind, body)
        before = (tmp_path / "new" / events.NAME).read_bytes()
        with pytest.raises(EventRefusal) as refused:
            log.append(*happened[number])
        assert sentence in str(refused.value)
        assert before == (tmp_path / "new" / events.NAME).read_bytes()


def test_one_writer_at_a_time_and_nothing_is_overwritten(tmp_path: Path) -> None:
    written(tmp_path, 2)
    with pytest.raises(EnvironmentFault, match="expected no dialogue"):
        events.create(tmp_path)
    log, _ = events.resume(tmp_path)
    with log, pytest.raises(EnvironmentFault, match="expected to be alone"):
        events.resume(tmp_path)
    with pytest.raises(EnvironmentFault, match="expected an open log"):
        log.append("turn_end", {})
    with pytest.raises(EnvironmentFault, match=r"open events\.jsonl"):
        events.resume(tmp_path / "none")


def test_a_full_disk_ends_the_log_and_what_was_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, happened = written(tmp_path / "whole"), a_dialogue()
    log = events.create(tmp_path / "d")
    log.append(*happened[0])
    real = os.write

    def full(descriptor: int, line: bytes) -> int:
        monkeypatch.setattr(os, "write", failing)
        return real(descriptor, line[:20])

    def failing(descriptor: int, line: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(EnvironmentFault, match="full disk"):
        log.append(*happened[1])
    monkeypatch.setattr(os, "write", real)
    with pytest.raises(EnvironmentFault, match="expected an open log"):
        log.append(*happened[1])
    assert (1, 20) == (events.survey(tmp_path / "d").events, events.survey(tmp_path / "d").dropped_bytes)
    log, _ = events.resume(tmp_path / "d")
    with log:
        for each in happened[1:]:
            log.append(*each)
    assert data == (tmp_path / "d" / events.NAME).read_bytes()


KILLED = """
import sys
from pathlib import Path
from tests.dialogue.test_events import a_dialogue
from formation.dialogue import events
log = events.create(Path(sys.argv[1]))
for kind, body in a_dialogue():
    log.append(kind, body)
    print(kind, flush=True)
    sys.stdin.readline()
"""


def test_after_kill_9_every_event_that_was_acknowledged_is_there(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        acknowledged = []
        for _ in range(4):
            acknowledged.append(process.stdout.readline().strip())
            process.stdin.write("\n")
            process.stdin.flush()
        process.send_signal(signal.SIGKILL)
        process.wait()
    kinds = [event.kind for event in events.read(tmp_path)]
    assert ["dialogue", "turn", "token", "token"] == acknowledged == kinds[:4]
    log, _ = events.resume(tmp_path)  # the lock died with the process
    log.close()


def test_every_type_of_the_table_is_one_that_can_be_checked() -> None:
    known = {"text", "int", "f64", "bool", "sha256", "bytes", "zero", "sampler", *RECORDS}
    for fields in (*EVENTS.values(), *RECORDS.values()):
        for field in fields:
            kind = field.type.removeprefix("list ")
            assert kind in known or field.type == event_table.FORMAT or " | " in kind or kind in ("greedy", "sample"), field
