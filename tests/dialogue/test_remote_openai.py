"""The publisher's own client hears the local server as we do: it speaks the protocol, not our idea of it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.dialogue.local_server import MODEL, LocalServer

from formation.dialogue.remote.side import connect
from formation.dialogue.side import Manner, Turn

openai = pytest.importorskip("openai")


@pytest.mark.parametrize("stream", [False, True])
def test_the_publishers_own_client_hears_the_same(stream: bool) -> None:
    with LocalServer() as server:
        compare(server, stream)


def compare(server: LocalServer, stream: bool) -> None:
    client = openai.OpenAI(base_url=f"{server.root}/v1", api_key="none", max_retries=0)
    request: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 10, "temperature": 0}
    request |= {"logprobs": True, "top_logprobs": 20}
    if stream:
        parts = [chunk for chunk in client.chat.completions.create(**request, stream=True) if chunk.choices]
        text = "".join(part.choices[0].delta.content or "" for part in parts)
        entries = [entry for part in parts if part.choices[0].logprobs for entry in part.choices[0].logprobs.content or []]
        finish = parts[-1].choices[0].finish_reason
    else:
        found = client.chat.completions.create(**request).choices[0]
        text, entries, finish = found.message.content, found.logprobs.content, found.finish_reason
    side = connect("Lamp", server.url, Manner(most_tokens=10))
    ours = [piece.event for piece in side.speak([Turn(0, False, "Hello?")])]
    assert ("I float. Café", "stop") == (text, finish)
    assert [entry.logprob for entry in entries] == [event["reported"]["logprob_nats"] for event in ours]
    assert [[top.logprob for top in entry.top_logprobs] for entry in entries] == [
        [top["logprob_nats"] for top in event["reported"]["top"]] for event in ours
    ]
    assert [MODEL] == [model.id for model in client.models.list()]
