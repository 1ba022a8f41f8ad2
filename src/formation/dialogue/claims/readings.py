"""What is known of each token that a side said: from a model that is taught the transcript, or from the log of the dialogue itself."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from formation.dialogue.claims.claim import ELSEWHERE, FORCING, LOCAL_RUN
from formation.dialogue.events import Event
from formation.dialogue.so_far import SoFar
from formation.dialogue.taught import Speaker, Taught
from formation.dialogue.transcripts.transcript import Transcript
from formation.errors import UsageError
from formation.kernels.tensor import F32
from formation.run.distributions import Distribution, of_logits
from formation.run.generate import Engine, Step


@dataclass(frozen=True)
class Reading:
    """One token of a message; it spells the bytes [begin, end) of the text. What is not known of it is None."""

    message: int
    index: int
    id: int | None
    begin: int
    end: int
    logprob_nats: float | None
    rank_low: int | None
    rank_high: int | None
    entropy_nats: float | None
    zero: str
    method: str | None = None  # how it was selected: sample, greedy, forced, replayed


@dataclass(frozen=True)
class Readings:
    """Of one side. `under` says under what, `beyond` what is not known beside that, `missing` why a message has none; `first` holds the distribution
    of the first token of messages that were to be kept."""

    scope: str
    under: str
    beyond: str
    tokens: Mapping[int, tuple[Reading, ...]]
    missing: str
    first: Mapping[int, Distribution] = field(default_factory=dict)


# ---- a model that is taught the transcript


def forced(engine: Engine, taught: Taught, speaker: Speaker, under: str, missing: str, keep: Container[int] = ()) -> Readings:
    """One pass over the weights. `keep` are messages whose first distribution stays. Raises what `Engine.score` raises."""
    places = [(stretch.message, position) for stretch in taught.stretches for position in range(stretch.begin, stretch.end)]
    steps = engine.score(taught.ids, [position - 1 for _, position in places])
    found: dict[int, list[Reading]] = {}
    first: dict[int, Distribution] = {}
    for (message, _), step in zip(places, steps, strict=True):
        own = found.setdefault(message, [])
        distribution = model_of(step.logits, engine.threads)
        if not own and message in keep:
            first[message] = distribution
        own.append(reading(message, len(own), own[-1].end if own else 0, speaker, step, distribution))
    return Readings(FORCING, under, f"; {ELSEWHERE}", {message: tuple(own) for message, own in found.items()}, missing, first)


def model_of(logits: F32, threads: int) -> Distribution:
    return of_logits("model", logits, np.zeros(len(logits), np.uint8), (), threads)


def reading(message: int, index: int, begin: int, speaker: Speaker, step: Step, distribution: Distribution) -> Reading:
    spelt = b"" if step.id in speaker.stop else speaker.tokenizer.token_bytes(step.id)
    low, high = distribution.ranks(step.id) or (None, None)
    numbers = distribution.logprob_nats(step.id), low, high, distribution.entropy_nats
    return Reading(message, index, step.id, begin, begin + len(spelt), *numbers, str(distribution.zero(step.id)))


# ---- the log of the dialogue


def logged(transcript: Transcript, events: Iterable[Event]) -> list[Readings]:
    """Of both sides. Raises UsageError for the log of another dialogue, and EvidenceError."""
    so_far, found, number = SoFar(), {}, 0
    for event in events:
        tokens = so_far.open.tokens if event.kind == "turn_end" and so_far.open else []
        so_far.take(event)
        if event.kind == "turn_end" and so_far.ended[-1].is_message:
            number += 1
            ended = so_far.ended[-1]
            found[number] = tuple(readings_of(number, tokens, so_far.head["sides"][ended.side]["stop_ids"], ended.text.encode()))
    own = so_far.transcript(prompts=False) if so_far.head else None
    if own is None or own.names != transcript.names or own.said != transcript.said:
        raise UsageError("--event-log: expected the log of this dialogue, got one with other sides or other messages")
    return [of_side(transcript, found, side, so_far.head["sides"][side]) for side in (0, 1)]


def of_side(transcript: Transcript, found: Mapping[int, tuple[Reading, ...]], side: int, about: Mapping[str, Any]) -> Readings:
    tokens = {number: found[number] for number, message in transcript.said if message.side == side and number in found}
    source = "measured as it was said" if about["source"] == "checkpoint" else "as its server reports, not measured here"
    model = f"{about['model']} {about['checkpoint_sha256'][:12]}" if isinstance(about["checkpoint_sha256"], str) else about["model"]
    under = f"under {model}, side {about['name']} of the log, {source}"
    return Readings(LOCAL_RUN, under, "", tokens, "the log has no tokens of it")


def readings_of(number: int, tokens: Sequence[Mapping[str, Any]], stop: Sequence[int], text: bytes) -> Iterator[Reading]:
    """Where the tokens spell bytes that are no text, and the text has something in their place, nobody knows where each of them is."""
    ends = bool(tokens) and tokens[-1]["id"] in stop
    spelt = [b"" if ends and n == len(tokens) - 1 else b64decode(token["bytes"]) for n, token in enumerate(tokens)]
    sizes = [len(each) for each in spelt] if b"".join(spelt) == text else [0] * len(spelt)
    begin = 0
    for index, (token, size) in enumerate(zip(tokens, sizes, strict=True)):
        end = begin + size
        yield Reading(number, index, known(token["id"]), begin, end, *values_of(token), token["measured"].get("method"))
        begin = end


def values_of(token: Mapping[str, Any]) -> tuple[float | None, int | None, int | None, float | None, str]:
    """Of the model's distribution, or what a server reports of it"""
    measured, reported = token["measured"], token["reported"]
    if "model" in measured:
        view = measured["model"]
        return known(view["logprob_nats"]), known(view["rank_low"]), known(view["rank_high"]), known(view["entropy_nats"]), view["zero"]
    if "zero" in reported:
        return known(reported["logprob_nats"]), None, None, None, reported["zero"]
    return None, None, None, None, ""


def known(value: Any) -> Any:
    """None for a value that is absent"""
    return None if isinstance(value, dict) else value
