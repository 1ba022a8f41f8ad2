"""What a server can do is found by asking it: every capability, and every way not to have it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.dialogue.local_server import MODEL, LocalServer

from formation.dialogue.event_table import RECORDS, check_fields
from formation.dialogue.remote.http import Patience, ServerFault
from formation.dialogue.remote.probe import Capabilities, recorded
from formation.dialogue.remote.side import connect
from formation.dialogue.side import Manner
from formation.errors import EvidenceError, UsageError

QUICK = Patience(connect_seconds=5, pause_seconds=10, answer_seconds=20, attempts=2, first_wait_seconds=0.001)
WELL = {
    "models": "1, this one among them", "answers as": MODEL, "limit": "max_tokens", "streaming": "yes", "usage": "yes", "logprobs": "streamed",
    "top logprobs": "20", "logprobs are": "before the temperature", "seed": "the same answer twice", "completions": "yes", "echo": "yes",
}  # fmt: skip
NO_LOGPROBS = {"top logprobs": "0", "logprobs are": "cannot be told"}
SPELLING = "no: expected tokens that spell the message, each with its log probability, got after "
FOUND: dict[str, tuple[set[str], dict[str, str]]] = {
    "all of it": (set(), {}),
    "no list of models": ({"no models"}, {"models": "no: HTTP 404"}),
    "a list without the model": ({"two models"}, {"models": "2, this one among them"}),
    "a newer name for the limit": ({"max_completion_tokens"}, {"limit": "max_completion_tokens", "usage": "yes"}),
    "a stream that is none": ({"no streaming"}, {
        "streaming": "no: expected POST chat/completions to answer with text/event-stream, got 'application/json'",
        "logprobs": "in whole answers only"}),
    "a stream that is refused": ({"streaming refused"}, {"streaming": "no: HTTP 400", "logprobs": "in whole answers only"}),
    "a stream without an end": ({"no finish in streams"}, {
        "streaming": "no: it ends without a finish_reason", "logprobs": "in whole answers only"}),
    "tokens that are not counted": ({"no usage"}, {"usage": "no: not in its answer"}),
    "a count that is refused": ({"usage refused"}, {"usage": "no: not in its answer"}),
    "log probabilities ignored": ({"no logprobs"}, {
        "logprobs": "no: not in its answer", **NO_LOGPROBS, "echo": "no: the text only, without log probabilities"}),
    "log probabilities refused": ({"logprobs refused"}, {"logprobs": "no: HTTP 400", **NO_LOGPROBS}),
    "log probabilities that a stream has not": ({"logprobs in whole answers"}, {"logprobs": "in whole answers only"}),
    "log probabilities in the older form": ({"older logprobs", "no bytes"}, {}),
    "five at most": ({"top at most 5"}, {"top logprobs": "5"}),
    "five without saying so": ({"few tops"}, {"top logprobs": "5"}),
    "too many": ({"too many tops"}, {
        "logprobs": "no: top_logprobs: expected 20 of each token, got 25", **NO_LOGPROBS, "echo": "yes"}),
    "tokens in another spelling": ({"raw spelling", "no bytes"}, {"logprobs": SPELLING, **NO_LOGPROBS, "echo": SPELLING}),
    "fewer log probabilities than tokens": ({"wrong count"}, {"logprobs": SPELLING, **NO_LOGPROBS, "echo": SPELLING}),
    "uneven arrays": ({"older logprobs", "uneven arrays"}, {
        "logprobs": "no: choices[0].logprobs: expected as many log probabilities as tokens", **NO_LOGPROBS,
        "echo": "no: choices[0].logprobs: expected as many"}),
    "null for every value": ({"null"}, {"logprobs": "streamed, SENTINEL(null) in place of values"}),
    "-9999 for every value": ({"-9999"}, {"logprobs": "streamed, SENTINEL(-9999.0) in place of values"}),
    "-9999 for what is not listed": ({"-9999", "unlisted"}, {
        "logprobs": "streamed, BELOW_REPORT(at most ", "top logprobs": "19", "logprobs are": ""}),  # what is drawn is unlisted
    "values after the temperature": ({"tempered"}, {"logprobs are": "after the temperature"}),
    "a seed that is ignored": ({"seed ignored"}, {"seed": "different answers"}),
    "a seed that is refused": ({"seed refused"}, {"seed": "no: HTTP 400"}),
    "no completions": ({"no completions"}, {"completions": "no: HTTP 404", "echo": "no: HTTP 404"}),
    "completions that are no JSON": ({"malformed elsewhere"}, {
        "models": "no: expected JSON, got an error at character 0", "completions": "no: expected JSON", "echo": "no: expected JSON"}),
    "echo that is refused": ({"echo refused"}, {"echo": "no: HTTP 400"}),
    "echo that is ignored": ({"echo ignored"}, {"echo": "no: its answer does not begin with the text that it was given"}),
    "echo without log probabilities": ({"echo without logprobs"}, {"echo": "no: the text only, without log probabilities"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_what_a_server_can_do_is_found_and_recorded(name: str) -> None:
    habits, differs = FOUND[name]
    with LocalServer(habits=habits) as server:
        side = connect("Lamp", server.url, Manner(most_tokens=5), patience=QUICK)
        asked = len(server.asked)
        assert side.describe() == side.describe()
        assert asked == len(server.asked)
    described = side.describe()
    check_fields(described, RECORDS["side"], "side")
    found = {each["what"]: each["found"] for each in described["capabilities"]}
    for what, expected in (WELL | differs).items():
        assert (what, expected) == (what, found[what][: len(expected)] if what in differs else found[what])
    assert side.capabilities == recorded(described["capabilities"])


def test_a_record_of_what_was_found_asks_nothing() -> None:
    with LocalServer() as server:
        url = server.url.partition("#")[0]
        first = connect("Lamp", url, Manner(), patience=QUICK)
        asked = len(server.asked)
        again = connect("Lamp", url, Manner(), patience=QUICK, record=first.describe())
        assert (asked, first.describe()) == (len(server.asked), again.describe())


@pytest.mark.parametrize(
    "document", [[], [{"what": "models", "found": "1"}], [{"what": what, "found": "x"} for what in WELL], [{"what": "x y", "found": ""}] * 11]
)  # fmt: skip
def test_a_record_of_something_else_is_refused(document: list[dict[str, str]]) -> None:
    with pytest.raises(EvidenceError, match="expected the capabilities that a probe of a server records"):
        recorded(document)


def test_the_model_of_a_server_with_one_needs_no_name() -> None:
    with LocalServer() as server:
        assert MODEL == connect("Lamp", f"{server.root}/v1", Manner(), patience=QUICK).model
        server.habits = {"two models"}
        with pytest.raises(UsageError, match="expected the model's name, got 2 of them") as caught:
            connect("Lamp", f"{server.root}/v1", Manner(), patience=QUICK)
        assert f"write {server.root}/v1#MODEL; it lists 'lamp-2', 'moth'" == caught.value.hint
        server.habits = {"no models"}
        with pytest.raises(UsageError, match="does not say which it has"):
            connect("Lamp", f"{server.root}/v1", Manner(), patience=QUICK)


def test_log_probabilities_that_are_not_wanted_are_not_asked_for() -> None:
    with LocalServer() as server:
        side = connect("Lamp", server.url, Manner(), patience=QUICK, logprobs=False)
        assert ("no: not wanted", None) == (side.capabilities.logprobs, side.capabilities.way.top)
        assert not any("logprobs" in body for body in server.chats())


NOT_AT_ALL: dict[str, tuple[set[str], int | None, str, str]] = {
    "no chat": ({"no chat"}, 404, "expected POST chat/completions to be answered, got HTTP 404: 'no: 404'", "ends in /v1"),
    "a wrong key": ({"401"}, 401, "got HTTP 401", "environment variable that holds its key"),
    "a refusal": ({"400"}, 400, "got HTTP 400: 'no: 400'", "which setting it does not take"),
    "an overloaded server": ({"503"}, 503, "got HTTP 503: 'no: 503', the last of 2 attempts", "its own log"),
    "a page": ({"html"}, None, "expected POST chat/completions to answer with application/json, got 'text/html'", "OpenAI protocol"),
    "an error that is called a success": ({"error with 200"}, None, "expected an answer, got the error 'out of memory'", ""),
    "answers that never say why they end": ({"no finish"}, None, "expected a finish_reason, got an answer without one", ""),
    "two answers": ({"two choices"}, None, "choices: expected one, got 2", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_AT_ALL)
def test_a_server_that_cannot_chat_is_a_fault(name: str) -> None:
    habits, status, sentence, hint = NOT_AT_ALL[name]
    with LocalServer(habits={*habits, "no models"}) as server:
        with pytest.raises(ServerFault) as caught:
            connect("Lamp", server.url, Manner(), patience=QUICK)
        assert (3, status) == (caught.value.exit_code, caught.value.status)
        assert str(caught.value).startswith(f"server {server.root}/v1: ")
        assert sentence in str(caught.value)
        assert hint in (caught.value.hint or "")


def test_a_capability_is_not_a_guess() -> None:
    """A status that says nothing about what a server can do stops the probe, whatever it was asked"""
    with LocalServer(habits={"no models"}, once=[set(), {"429", "come back later"}]) as server, pytest.raises(ServerFault, match="HTTP 429"):
        connect("Lamp", server.url, Manner(), patience=QUICK)


def test_every_capability_has_a_test() -> None:
    documented: Any = Capabilities(*["x"] * 11).document()
    assert list(WELL) == [each["what"] for each in documented]
