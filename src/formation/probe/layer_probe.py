"""A probe over one layer, whether it runs within a pass or alone: of every cell that it is shown, what the ledger says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from formation.kernels import ops
from formation.kernels.tensor import F32, I64
from formation.model.taps import Site, Tap
from formation.probe import readout
from formation.probe.encode import Values
from formation.probe.layer import Cell, LayerRows


@dataclass(frozen=True)
class Observed:
    """A cell and its values, but for attribution and lens, which need the step's token; `writes` [K, D] are its experts' gated outputs."""

    cell: Cell
    measured: Values
    derived: Values
    writes: F32 | None


class LayerProbe:
    """`rows` takes the taps. `level` gives the capture level of a position; `bias` [E] is what the layer's router adds to its scores."""

    def __init__(
        self, layer: int, positions: I64, x: F32, *, level: Callable[[int], str], router: ops.Router, bias: F32 | None
    ) -> None:  # fmt: skip
        self._level, self._router, self._bias = level, router, bias
        detailed = frozenset(p for p in positions.tolist() if level(p) != "minimal")
        self.rows = LayerRows(layer, positions, x, detailed)
        self._attended = bool(detailed)
        self._attention: dict[int, Values] = {}

    def wants(self, tap: Tap) -> bool:
        return tap is not Tap.ATTENTION_WEIGHTS or self._attended

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        if site.tap is Tap.ATTENTION_WEIGHTS:
            self._attend(positions, values)
        elif site.tap is Tap.EXPERT_OUTPUT:
            self.rows.put_expert(site.expert, positions, np.ascontiguousarray(values))
        else:
            self.rows.put(site.tap, positions, values)

    def _attend(self, positions: I64, values: F32 | I64) -> None:
        """Summaries at once: weights over all keys are too many to keep. values [T, H, keys]"""
        for position, weights in zip(positions.tolist(), values, strict=True):
            level = self._level(position)
            if level != "minimal":
                own = np.array(weights[:, : position + 1], np.float32)  # zeros beyond
                self._attention[position] = readout.attention_values(own, by_head=level == "full")

    def observed(self) -> Iterator[Observed]:
        """Position by position, when the layer has ended. Raises RuleBroken for what was not shown, or not computed so."""
        self.rows.check()
        return map(self._observe, self.rows.cells())

    def _observe(self, cell: Cell) -> Observed:
        measured = readout.row_values(cell.a, cell.u, cell.m, cell.after, cell.cache_entry)
        derived: Values = {}
        writes = None
        if cell.routed is not None:
            measured |= readout.routing_values(self._router, cell.routed, self._bias)
        if self._level(cell.position) != "minimal":
            measured |= self._attention.get(cell.position, {})
            derived = readout.share_values(cell.a, cell.m, cell.after)
        if cell.routed is not None and cell.outputs is not None:
            writes = readout.gated(cell.outputs, cell.routed.gates)
            measured |= readout.expert_values(cell.outputs, writes, cell.shared, cell.m)
        return Observed(cell, measured, derived, writes)
