"""What a server answers, read strictly; what its numbers mean; which bytes its tokens stand for."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formation.dialogue.event_table import RECORDS, check_fields
from formation.dialogue.remote.reply import Heard, ReplyRefusal, Token, answer, reported
from formation.dialogue.remote.spelling import Spelling, check_spelling
from formation.strict_json import JsonRefusal, parse_json

TOP = ((b" a", -0.5), (b" b", -1.5))


def whole(**changes: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hi"}
    entry = {"token": "Hi", "bytes": [72, 105], "logprob": -0.25, "top_logprobs": [{"token": "Hi", "bytes": None, "logprob": -0.25}]}
    choice = {"index": 0, "message": message, "logprobs": {"content": [entry]}, "finish_reason": "stop"}
    made = {"model": "m", "choices": [choice], "usage": {"completion_tokens": 1}, "something new": [1]}
    for path, value in changes.items():
        *way, last = path.split("__")
        place: Any = made
        for step in way:
            place = place[int(step[1:])] if step[1:].isdigit() else place[step]
        place[last] = value
    return made


def test_a_whole_answer_is_read() -> None:
    token = Token(b"Hi", -0.25, ((b"Hi", -0.25),))
    assert Heard("Hi", (token,), "stop", "m", 1) == answer(whole(), "message")
    assert Heard("Hi", None, None, "", None) == answer({"choices": [{"delta": {"content": "Hi"}}]}, "delta")
    assert Heard("", None, None, "m", 3) == answer({"choices": [], "model": "m", "usage": {"completion_tokens": 3}}, "delta")


def test_the_older_arrays_are_read_alike() -> None:
    arrays = {"tokens": ["H", "i"], "token_logprobs": [None, -0.5], "top_logprobs": [None, {"i": -0.5, "a": -1}], "text_offset": [0, 1]}
    expected = (Token(b"H", None), Token(b"i", -0.5, ((b"i", -0.5), (b"a", -1.0))))
    assert expected == answer({"choices": [{"text": "Hi", "logprobs": arrays}]}, "").tokens


ENTRY = "choices__n0__logprobs__content__n0__"
REFUSED: dict[str, tuple[Any, str]] = {
    "an array": ([], "answer: expected an object, got an array"),
    "no choices": ({}, "choices: expected an array, got None"),
    "none of the choices": (whole(choices=[]), "choices: expected one, got 0"),
    "two choices": (whole(choices=[{}, {}]), "choices: expected one, got 2"),
    "no message": (whole(choices=[{"text": "x"}]), "choices[0]: expected message, got ['text']"),
    "content that is a number": (whole(choices__n0__message__content=5), "choices[0].message.content: expected Unicode text, got 5"),
    "half a pair": (whole(choices__n0__message__content="\ud83d"), "choices[0].message.content: expected Unicode text"),
    "a reason that is a number": (whole(choices__n0__finish_reason=1), "choices[0].finish_reason: expected Unicode text, got 1"),
    "a count below 0": (whole(usage__completion_tokens=-1), "usage.completion_tokens: expected a count, got -1"),
    "a count that is true": (whole(usage__completion_tokens=True), "usage.completion_tokens: expected a count, got True"),
    "a value as text": (whole(**{f"{ENTRY}logprob": "-1"}), "content[0].logprob: expected a number, got '-1'"),
    "a value beyond numbers": (whole(**{f"{ENTRY}logprob": -1e300}), "content[0].logprob: expected a number, got -1e+300"),
    "bytes beyond bytes": (whole(**{f"{ENTRY}bytes": [256]}), "content[0].bytes: expected numbers from 0 to 255, got others"),
    "a token without a name": (whole(**{f"{ENTRY}token": None}), "content[0].token: expected Unicode text, got None"),
    "an error": ({"error": {"message": "out of memory"}}, "expected an answer, got the error 'out of memory'"),
    "an error that is nothing": ({"error": {"inner": {}}}, "expected an answer, got the error no message"),
    "an error that is a list": ({"error": [1]}, "expected an answer, got the error no message"),
    "content nested too deep to be printed": (
        {"choices": [{"message": {"content": json.loads("[" * 900 + "]" * 900)}}]}, "content: expected Unicode text, got an array"),
    "uneven arrays": (
        {"choices": [{"message": {}, "logprobs": {"tokens": ["a"], "token_logprobs": []}}]},
        "expected as many log probabilities as tokens, got 0 and 1 of 1 tokens"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_answer_of_another_form_is_refused_with_its_place(name: str) -> None:
    value, sentence = REFUSED[name]
    with pytest.raises(ReplyRefusal) as caught:
        answer(value, "message")
    assert sentence in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["choices", "message", "content", "logprobs", "error", "usage"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(json_values, st.sampled_from(["message", "delta", ""]))
def test_any_json_is_an_answer_or_refused(value: Any, part: str) -> None:
    try:
        answer(parse_json(json.dumps(value).encode()), part)
    except (ReplyRefusal, JsonRefusal):
        return


# ---- what its numbers mean


@pytest.mark.parametrize(
    ("token", "value", "zero"),
    [
        (Token(b" a", -0.5, TOP), -0.5, "POSITIVE"),
        (Token(b" c", -3.0, TOP), -3.0, "POSITIVE"),
        (Token(b" c", -9999.0, TOP), None, "BELOW_REPORT(at most -1.5)"),
        (Token(b" c", None, TOP), None, "BELOW_REPORT(at most -1.5)"),
        (Token(b" c", -100.0, ((b" a", None),)), None, "BELOW_REPORT"),
        (Token(b" a", -9999.0, TOP), None, "SENTINEL(-9999.0)"),
        (Token(b" a", None), None, "SENTINEL(null)"),
        (Token(b" a", 3.5), None, "SENTINEL(3.5)"),
        (Token(b" a", -110.0), -110.0, "UNDERFLOW(float32)"),
        (Token(b" a", 1e-6), 1e-6, "POSITIVE"),
        (Token(b" a", -0.0), 0.0, "POSITIVE"),
    ],
)
def test_a_placeholder_is_no_value_and_the_last_of_a_list_is_a_bound(token: Token, value: float | None, zero: str) -> None:
    found = reported(token)
    check_fields(found, RECORDS["reported"], "reported")
    assert ({"absent": "not reported"} if value is None else value, zero) == (found["logprob_nats"], found["zero"])


def test_a_placeholder_in_the_list_is_none_either() -> None:
    found = reported(Token(b"a", -1.0, ((b"a", -1.0), (b"b", -9999.0), (b"c", None))))
    assert [-1.0, {"absent": "not reported"}, {"absent": "not reported"}] == [each["logprob_nats"] for each in found["top"]]


# ---- which bytes of the message a token stands for


def placed(steps: list[tuple[list[bytes], str]], finish: str | None = "stop") -> list[bytes]:
    spelling, found = Spelling(), []
    for spelt, text in steps:
        found += spelling.feed([Token(each, -1.0) for each in spelt], text)
    return [own for _, own in [*found, *spelling.end(finish)]]


def test_tokens_and_text_may_come_in_other_pieces() -> None:
    assert [b"I", b" float"] == placed([([b"I"], "I"), ([b" float"], " float")])
    assert [b"I", b" float"] == placed([([b"I", b" float"], ""), ([], "I fl"), ([], "oat")])
    assert [b"I", b" float"] == placed([([], "I float"), ([b"I"], ""), ([b" float"], "")])
    assert [b"\xc3", b"\xa9", b"!"] == placed([([b"\xc3"], ""), ([b"\xa9"], "é"), ([b"!"], "!")])


def test_the_token_that_ends_a_turn_spells_nothing_of_it() -> None:
    assert [b"Hi", b""] == placed([([b"Hi"], "Hi"), ([b"<end>"], "")])
    assert [b""] == placed([([b"<end>"], "")])
    assert [b"a", b"\xc3", b""] == placed([([b"a"], "a"), ([b"\xc3"], ""), ([b"<end>"], "")])
    assert [] == placed([])


def test_white_space_in_front_may_be_taken_off() -> None:
    assert [b"Hi"] == placed([([b" Hi"], "Hi")])
    assert [b"", b"Hi"] == placed([([b"\n"], ""), ([b" Hi"], "Hi")])
    assert [b"Hi", b" you"] == placed([([b" Hi"], "H"), ([b" you"], "i you")])
    assert [b"", b"", b""] == placed([([b"\n", b" "], ""), ([b"<end>"], "")])


def test_bytes_that_are_replaced_stand_together() -> None:
    lost = "\ufffd".encode()
    assert [b"a", b"", "é".encode(), b"!"] == placed([([b"a"], "a"), ([lost], ""), ([lost], "é"), ([b"!"], "!")])
    assert [lost] == placed([([b"\xc3"], "\ufffd")], "length")


def test_half_a_character_at_a_limit_is_kept() -> None:
    assert [b"a", b"\xc3"] == placed([([b"a"], "a"), ([b"\xc3"], "")], "length")
    assert [b"a", b""] == placed([([b"a"], "a"), (["\ufffd".encode()], "")], "length")


@pytest.mark.parametrize(
    ("steps", "finish", "sentence"),
    [
        ([([b"I"], "I"), ([b"?"], " float")], "stop", "got after 1 of them '?' for ' float'"),
        ([([b"I"], "I float")], "stop", "got after 1 of them none for ' float'"),
        ([([b"I", b" float"], "I")], "length", "got after 1 of them ' float' behind the end of the message"),
        ([([b"I", b" float", b"."], "I")], "stop", "got after 1 of them ' float.' behind the end of the message"),
        ([(["Ġfloat".encode()], " float")], "stop", "got after 0 of them '\\xc4\\xa0float' for ' float'"),
    ],
)  # fmt: skip
def test_tokens_that_do_not_spell_the_message_are_refused(steps: list[tuple[list[bytes], str]], finish: str, sentence: str) -> None:
    with pytest.raises(ReplyRefusal) as caught:
        placed(steps, finish)
    assert "expected tokens that spell the message" in str(caught.value)
    assert sentence in str(caught.value)


@settings(max_examples=60)
@given(st.text(max_size=20), st.data())
def test_however_they_are_cut_the_bytes_of_the_tokens_are_the_message(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted({0, *data.draw(st.lists(st.integers(0, len(raw)))), len(raw)})
    spelt = [raw[a:b] for a, b in pairwise(cuts)]
    steps: list[tuple[list[bytes], str]] = [([each], "") for each in spelt] + [([], each) for each in text]
    if data.draw(st.booleans()):
        steps = [([], each) for each in text] + [([each], "") for each in spelt]
    assert raw == b"".join(placed(steps, "length"))


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=4), max_size=5), st.text(max_size=8), st.sampled_from(["stop", "length", None]))
def test_tokens_spell_the_message_or_are_refused(spelt: list[bytes], text: str, finish: str | None) -> None:
    tokens = [Token(each, -1.0) for each in spelt]
    try:
        check_spelling(tokens, text, finish)
    except ReplyRefusal:
        return
    own = placed([(spelt, text)], finish)
    said, half = b"".join(own), b"".join(own).removeprefix(text.encode())
    assert (len(spelt), text.encode() + half) == (len(own), said)
    assert "" == half.decode("utf-8", "ignore")  # no more than the beginning of a character
