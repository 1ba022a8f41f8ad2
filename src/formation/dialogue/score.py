"""Scoring a transcript: how surprising what a side said is to a model, every token of it, in one pass over the weights.

The ids are given, so nothing is sampled: each token of the side's own messages has the logits that the model would have chosen it from. The pass is
recorded, its ledger's steps are of kind `scored`, and the numbers here are those of the ledger; only the chance of the event is not in it.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from formation.dialogue.chance import Count, count
from formation.dialogue.taught import Speaker, Taught
from formation.errors import UsageError
from formation.evidence.bundle import Bundle
from formation.exact64 import exp64
from formation.kernels import readout
from formation.ledger.formulas import LN2
from formation.ledger.progress import Watch
from formation.recording import Means, Recording, begin
from formation.run.generate import Step
from formation.run.order import scoring
from formation.weights.checkpoint import Checkpoint

END_OF_TURN = "end of turn"
MOST_SURPRISING = 5
LONG = 500  # positions in one pass, beyond which arithmetic takes longer than reading the weights once


@dataclass(frozen=True)
class Event:
    """That the next token is one of `ids`."""

    name: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One scored token, with the values of the ledger. `index` counts the tokens of its message from 0, `chance` is that of the event."""

    message: int
    index: int
    position: int
    id: int
    bytes: bytes
    ends_turn: bool
    logprob_nats: float
    rank_low: int
    rank_high: int
    entropy_nats: float
    varentropy: float
    chance: float

    @property
    def surprisal_bits(self) -> float:
        return -self.logprob_nats / LN2

    def document(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("message", "index", "position", "id")}
        spelt = {"bytes": b64encode(self.bytes).decode(), "ends_turn": self.ends_turn}
        ranks = {"rank_low": self.rank_low, "rank_high": self.rank_high}
        spread = {"entropy_nats": self.entropy_nats, "varentropy": self.varentropy, "event_probability": self.chance}
        return own | spelt | {"logprob_nats": self.logprob_nats, "surprisal_bits": self.surprisal_bits} | ranks | spread


@dataclass(frozen=True)
class Scored:
    """What came of one side."""

    name: str
    taught: Taught
    event: Event
    rows: tuple[Row, ...]
    recording: Recording

    @property
    def nats(self) -> float:
        return -math.fsum(row.logprob_nats for row in self.rows)

    @property
    def nats_per_token(self) -> float:
        """Its exponential is the perplexity"""
        return self.nats / len(self.rows)

    @property
    def bits_per_byte(self) -> float:
        """Of the tokens that spell the texts, without those that end turns: these spell nothing"""
        return -math.fsum(row.logprob_nats for row in self.rows if not row.ends_turn) / LN2 / self.taught.bytes

    @property
    def count(self) -> Count:
        """Of the event, each step's chance being that after what was said before it"""
        return count((row.chance for row in self.rows), sum(row.id in self.event.ids for row in self.rows))

    @property
    def most_surprising(self) -> list[Row]:
        return sorted(self.rows, key=lambda row: (row.logprob_nats, row.position))[:MOST_SURPRISING]


def event_of(speaker: Speaker, text: str | None) -> Event:
    """The end of a turn, or that a token is the one that spells `text`; of a text of several tokens, the first of them. Raises UsageError."""
    if text is None:
        return Event(END_OF_TURN, speaker.stop)
    ids = speaker.tokenizer.encode(text)
    if not ids:
        raise UsageError("event: expected a text with a token, got an empty one")
    return Event(text if len(ids) == 1 else f"{text}, by its first of {len(ids)} tokens", tuple(ids[:1]))


@dataclass
class _Chances:
    """Listens to steps; `say` is told of each."""

    event: Event
    say: Callable[[Step], None] | None
    found: list[float] = field(default_factory=list)

    def __call__(self, step: Step) -> None:
        total = float(readout.logit_statistics(step.logits[None], threads=1).log_sum_exp[0])
        self.found.append(min(1.0, math.fsum(exp64(float(step.logits[i]) - total) for i in self.event.ids)))
        if self.say:
            self.say(step)


def score(name: str, checkpoint: Checkpoint, taught: Taught, event: Event, out: Path, watch: Watch, means: Means) -> Scored:
    """Records the pass into the folder `out`, unsigned, which must not hold a ledger. Raises as `recording.begin` does."""
    chances = _Chances(event, means.on_step)
    listening = Means(means.memory, means.threads, means.keep_cache, means.parity, means.progress, chances)
    recording = begin(checkpoint, scoring(taught.ids, taught.spans), watch, out, listening)
    return Scored(name, taught, event, tuple(rows_of(out, taught, chances.found)), recording)


def rows_of(out: Path, taught: Taught, chances: Sequence[float]) -> Iterator[Row]:
    places = [(stretch, index) for stretch in taught.stretches for index in range(stretch.end - stretch.begin)]
    for (stretch, index), token, chance in zip(places, Bundle(out).tokens, chances, strict=True):
        ends = stretch.ended and token.position == stretch.end - 1
        yield Row(
            stretch.message, index, token.position, token.id, token.bytes, ends, token.logprob, token.rank_low, token.rank_high,
            token.entropy_nats, token.varentropy, chance,
        )  # fmt: skip


def document(scored: Scored) -> dict[str, Any]:
    """The summary of one side"""
    found, stretches = scored.count, scored.taught.stretches
    event = {
        "event": scored.event.name, "ids": list(scored.event.ids), "observed": found.observed, "expected": found.expected,
        "at_least": found.at_least, "at_most": found.at_most,
    }  # fmt: skip
    return {
        "name": scored.name, "run_id": scored.recording.run_id, "parity": scored.recording.parity, "positions": len(scored.taught.ids) - 1,
        "messages": len(stretches), "without_tokens": list(scored.taught.silent), "tokens": len(scored.rows), "bytes": scored.taught.bytes,
        "nats": scored.nats, "nats_per_token": scored.nats_per_token, "perplexity": math.exp(min(scored.nats_per_token, 700.0)),
        "bits_per_byte": scored.bits_per_byte, "count": event, "most_surprising": [row.document() for row in scored.most_surprising],
    }  # fmt: skip
