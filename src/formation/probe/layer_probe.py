"""A probe over one layer, whether it runs within a pass or alone: of every cell that it is shown, what the ledger says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from formation.kernels import ops
from formation.kernels.tensor import F32, I64
from formation.model.taps import Site, Tap
from formation.probe import readout
from formation.probe.encode import Values, digest, plain
from formation.probe.layer import Cell, LayerRows


@dataclass(frozen=True)
class Observed:
    """A cell and its values, but for attribution and lens, which need the step's token; `writes` [K, D] and `shared` [D] are what its experts
    added, their outputs times their gates."""

    cell: Cell
    measured: Values
    derived: Values
    writes: F32 | None
    shared: F32 | None


class LayerProbe:
    """`rows` takes the taps. `level` gives the capture level of a position; `bias` [E] is what the layer's router adds to its scores; `kind` says
    what mixes positions in the layer."""

    def __init__(
        self, layer: int, positions: I64, x: F32, *, level: Callable[[int], str], router: ops.Router, bias: F32 | None, kind: str = "attention"
    ) -> None:  # fmt: skip
        self._level, self._router, self._bias = level, router, bias
        detailed = frozenset(p for p in positions.tolist() if level(p) != "minimal")
        self.rows = LayerRows(layer, positions, x, detailed, kind)
        self._attended = bool(detailed)
        self._attention: dict[int, Values] = {}
        self._states: dict[int, Values] = {}
        self._hashes: dict[int, hashlib._Hash] = {}  # of states whose tails are still to come

    def wants(self, tap: Tap) -> bool:
        return tap is not Tap.ATTENTION_WEIGHTS or self._attended

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        if site.tap is Tap.ATTENTION_WEIGHTS:
            self._attend(positions, values)
        elif site.tap in (Tap.DELTA_STATE, Tap.DELTA_TAIL):
            self._remember(site.tap, positions, np.asarray(values, np.float32))
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

    def _remember(self, tap: Tap, positions: I64, values: F32) -> None:
        """The state after each position, then its tail: digested at once, as states are too many to keep. values [n, …]"""
        for position, part in zip(positions.tolist(), values, strict=True):
            if tap is Tap.DELTA_STATE:
                self._hashes[position] = hashlib.sha256(plain(part))
                self._states[position] = readout.state_values(part) if self._level(position) != "minimal" else {}
            elif (hashed := self._hashes.pop(position, None)) is not None:
                hashed.update(plain(part))
                self._states[position]["delta_state_sha256"] = hashed.hexdigest()

    def observed(self) -> Iterator[Observed]:
        """Position by position, when the layer has ended. Raises RuleBroken for what was not shown, or not computed so."""
        self.rows.check()
        return map(self._observe, self.rows.cells())

    def _observe(self, cell: Cell) -> Observed:
        measured = readout.row_values(cell.a, cell.u, cell.m, cell.after) | self._mixed(cell)
        derived: Values = {}
        writes = shared = None
        if cell.routed is not None:
            measured |= readout.routing_values(self._router, cell.routed, self._bias)
        if self._level(cell.position) != "minimal":
            measured |= self._attention.get(cell.position, {})
            derived = readout.share_values(cell.a, cell.m, cell.after)
        if cell.routed is not None and cell.outputs is not None:
            writes = readout.gated(cell.outputs, cell.routed.gates)
            measured |= readout.expert_values(cell.outputs, writes, cell.m)
        if cell.shared is not None:
            shared = cell.shared if cell.shared_gate is None else readout.gated(cell.shared[None], cell.shared_gate)[0]
            measured |= readout.shared_values(cell.shared, cell.shared_gate, shared, cell.m)
        return Observed(cell, measured, derived, writes, shared)

    def _mixed(self, cell: Cell) -> Values:
        """What the layer's attention, or its delta net, says of the position. Raises RuleBroken for a state that was not shown."""
        if self.rows.kind == "attention":
            return {"cache_entry_sha256": digest(*cell.mixer)}
        found = self._states.get(cell.position, {})
        if "delta_state_sha256" not in found:
            raise self.rows.missing(Tap.DELTA_TAIL if cell.position in self._states else Tap.DELTA_STATE, cell.position)
        return found | (readout.delta_values(*cell.mixer) if self._level(cell.position) != "minimal" else {})
