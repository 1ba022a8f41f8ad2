"""Transcripts in their two own forms: what is read is written back to the same bytes, and what could be read in two ways is refused."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dialogue.golden import OWN, RECORDED, needs_recorded

from formation.dialogue.transcripts import formats, jsonl, markdown
from formation.dialogue.transcripts.transcript import Message, Transcript, TranscriptRefusal, mismatches
from formation.errors import EnvironmentFault, UsageError

GOLDEN_SHA256 = "c7ae7b14695dd4ae7577b940636ae8bd1e8215fdcad2027206dd60a9846367bc"
NAMES = ("Night Owl", "lamp-2")


def by(*texts: str) -> Transcript:
    return Transcript(NAMES, tuple(Message(place % 2, text) for place, text in enumerate(texts)))


def test_our_own_dialogue_comes_back_to_the_byte_and_says_what_it_says() -> None:
    transcript = formats.read(OWN)
    assert OWN.read_bytes() == markdown.write(transcript)
    assert (NAMES, (7, 7), 93.0, []) == (transcript.names, transcript.counts, transcript.duration_seconds, mismatches(transcript))
    first, third, fourth, fifth = (transcript.messages[place].text for place in (0, 2, 3, 4))
    assert " " == first
    assert "A list of marks.  \nEach line ends in two spaces.  \n\n    and this one is indented" == third
    assert fourth.startswith("### Night Owl\n\nThat heading") and "---\n\n### somebody else\n\n" in fourth
    assert "*(a rule follows)*\n\n---\n\n- one\n- two – with a dash, ☞ and 𝄞" == fifth
    assert "The last [END] is inside.  " == transcript.messages[-1].text


@needs_recorded
def test_the_recorded_dialogue_comes_back_to_the_byte() -> None:
    transcript = formats.read(RECORDED)
    assert GOLDEN_SHA256 == hashlib.sha256(markdown.write(transcript)).hexdigest()
    assert GOLDEN_SHA256 == hashlib.sha256(markdown.write(jsonl.read(jsonl.write(transcript)))).hexdigest()
    assert (97, (49, 48), 205.0, []) == (len(transcript.messages), transcript.counts, transcript.duration_seconds, mismatches(transcript))
    assert 69 == sum(message.text == "[END]" for message in transcript.messages)
    assert 85 == sum(message.text.endswith("[END]") for message in transcript.messages)
    assert " " == transcript.messages[0].text


PIECES = st.sampled_from(
    ["---", "\n", "\n\n", " ", "  ", "### Night Owl", "### lamp-2", "### other", "[END]", "\r", "é", "x", "\u2028", "# ", "**Messages:** 3"]
)
BODIES = st.one_of(st.lists(PIECES, max_size=12).map("".join), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
MESSAGES = st.lists(st.tuples(st.integers(0, 1), BODIES), max_size=6)
TIMES = st.none() | st.datetimes(min_value=datetime(1, 1, 1)).map(lambda time: time.replace(microsecond=0))


@given(MESSAGES, TIMES, TIMES, st.none() | st.integers(0, 10**9 - 1))
def test_what_is_written_is_read_back_or_is_not_written(messages, started, ended, stated) -> None:
    transcript = Transcript(NAMES, tuple(Message(side, text) for side, text in messages), started, ended, stated)
    assert transcript == jsonl.read(jsonl.write(transcript))
    try:
        data = markdown.write(transcript)
    except TranscriptRefusal as refusal:
        assert "write JSONL" in str(refusal)
        assert any("---\n\n### " in "\n" + text for _, text in messages)
    else:
        assert transcript == markdown.read(data)


@given(st.lists(PIECES | st.just("\n\n---\n\n### Night Owl\n\n") | st.just("\n\n---\n\n"), max_size=12).map("".join))
def test_whatever_text_is_read_is_written_back_to_the_same_bytes(body: str) -> None:
    data = ("# Night Owl ↔ lamp-2\n\n**Messages:** 1\n\n---\n\n### lamp-2\n\n" + body).encode()
    try:
        transcript = markdown.read(data)
    except TranscriptRefusal:
        return
    assert data == markdown.write(transcript)


@given(st.binary(max_size=60) | st.binary(max_size=30).map(lambda tail: b"# A \xe2\x86\x94 B\n\n\n---\n\n### A\n\n" + tail))
def test_no_bytes_break_the_readers(data: bytes) -> None:
    for read in formats.READERS.values():
        with suppress(TranscriptRefusal):
            read(data)


@pytest.mark.parametrize("body", ["---\n\n### lamp-2\n\nhi", "x\n\n---\n\n### Night Owl\n\ny", "a\n---\n\n### lamp-2"])
def test_a_body_that_would_be_read_as_two_messages_is_not_written_as_text(body: str) -> None:
    with pytest.raises(TranscriptRefusal, match="in message 2: write JSONL"):
        markdown.write(by("fine", body, "fine"))
    assert by("fine", body) == jsonl.read(jsonl.write(by("fine", body)))


HEADER = "# Night Owl ↔ lamp-2\n\n**Started:** 2026-03-01 22:15:07\n**Ended:** 2026-03-01 22:16:40\n**Messages:** 1\n\n---\n\n"
GOOD = HEADER + "### Night Owl\n\nHello.\n\n---\n\n"
BROKEN = {
    "no title": (GOOD[2:], "line 1: expected a title of two different names"),
    "one name": (GOOD.replace(" ↔ lamp-2", ""), "line 1"),
    "three names": (GOOD.replace("lamp-2\n", "lamp-2 ↔ third\n"), "line 1"),
    "the same name twice": (GOOD.replace("lamp-2", "Night Owl"), "line 1"),
    "another line end": (GOOD.replace("\n", "\r\n"), "line 1"),
    "a time that no clock shows": (GOOD.replace("22:15:07", "25:15:07"), "expected a time as"),
    "a day that no calendar has": (GOOD.replace("2026-03-01 22:15:07", "2026-02-30 22:15:07"), "expected a time as"),
    "a count that is no number": (GOOD.replace("**Messages:** 1", "**Messages:** one"), "line 3"),
    "facts in another order": (GOOD.replace("Started", "Ended", 1), "line 3"),
    "no first heading": (HEADER + "Hello.\n\n---\n\n", "line 9: expected the heading '### Night Owl' or '### lamp-2', got 'Hello.'"),
    "a heading of nobody": (GOOD.replace("### Night Owl", "### Somebody"), "line 9"),
    "no line after a heading": (HEADER + "### Night Owl\nHello.\n\n---\n\n", "line 10: expected a blank line after a heading"),
    "no separator at the end": (GOOD.removesuffix("---\n\n"), "got the end"),
    "half of the separator": (GOOD.removesuffix("\n"), "expected a blank line, --- and a blank line after a message"),
    "a message without a body or its line": (HEADER + "### Night Owl\n\n---\n\n", "after a message"),
    "a heading alone": (HEADER + "### Night Owl", "line 9: expected a blank line after a heading"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_text_that_is_no_transcript_is_refused_and_its_line_named(name: str) -> None:
    text, sentence = BROKEN[name]
    with pytest.raises(TranscriptRefusal) as caught:
        markdown.read(text.encode())
    assert sentence in str(caught.value)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(TranscriptRefusal, match="expected UTF-8, got byte 0xff"):
        markdown.read(b"# A \xff")


def test_facts_that_do_not_hold_are_reported_and_still_come_back_to_the_byte() -> None:
    data = (
        GOOD.replace("**Messages:** 1", "**Messages:** 3")
        .replace("**Ended:** 2026", "**Ended:** 2025")
        .replace("### Night Owl", "### lamp-2")
        .encode()
    )
    transcript = markdown.read(data)
    assert data == markdown.write(transcript)
    assert ["count", "duration", "order"] == [each.fact for each in mismatches(transcript)]
    assert "expected 3 messages, as the header states, got 1" == mismatches(transcript)[0].sentence


def test_a_side_that_speaks_twice_is_a_mismatch_of_order() -> None:
    twice = Transcript(NAMES, (Message(0, "a"), Message(1, "b"), Message(1, "c")))
    (found,) = mismatches(twice)
    assert "expected message 3 by 'Night Owl', as the sides take turns, got one by 'lamp-2'" == found.sentence


def test_prompts_are_no_messages_of_a_side_and_only_jsonl_holds_them() -> None:
    transcript = Transcript(NAMES, (Message(1, "Be brief.", "prompt"), Message(0, "Hi."), Message(1, "Yes.")), stated_messages=2)
    assert ([], (1, 1)) == (mismatches(transcript), transcript.counts)
    assert transcript == jsonl.read(jsonl.write(transcript))
    with pytest.raises(TranscriptRefusal, match="a prompt as message 1"):
        markdown.write(transcript)


LINES = jsonl.write(Transcript(NAMES, (Message(0, "Hi."), Message(1, "Yes.")), stated_messages=2))
BAD_LINES = {
    "the last line is missing": (LINES[: LINES[:-1].rindex(b"\n") + 1], "expected 2 messages, as the first line says, got 1"),
    "the last line is cut": (LINES[:-4], "line 3: expected a line feed"),
    "another kind": (LINES.replace(b"transcript/1", b"transcript/2"), "line 1"),
    "a side that is none": (LINES.replace(b'"side":1', b'"side":2'), "line 3"),
    "a side that is true": (LINES.replace(b'"side":1', b'"side":true'), "line 3"),
    "a field more": (LINES.replace(b'{"side":1', b'{"a":0,"side":1'), "line 3"),
    "a name twice": (LINES.replace(b'{"side":1', b'{"side":1,"side":1'), "line 3"),
    "another form of the same": (LINES.replace(b'{"side":1,', b'{"side": 1,'), "line 3: expected canonical JSON"),
    "a count below 0": (LINES.replace(b'"stated_messages":2', b'"stated_messages":-2'), "line 1"),
    "three names": (LINES.replace(b'"lamp-2"]', b'"lamp-2","x"]'), "line 1"),
    "nothing": (b"", "line 1"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_lines_that_are_no_transcript_are_refused_and_named(name: str) -> None:
    data, sentence = BAD_LINES[name]
    with pytest.raises(TranscriptRefusal) as caught:
        jsonl.read(data)
    assert sentence in str(caught.value)


def test_a_lone_surrogate_and_a_name_of_two_lines_are_refused() -> None:
    with pytest.raises(TranscriptRefusal, match="lone surrogate"):
        Message(0, "a\ud800")
    for name in ("a\nb", " a", "", "a  b", "a\u2028b", "x" * 201):
        with pytest.raises(TranscriptRefusal, match="expected a name of one line"):
            Transcript((name, "b"), ())


def test_files_are_written_by_their_name_whole_or_not_at_all(tmp_path) -> None:
    transcript = formats.read(OWN)
    for name in ("t.md", "t.jsonl"):
        formats.write(tmp_path / name, transcript)
        assert transcript == formats.read(tmp_path / name)
    with pytest.raises(UsageError, match=r"ends in \.md or \.jsonl, got \.txt"):
        formats.write(tmp_path / "t.txt", transcript)
    with pytest.raises(UsageError, match="write JSONL"):
        formats.write(tmp_path / "u.md", by("---\n\n### lamp-2\n\nx"))
    assert ["t.jsonl", "t.md"] == sorted(path.name for path in tmp_path.iterdir())


def test_a_file_beyond_the_limit_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(formats, "LIMITS", formats.LIMITS.__class__(size_bytes=100, depth=8))
    with pytest.raises(EnvironmentFault, match="expected at most 100 bytes"):
        formats.read(OWN)
