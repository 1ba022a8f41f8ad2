"""A side that fails: the fault is an event, the turn begins anew or is given up, and the rules decide."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from formation.dialogue import conduct, events
from formation.dialogue.conduct import LOSSLESS, MOST_ATTEMPTS, TEXT, Terms
from formation.dialogue.context import Context
from formation.dialogue.event_table import SERVER, UNREPORTED
from formation.dialogue.side import END_OF_TURN, Manner, Piece, SideFault, Turn
from formation.dialogue.transcripts import formats
from formation.errors import EnvironmentFault, EvidenceError
from formation.ledger.fields import absent


@dataclass
class Scripted:
    """A side that says these words, one token each, or raises what stands in their place"""

    name: str
    script: list[list[str | Exception]]
    continues: bool = False
    asked: list[list[str]] = field(default_factory=list)
    manner: Manner = field(default_factory=lambda: Manner(context=Context()))

    def describe(self) -> dict[str, Any]:
        missing = {name: absent(SERVER) for name in ("checkpoint_sha256", "template_sha256", "thinking")}
        own = {"name": self.name, "source": "server", "model": "m", "url": "http://localhost:1", "capabilities": [], "stop_ids": []}
        return self.manner.document() | own | missing

    def speak(self, context: Sequence[Turn], begun: Sequence[dict[str, Any]] = ()) -> ScriptedSpeech:
        self.asked.append([turn.text for turn in context])
        return ScriptedSpeech(self.script.pop(0))

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


@dataclass
class ScriptedSpeech:
    words: list[str | Exception]
    ended: str = END_OF_TURN

    @property
    def prompt(self) -> dict[str, Any]:
        return {"prompt_tokens": absent(SERVER), "prompt_sha256": absent(SERVER), "left_out": 0}

    def __iter__(self) -> Iterator[Piece]:
        for word in self.words:
            if isinstance(word, Exception):
                raise word
            reported = {"logprob_nats": -0.5, "zero": "POSITIVE", "top": []}
            event = {"position": absent(SERVER), "id": absent(UNREPORTED), "bytes": b64encode(word.encode()).decode(), "measured": absent(SERVER)}
            yield Piece(event | {"reported": reported}, disk_bytes=10)


def talk(folder: Path, a: list[Any], b: list[Any], *stops: str) -> tuple[list[str], dict[str, Any], list[Scripted]]:
    """What happened, as short words, and why it ended"""
    sides = [Scripted("owl", a), Scripted("lamp", b)]
    with conduct.begin(folder, sides, Terms(stops=stops)) as conductor:
        end = conductor.run()
    told = [event.body.get("then") or event.body.get("reason") or event.kind for event in events.read(folder)]
    return told, end["evidence"], sides


DROPPED = SideFault("the connection was dropped")


def test_the_first_error_ends_it_if_nobody_says_otherwise(tmp_path: Path) -> None:
    told, evidence, _ = talk(tmp_path / "d", [["hi"]], [["so", DROPPED]], *conduct.DEFAULT)
    assert ["dialogue", "turn", "token", "end of turn", "turn", "token", "again", "failed", "dialogue_end"] == told
    assert ("1 error", 1, True, [{"what": "errors", "amount": 1}]) == tuple(evidence[name] for name in ("rule", "after", "within", "amounts"))
    assert ["hi"] == [message.text for message in formats.read(tmp_path / "d" / TEXT).messages]


def test_a_fault_voids_the_tokens_of_its_turn_which_begins_anew(tmp_path: Path) -> None:
    told, evidence, sides = talk(tmp_path / "d", [["hi"], ["x"]], [["so", "me", DROPPED], ["then ", "this"]], "3 messages", "2 errors")
    assert told[4:12] == ["turn", "token", "token", "again", "token", "token", "end of turn", "turn"]
    assert ["hi", "then this", "x"] == [message.text for message in formats.read(tmp_path / "d" / TEXT).messages]
    assert [["hi"], ["hi"]] == sides[1].asked and "3 messages" == evidence["rule"]
    tokens = [event.body["index"] for event in events.read(tmp_path / "d") if event.kind == "token"]
    assert [0, 0, 1, 0, 1, 0] == tokens


def test_a_side_that_always_fails_is_given_up(tmp_path: Path) -> None:
    told, evidence, _ = talk(tmp_path / "d", [["hi"]], [[DROPPED]] * MOST_ATTEMPTS, "100 messages")
    assert ["again"] * (MOST_ATTEMPTS - 1) + ["given up", "failed", "dialogue_end"] == told[5:]
    assert ("error", [{"what": "errors", "amount": MOST_ATTEMPTS}]) == (evidence["rule"], evidence["amounts"])


@pytest.mark.parametrize(
    "fault", [SideFault("no such model", again=False), EvidenceError("the draw is none of this distribution")], ids=["final", "of-the-tree"]
)  # fmt: skip
def test_what_will_not_go_well_the_next_time_is_not_asked_for_again(tmp_path: Path, fault: Exception) -> None:
    told, evidence, sides = talk(tmp_path / "d", [[fault]], [], "100 messages")
    assert ["dialogue", "turn", "given up", "failed", "dialogue_end"] == told
    assert ("error", 0) == (evidence["rule"], evidence["after"])
    (body,) = [event.body for event in events.read(tmp_path / "d") if event.kind == "fault"]
    assert str(fault) == body["sentence"] and [[""]] == sides[0].asked
    assert () == formats.read(tmp_path / "d" / LOSSLESS).messages


def test_a_fault_while_the_prompt_is_made_is_an_event_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(self: Scripted, context: Sequence[Turn], begun: Sequence[dict[str, Any]] = ()) -> ScriptedSpeech:
        raise EnvironmentFault("no prompt", hint="write one")

    monkeypatch.setattr(Scripted, "speak", speak)
    told, _, _ = talk(tmp_path / "d", [], [], "1 error")
    assert ["dialogue", "turn", "given up", "failed", "dialogue_end"] == told
    _, turn, fault, *_ = events.read(tmp_path / "d")
    assert {"absent": "no prompt"} == turn.body["prompt_tokens"]
    assert "no prompt; write one" == fault.body["sentence"]


def test_what_is_no_fault_of_a_side_is_no_event_and_can_be_gone_on_from(tmp_path: Path) -> None:
    """A mistake in a program, a full disk: the log stays open."""
    with pytest.raises(ZeroDivisionError):
        talk(tmp_path / "d", [["hi", ZeroDivisionError()]], [], "100 messages")
    assert "token" == list(events.read(tmp_path / "d"))[-1].kind
    sides = [Scripted("owl", [["hi", " there"]]), Scripted("lamp", [])]
    with conduct.resume(tmp_path / "d", sides) as conductor:
        conductor.stops = conduct.stops_of({"stops": ["1 message"]})
        conductor.run()
    told = [event.body.get("then") or event.kind for event in events.read(tmp_path / "d")]
    assert ["dialogue", "turn", "token", "cut off", "token", "token", "turn_end", "dialogue_end"] == told
    assert ["hi there"] == [message.text for message in formats.read(tmp_path / "d" / TEXT).messages]


def test_a_cut_in_a_servers_turn_is_no_error(tmp_path: Path) -> None:
    sides = [Scripted("owl", [["so", ZeroDivisionError()]]), Scripted("lamp", [])]
    with pytest.raises(ZeroDivisionError), conduct.begin(tmp_path / "d", sides, Terms(stops=("1 message", "1 error"))) as conductor:
        conductor.run()
    with conduct.resume(tmp_path / "d", [Scripted("owl", [["so it is"]]), sides[1]]) as conductor:
        assert "1 message" == conductor.run()["evidence"]["rule"]
        assert 0 == conductor.so_far.errors


def test_bytes_that_were_read_end_it_and_are_counted_over_a_cut(tmp_path: Path) -> None:
    told, evidence, _ = talk(tmp_path / "d", [["a", "b"], ["e", "f"]], [["c", "d"]], "45 bytes read")
    assert [{"what": "bytes", "amount": 50}] == evidence["amounts"]
    assert ["turn", "token", "stopped", "dialogue_end"] == told[-4:]


def test_two_halves_of_a_character_are_one_and_half_a_one_is_replaced(tmp_path: Path) -> None:
    class Half(str):
        def encode(self, *_: Any) -> bytes:
            return {"first": b"\xc2", "second": b"\xae"}[self]

    talk(tmp_path / "d", [[Half("first"), Half("second")]], [[Half("first")]], "2 messages")
    assert ["®", "\ufffd"] == [message.text for message in formats.read(tmp_path / "d" / TEXT).messages]


def test_what_a_text_cannot_hold_is_in_the_lossless_transcript_only(tmp_path: Path) -> None:
    talk(tmp_path / "d", [["a\n\n---\n\n### lamp\n\nb"]], [["c"]], "2 messages")
    assert not (tmp_path / "d" / TEXT).exists()
    assert 2 == len(formats.read(tmp_path / "d" / LOSSLESS).messages)


@pytest.mark.parametrize(("how", "text", "first"), [("empty", "", 0), ("text", "Go on.", 1), ("template", "", 0)])
def test_the_kickoff_is_the_first_speakers_only(tmp_path: Path, how: str, text: str, first: int) -> None:
    sides = [Scripted("owl", [["a"], ["c"]]), Scripted("lamp", [["b"], ["d"]])]
    with conduct.begin(tmp_path / "d", sides, Terms(first, how, text, ("3 messages",))) as conductor:
        conductor.run()
    opening = [] if how == "template" else [text]
    said = "ab" if first == 0 else "ba"
    assert [opening, [*opening, *said]] == sides[first].asked
    assert [[said[0]]] == sides[1 - first].asked
