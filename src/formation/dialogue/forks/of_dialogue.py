"""A message of a dialogue, taken up again at one of its tokens: by the side that said it, in the context that it was said in.

Everything is read off the log; what the model makes of it must be what the log says, to the last bit, or nothing is forked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from formation.dialogue import cast, events
from formation.dialogue.chain import Chain
from formation.dialogue.conduct import difference
from formation.dialogue.forks.choices import Chosen
from formation.dialogue.forks.source import FORCED, KIND_OF, Base, Formed, Hear, HearEach, redrawn
from formation.dialogue.forks.stem import Stem
from formation.dialogue.local import LocalSide
from formation.dialogue.measure import document, measure
from formation.dialogue.side import END_OF_TURN, Turn
from formation.dialogue.so_far import SoFar
from formation.errors import EvidenceError, UsageError
from formation.kernels.tensor import F32
from formation.text import Tokenizer


@dataclass
class Said:
    """A message as the log has it: the record of its side, what that was given, its `token` events, and the digest of the line that ends it."""

    head: Mapping[str, Any]
    side: int
    prompt: Mapping[str, Any]
    context: Sequence[Turn]
    tokens: Sequence[dict[str, Any]]
    ended: str
    sha256: str

    @property
    def record(self) -> dict[str, Any]:
        return dict(self.head["sides"][self.side])


def read_said(folder: Path, message: int) -> Said:
    """Raises EnvironmentFault, EvidenceError for a log that is none, and UsageError for a message that is not there, or not of local tokens."""
    so_far, found, last = SoFar(), None, 0
    for event in events.read(folder):
        if event.kind == "turn_end" and event.body["turn"] == message and so_far.open:
            turn = so_far.open
            sha256 = digest_of(events.located(folder), event.number)
            found = Said(so_far.head, turn.side, turn.prompt, so_far.context(turn.side), list(turn.tokens), event.body["reason"], sha256)
            break
        last = event.body["turn"] if event.kind == "turn_end" else last
        so_far.take(event)
    if found is None:
        raise UsageError(f"--at: expected a message from 1 to {last}, which this dialogue has, got {message}")
    if any("absent" in token["measured"] for token in found.tokens) or not isinstance(found.prompt["prompt_tokens"], int):
        name = found.record["name"]
        raise UsageError(f"--at: expected a message of a side that is a checkpoint, got one of {name}", hint="a server has no state to go back to")
    return found


def digest_of(path: Path, number: int) -> str:
    """Of the line of this event, as the next one has it in `previous`"""
    with path.open("rb") as file:
        line = next(line for place, line in enumerate(file) if place == number)
    return hashlib.sha256(line.removesuffix(b"\n")).hexdigest()


@dataclass(eq=False)
class OfDialogue:
    """Made by `open_dialogue`."""

    said: Said
    base: Base
    stem: Stem
    recorded: Chain  # of the run
    events: Sequence[dict[str, Any]]  # of the base's tokens from the fork on
    _followed: list[F32] = field(default_factory=list)

    @property
    def chain(self) -> Chain:
        return self.stem.chain

    @property
    def stop(self) -> Sequence[int]:
        return self.stem.stop

    @property
    def tokenizer(self) -> Tokenizer:
        return self.stem.tokenizer

    @property
    def room(self) -> int:
        return self.stem.room

    def root(self) -> F32:
        logits = self.stem.root()
        if self.events and not self._followed:
            self._followed = [logits]
            self._check(0, logits)
        return logits

    def follow(self, count: int, hear: Hear) -> None:
        own = self.base.tokens[:count]
        for place, logits in enumerate(self.stem.logits_along([each.id for each in own[:-1]])[: len(own)]):
            self._check(place, logits)
            hear(own[place], logits)

    def _check(self, place: int, logits: F32) -> None:
        """That the model has what the log says of this token"""
        event, chain = self.events[place], self.recorded
        history = [*self.stem.history, *self.base.ids[:place]]
        choice = chain.choose(logits, event["position"], history)
        measured = document(measure(chain, logits, choice, event["measured"]["method"], history, threads=self.stem.engine.threads))
        if wrong := difference({"id": event["id"], "measured": event["measured"]}, {"id": choice.id, "measured": measured}):
            where = f"message {self.base.message} token {self.base.token + place}"
            raise EvidenceError(f"{where}: expected {wrong[0]}, as the log has it, got {wrong[1]}", hint="it is no log of this checkpoint")

    def together(self, most: int) -> int:
        return self.stem.together(most)

    def grow(self, wanted: Sequence[tuple[Chosen, Chain]], most: int, hear: HearEach) -> list[dict[str, Any]]:
        self.stem.grow_together(wanted, most, hear)
        return [{} for _ in wanted]


@contextmanager
def open_dialogue(
    folder: Path, message: int, token: int, means: cast.Means, *, place: str | None = None, settings: Mapping[str, Any] | None = None
) -> Iterator[OfDialogue]:  # fmt: skip
    """`place` is where the side's checkpoint is now, `settings` those of its sampler that are to be others. Raises what
    reading and opening raise, and EvidenceError for a side that is not that of the log."""
    said = read_said(folder, message)
    check_token(said, token)
    source = place or cast.read_places(folder if folder.is_dir() else folder.parent)[said.side]
    role = cast.Role(said.record["name"], source, cast.manner_of(said.record))
    if role.is_server:
        raise UsageError(f"side {role.name}: expected a folder with a checkpoint, got {source}")
    with cast.cast([role], means) as (sides, _):
        side = sides[0]
        assert isinstance(side, LocalSide)
        if wrong := difference(said.record, side.describe()):
            raise EvidenceError(f"side {role.name}: expected {wrong[0]}, as the dialogue was had with, got {wrong[1]}")
        yield of_side(said, side, message, token, settings or {})


def of_side(said: Said, side: LocalSide, message: int, token: int, settings: Mapping[str, Any]) -> OfDialogue:
    begun, rest = said.tokens[: token - 1], said.tokens[token - 1 :]
    speech = side.speak(said.context, begun)
    if wrong := difference(dict(said.prompt), speech.prompt):
        raise EvidenceError(f"message {message}: expected {wrong[0]}, as the log has it, got {wrong[1]}")
    before = b"".join(formed(each).spelt for each in begun)
    own = tuple(formed(each) for each in rest)
    log = {"kind": "dialogue", "event_sha256": said.sha256, "checkpoint_sha256": side.checkpoint_sha256, "prompt": dict(said.prompt)}
    names = tuple(each["name"] for each in said.head["sides"])
    base = Base(log, names, said.side, message, token, before, own, said.ended)
    chain = replace(side.manner.chain, sampler=redrawn(side.manner.chain.sampler, settings))
    stem = Stem(side.engine, side.past, [*speech.prompt_ids, *speech.ids], speech.history, side.stop, side.tokenizer, chain)
    return OfDialogue(said, base, stem, side.manner.chain, rest)


def check_token(said: Said, token: int) -> None:
    """One of the message's tokens, or the one that would have come next. Raises UsageError."""
    last = len(said.tokens) + (said.ended != END_OF_TURN)
    if token > last:
        raise UsageError(f"--at: expected a token from 1 to {last} of this message, got {token}")


def formed(event: Mapping[str, Any]) -> Formed:
    return Formed(event["id"], event["bytes"], KIND_OF.get(event["measured"]["method"], FORCED), event["measured"])
