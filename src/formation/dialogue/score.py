"""Scoring a transcript: how surprising what a side said is to a model, every token of it, in one pass over the weights.

The ids are given, so nothing is sampled: each token of the side's own messages has the logits that the model would have chosen it from. The pass is
recorded, its ledger's steps are of kind `scored`, and the numbers here are those of the ledger; only the chance of the event is not in it.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from formation.dialogue.chance import Count, count
from formation.dialogue.taught import Speaker, Taught
from formation.errors import UsageError
from formation.evidence.bundle import Bundle
from formation.exact64 import exp64
from formation.kernels import readout
from formation.ledger import files, start
from formation.ledger.progress import Watch
from formation.ledger.zero import LN2
from formation.recording import Means, ensure, is_new
from formation.run.generate import Step
from formation.run.order import Order, scoring
from formation.weights.checkpoint import Checkpoint

END_OF_TURN = "end of turn"
MOST_SURPRISING = 5
LONG = 500  # positions in one pass, beyond which arithmetic takes longer than reading the weights once


@dataclass(frozen=True)
class Event:
    """That the next token is one of `ids`. Of a text of several tokens, `whole`, it is the first: how probable the others would be after it is known
    only where it was said. So this bounds the text from above, which begins at least as often as it is said."""

    name: str
    ids: tuple[int, ...]
    whole: tuple[int, ...] = ()


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
    top_masses: tuple[float, ...]
    zero: str
    chance: float

    @property
    def surprisal_bits(self) -> float:
        return -self.logprob_nats / LN2

    def document(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("message", "index", "position", "id")}
        spelt = {"bytes": b64encode(self.bytes).decode(), "ends_turn": self.ends_turn}
        ranks = {"rank_low": self.rank_low, "rank_high": self.rank_high}
        spread = {"entropy_nats": self.entropy_nats, "varentropy": self.varentropy, "top_masses": list(self.top_masses)}
        told = {"logprob_nats": self.logprob_nats, "surprisal_bits": self.surprisal_bits, "zero": self.zero}
        return own | spelt | told | ranks | spread | {"event_probability": self.chance}


@dataclass(frozen=True)
class Scored:
    """What came of one side."""

    name: str
    taught: Taught
    event: Event
    rows: tuple[Row, ...]
    folder: Path
    run_id: str
    parity: str

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
    def whole(self) -> list[float]:
        """Of each place where the whole text of the event was said, the exact logarithm of its chance there, in nats: the sum over its tokens, each
        after what was said before it"""
        ids, own = self.event.whole, [row.id for row in self.rows]
        found = [place for place in range(len(own) - len(ids) + 1) if ids and own[place : place + len(ids)] == list(ids)]
        parts = [self.rows[place : place + len(ids)] for place in found]
        return [math.fsum(row.logprob_nats for row in part) for part in parts if part[0].message == part[-1].message]

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
    return Event(text, tuple(ids)) if len(ids) == 1 else Event(f"{text}, by its first of {len(ids)} tokens", tuple(ids[:1]), tuple(ids))


@dataclass
class Chances:
    """Listens to steps; `say` is told of each."""

    event: Event
    say: Callable[[Step], None] | None
    found: list[float] = field(default_factory=list)

    def __call__(self, step: Step) -> None:
        total = float(readout.logit_statistics(step.logits[None], threads=1).log_sum_exp[0])
        self.found.append(min(1.0, math.fsum(exp64(float(step.logits[i]) - total) for i in self.event.ids)))
        if self.say:
            self.say(step)


@dataclass(frozen=True)
class Wanted:
    """One side, and the folder that its pass is recorded in."""

    name: str
    taught: Taught
    event: Event
    out: Path

    @property
    def order(self) -> Order:
        return scoring(self.taught.ids, self.taught.spans)


def score_together(checkpoint: Checkpoint, sides: Sequence[Wanted], watch: Watch, means: Means) -> list[Scored]:
    """Recorded, unsigned, in one pass over the weights, or in turns where the budget does not hold all; what was cut off is gone on with alone. Each
    ledger has the bytes that it would have alone. Raises as `recording.ensure` does."""
    listening = [(side, Chances(side.event, means.on_step)) for side in sides]
    new = [(side, chances) for side, chances in listening if is_new(side.out)]
    for side, chances in listening:
        if not is_new(side.out):
            ensure(checkpoint, [side.order], watch, [side.out], replace(means, on_step=chances))
    due = chain.from_iterable(repeat(chances, side.order.tokens) for side, chances in new)  # texts are scored one after the other
    ensure(checkpoint, [side.order for side, _ in new], watch, [side.out for side, _ in new], replace(means, on_step=lambda step: next(due)(step)))
    return [scored(checkpoint, side, chances, means) for side, chances in listening]


def scored(checkpoint: Checkpoint, side: Wanted, chances: Chances, means: Means) -> Scored:
    """From its closed ledger"""
    order = side.order
    if len(chances.found) < order.tokens:  # those of before the cut are in no ledger: they are asked for again, in a pass that records nothing
        chances = Chances(side.event, None)
        with means.engine(checkpoint) as engine:
            for step in engine.score(order.prompt_ids, list(order.steps)):
                chances(step)
    parity, run_id = files.read_document(side.out / "parity.json")["parity"], start.read_anchor(side.out).run_id
    return Scored(side.name, side.taught, side.event, tuple(rows_of(side.out, side.taught, chances.found)), side.out, run_id, parity)


def rows_of(out: Path, taught: Taught, chances: Sequence[float]) -> Iterator[Row]:
    places = [(stretch, index) for stretch in taught.stretches for index in range(stretch.end - stretch.begin)]
    for (stretch, index), token, chance in zip(places, Bundle(out).tokens, chances, strict=True):
        ends = stretch.ended and token.position == stretch.end - 1
        yield Row(
            stretch.message, index, token.position, token.id, token.bytes, ends, token.logprob, token.rank_low, token.rank_high,
            token.entropy_nats, token.varentropy, token.top_masses, token.zero_kind, chance,
        )  # fmt: skip


def document(scored: Scored) -> dict[str, Any]:
    """The summary of one side"""
    found, stretches = scored.count, scored.taught.stretches
    event = {
        "event": scored.event.name, "ids": list(scored.event.ids), "observed": found.observed, "expected": found.expected,
        "at_least": found.at_least, "at_most": found.at_most,
        **({"whole": {"ids": list(scored.event.whole), "said": len(scored.whole), "logprob_nats": scored.whole}} if scored.event.whole else {}),
    }  # fmt: skip
    return {
        "name": scored.name, "run_id": scored.run_id, "parity": scored.parity, "positions": len(scored.taught.ids) - 1,
        "messages": len(stretches), "without_tokens": list(scored.taught.silent), "tokens": len(scored.rows), "bytes": scored.taught.bytes,
        "nats": scored.nats, "nats_per_token": scored.nats_per_token, "perplexity": math.exp(min(scored.nats_per_token, 700.0)),
        "bits_per_byte": scored.bits_per_byte, "count": event, "most_surprising": [row.document() for row in scored.most_surprising],
    }  # fmt: skip
