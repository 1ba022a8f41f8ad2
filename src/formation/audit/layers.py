"""Cells computed again: one at a time from the rows of all positions up to theirs, or a whole layer at once.

A cell (p, l) is what the layer l makes of row p at its start, attending to the keys of rows 0 to p, or reading from the state that these rows leave:
both follow from the rows. By the contract the bits are the same alone, in a batch, with a cache and without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from formation.audit.compare import Difference, Findings, Unopened, complete
from formation.audit.kept import KeptRows
from formation.audit.recorded import Ledger, Rows
from formation.audit.weights import Weights
from formation.errors import NonFiniteError
from formation.kernels.tensor import F32, I64, Tensor
from formation.ledger import canonical
from formation.ledger.fields import ATTENTION_LAYER, DELTA_LAYER, DENSE, FIELDS, NO_BIAS, NO_SHARED, NOT_A_STEP, UNGATED
from formation.model.architecture import Key, Model
from formation.model.linear import Modules
from formation.probe import step
from formation.probe.encode import Values
from formation.probe.layer import Cell
from formation.probe.layer_probe import LayerProbe, Observed

LENS = tuple(field.name for field in FIELDS if field.name.startswith(("lens_", "mid_lens_")))  # steps.py compares these
ATTRIBUTION = tuple(field.name for field in FIELDS if field.slot == "layer" and field.name.startswith("dla"))


class Layers:
    """`aims` are what attribution looks at, of the steps that have any cell to be computed again; `kept` gets what steps.py needs of these."""

    def __init__(
        self, model: Model, weights: Weights, ledger: Ledger, rows: Rows, findings: Findings, aims: Mapping[int, step.Target],
        kept: KeptRows, *, threads: int, chunk: int,
    ) -> None:  # fmt: skip
        self._model, self._weights, self._ledger, self._rows, self._findings = model, weights, ledger, rows, findings
        self._aims, self._kept = aims, kept
        self._threads, self._chunk = threads, chunk
        self.checked = 0  # cells

    def cells(self, layer: int, positions: Iterable[int], ahead: list[Key]) -> None:
        """These cells of one layer; what cannot be opened is a finding."""
        positions = sorted(positions)
        cache, filled = self._model.new_cache(layer, positions[-1] + 1), 0
        with self._weights.use(("layer", layer), ahead) as tensors:
            for position in positions:
                try:
                    for first in range(filled, position, self._chunk):
                        until = min(first + self._chunk, position)
                        x = self._start(layer, first, until)
                        self._model.remember(layer, x, span(first, until), cache, tensors, threads=self._threads, chunk=self._chunk)
                        filled = until
                    self._run(layer, tensors, self._start(layer, position, position + 1), position, cache)
                except Unopened as unopened:
                    self._findings.add(unopened.difference)
                else:
                    filled = position + 1

    def _start(self, layer: int, first: int, until: int) -> F32:
        """Committed rows of these positions at the layer's start [n, D]"""
        return np.stack([self._rows.residual(position, layer) for position in range(first, until)])

    def column(self, layer: int, x: F32 | None, ahead: list[Key]) -> F32 | None:
        """The layer at all positions, from rows x [T, D] or, with None, from the committed ones; x' [T, D], or None if there is none."""
        x = self._committed(layer) if x is None else x
        if not len(x):
            return None
        with self._weights.use(("layer", layer), ahead) as tensors:
            return self._run(layer, tensors, x, 0, self._model.new_cache(layer, len(x)))

    def _committed(self, layer: int) -> F32:
        """As many rows from the first as can be opened; the first that cannot is a finding, and so are the cells that it closes."""
        found: list[F32] = []
        for position in range(self._ledger.positions):
            if not self._findings.opened(lambda position=position: found.append(self._rows.residual(position, layer))):  # type: ignore[misc]
                break
        return np.stack(found) if found else np.empty((0, self._model.shape.hidden), np.float32)

    def _run(self, layer: int, tensors: Mapping[str, Tensor], x: F32, first: int, cache: object) -> F32 | None:
        positions = span(first, first + len(x))
        bias, kind = self._bias(layer, tensors), self._model.kind(layer)
        probe = LayerProbe(layer, positions, x, level=self._level, router=self._model.router, bias=bias, kind=kind)
        try:
            after = self._model.layer(
                layer, x, positions, cache, tensors, self._weights.experts, probe, threads=self._threads, chunk=self._chunk
            )  # fmt: skip
            for row, observed in zip(x, probe.observed(), strict=True):
                self._findings.opened(lambda row=row, observed=observed: self._compare(row, observed))  # type: ignore[misc]
        except (NonFiniteError, canonical.CanonicalRefusal) as error:
            self._findings.add(Difference(first, f"layer {layer}", "values", "finite ones", str(error)))
            return None
        return after

    def _bias(self, layer: int, tensors: Mapping[str, Tensor]) -> F32 | None:
        """What the router adds to the scores, held against the run line"""
        name = self._model.bias_name(layer) if layer >= self._model.shape.dense_layers else None
        if name is None:
            return None
        bias = Modules(tensors, "", 1).vector(name)
        recorded = self._ledger.run.biases.get(layer, ())
        self._findings.equal(-1, "run", f"router_biases of layer {layer}", bias.tolist(), list(recorded))
        return bias

    def _level(self, position: int) -> str:
        return self._ledger.run.step_level if position in self._ledger.steps else self._ledger.run.prompt_level

    def _compare(self, x: F32, observed: Observed) -> None:
        cell = observed.cell
        place, line = self._ledger.line(cell.position, f"layer {cell.layer}")
        known = observed.measured | observed.derived
        aim = self._aims.get(cell.position)
        if aim is not None:
            known |= attribution(x, observed, aim)
        elsewhere = () if place.kind == "prompt" else LENS if aim is not None else (*LENS, *ATTRIBUTION)
        self._keep(cell)
        self._findings.compare(place, line, complete(known, place, self._reasons(cell.layer, cell.position), elsewhere))
        self.checked += 1
        if self._rows.committed:
            self._rows.check_cell(place, line)

    def _keep(self, cell: Cell) -> None:
        if cell.position in self._ledger.steps:
            if not self._rows.committed:
                self._kept.put("residual", cell.position, cell.layer, cell.after)
            if self._ledger.run.step_level == "full":
                self._kept.put("after_attention", cell.position, cell.layer, cell.u)

    def _reasons(self, layer: int, position: int) -> set[str]:
        """Why values may be absent"""
        own = {DELTA_LAYER if self._model.kind(layer) == "delta" else ATTENTION_LAYER}
        own |= {DENSE} if layer < self._model.shape.dense_layers else {NO_SHARED, UNGATED, NO_BIAS}
        return own if position in self._ledger.steps else own | {NOT_A_STEP}


def attribution(x: F32, observed: Observed, aim: step.Target) -> Values:
    """Of a cell whose row at its start is x [D]"""
    cell = observed.cell
    return step.layer_attribution(x, step.StepLayer(cell.a, cell.u, cell.m, cell.after, observed.writes, observed.shared), aim)


def span(first: int, until: int) -> I64:
    return np.arange(first, until, dtype=np.int64)
