"""What one layer showed of the new positions of a pass: copies of its taps, held against the rules its parts obey bit for bit.

The rules: x + a = u; u + m = x'; m is the chosen experts' gated outputs in ascending id, then the shared expert's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formation.errors import RuleBroken
from formation.kernels import ops
from formation.kernels.tensor import F32, I64
from formation.model.moe import chunks
from formation.model.taps import Tap

CHECKED_ROWS = 64  # at once, so that checking takes no memory to speak of
HINT = "what was observed is not what was computed: nothing of this run can be recorded"


@dataclass(frozen=True)
class Routed:
    """What the router of a layer with experts made of one position: logits, scores, selection [E], chosen and gates [K]."""

    logits: F32
    scores: F32
    selection: F32
    chosen: I64
    gates: F32

    def copied(self) -> Routed:
        return Routed(self.logits.copy(), self.scores.copy(), self.selection.copy(), self.chosen.copy(), self.gates.copy())


@dataclass(frozen=True)
class Cell:
    """One layer at one position: a, u, m, x' [D]; views, valid while the layer's rows are. `mixer` is of attention what it keeps, (cache entry [C],);
    of a delta net its gates, (beta, decay) [H].

    `outputs` [K, D] and `shared` [D], before gates, are there only at detailed positions of layers that have them; `shared_gate` [1] if it has one.
    """

    layer: int
    position: int
    a: F32
    u: F32
    m: F32
    after: F32
    mixer: tuple[F32, ...]
    routed: Routed | None
    outputs: F32 | None = None
    shared: F32 | None = None
    shared_gate: F32 | None = None

    def copied(self) -> Cell:
        """One that stays when the layer's rows are gone, without what only shares are computed from"""
        rows = (self.a.copy(), self.u.copy(), self.m.copy(), self.after.copy())
        return Cell(self.layer, self.position, *rows, (), self.routed and self.routed.copied())


MIXER = {"attention": (Tap.CACHE_ENTRY,), "delta": (Tap.DELTA_BETA, Tap.DELTA_DECAY)}  # what each kind of layer must show of every position


class LayerRows:
    """Taps of layer `layer` at `positions` [n] (consecutive), whose residual at its start is x [n, D]."""

    def __init__(self, layer: int, positions: I64, x: F32, detailed: frozenset[int], kind: str = "attention") -> None:
        self.kind = kind
        self.layer = layer
        self.positions = positions
        self.x = x
        self._taps: dict[Tap, NDArray[np.generic]] = {Tap.EMBEDDING: x}
        self._shown: dict[Tap, NDArray[np.bool_]] = {}
        self._detailed = detailed  # positions whose experts' outputs are kept
        self._outputs: dict[int, F32] = {}  # position -> outputs of its chosen experts [K, D]
        self._shared: dict[int, F32] = {}  # position -> the shared expert's output [D]
        self._combination: F32 | None = None  # made with the first expert                                  [n, D]
        self._started = np.zeros(len(x), np.uint8)
        self._answered: NDArray[np.bool_] | None = None  # [n, K]: whose output was shown

    def put(self, tap: Tap, positions: I64, values: F32 | I64) -> None:
        if tap not in self._taps:
            self._taps[tap] = np.empty((len(self.positions), *values.shape[1:]), values.dtype)
            self._shown[tap] = np.zeros(len(self.positions), np.bool_)
        rows = positions - self.positions[0]
        self._taps[tap][rows] = values
        self._shown[tap][rows] = True

    def cells(self) -> Iterator[Cell]:
        """Each position's. Raises RuleBroken if a tensor was not shown."""
        taps = (Tap.ATTENTION_WRITE, Tap.AFTER_ATTENTION, Tap.MLP_WRITE, Tap.RESIDUAL, *MIXER[self.kind])
        rows = zip(*(self.floats(tap) for tap in taps), strict=True)
        for position, (a, u, m, after, *mixer), routed in zip(self.positions.tolist(), rows, self._routed(), strict=True):
            shared = self._shared.get(position)
            gate = None if shared is None or not self.shared_gated else self._row(Tap.SHARED_GATE, position)
            yield Cell(self.layer, position, a, u, m, after, tuple(mixer), routed, self._outputs.get(position), shared, gate)

    def _routed(self) -> Iterator[Routed | None]:
        if not self.has_experts:
            yield from [None] * len(self.positions)
            return
        logits, scores, selection = (self.floats(tap) for tap in (Tap.ROUTER_LOGITS, Tap.ROUTER_SCORES, Tap.ROUTER_SELECTION))
        yield from map(Routed, logits, scores, selection, self.chosen(), self.floats(Tap.GATES))

    def floats(self, tap: Tap) -> F32:
        """Copies of what was shown at `tap` [n, …]. Raises RuleBroken if a position is missing."""
        values = self._all(tap)
        assert values.dtype == np.float32
        return values  # type: ignore[return-value]

    def chosen(self) -> I64:
        return self._all(Tap.CHOSEN)  # type: ignore[return-value]

    @property
    def has_experts(self) -> bool:
        return Tap.CHOSEN in self._taps

    @property
    def shared_gated(self) -> bool:
        return Tap.SHARED_GATE in self._taps

    def _row(self, tap: Tap, position: int) -> F32:
        at = position - int(self.positions[0])
        return self.floats(tap)[at : at + 1]

    def missing(self, tap: Tap, position: int) -> RuleBroken:
        return self._broken(f"expected its {tap.replace('_', ' ')}, got none", position - int(self.positions[0]))

    def _all(self, tap: Tap) -> NDArray[np.generic]:
        shown = self._shown.get(tap)
        if shown is None or not shown.all():
            raise self.missing(tap, int(self.positions[0 if shown is None else int(shown.argmin())]))
        return self._taps[tap]

    def _broken(self, sentence: str, row: int) -> RuleBroken:
        return RuleBroken(f"layer {self.layer} at position {self.positions[row]}: {sentence}", hint=HINT)

    # ---- experts

    def put_expert(self, expert: int, positions: I64, output: F32) -> None:
        """Output [rows, D] of a chosen expert, or of the shared one (-1), before its gate"""
        rows = positions - self.positions[0]
        gates = self._gates(expert, rows) if expert >= 0 else self._shared_gates(rows)
        if self._combination is None:
            self._combination = np.empty_like(self.x)
        ops.accumulate(self._combination, self._started, rows, output, gates, threads=1)
        for row, values in zip(rows.tolist(), output, strict=True):
            if int(self.positions[row]) in self._detailed:
                self._keep(expert, row, values)

    def _gates(self, expert: int, rows: I64) -> F32:
        here = self.chosen()[rows] == expert  # [rows, K]
        if not here.any(axis=1).all():
            raise self._broken(f"expected experts that it chose, got expert {expert}", int(rows[here.any(axis=1).argmin()]))
        if self._answered is None:
            self._answered = np.zeros(self.chosen().shape, np.bool_)
        self._answered[rows] |= here
        gates: F32 = self.floats(Tap.GATES)[rows][here]
        return gates

    def _shared_gates(self, rows: I64) -> F32 | None:
        """Those of these rows, shown before their outputs; None if the shared expert has no gate. One that was not shown makes another sum than m"""
        return np.ascontiguousarray(self._taps[Tap.SHARED_GATE][rows], np.float32) if self.shared_gated else None

    def _keep(self, expert: int, row: int, values: F32) -> None:
        position = int(self.positions[row])
        if expert < 0:
            self._shared[position] = values.copy()
            return
        chosen = self.chosen()[row]
        kept = self._outputs.setdefault(position, np.empty((len(chosen), len(values)), np.float32))
        kept[np.flatnonzero(chosen == expert)[0]] = values

    # ---- rules

    def check(self) -> None:
        """Raises RuleBroken, naming layer and position, for a missing tensor or a broken rule."""
        a, u, m, after = (self.floats(tap) for tap in (Tap.ATTENTION_WRITE, Tap.AFTER_ATTENTION, Tap.MLP_WRITE, Tap.RESIDUAL))
        if self.has_experts:
            self._check_answers()
        for part in chunks(len(self.positions), CHECKED_ROWS):
            self._equal("x + a", ops.add(self.x[part], a[part], threads=1), "u", u[part], part.start)
            if self.has_experts and self._combination is not None:
                self._equal("the combination of its experts", self._combination[part], "m", m[part], part.start)
            self._equal("u + m", ops.add(u[part], m[part], threads=1), "x'", after[part], part.start)

    def _check_answers(self) -> None:
        answered = np.zeros(self.chosen().shape, np.bool_) if self._answered is None else self._answered
        if not answered.all():
            row, place = (int(i[0]) for i in np.nonzero(~answered))
            raise self._broken(f"expected the output of expert {self.chosen()[row, place]}, got none", row)

    def _equal(self, name: str, computed: F32, other: str, shown: F32, first: int) -> None:
        differs = computed.view(np.uint32) != shown.view(np.uint32)
        if differs.any():
            row, i = (int(axis[0]) for axis in np.nonzero(differs))
            raise self._broken(f"expected {name} = {other}, got {computed[row, i]!s} and {shown[row, i]!s} in dimension {i}", first + row)
