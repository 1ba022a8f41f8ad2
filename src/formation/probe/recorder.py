"""The probe that records: copies taps, and gives back the observations of each position in the order of the ledger.

A run is one prompt and its steps. The positions in `steps` form a token each and can be finished only when it is known (`finish_step`);
all others are complete when their pass ends (`prompt_observations`). A pass that computes positions again, as one without a KV cache does,
is observed only where it is new.

Memory: during a layer its taps for all new positions of the pass; from then on finished positions lie on disk, and a step keeps its rows,
(4 + K + 1) D numbers a layer, until it is finished: cost.py says how much that is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from formation.errors import RuleBroken
from formation.kernels import ops
from formation.kernels.ops import F64
from formation.kernels.tensor import F32, I64
from formation.ledger.fields import DENSE, LEVELS, NO_BIAS, NO_SHARED, NOT_A_STEP
from formation.model.architecture import Shape
from formation.model.taps import Site, Tap
from formation.probe import readout
from formation.probe.encode import Observation, Values, complete
from formation.probe.head import Head, mean_row
from formation.probe.layer import HINT
from formation.probe.layer_probe import LayerProbe, Observed
from formation.probe.pending import PendingStep, Token
from formation.probe.sidecars import Sidecars
from formation.probe.spool import Spool
from formation.probe.step import StepLayer

UNUSED = {Tap.FINAL_NORM, Tap.LOGITS}  # the caller has the logits


class Recorder:
    """`biases`: layer -> what its router adds to the scores [E]; empty for a router without. Levels: minimal, standard, full.
    `sidecars` get each row as it is observed. Positions before `first` were recorded earlier: a resumed run computes them again, unobserved."""

    def __init__(
        self, shape: Shape, router: ops.Router, biases: Mapping[int, F32], steps: range, *,
        level: str = "standard", prompt_level: str = "minimal", sidecars: Sidecars | None = None, first: int = 0,
    ) -> None:  # fmt: skip
        if level not in LEVELS or prompt_level not in LEVELS:
            raise ValueError(f"recorder: expected levels of {', '.join(LEVELS)}, got {level} and {prompt_level}")
        self.shape, self.router, self.biases, self.steps = shape, router, biases, steps
        self.level, self.prompt_level = level, prompt_level
        self._next = first  # the first position that no finished pass has shown
        self.sidecars = sidecars
        self._open: LayerProbe | None = None  # the layer that is being shown
        self._spool = Spool()
        self._prompt: list[int] = []  # spooled positions
        self._pending: dict[int, PendingStep] = {}
        self._mean_row: F64 | None = None

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
        layer(site, positions, values)
        if site.tap is Tap.RESIDUAL:
            self._close(layer)

    def _begin(self, positions: I64, values: F32 | I64) -> None:
        if int(positions[0]) != self._next:
            raise RuleBroken(f"embed at position {positions[0]}: expected position {self._next} next", hint=HINT)
        x: F32 = np.array(values, np.float32)
        self._prompt = [p for p in self._prompt if p < self._next] + [int(p) for p in positions if p not in self.steps]
        for position, row in zip(positions.tolist(), x, strict=True):
            measured = readout.embed_values(row)
            if self.sidecars:
                self.sidecars.embed(position, row)
            if position in self.steps:
                self._pending[position] = PendingStep(position, row.copy(), measured)
            else:
                self._store(position, "embed", measured, {}, {NOT_A_STEP})
        self._open = self._new_layer(0, positions.copy(), x)

    def _new_layer(self, layer: int, positions: I64, x: F32) -> LayerProbe:
        return LayerProbe(layer, positions, x, level=self._level, router=self.router, bias=self.biases.get(layer))

    def _layer(self, layer: int) -> LayerProbe:
        if self._open is None or self._open.rows.layer != layer:
            raise RuleBroken(f"layer {layer}: expected layers in order, got one out of turn", hint=HINT)
        return self._open

    def _level(self, position: int) -> str:
        return self.level if position in self.steps else self.prompt_level

    # ---- the end of a layer

    def _close(self, layer: LayerProbe) -> None:
        for observed in layer.observed():
            self._record(observed)
            if self.sidecars:
                self.sidecars.cell(observed.cell)
        rows = layer.rows
        if rows.layer + 1 < self.shape.layers:
            self._open = self._new_layer(rows.layer + 1, rows.positions, rows.floats(Tap.RESIDUAL))
            return
        self._open = None
        self._next = int(rows.positions[-1]) + 1

    def _record(self, observed: Observed) -> None:
        cell, measured, derived = observed.cell, observed.measured, observed.derived
        if cell.position in self.steps:
            kept = StepLayer(cell.a.copy(), cell.u.copy(), cell.m.copy(), cell.after.copy(), observed.writes, cell.shared)
            self._pending[cell.position].add(kept, measured, derived)
        else:
            self._store(cell.position, f"layer {cell.layer}", measured, derived, self._reasons(cell.layer) | {NOT_A_STEP})

    def _reasons(self, layer: int) -> set[str]:
        """Why values of this layer may be absent"""
        return {DENSE} if layer < self.shape.dense_layers else {NO_SHARED} | (set() if self.biases else {NO_BIAS})

    def _store(self, position: int, slot: str, measured: Values, derived: Values, reasons: set[str]) -> None:
        kind, level = slot.partition(" ")[0], self.prompt_level
        whole = (complete(values, kind, level, tag, reasons) for tag, values in (("measured", measured), ("derived", derived)))
        self._spool.put(position, slot, *whole)

    # ---- what was observed

    def prompt_observations(self) -> Iterator[Observation]:
        """Of the positions that are no steps and whose passes have ended, once each, in order."""
        while self._prompt and self._prompt[0] < self._next:
            position = self._prompt.pop(0)
            for slot in ("embed", *(f"layer {layer}" for layer in range(self.shape.layers))):
                measured, derived = self._spool.take(position, slot)
                yield Observation(position=position, slot=slot, kind="prompt", measured=measured, derived=derived)

    def finish_step(self, position: int, token: Token, logits: F32, head: Head) -> list[Observation]:
        """Everything about the step at `position`, whose logits [V] gave `token`; its rows are forgotten.

        Raises RuleBroken if the lens of the last row is not the engine's logits, bit for bit, or if a layer is missing.
        """
        pending = self._pending.pop(position, None)
        if pending is None or len(pending.layers) != self.shape.layers:
            raise RuleBroken(f"step at position {position}: expected {self.shape.layers} layers, got fewer", hint=HINT)
        if self.level != "minimal" and self._mean_row is None:
            self._mean_row = mean_row(head, self.shape.hidden)
        pending.finish(token, logits, head, self.level, self._mean_row)
        return [pending.observation(slot, token, self.level, self._reasons_of_slot(slot)) for slot in pending.values]

    def _reasons_of_slot(self, slot: str) -> set[str]:
        _, _, layer = slot.partition(" ")
        return self._reasons(int(layer)) if layer else set()

    def close(self) -> None:
        """Lets go of files; sidecars that are not closed stay unfinished."""
        self._spool.close()
        if self.sidecars:
            self.sidecars.release()
