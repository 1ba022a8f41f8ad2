"""What a ledger must share with its anchor: which positions there are, which ids went in, and how each token was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from formation.ledger.anchor import FORCED, Anchor
from formation.ledger.gaps import Gap, fact
from formation.ledger.lines import Run
from formation.ledger.rules import Observed
from formation.ledger.sampling import of_settings
from formation.philox import uniform

INPUTS, SAMPLER = "inputs", "sampler"
Values = Mapping[str, Any]


class RunFacts:
    """Follows a run position by position. Holds one digest and one spelling for each id that occurred: at most as many as the vocabulary has."""

    def __init__(self, anchor: Anchor, run: Run) -> None:
        self._anchor, self._run = anchor, run
        self._steps = anchor.steps()
        self._rows: dict[int, str] = {}  # id -> digest of its embedding's row
        self._bytes: dict[int, str] = {}
        self._input = anchor.prompt_ids[0]
        self.steps = 0
        self.ended = anchor.tokens == 0

    def kinds(self) -> Iterator[str]:
        """Of each position, as far as the tokens so far say: the run ends with a stop id, or with as many tokens as the anchor allows"""
        for position in count():
            if position >= self._steps.first and self.ended:
                return
            yield self._anchor.step_kind(position) if position in self._steps else "prompt"

    def of_anchor(self) -> Iterator[Gap]:
        size = self._run.shape.vocabulary
        strange = next((i for i in self._anchor.prompt_ids if i >= size), None)
        yield fact(INPUTS, strange is None, f"prompt id {strange} of a vocabulary of {size}" if strange is not None else "prompt ids")

    def of_position(self, lines: Sequence[Observed]) -> Iterator[Gap]:
        by_slot = {observed.place.slot: observed.values for observed in lines}
        position = lines[0].place.position
        yield self._same(self._rows, self._input_at(position), by_slot["embed"]["residual_sha256"], f"embedding's row at position {position}")
        if "token" not in by_slot:
            return
        token = by_slot["token"]
        yield self._same(self._bytes, token["id"], token["bytes"], f"spelling of the token at position {position}")
        yield from self._choice(by_slot["sampler"], by_slot["lm_head"], token["id"], position)
        self._input = token["id"]
        self.steps += 1
        self.ended = self.steps == self._anchor.tokens or token["id"] in self._anchor.stop_ids

    def _input_at(self, position: int) -> int:
        return self._anchor.prompt_ids[position] if position < len(self._anchor.prompt_ids) else self._input

    @staticmethod
    def _same(known: dict[int, str], token: int, value: str, where: str) -> Gap:
        """The same id has the same value wherever it occurs"""
        return fact(INPUTS, known.setdefault(token, value) == value, f"{where}: id {token} had another before")

    def _choice(self, sampler: Values, head: Values, token: int, position: int) -> Iterator[Gap]:
        wanted, where, due = self._anchor.sampler, f"sampler at position {position}", self._anchor.given(position)
        method = wanted["method"] if due is None or self._anchor.scores else FORCED
        yield fact(SAMPLER, sampler["method"] == method, f"{where}: expected {method}, got {sampler['method']}")
        if due is not None:
            yield fact(SAMPLER, token == due, f"token at position {position}: expected id {due}, which is given, got {token}")
        if sampler["method"] != "sample" or wanted["method"] != "sample":
            return
        draw = uniform(int(wanted["seed"]), int(wanted["branch"]), position + 1)
        yield fact(SAMPLER, sampler["draw"] == draw, f"{where}: expected the draw {draw}, got {sampler['draw']}")
        yield fact(SAMPLER, not wanted["top_k"] or sampler["kept"] <= int(wanted["top_k"]), f"{where}: more kept than top_k {wanted['top_k']}")
        unfiltered = (wanted["top_k"], wanted["top_p"], wanted["min_p"]) == (0, 1, 0)
        yield fact(SAMPLER, not unfiltered or sampler["kept_mass"] == 1, f"{where}: less than everything kept, without a filter")
        yield from of_settings(SAMPLER, wanted, sampler, head, self._run.shape.vocabulary, where)
