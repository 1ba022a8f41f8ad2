"""A step whose token is not known yet, and what becomes of it when it is."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from formation.errors import RuleBroken
from formation.kernels.tensor import F32
from formation.ledger.fields import FORCED, GREEDY
from formation.model.moe import chunks
from formation.probe import readout, step
from formation.probe.aside import Job, Piece
from formation.probe.encode import Observation, Values, complete
from formation.probe.head import Head, MeanRow
from formation.probe.layer import HINT, Cell
from formation.probe.layer_probe import Observed
from formation.probe.sidecars import Sidecars
from formation.probe.step import Final, StepLayer

PIECE_MACS = 1 << 28  # of the lens: about 4 ms of two threads
PIECE_BOUNDARIES = 4  # whose logits are described together
PIECE_LAYERS = 8  # whose writes are attributed together


@dataclass(frozen=True)
class Token:
    """The token a step formed. kind: generated, scored or forced; method: greedy, sample or forced; `sampled` is what the sampler's line says
    beside, of a token that was sampled."""

    id: int
    spelling: bytes
    kind: str
    method: str
    sampled: Values = field(default_factory=dict)


class PendingStep:
    """Rows of the step at `position`, and what was measured of them: slot -> measured, derived so far. `job` does the work."""

    def __init__(self, position: int, x: F32, measured: Values, layers: int, job: Job) -> None:
        self.position = position
        self.x = x  # x_0 [D]
        self.job = job
        self.shown = 0  # layers that have ended
        self.layers: dict[int, StepLayer] = {}
        self.last = x  # the row after the last layer that was added [D]
        self._cells: dict[int, Cell] = {}  # for the rows beside the ledger
        self.values: dict[str, tuple[Values, Values]] = {"embed": (measured, {})} | {f"layer {layer}": ({}, {}) for layer in range(layers)}

    def add(self, observed: Observed) -> None:
        cell = observed.cell.copied()
        self.layers[cell.layer] = StepLayer(cell.a, cell.u, cell.m, cell.after, observed.writes, observed.shared)
        self._cells[cell.layer], self.last = cell, cell.after
        self.values[f"layer {cell.layer}"] = observed.measured, observed.derived

    def put_rows(self, sidecars: Sidecars) -> None:
        sidecars.embed(self.position, self.x)
        for layer in range(self.shown):
            sidecars.cell(self._cells.pop(layer))

    # ---- when the token is known

    def phases(self, token: Token, logits: F32, head: Head, level: str, mean: MeanRow) -> Iterator[Iterable[Piece]]:
        """Adds lm_head, sampler and token, and above the minimal level attribution and lens, once all layers are observed."""
        final = Final(logits, token.id, readout.runner_up(logits, token.id))
        scale = readout.final_scale(self.last, head.eps)
        self.values["lm_head"] = readout.head_values(final.logits, token.id, scale), {}
        if level != "minimal":
            yield from self._derive(final, head, mean, scale, full=level == "full")
        self.values["sampler"] = {"method": token.method, **token.sampled}, {}
        self.values["token"] = {"id": token.id, "bytes": base64.b64encode(token.spelling).decode("ascii")}, {}

    def _derive(self, final: Final, head: Head, mean: MeanRow, scale: float, *, full: bool) -> Iterator[Iterable[Piece]]:
        """Attribution and lens; one [L, V] of logits at a time"""
        logits = np.empty((self.shown, head.vocabulary), np.float32)
        yield [*mean.pieces(head), *self._fill(logits, [self.layers[n].after for n in range(self.shown)], head)]
        if logits[-1].tobytes() != final.logits.tobytes():
            raise RuleBroken(f"lm_head at position {self.position}: expected the engine's logits from the last row, got others", hint=HINT)
        aim = step.target(head.using(1), final.token, final.runner_up, mean.value(), scale)
        self.values["embed"][1].update(step.embed_attribution(self.x, aim))
        self.values["lm_head"][1].update(step.head_attribution(self.last, aim))
        yield [*(partial(self._attribute, aim, part) for part in chunks(self.shown, PIECE_LAYERS)), *self._describe("lens", logits, final)]
        if full:
            yield self._fill(logits, [self.layers[n].u for n in range(self.shown)], head)
            yield self._describe("mid_lens", logits, final)

    def _attribute(self, aim: step.Target, part: slice, threads: int) -> None:
        for place in range(part.start, part.stop):
            x = self.layers[place - 1].after if place else self.x
            self.values[f"layer {place}"][1].update(step.layer_attribution(x, self.layers[place], aim))

    def _fill(self, logits: F32, rows: Sequence[F32], head: Head) -> list[Piece]:
        """Logits [L, V] of these rows, a part of the vocabulary at a time"""
        normed = head.normed(np.stack(rows))

        def fill(ids: slice, threads: int) -> None:
            logits[:, ids] = head.some_logits(normed, ids, threads=threads)

        return [partial(fill, ids) for ids in chunks(head.vocabulary, max(1, PIECE_MACS // normed.size))]

    def _describe(self, prefix: str, logits: F32, final: Final) -> list[Piece]:
        """What the logits say, some boundaries at a time"""

        def describe(part: slice, threads: int) -> None:
            for place, values in enumerate(step.lens_values(prefix, logits[part], final, threads=threads), part.start):
                self.values[f"layer {place}"][1].update(values)

        return [partial(describe, part) for part in chunks(self.shown, PIECE_BOUNDARIES)]

    # ---- lines

    def observation(self, slot: str, token: Token, level: str, reasons: set[str]) -> Observation:
        """One line; `reasons` for which values of a layer may be absent"""
        measured, derived = self.values[slot]
        kind, reasons = slot.partition(" ")[0], reasons | ({token.method} & {GREEDY, FORCED})
        return Observation(
            position=self.position, slot=slot, kind=token.kind,
            measured=complete(measured, kind, level, "measured", reasons), derived=complete(derived, kind, level, "derived", reasons),
        )  # fmt: skip
