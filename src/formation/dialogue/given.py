"""What a side that runs here was given and said in a dialogue that is over, as sequences of ids that one pass each can score.

With all of the dialogue before it, what a side was given at one turn begins with all that it was given and said at the turn before, so that one
sequence holds every turn. Where a context moves on, or a template writes an old turn in another way, another sequence begins. The side's own turns
are the ids that it said; nothing is encoded again but what its prompts were made of at the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from formation.dialogue.edits import Edits
from formation.dialogue.local import LocalSide
from formation.dialogue.side import Side
from formation.dialogue.so_far import SoFar
from formation.run.order import Order, scoring
from formation.run.sample import Greedy, Sample
from formation.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Heard:
    """One sequence of `side`, 0 or 1. `turns` are the numbers of those whose ids are the stretches `spans`, [begin, end)."""

    side: int
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    turns: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return sum(end - begin for begin, end in self.spans)

    def joined(self, later: Heard) -> Heard | None:
        """With a later turn, which begins with all of this one's ids and more; None if it does not"""
        whole = len(self.ids)
        if later.spans[0][0] <= whole or later.ids[:whole] != self.ids:
            return None
        return replace(self, ids=later.ids, spans=self.spans + later.spans, turns=self.turns + later.turns)


@dataclass(frozen=True)
class Pass:
    """A sequence to be recorded into the folder `name`; `by` is the sampler that chose its tokens, None if their logits were edited before."""

    name: str
    speaker: str
    checkpoint: Checkpoint
    heard: Heard
    by: Greedy | Sample | None

    def order(self, nonce: str) -> Order:
        return scoring(self.heard.ids, self.heard.spans, by=self.by, nonce=nonce)


def passes(sides: Sequence[Side], so_far: SoFar) -> list[Pass]:
    """Of all sides that run here, in order: one for each sequence. Raises what making a prompt raises."""
    found: list[Pass] = []
    for place, side in enumerate(sides):
        if isinstance(side, LocalSide):
            heard, chain = list(sequences(turns_of(place, side, so_far))), side.manner.chain
            by = chain.sampler if chain.edits == Edits() else None
            for name, each in zip(names("ab"[place], len(heard)), heard, strict=True):
                found.append(Pass(name, side.name, side.engine.checkpoint, each, by))
    return found


def names(letter: str, count: int) -> list[str]:
    """Of the bundles of a side: a.ofb, or a-1.ofb and so on, so that none of several is taken for all"""
    return [f"{letter}.ofb"] if count == 1 else [f"{letter}-{number}.ofb" for number in range(1, count + 1)]


def turns_of(place: int, side: LocalSide, so_far: SoFar) -> Iterator[Heard]:
    """Each turn with a token in it on its own"""
    context = so_far.context(place)
    for turn in so_far.ended:
        if turn.side == place and turn.ids:
            prompt = tuple(side.speak([each for each in context if each.number < turn.number]).prompt_ids)
            yield Heard(place, prompt + turn.ids, ((len(prompt), len(prompt) + len(turn.ids)),), (turn.number,))


def sequences(turns: Iterable[Heard]) -> Iterator[Heard]:
    last: Heard | None = None
    for turn in turns:
        longer = last.joined(turn) if last else None
        if last and longer is None:
            yield last
        last = longer or turn
    if last:
        yield last
