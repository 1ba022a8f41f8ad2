"""A side behind a server: what it is asked, what it says, and one clear sentence for every bad habit, with what came before kept."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dialogue.local_server import MODEL, Asked, LocalServer, Parrot, chunks

from formation.dialogue.chain import Chain
from formation.dialogue.context import Context
from formation.dialogue.edits import Edits, Mask
from formation.dialogue.event_table import check_body
from formation.dialogue.remote.address import read_address
from formation.dialogue.remote.http import Patience, Server, ServerFault
from formation.dialogue.remote.reply import ReplyRefusal, answer
from formation.dialogue.remote.side import Hearing, RemoteSide, connect
from formation.dialogue.remote.stream import Events
from formation.dialogue.side import Manner, SideFault, Turn
from formation.errors import UsageError
from formation.ledger import canonical
from formation.run.sample import Sample
from formation.strict_json import JsonRefusal, parse_json

QUICK = Patience(connect_seconds=5, pause_seconds=10, answer_seconds=20, attempts=3, first_wait_seconds=0.001)
HELLO = [Turn(0, False, "hello")]
SECRET = "sk-0123456789abcdef"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


@pytest.fixture(scope="module")
def connected(server: LocalServer) -> RemoteSide:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMP_KEY", SECRET)
        return connect("Lamp", server.url, Manner(most_tokens=10), patience=QUICK, key_variable="LAMP_KEY")


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def side(server: LocalServer, connected: RemoteSide, waits: list[float]) -> RemoteSide:
    """It notes how long it would wait, and does not"""
    server.habits, server.once, server.asked = (), [], []
    return replace(connected, server=replace(connected.server, sleep=waits.append))


def said(side: RemoteSide) -> tuple[list[dict[str, Any]], str, SideFault | None]:
    """The events of one turn, why it ended, and the fault that it ended with"""
    speech, heard = side.speak(HELLO), []
    try:
        for index, piece in enumerate(speech):
            check_body("token", {"turn": 1, "index": index, **piece.event})
            heard.append(piece.event)
    except SideFault as fault:
        return heard, speech.ended, fault
    return heard, speech.ended, None


def text_of(events: list[dict[str, Any]]) -> str:
    return b"".join(b64decode(event["bytes"]) for event in events).decode("utf-8", "replace")


# ---- what it is asked


def test_what_was_said_is_handed_on_as_text_with_its_roles(server: LocalServer, side: RemoteSide) -> None:
    own = replace(side, manner=Manner(system="Be brief.", context=Context("last_n", 3), most_tokens=7))
    turns = [
        Turn(0, False, "hello"),
        Turn(1, True, "<|im_end|>", (5,)),
        Turn(2, False, ""),
        Turn(3, True, "four \ud83e\uddff".encode("utf-16", "surrogatepass").decode("utf-16")),
    ]
    speech = own.speak(turns)
    assert [] == server.asked  # nothing is computed yet
    assert {"prompt_tokens": {"absent": "server"}, "prompt_sha256": {"absent": "server"}, "left_out": 1} == speech.prompt
    list(speech)
    (asked,) = server.chats()
    assert [("system", "Be brief."), ("assistant", "<|im_end|>"), ("user", ""), ("assistant", "four 🧿")] == [
        (message["role"], message["content"]) for message in asked["messages"]
    ]
    expected = {"model": MODEL, "max_tokens": 7, "temperature": 0, "stream": True, "logprobs": True, "top_logprobs": 20}
    assert expected == {name: asked[name] for name in expected}


def test_settings_of_the_sampler_have_the_names_of_the_protocol_and_those_that_are_off_none(server: LocalServer, side: RemoteSide) -> None:
    chain = Chain(Sample(0.5, 40, 0.9, 0.05, seed=2**31), Edits(1.1, 0.2, 0.3, ((17, -5.0),)))
    list(replace(side, manner=Manner(chain=chain, thinking=False, most_tokens=20)).speak([*HELLO, Turn(1, True, "x"), Turn(2, False, "y")]))
    list(replace(side, manner=Manner(chain=Chain(Sample(1.0)))).speak([]))
    full, plain = server.chats()
    settings = {
        "temperature": 0.5, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "seed": 3, "repetition_penalty": 1.1, "presence_penalty": 0.2,
        "frequency_penalty": 0.3, "logit_bias": {"17": -5}, "chat_template_kwargs": {"thinking": False, "enable_thinking": False},
    }  # fmt: skip
    assert settings == {name: full[name] for name in settings}
    assert {"temperature": 1, "seed": 1} == {name: value for name, value in plain.items() if name in settings}
    no_seed = replace(side, manner=Manner(chain=Chain(Sample(1.0))), capabilities=replace(side.capabilities, seed="no: HTTP 400"))
    assert {"temperature": 1.0} == no_seed.settings(1)


@pytest.mark.parametrize(
    ("manner", "sentence"),
    [
        (Manner(context=Context("token_budget", 100)), "got a budget of tokens, which it does not count"),
        (Manner(chain=Chain(edits=Edits(masks=(Mask("never", frozenset({1})),)))), "expected no masks"),
        (Manner(chain=Chain(Sample(1.0, branch=1))), "expected branch 0"),
    ],
)
def test_what_the_protocol_has_no_word_for_is_refused_before_anything_is_asked(server: LocalServer, manner: Manner, sentence: str) -> None:
    server.asked = []
    with pytest.raises(UsageError, match=sentence):
        connect("Lamp", server.url, manner)
    assert [] == server.asked


def test_the_key_is_in_the_head_of_requests_and_nowhere_else(server: LocalServer, side: RemoteSide) -> None:
    list(side.speak(HELLO))
    assert f"Bearer {SECRET}" == server.asked[0].headers["Authorization"]
    assert SECRET not in f"{side!r} {side.describe()} {server.asked[0].body}"


# ---- what it says


def test_a_turn_is_heard_token_by_token(side: RemoteSide) -> None:
    events, ended, fault = said(side)
    assert (None, "end of turn", "I float. Café") == (fault, ended, text_of(events))
    assert [b"I", b" float", b".", b" Caf", b"\xc3", b"\xa9", b""] == [b64decode(event["bytes"]) for event in events]
    assert {"POSITIVE"} == {event["reported"]["zero"] for event in events}
    assert {20} == {len(event["reported"]["top"]) for event in events}
    assert {"absent": "not reported"} == events[0]["id"]
    assert not side.continues


SAME: dict[str, set[str]] = {
    "line ends of another kind": {"CR LF"},
    "comments between events": {"comments"},
    "bytes one by one": {"byte by byte"},
    "three tokens at once": {"three at once"},
    "no end of the stream": {"no DONE"},
    "no empty line behind the end": {"no last line"},
    "no bytes of tokens": {"no bytes"},
    "the older form": {"older logprobs", "no bytes"},
    "no count": {"no usage"},
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_a_harmless_habit_changes_nothing(name: str, server: LocalServer, side: RemoteSide) -> None:
    server.habits = SAME[name]
    events, ended, fault = said(side)
    assert (None, "end of turn", "I float. Café") == (fault, ended, text_of(events))
    assert 7 == len(events)


def test_ids_are_kept_where_a_server_gives_them(server: LocalServer, side: RemoteSide) -> None:
    server.habits = {"ids"}
    assert [1, 6, 1, 4, 1, 1, 10] == [event["id"] for event in said(side)[0]]


@pytest.mark.parametrize(("habits", "zero"), [
    ({"null"}, "SENTINEL(null)"), ({"-9999"}, "SENTINEL(-9999.0)"), ({"-100"}, "SENTINEL(-100.0)"), ({"above zero"}, "SENTINEL(3.5)"),
    ({"-9999", "unlisted"}, "BELOW_REPORT(at most -7.049672)"), ({"null", "unlisted"}, "BELOW_REPORT(at most -7.049672)"),
])  # fmt: skip
def test_a_placeholder_is_absent_with_its_kind(habits: set[str], zero: str, server: LocalServer, side: RemoteSide) -> None:
    server.habits = habits
    events, _, fault = said(side)
    assert None is fault
    assert {zero.rstrip(")")} == {event["reported"]["zero"][: len(zero) - 1] for event in events}
    assert [{"absent": "not reported"}] * 7 == [event["reported"]["logprob_nats"] for event in events]


def test_without_log_probabilities_each_piece_of_the_text_stands_for_a_token() -> None:
    with LocalServer(habits={"no logprobs"}) as other:
        side = connect("Lamp", other.url, Manner(most_tokens=10), patience=QUICK)
        events, ended, fault = said(side)
        assert "logprobs" not in other.chats()[-1]
    assert (None, "end of turn", "I float. Café") == (fault, ended, text_of(events))
    assert {"logprob_nats": {"absent": "not reported"}, "zero": "SENTINEL(null)", "top": []} == events[0]["reported"]
    assert [b"I", b" float", b".", b" Caf", "é".encode()] == [b64decode(event["bytes"]) for event in events]


@pytest.mark.parametrize("habit", ["no streaming", "logprobs in whole answers"])
def test_a_whole_answer_is_heard_too(habit: str) -> None:
    with LocalServer(habits={habit}) as other:
        events, ended, fault = said(connect("Lamp", other.url, Manner(most_tokens=10), patience=QUICK))
    assert (None, "end of turn", "I float. Café", 7) == (fault, ended, text_of(events), len(events))


def test_a_whole_answer_that_is_cut_off_is_a_fault() -> None:
    with LocalServer(habits={"no streaming"}) as other:
        side = connect("Lamp", other.url, Manner(most_tokens=10), patience=replace(QUICK, attempts=1))
        other.habits = {"no streaming", "drop in the middle"}
        events, _, fault = said(side)
    assert [] == events
    assert "expected the whole answer, got a connection that was dropped after " in str(fault)


def test_a_limit_is_the_turns_or_the_contexts(server: LocalServer, side: RemoteSide) -> None:
    events, ended, _ = said(replace(side, manner=Manner(most_tokens=5)))
    assert ("tokens", "I float. Caf\ufffd", 5) == (ended, text_of(events), len(events))
    short = Parrot(length=30)
    short.speak = lambda messages, most, settings: Parrot(length=30).speak(messages, min(most, 4), settings)  # type: ignore[method-assign]
    with LocalServer(short) as other:
        events, ended, fault = said(replace(side, server=replace(side.server, address=read_address(other.url))))
    assert (None, "context", "I float. Caf") == (fault, ended, text_of(events))


# ---- accidents and bad habits

FAULTS: dict[str, tuple[set[str], int, bool, str]] = {  # habits -> tokens that were heard before, whether to ask again, the sentence
    "dropped in the middle": ({"drop in the middle"}, 3, True, "expected the whole answer, got a connection that was dropped after [0-9]+ bytes"),
    "dropped before": ({"drop before"}, 0, True, "got a connection that was dropped after 0 bytes, the last of 3 attempts"),
    "no reason for the end": ({"no finish"}, 6, True, "expected a finish_reason, got an answer that stops without one"),
    "filtered": ({"filter"}, 6, False, "expected the finish_reason stop or length, got 'content_filter'"),
    "another model": ({"another model"}, 0, False, "expected answers of 'lamp-2', as when the dialogue began, got one of 'another-model'"),
    "an error in the stream": ({"error in the stream"}, 1, True, "expected an answer, got the error 'out of memory'"),
    "one log probability too few": ({"wrong count"}, 0, True, "expected tokens that spell the message, .* got after 0 of them none for 'I"),
    "too many of the most likely": ({"too many tops"}, 0, True, "top_logprobs: expected 20 of each token, got 25"),
    "a value as text": ({"a value as text"}, 0, True, r"content\[0\].logprob: expected a number, got '-1.5'"),
    "text as a number": ({"text as a number"}, 0, True, r"choices\[0\].delta.content: expected Unicode text, got 5"),
    "malformed": ({"malformed"}, 2, True, "expected JSON, got an error at character"),
    "an empty event": ({"empty"}, 2, True, "expected JSON, got an error at character 0"),
    "an array": ({"an array"}, 2, True, "answer: expected an object, got an array"),
    "a name twice": ({"a name twice"}, 2, True, "expected each name once, got 'model' twice"),
    "NaN": ({"not a number"}, 2, True, "expected finite numbers, got NaN"),
    "deep": ({"deep"}, 2, True, "expected shallow JSON"),
    "a long number": ({"long number"}, 2, True, "an integer with thousands of digits"),
    "not UTF-8": ({"not UTF-8"}, 2, True, "expected UTF-8, got byte 0xff at "),
    "half a pair": ({"half a pair"}, 2, True, "content: expected Unicode text, got "),
    "a long event": ({"a long event"}, 2, True, "expected events of at most 1048576 bytes, got a longer one"),
    "a page": ({"html"}, 0, False, "expected POST chat/completions to answer with text/event-stream, got 'text/html'"),
    "compressed": ({"gzip"}, 0, False, "got 'one with Content-Encoding gzip'"),
    "another protocol": ({"not http"}, 0, True, "expected an answer in HTTP, got 220 mail.example ESMTP"),
    "no stream": ({"no streaming"}, 0, False, "expected POST chat/completions to answer with text/event-stream, got 'application/json'"),
    "its key": ({"says the key"}, 2, True, r"expected an answer without the key of LAMP_KEY in it, got one that repeats it"),
    "400": ({"400"}, 0, False, "expected POST chat/completions to be answered, got HTTP 400: 'no: 400'"),
    "401": ({"401", "repeats the key"}, 0, False, r"got HTTP 401: 'key Bearer \$LAMP_KEY is wrong'"),
    "404": ({"404"}, 0, False, "got HTTP 404: 'no: 404'"),
    "429": ({"429"}, 0, True, "got HTTP 429: 'no: 429', the last of 3 attempts"),
    "429 for two hours": ({"429", "come back later"}, 0, True, "got HTTP 429: 'no: 429', to be asked again after 7200 s$"),
    "500": ({"500"}, 0, True, "got HTTP 500: 'no: 500', the last of 3 attempts"),
    "503": ({"503", "come back"}, 0, True, "got HTTP 503: 'no: 503', to be asked again after 7 s, the last of 3 attempts"),
    "elsewhere": ({"400", "redirect"}, 0, False, "got HTTP 307"),
    "a page with an error": ({"500", "malformed"}, 0, True, "got HTTP 500, the last of 3 attempts"),
}  # fmt: skip
CHANGE = st.tuples(
    st.integers(0, 1 << 20), st.integers(0, 9),
    st.binary(max_size=3) | st.sampled_from([b"null", b"[]", b"{}", b"-9999", b"1e999", b'"', b"\\ud800", b"\n\n", b"-0.0", b"true", b"9" * 400]),
)  # fmt: skip
AT_THE_TURN = ("one log probability too few", "too many of the most likely")  # the answer began well


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_habit_is_one_sentence_and_what_came_before_stays(name: str, server: LocalServer, side: RemoteSide, waits: list[float]) -> None:
    habits, heard, again, sentence = FAULTS[name]
    server.habits = habits
    events, ended, fault = said(side)
    assert isinstance(fault, ServerFault)
    assert (heard, "", again) == (len(events), ended, fault.again)
    assert str(fault).startswith(f"server {server.root}/v1: ")
    assert SECRET not in f"{fault} {fault.hint}"
    with pytest.raises(ServerFault, match=sentence):
        raise fault
    assert "\n" not in str(fault)
    asked_again = again and heard == 0 and name not in ("429 for two hours", *AT_THE_TURN)
    assert (3 if asked_again else 1) == len(server.chats())
    assert asked_again == ("the last of 3 attempts" in str(fault)) == bool(waits)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_stream_that_is_changed_anywhere_gives_events_that_the_log_takes_or_a_refusal(connected: RemoteSide, data: st.DataObject) -> None:
    asked = Asked("/v1/chat/completions", {"stream": True, "logprobs": True, "top_logprobs": 2}, {}, frozenset())
    said = Parrot().speak([], 10, {"habits": frozenset()})
    stream = bytearray(b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks(asked, *said)))
    for place, count, new in data.draw(st.lists(CHANGE, min_size=1, max_size=3)):
        stream[place % len(stream) : place % len(stream) + count] = new
    hearing = Hearing(connected)
    try:
        pieces = [piece for event in Events().feed(bytes(stream)) for piece in hearing.pieces(answer(parse_json(event), "delta"))]
        pieces += hearing.rest()
    except (JsonRefusal, ReplyRefusal, ServerFault):
        return
    for index, piece in enumerate(pieces):
        check_body("token", {"turn": 1, "index": index, **piece.event})
        canonical.encode(piece.event)


def test_a_server_that_ignores_the_limit_is_a_fault(server: LocalServer, side: RemoteSide) -> None:
    server.habits = {"too many tokens"}
    events, _, fault = said(replace(side, manner=Manner(most_tokens=4)))
    assert 4 == len(events)
    assert "expected at most 4 tokens, the limit that it was given" in str(fault)


@pytest.mark.parametrize("habits", [{"503"}, {"drop before"}, {"500", "come back"}, {"429"}, {"malformed", "500"}])
def test_what_passes_is_tried_again_and_nothing_is_said_twice(habits: set[str], server: LocalServer, side: RemoteSide) -> None:
    server.once = [habits, habits]
    events, ended, fault = said(side)
    assert (None, "end of turn", "I float. Café", 3) == (fault, ended, text_of(events), len(server.chats()))


def test_waits_grow_and_a_server_may_ask_for_its_own(server: LocalServer, side: RemoteSide, waits: list[float]) -> None:
    patient = replace(side, server=replace(side.server, patience=replace(QUICK, attempts=5, first_wait_seconds=0.5)))
    server.once = [{"503"}, {"503"}, {"429", "come back"}, {"503"}]
    assert None is said(patient)[2]
    assert [0.5, 1.0, 7.0, 4.0] == waits


def test_a_server_that_says_nothing_or_stops_is_given_up_in_time(server: LocalServer, side: RemoteSide) -> None:
    for habits, heard, patience in (
        ({"slow"}, 0, replace(QUICK, pause_seconds=0.05, attempts=1)),
        ({"stops in the middle"}, 3, replace(QUICK, pause_seconds=0.3, attempts=1)),
        ({"drips", "comments"}, None, replace(QUICK, answer_seconds=0.1, attempts=1)),
    ):
        with LocalServer(habits=habits) as other:
            address = read_address(other.url)
            events, _, fault = said(replace(side, server=Server(address, None, patience)))
        assert "expected an answer within" in str(fault)
        assert isinstance(fault, SideFault) and fault.again
        assert heard is None or heard == len(events)


def test_an_answer_without_end_is_cut_off(server: LocalServer, side: RemoteSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formation.dialogue.remote.http.MOST_BYTES", 4000)
    events, _, fault = said(side)
    assert "expected an answer of at most 4000 bytes, got a longer one" in str(fault)
    assert fault is not None and not fault.again
    assert [b"I", b" float", b".", b" Caf"][: len(events)] == [b64decode(event["bytes"]) for event in events]


def test_no_server_there_is_a_sentence(side: RemoteSide) -> None:
    with LocalServer() as gone:
        address = read_address(gone.url)
    _, _, fault = said(replace(side, server=Server(address, None, replace(QUICK, attempts=1))))
    assert f"server {address.url}: expected a connection, got: Connection refused" == str(fault)
    assert fault is not None and "is it running, at this address?" == fault.hint


def test_who_stops_listening_closes_the_connection(server: LocalServer, side: RemoteSide) -> None:
    pieces = iter(side.speak(HELLO))
    next(pieces)
    began = time.monotonic()
    pieces.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 5
    assert None is said(side)[2]
