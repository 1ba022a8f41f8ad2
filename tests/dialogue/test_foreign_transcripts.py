"""Transcripts of other programs: read as what they are, or refused by name."""

from __future__ import annotations

import json

import pytest

from formation.dialogue.transcripts import foreign, formats
from formation.dialogue.transcripts.transcript import Message, Transcript, TranscriptRefusal

OPENAI = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"}]
SHAREGPT = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Yes?"}]
MESSAGES = (Message(1, "Be brief.", "prompt"), Message(0, "Hi."), Message(1, "Yes?"))


def chat(value: object) -> Transcript:
    return foreign.read_chat(json.dumps(value).encode())


WRAPPINGS = {
    "the list": OPENAI, "an object": {"messages": OPENAI}, "a request": {"model": "m", "messages": OPENAI}, "a list of one": [{"messages": OPENAI}],
    "sharegpt": {"id": "7", "conversations": SHAREGPT}, "sharegpt in a list": [{"conversations": SHAREGPT}], "sharegpt's list": SHAREGPT,
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPINGS)
def test_chat_json_in_its_usual_wrappings(name: str) -> None:
    names = ("human", "gpt") if name.startswith("sharegpt") else ("user", "assistant")
    assert Transcript(names, MESSAGES) == chat(WRAPPINGS[name])


def test_parts_of_text_are_joined_names_are_taken_and_nothing_is_added() -> None:
    parts = {
        "role": "assistant",
        "content": [{"type": "text", "text": "Ye"}, {"type": "text", "text": "s? "}],
        "name": "K2",
        "tool_calls": None,
        "refusal": None,
    }
    found = chat([{"role": "user", "content": "  Hi.\n", "name": "Ann"}, parts])
    assert Transcript(("Ann", "K2"), (Message(0, "  Hi.\n"), Message(1, "Yes? "))) == found


USER = {"role": "user", "content": "Hi."}
BAD_CHATS = {
    "a tool": ([USER, {"role": "tool", "content": "4"}], "message 2: expected a role of"),
    "a call of a tool": (
        [USER, {"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}],
        "message 2: expected role and content, got 'tool_calls'",
    ),
    "an image": ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "expected parts of text only"),
    "no content": ([{"role": "user"}], "message 1: expected text, got None"),
    "a number": ([{"role": "user", "content": 3}], "message 1: expected text, got 3"),
    "a role that is a list": ([{"role": ["user"], "content": "x"}], "message 1: expected a role"),
    "two names of one side": ([USER | {"name": "a"}, USER | {"name": "b"}], "expected one name for each side"),
    "two conversations": ([{"messages": [USER]}, {"messages": [USER]}], "expected one conversation, got 2"),
    "both wrappings": ({"messages": [USER], "conversations": []}, "expected an object with messages or conversations"),
    "nothing": ([], "expected a list of messages"),
    "a text": ("hello", "expected a list of messages"),
    "a name of two lines": ([USER | {"name": "a\nb"}], "expected a name of one line"),
}


@pytest.mark.parametrize("name", BAD_CHATS)
def test_what_is_no_dialogue_of_two_is_refused(name: str) -> None:
    value, sentence = BAD_CHATS[name]
    with pytest.raises(TranscriptRefusal) as caught:
        chat(value)
    assert sentence in str(caught.value)


HOSTILE = {
    "a role twice": b'[{"role":"user","role":"assistant","content":"x"}]',
    "nesting": b'{"messages":' * 100_000,
    "a lone surrogate": b'[{"role":"user","content":"\\ud800"}]',
    "NaN": b'[{"role":"user","content":"x","weight":NaN}]',
    "cut": b'[{"role":"user","content":"x"',
    "no text": b"[\xff]",
    "many digits": b"[" + b"9" * 10_000 + b"]",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_refused(name: str) -> None:
    with pytest.raises(TranscriptRefusal):
        foreign.read_chat(HOSTILE[name])


BACKROOMS = """
### Owl 1 ###
ls

### Lamp 2 ###
total 0
> try again

### Owl 1 ###
cat sign.txt

Step 2:
nothing

### Lamp 2 ###
^C^C

Lamp 2 has ended the conversation with ^C^C.
"""
SAID = ("ls", "total 0\n> try again", "cat sign.txt\n\nStep 2:\nnothing", "^C^C")
ROUNDS = "### Backrooms Run ###\nTemplate: cli\nModels: owl, lamp\nStarted: 2026-01-01T10:51:21.442946+00:00\n\n### Round 1/2\n" + BACKROOMS.replace(
    "\n### Owl 1 ###\ncat", "\n### Round 2/2\n\n### Owl 1 ###\ncat"
).replace("\nLamp 2 has ended the conversation with ^C^C.\n", "\nReached maximum number of turns (2). Conversation ended.\n")


OLDER = BACKROOMS.replace("### Owl 1 ###", "Owl 1:").replace("### Lamp 2 ###", "Lamp 2:")


@pytest.mark.parametrize("text", [BACKROOMS, ROUNDS, OLDER.replace("Step 2:", "Step two")], ids=["plain", "with rounds", "the older form"])
def test_logs_of_backrooms_are_read_without_the_notes_of_the_program(text: str, tmp_path) -> None:
    (tmp_path / "log.txt").write_text(text)
    found = formats.read(tmp_path / "log.txt")
    assert ("Owl 1", "Lamp 2") == found.names
    assert [said.replace("Step 2:", "Step two") for said in SAID] == [message.text.replace("Step 2:", "Step two") for message in found.messages]
    assert [0, 1, 0, 1] == [message.side for message in found.messages]


def test_a_body_that_looks_like_a_heading_of_the_older_form_makes_the_log_ambiguous() -> None:
    with pytest.raises(TranscriptRefusal, match="line 12: expected a heading of side 2, got 'Step 2'"):
        foreign.read_backrooms(OLDER.encode())


def test_a_third_actor_and_text_before_the_first_are_refused() -> None:
    for text, sentence in ((BACKROOMS + "\n### Third 3 ###\nhi\n", "expected a heading of side 1"), ("preface\n" + BACKROOMS, "line 1")):
        with pytest.raises(TranscriptRefusal, match=sentence):
            foreign.read_backrooms(text.encode())
