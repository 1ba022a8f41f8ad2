"""A chat completion asked for: the request, and its answer in pieces, whichever way the server gives it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from formation.dialogue.remote.http import Server
from formation.dialogue.remote.reply import Heard, answer

T = TypeVar("T")
CHAT, COMPLETIONS, MODELS = "chat/completions", "completions", "models"
LIMITS = ("max_tokens", "max_completion_tokens")  # what servers call the limit of an answer
Message = Mapping[str, str]


@dataclass(frozen=True)
class Way:
    """How this server wants to be asked. `top`: of how many of the most likely tokens log probabilities are wanted; None for none at all."""

    limit: str = LIMITS[0]
    streams: bool = False
    counts: bool = False
    top: int | None = None

    def request(self, model: str, messages: Sequence[Message], most_tokens: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, "messages": [dict(message) for message in messages], self.limit: most_tokens, **settings}
        if self.streams:
            body["stream"] = True
        if self.streams and self.counts:
            body["stream_options"] = {"include_usage": True}
        if self.top is not None:
            body["logprobs"] = True
        if self.top:
            body["top_logprobs"] = self.top
        return body


def answers(server: Server, request: Mapping[str, Any]) -> Generator[Heard]:
    """The answer as it comes. Raises ServerFault; does not look whether it came to an end."""
    if request.get("stream"):
        yield from server.stream(CHAT, request, partial(answer, part="delta"))
    else:
        yield server.ask(CHAT, request, partial(answer, part="message"))


def together(heard: Iterable[Heard]) -> Heard:
    """The answer that these are the pieces of"""
    parts = list(heard)
    named = [part.tokens for part in parts if part.tokens is not None]
    return Heard(
        "".join(part.text for part in parts), tuple(token for tokens in named for token in tokens) if named else None,
        last(part.finish for part in parts), last(part.model or None for part in parts) or "", last(part.completion_tokens for part in parts),
    )  # fmt: skip


def last(values: Iterable[T | None]) -> T | None:
    return next((value for value in reversed(list(values)) if value is not None), None)
