"""What all branches have in common, computed once: the layers' memory of what came before, the logits at the fork, and those after a forced text.

A branch goes back to where it parts from the others (run/past.py) and costs its own tokens only.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from formation.dialogue.chain import Chain
from formation.dialogue.forks.choices import Chosen
from formation.dialogue.forks.source import Formed, Hear, HearEach, kind_of, method_of
from formation.dialogue.measure import document, measure
from formation.errors import BudgetError
from formation.kernels.tensor import F32
from formation.run.generate import Engine, Wanted
from formation.run.past import Mark, Past
from formation.run.sample import Choice
from formation.text import Tokenizer

MOST_TOGETHER = 16  # branches in one pass


@dataclass(frozen=True)
class Follow:
    """Chooses these ids from position `first` on; what it says after them is taken from nobody."""

    ids: Sequence[int]
    first: int

    def choose(self, logits: F32, position: int) -> Choice:
        place = position - self.first
        return Choice(self.ids[place] if place < len(self.ids) else 0)


@dataclass
class Speaking:
    """The side's chain, which also asks what was said before."""

    chain: Chain
    history: list[int]

    def choose(self, logits: F32, position: int) -> Choice:
        return self.chain.choose(logits, position, self.history)


@dataclass(frozen=True, eq=False)
class Forced:
    """A choice's tokens, forced, with the logits [V] that each came from; `after` those behind the last, None where the branch ends with it."""

    tokens: tuple[tuple[Formed, F32], ...]
    after: F32 | None
    mark: Mark


@dataclass(eq=False)
class _Branch:
    """On its way: what it has said since the fork"""

    stem: Stem
    number: int
    method: str
    said: list[int]
    speaking: Speaking
    hear: HearEach
    past: Past | None = None

    def say(self, logits: F32, choice: Choice) -> None:
        self.hear(self.number, self.stem.formed(logits, choice, self.said, self.method), logits)
        self.said.append(choice.id)
        self.speaking.history.append(choice.id)


@dataclass(eq=False)
class Stem:
    """`ids` are all before the fork; `history` those of them that penalties count."""

    engine: Engine
    past: Past
    ids: Sequence[int]
    history: Sequence[int]
    stop: Sequence[int]
    tokenizer: Tokenizer
    chain: Chain
    _root: F32 | None = None
    _mark: Mark | None = None
    _forced: dict[Chosen, Forced] = field(default_factory=dict)

    def root(self) -> F32:
        if self._root is None:
            (step,) = self.engine.generate(self.ids, 1, past=self.past)
            self._root, self._mark = step.logits, self.past.mark()
        return self._root

    @property
    def room(self) -> int:
        return max(0, self.engine.model.shape.context - len(self.ids) + 1)

    def logits_along(self, ids: Sequence[int]) -> list[F32]:
        """Those at the fork, and after each of `ids` said there                                                       [V] each"""
        root = self.root()
        self._stand_at_fork()
        if not ids:
            return [root]
        sampler = Follow(ids, len(self.ids))
        return [root, *(step.logits for step in self.engine.generate([*self.ids, ids[0]], len(ids), sampler, past=self.past))]

    def _stand_at_fork(self) -> None:
        """Wherever the past has been since, for another stem perhaps"""
        if self._mark is None or not self.past.holds(self._mark):
            self._root = None
            self.root()
        assert self._mark is not None  # root() has left it
        self.past.go_back(self._mark)

    def formed(self, logits: F32, choice: Choice, said: Sequence[int], method: str, chosen: Chosen | None = None) -> Formed:
        """`said` are the ids between the fork and this token"""
        measured = measure(self.chain, logits, choice, method, [*self.history, *said], threads=self.engine.threads)
        return Formed(choice.id, b64encode(self.tokenizer.token_bytes(choice.id)).decode(), kind_of(method, chosen), document(measured))

    def grow(self, chosen: Chosen, chain: Chain, most: int, hear: Hear) -> None:
        self.grow_together([(chosen, chain)], most, lambda _, formed, logits: hear(formed, logits))

    def grow_together(self, wanted: Sequence[tuple[Chosen, Chain]], most: int, hear: HearEach) -> None:
        """Branches that share the passes over the weights, each with the bits that it has alone. Each chain is that of the stem with other draws."""
        going: list[_Branch] = []
        for number, (chosen, chain) in enumerate(wanted):
            branch = _Branch(self, number, method_of(chain), list(chosen.ids), Speaking(chain, [*self.history, *chosen.ids]), hear)
            forced = self._forced.get(chosen) or self._force(chosen)
            for formed, logits in forced.tokens[:most]:
                hear(number, formed, logits)
            if len(chosen.ids) >= most or forced.after is None:
                continue
            choice = branch.speaking.choose(forced.after, len(self.ids) + len(branch.said))
            branch.say(forced.after, choice)
            if choice.id not in self.stop and len(branch.said) < most:
                self._stand_behind(chosen, forced)
                branch.past = self.past.copy(len(self.ids) + most - 1) if len(wanted) > 1 else self.past
                going.append(branch)
        self._go_on(going, most)

    def _stand_behind(self, chosen: Chosen, forced: Forced) -> None:
        if not self.past.holds(forced.mark):
            self.logits_along(chosen.ids)  # another branch has been where this one's tokens were
        self.past.go_back(forced.mark)

    def _go_on(self, going: Sequence[_Branch], most: int) -> None:
        if len(going) == 1:
            (branch,) = going
            ids = [*self.ids, *branch.said]
            for step in self.engine.generate(ids, most - len(branch.said), branch.speaking, stop=self.stop, past=branch.past):
                branch.say(step.logits, step.choice)
        elif going:
            wanted = [
                Wanted([*self.ids, *each.said], most - len(each.said), each.speaking, frozenset(self.stop), past=each.past) for each in going
            ]  # fmt: skip
            for number, step in self.engine.generate_together(wanted):
                going[number].say(step.logits, step.choice)

    def together(self, most: int) -> int:
        """How many branches the budget holds in one pass, at least one"""
        length = len(self.ids) + most - 1
        for count in range(MOST_TOGETHER, 1, -1):
            with suppress(BudgetError):
                self.engine.plan(count * length, count, lengths=[length] * count)
                return count
        return 1

    def _force(self, chosen: Chosen) -> Forced:
        """Once for all samples of the choice"""
        ids = list(chosen.ids)
        ends = bool(ids) and ids[-1] in self.stop
        logits = self.logits_along(ids[:-1] if ends else ids)
        tokens = tuple((self.formed(z, Choice(i), ids[:n], "forced", chosen), z) for n, (i, z) in enumerate(zip(ids, logits, strict=False)))
        found = Forced(tokens, None if ends else logits[-1], self.past.mark())
        self._forced[chosen] = found
        return found
