"""Cells computed again: one at a time from the rows of all positions up to theirs, or a whole layer at once.

A cell (p, l) is what the layer l makes of row p at its start, attending to the keys of rows 0 to p, or reading from the state that these rows leave:
both follow from the rows. By the contract the bits are the same alone, in a batch, with a cache and without, and beside rows of other bundles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from formation.audit.compare import Difference, Findings, Unopened, complete
from formation.audit.kept import KeptRows
from formation.audit.recorded import Ledger, Rows
from formation.audit.weights import Used
from formation.errors import NonFiniteError
from formation.kernels.tensor import F32, I64, Tensor
from formation.ledger import canonical
from formation.ledger.fields import ATTENTION_LAYER, DELTA_LAYER, DENSE, FIELDS, NO_BIAS, NO_SHARED, NOT_A_STEP, UNGATED
from formation.model.architecture import Model
from formation.model.linear import Modules
from formation.probe import step
from formation.probe.encode import Values
from formation.probe.layer import Cell
from formation.probe.layer_probe import LayerProbe, Observed

NOT_FINITE = (NonFiniteError, canonical.CanonicalRefusal)  # what rows of huge numbers end in
LENS = tuple(field.name for field in FIELDS if field.name.startswith(("lens_", "mid_lens_")))  # steps.py compares these
ATTRIBUTION = tuple(field.name for field in FIELDS if field.slot == "layer" and field.name.startswith("dla"))


class Layers:
    """Of one bundle. `aims` are what attribution looks at, of the steps that have any cell to be computed again; `kept` gets what steps.py needs of
    these."""

    def __init__(
        self, model: Model, used: Used, ledger: Ledger, rows: Rows, findings: Findings, aims: Mapping[int, step.Target],
        kept: KeptRows, *, threads: int, chunk: int,
    ) -> None:  # fmt: skip
        self._model, self._used, self._ledger, self._rows, self._findings = model, used, ledger, rows, findings
        self._aims, self._kept = aims, kept
        self._threads, self._chunk = threads, chunk
        self.checked = 0  # cells

    def begin(self, layer: int, tensors: Mapping[str, Tensor]) -> None:
        """Before cells or a column of the layer: its tensors are used, and what its router adds to the scores is held against the run line."""
        self._used.note(("layer", layer))
        bias = self._bias(layer, tensors)
        if bias is not None:
            recorded = self._ledger.run.biases.get(layer, ())
            self._findings.equal(-1, "run", f"router_biases of layer {layer}", bias.tolist(), list(recorded))

    # ---- single cells

    def cells(self, layer: int, positions: Iterable[int], tensors: Mapping[str, Tensor]) -> None:
        """These cells of one layer; what cannot be opened is a finding."""
        positions = sorted(positions)
        cache, filled = self._model.new_cache(layer, positions[-1] + 1), 0
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

    # ---- columns

    def committed(self, layer: int) -> F32:
        """As many rows at the layer's start from the first as can be opened [n, D]; the first that cannot is a finding, and so are the cells that it
        closes."""
        found: list[F32] = []
        for position in range(self._ledger.positions):
            if not self._findings.opened(lambda position=position: found.append(self._rows.residual(position, layer))):  # type: ignore[misc]
                break
        return np.stack(found) if found else np.empty((0, self._model.shape.hidden), np.float32)

    def column(self, layer: int, x: F32, tensors: Mapping[str, Tensor]) -> F32 | None:
        """The layer at positions 0, 1, … from rows x [T, D] at its start, computed for this bundle alone: x' [T, D], or None if there is none."""
        return self._run(layer, tensors, x, 0, self._model.new_cache(layer, len(x)))

    def probe(self, layer: int, x: F32, first: int, tensors: Mapping[str, Tensor]) -> LayerProbe:
        """For rows x [n, D] at the layer's start, of positions from `first` on"""
        bias, kind = self._bias(layer, tensors), self._model.kind(layer)
        positions = span(first, first + len(x))
        return LayerProbe(layer, positions, x, level=self._level, router=self._model.router, bias=bias, kind=kind)

    def shown(self, layer: int, probe: LayerProbe, after: F32) -> F32 | None:
        """A column that was computed with those of other bundles, as the probe saw it: x' [T, D], or None where a value is not finite."""
        if probe.rows.has_experts:
            self._used.note(*(("expert", layer, expert) for expert in np.unique(probe.rows.chosen()).tolist()))
        return self._compared(layer, 0, probe, lambda: after)

    # ---- what was computed

    def _run(self, layer: int, tensors: Mapping[str, Tensor], x: F32, first: int, cache: object) -> F32 | None:
        probe = self.probe(layer, x, first, tensors)
        positions, experts = span(first, first + len(x)), self._used.experts
        return self._compared(
            layer, first, probe,
            lambda: self._model.layer(layer, x, positions, cache, tensors, experts, probe, threads=self._threads, chunk=self._chunk),
        )  # fmt: skip

    def _compared(self, layer: int, first: int, probe: LayerProbe, computed: Callable[[], F32]) -> F32 | None:
        """What was `computed` and shown to the probe, held against the lines; None, and a finding, where a value is not finite."""
        try:
            after = computed()
            for row, observed in zip(probe.rows.x, probe.observed(), strict=True):
                self._findings.opened(lambda row=row, observed=observed: self._compare(row, observed))  # type: ignore[misc]
        except NOT_FINITE as error:
            self._findings.add(Difference(first, f"layer {layer}", "values", "finite ones", str(error)))
            return None
        return after

    def _bias(self, layer: int, tensors: Mapping[str, Tensor]) -> F32 | None:
        name = self._model.bias_name(layer) if layer >= self._model.shape.dense_layers else None
        return Modules(tensors, "", 1).vector(name) if name else None

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
