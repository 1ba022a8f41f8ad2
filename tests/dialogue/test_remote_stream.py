"""Server-sent events, however their bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formation.dialogue.remote.stream import MOST_EVENT_BYTES, Events, StreamRefusal

TEXTS = {
    "LF": (b'data: {"a":1}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n', [b'{"a":1}', b'{"b":2}'], True),
    "CR LF": (b"data: x\r\n\r\ndata:y\r\n\r\n", [b"x", b"y"], False),
    "CR": (b"data: x\r\rdata: [DONE]\r\r", [b"x"], True),
    "a BOM, comments, names": (b"\xef\xbb\xbf: hi\nevent: delta\nid: 7\nretry: 5\ndata:  x\n\n", [b" x"], False),
    "several lines of data": (b"data: {\ndata: }\n\n", [b"{\n}"], False),
    "an event that is not whole": (b"data: x\n\ndata: y\n", [b"x"], False),
    "an end without its empty line": (b"data: x\n\ndata: [DONE]\n", [b"x"], True),
    "more behind the end": (b"data: [DONE]\n\ndata: x\n\n", [], True),
    "events of nothing": (b"\n\n\n: \n\nevent: x\n\n", [], False),
}


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=40)
@given(cuts=st.lists(st.integers(0, 60), max_size=8))
def test_events_are_the_same_however_they_are_cut(name: str, cuts: list[int]) -> None:
    data, expected, done = TEXTS[name]
    places = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    events, found = Events(), []
    for begin, end in pairwise(places):
        found += events.feed(data[begin:end])
    assert (expected, done) == (found, events.done)


def test_an_event_that_does_not_end_is_refused() -> None:
    for piece in (b"x" * 10_000, b"data: " + b"x" * 10_000 + b"\n"):
        events = Events()
        with pytest.raises(StreamRefusal, match=f"at most {MOST_EVENT_BYTES} bytes"):
            for _ in range(2 + MOST_EVENT_BYTES // 10_000):
                events.feed(piece)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_stream_of_something(data: bytes) -> None:
    assert all(isinstance(event, bytes) for event in Events().feed(data))
