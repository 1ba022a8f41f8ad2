"""The run of one bundle, computed again piece by piece, as an execution comes by the weights that it needs.

With committed rows every layer starts from these, so that one bad layer hides no other. Without any, a full audit carries its own rows from the
ids on, and the ends of the tokens are checked when it has arrived there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from formation.audit.compare import Difference, Findings, Unopened
from formation.audit.kept import KeptRows
from formation.audit.layers import Layers, span
from formation.audit.recorded import Ledger, Rows
from formation.audit.report import Challenge
from formation.audit.steps import Steps
from formation.audit.weights import Used
from formation.kernels.ops import F64
from formation.kernels.tensor import F32, Tensor
from formation.model.architecture import Model
from formation.model.taps import Blind
from formation.probe import step
from formation.probe.head import ModelHead
from formation.probe.layer_probe import LayerProbe
from formation.run.order import Order

EMBEDDED = 256  # positions whose embeddings are read together


class Course:
    """`layers` and `steps` count what was executed; `cells` are positions by layer, for layers that are none of the `columns`."""

    def __init__(
        self, ledger: Ledger, rows: Rows, asked: Challenge, findings: Findings, model: Model, used: Used, kept: KeptRows, order: Order,
        spelling: Callable[[int], bytes], *, threads: int, chunk: int,
    ) -> None:  # fmt: skip
        self.findings, self.used, self.positions = findings, used, ledger.positions
        self.cells, self.columns = asked.by_layer(ledger.layers), frozenset(asked.columns)
        self.late = not rows.committed or ledger.run.step_level == "full"  # steps need rows that only the layers give
        self.attributed = ledger.run.step_level != "minimal"
        self._ledger, self._rows, self._asked, self._model, self._order = ledger, rows, asked, model, order
        self._ids: list[int] = []
        self._carried: F32 | None = None  # of a full audit without committed rows                            [T, D]
        self._aims: dict[int, step.Target] = {}
        self.layers = Layers(model, used, ledger, rows, findings, self._aims, kept, threads=threads, chunk=chunk)
        self.steps = Steps(ledger, rows, kept, findings, order.chooser, spelling, self._wanted())

    def starts(self) -> bool:
        """Whether every token's line could be read, so that there are ids to start from; if not, that is a finding."""
        self._ids = [*self._order.prompt_ids, *self._tokens()]
        if len(self._ids) <= self.positions:
            return False
        self._check_ends()
        return True

    def _tokens(self) -> Iterator[int]:
        """As the token lines have them; ends at one that cannot be had"""
        for position in self._ledger.steps:
            try:
                yield self._ledger.line(position, "token")[1]["measured"]["id"]
            except Unopened as unopened:
                self.findings.add(unopened.difference)
                return

    def _check_ends(self) -> None:
        """The run ended where its anchor says, and not before"""
        tokens = self._ids[len(self._order.prompt_ids) :]
        due = next((n for n in range(1, len(tokens) + 1) if self._order.is_over(tokens[:n])), None)
        got = f"{len(tokens)}, the last of them {tokens[-1]}"
        if due != len(tokens):
            wanted = f"at most {self._order.tokens} tokens, up to the first that ends the run"
            self.findings.add(Difference(-1, "run", "number of tokens", wanted, got))

    def _wanted(self) -> dict[int, list[int]]:
        """Step -> layers that are asked of it"""
        found = {position: set(self._asked.columns) for position in self._ledger.steps}
        for position, layer in self._asked.cells:
            if position in found:
                found[position].add(layer)
        return {position: sorted(layers) for position, layers in found.items() if layers}

    # ---- embedding and head

    def begin(self, head: ModelHead, mean: F64 | None) -> None:
        """Embeddings of all positions; of steps what attribution looks at and, if their rows are there, everything else. `mean` is lm_head's mean row
        [D], where anything is attributed."""
        self.used.note(("head",))
        wanted, steps = self._wanted(), self._ledger.steps
        kept = [] if self._rows.committed else [np.empty((0, self._model.shape.hidden), np.float32)]
        for position, x in self._embeddings():
            if not self._rows.committed:
                kept.append(x[None].copy())
            aim = self.steps.aim(position, head, mean) if self.attributed and mean is not None and position in steps else None
            self.findings.opened(lambda position=position, x=x, aim=aim: self.steps.check_embedding(position, x, aim))  # type: ignore[misc]
            if aim is not None and (self.late or position in wanted):
                self._aims[position] = aim
            if position in steps and not self.late:
                self.steps.check(position, head, aim)
        self._carried = np.concatenate(kept) if kept else None

    def _embeddings(self) -> Iterator[tuple[int, F32]]:
        """x_0 [D] of each position, from the checkpoint"""
        for first in range(0, self.positions, EMBEDDED):
            part = self._ids[first : min(first + EMBEDDED, self.positions)]
            positions = span(first, first + len(part))
            rows = self.used.weights.embedding_rows(part)
            yield from zip(positions.tolist(), self._model.embed(rows, positions, Blind()), strict=True)

    def end(self, head: ModelHead) -> None:
        """Of the steps what only the layers could give"""
        for position in self._ledger.steps:
            self.steps.check(position, head, self._aims.get(position))

    # ---- columns

    def rows_at(self, layer: int) -> F32 | None:
        """The rows that its column starts from [n, D], None if there is none"""
        x = self.layers.committed(layer) if self._rows.committed else self._carried
        return x if x is not None and len(x) else None

    def column(self, layer: int, x: F32, tensors: Mapping[str, Tensor]) -> None:
        """Computed for this bundle alone"""
        self._carry(self.layers.column(layer, x, tensors))

    def shown(self, layer: int, probe: LayerProbe, after: F32) -> None:
        """Computed with those of other bundles"""
        self._carry(self.layers.shown(layer, probe, after))

    def _carry(self, after: F32 | None) -> None:
        """Without committed rows nothing goes on from where there is none: the cells that are missing are missed in the count."""
        self._carried = None if self._rows.committed else after
