"""The probe that records: copies taps, and gives back the observations of each position in the order of the ledger.

A run is one prompt and its steps. The positions in `steps` form a token each and are finished when it is known (`begin_step`);
all others are complete when their pass ends (`prompt_observations`). A pass that computes positions again, as one without a KV cache does,
is observed only where it is new.

During a pass taps are copied, and held against the rules that they must obey; all else about a step is left to a job (aside.py), of which a piece is
done whenever this pass or the next would wait for weights (`idle`).

Memory: during a layer its taps for all new positions of the pass; from then on finished positions lie on disk, and a step keeps its rows,
(4 + K + 1) D numbers a layer, until it is finished: cost.py says how much that is. With `spooled` steps lie on disk too, but for their last row; then
they are of the minimal level, which needs no other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from formation.errors import RuleBroken
from formation.kernels import ops
from formation.kernels.tensor import F32, I64
from formation.ledger.fields import ATTENTION_LAYER, DELTA_LAYER, DENSE, LEVELS, NO_BIAS, NO_SHARED, NOT_A_STEP, UNGATED
from formation.model.architecture import Shape
from formation.model.taps import Site, Tap
from formation.probe import readout
from formation.probe.aside import Aside, Job, Piece
from formation.probe.encode import Observation, Values, complete
from formation.probe.head import Head, MeanRow
from formation.probe.layer import HINT
from formation.probe.layer_probe import LayerProbe
from formation.probe.pending import PendingStep, Token
from formation.probe.sidecars import Sidecars
from formation.probe.spool import Spool

UNUSED = {Tap.FINAL_NORM, Tap.LOGITS}  # the caller has the logits
LARGE = {Tap.ATTENTION_WEIGHTS, Tap.DELTA_STATE}
KEPT_BYTES = 64 << 20  # of attention weights that wait to be summarised, and as much of states

Tape = list[tuple[Site, I64, F32 | I64]]
Write = Callable[[list[Observation]], Iterable[None]]


class Recorder:
    """`biases`: layer -> what its router adds to the scores [E]; empty for a router without. Levels: minimal, standard, full. `kinds`: what mixes
    positions in each layer; empty where attention does in all. `sidecars` get the rows. Positions before `first` were recorded earlier: a resumed run
    computes them again, unobserved. Without `later` nothing is left for later."""

    def __init__(
        self, shape: Shape, router: ops.Router, biases: Mapping[int, F32], steps: Collection[int], *,
        level: str = "standard", prompt_level: str = "minimal", sidecars: Sidecars | None = None, first: int = 0,
        threads: int = 1, later: bool = False, kinds: Sequence[str] = (), spooled: bool = False,
    ) -> None:  # fmt: skip
        if level not in LEVELS or prompt_level not in LEVELS:
            raise ValueError(f"recorder: expected levels of {', '.join(LEVELS)}, got {level} and {prompt_level}")
        if spooled and level != LEVELS[0]:
            raise ValueError(f"recorder: expected spooled steps of level {LEVELS[0]}, got {level}")
        self.shape, self.router, self.biases, self.steps = shape, router, biases, steps
        self._spooled_steps, self._last_rows = spooled, dict[int, F32]()
        self.level, self.prompt_level = level, prompt_level
        self.kinds = tuple(kinds) or ("attention",) * shape.layers
        self._next = first  # the first position that no finished pass has shown
        self.sidecars = sidecars
        self._open: LayerProbe | None = None  # the layer that is being shown
        self._tape: Tape = []  # what it showed and has not seen yet
        self._spool = Spool()
        self._prompt: list[int] = []  # spooled positions
        self._pending: dict[int, PendingStep] = {}
        self._mean = MeanRow(shape.hidden)
        self._aside = Aside(threads, later=later)
        self.idle = self._aside.do_one

    # ---- the probe

    def wants(self, tap: Tap) -> bool:
        return self._open.wants(tap) if self._open else tap not in (*UNUSED, Tap.ATTENTION_WEIGHTS)

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        new = positions >= self._next
        if site.tap in UNUSED or not new.any():
            return
        if not new.all():
            positions, values = positions[new], values[new]
        if site.tap is Tap.EMBEDDING:
            self._begin(positions, values)
            return
        layer = self._layer(site.layer)
        if self._can_wait(site, positions, values):
            self._tape.append((site, positions.copy(), values.copy()))
        else:
            layer(site, positions, values)
        if site.tap is Tap.RESIDUAL:
            self._close(layer, values)

    def _begin(self, positions: I64, values: F32 | I64) -> None:
        if int(positions[0]) != self._next:
            raise RuleBroken(f"embed at position {positions[0]}: expected position {self._next} next", hint=HINT)
        x: F32 = np.array(values, np.float32)
        self._prompt = [p for p in self._prompt if p < self._next] + [int(p) for p in positions if p not in self.steps]
        for position, row in zip(positions.tolist(), x, strict=True):
            measured = readout.embed_values(row)
            if self._is_kept(position):
                self._expect(position, row.copy(), measured)
            else:
                if self.sidecars:
                    self.sidecars.embed(position, row)
                self._store(position, "embed", measured, {}, set())
        self._open = self._new_layer(0, positions.copy(), x)

    def _is_kept(self, position: int) -> bool:
        return position in self.steps and not self._spooled_steps

    def _expect(self, position: int, x: F32, measured: Values) -> None:
        if position in self._pending:  # in a pass that failed
            self._pending.pop(position).job.cancel()
        self._pending[position] = PendingStep(position, x, measured, self.shape.layers, self._aside.job())

    def _new_layer(self, layer: int, positions: I64, x: F32) -> LayerProbe:
        self._tape = []
        bias, kind = self.biases.get(layer), self.kinds[layer]
        return LayerProbe(layer, positions, x, level=self._level, router=self.router, bias=bias, kind=kind)

    def _can_wait(self, site: Site, positions: I64, values: F32 | I64) -> bool:
        """In a pass over a single step, all that its layers show; attention weights and states as far as there is room for them."""
        assert self._open is not None
        if not self._aside.later or len(self._open.rows.positions) > 1 or not self._is_kept(int(positions[0])):
            return False
        waiting = 1 + self._pending[int(positions[0])].job.waiting
        return site.tap not in LARGE or waiting * values.nbytes <= KEPT_BYTES

    def _layer(self, layer: int) -> LayerProbe:
        if self._open is None or self._open.rows.layer != layer:
            raise RuleBroken(f"layer {layer}: expected layers in order, got one out of turn", hint=HINT)
        return self._open

    def _level(self, position: int) -> str:
        return self.level if position in self.steps else self.prompt_level

    # ---- the end of a layer

    def _close(self, layer: LayerProbe, after: F32 | I64) -> None:
        """x' [n, D]"""
        rows = layer.rows
        if self._tape:
            step = self._pending[int(rows.positions[0])]
            step.job.put(partial(self._play, layer, self._tape, step))
        else:
            self._record(layer)
        for position in rows.positions.tolist():
            if self._is_kept(position):
                self._pending[position].shown += 1
        if rows.layer + 1 < self.shape.layers:
            self._open = self._new_layer(rows.layer + 1, rows.positions, np.array(after, np.float32))
            return
        self._open = None
        self._next = int(rows.positions[-1]) + 1

    def _play(self, layer: LayerProbe, tape: Tape, step: PendingStep, threads: int) -> None:
        for site, positions, values in tape:
            layer(site, positions, values)
        for observed in layer.observed():
            step.add(observed)

    def _record(self, layer: LayerProbe) -> None:
        for observed in layer.observed():
            cell = observed.cell
            if self._is_kept(cell.position):
                self._pending[cell.position].add(observed)
                continue
            self._store(cell.position, f"layer {cell.layer}", observed.measured, observed.derived, self._reasons(cell.layer))
            if self.sidecars:
                self.sidecars.cell(cell)
            if cell.position in self.steps and cell.layer + 1 == self.shape.layers:
                self._last_rows[cell.position] = cell.after.copy()

    def _reasons(self, layer: int) -> set[str]:
        """Why values of this layer may be absent"""
        own = {DELTA_LAYER if self.kinds[layer] == "delta" else ATTENTION_LAYER}
        return own | ({DENSE} if layer < self.shape.dense_layers else {NO_SHARED, UNGATED} | (set() if self.biases else {NO_BIAS}))

    def _store(self, position: int, slot: str, measured: Values, derived: Values, reasons: set[str]) -> None:
        kind, level = slot.partition(" ")[0], self._level(position)
        reasons = reasons if position in self.steps else reasons | {NOT_A_STEP}
        whole = (complete(values, kind, level, tag, reasons) for tag, values in (("measured", measured), ("derived", derived)))
        self._spool.put(position, slot, *whole)

    # ---- what was observed

    def prompt_observations(self, before: int | None = None) -> Iterator[Observation]:
        """Of the positions (before this one) that are no steps and whose passes have ended, once each, in order."""
        end = self._next if before is None else min(before, self._next)
        ended = [position for position in self._prompt if position < end]
        self._prompt = self._prompt[len(ended) :]
        return self._spooled(ended)

    def _spooled(self, positions: list[int]) -> Iterator[Observation]:
        for position in positions:
            for slot, (measured, derived) in self._taken(position):
                yield Observation(position=position, slot=slot, kind="prompt", measured=measured, derived=derived)

    def _taken(self, position: int) -> Iterator[tuple[str, tuple[Values, Values]]]:
        for slot in ("embed", *(f"layer {layer}" for layer in range(self.shape.layers))):
            yield slot, self._spool.take(position, slot)

    def begin_step(self, position: int, token: Token, logits: F32, head: Head, write: Write) -> Job:
        """Everything about the step at `position`, whose logits [V] gave `token`, for `write`, which says between two things it does that others
        may go on; its rows are forgotten. `head` is in use until the job has been waited for, and so is `write`'s: one step at a time.

        Raises RuleBroken if a layer is missing; the job if the lens of the last row is not the engine's logits, bit for bit.
        """
        pending = self._unspooled(position) if position in self._last_rows else self._pending.pop(position, None)
        if pending is None or pending.shown != self.shape.layers:
            raise RuleBroken(f"step at position {position}: expected {self.shape.layers} layers, got fewer", hint=HINT)
        pending.job.go(self._phases(pending, token, np.array(logits, np.float32), head, write))
        return pending.job

    def _unspooled(self, position: int) -> PendingStep:
        """A step whose rows are beside the ledger already"""
        row = self._last_rows.pop(position)
        pending = PendingStep(position, row, {}, self.shape.layers, self._aside.job())
        pending.last, pending.shown, pending.values = row, self.shape.layers, dict(self._taken(position))
        return pending

    def _phases(self, pending: PendingStep, token: Token, logits: F32, head: Head, write: Write) -> Iterator[Iterable[Piece]]:
        yield from pending.phases(token, logits, head, self.level, self._mean)
        if self.sidecars and not self._spooled_steps:
            pending.put_rows(self.sidecars)
        for _ in write([pending.observation(slot, token, self.level, self._reasons_of_slot(slot)) for slot in pending.values]):
            yield []

    def finish_step(self, position: int, token: Token, logits: F32, head: Head) -> list[Observation]:
        """The same, at once"""
        found: list[Observation] = []

        def write(observations: list[Observation]) -> Iterable[None]:
            found.extend(observations)
            return ()

        self.begin_step(position, token, logits, head, write).wait()
        return found

    def _reasons_of_slot(self, slot: str) -> set[str]:
        _, _, layer = slot.partition(" ")
        return self._reasons(int(layer)) if layer else set()

    def close(self) -> None:
        """Lets go of files; sidecars that are not closed stay unfinished."""
        self._spool.close()
        if self.sidecars:
            self.sidecars.release()
