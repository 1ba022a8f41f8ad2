"""The computation of an audit, in the order of the weights: the head once for all tokens, then each layer once for all that is asked of it.

With committed rows every layer starts from these, so that one bad layer hides no other. Without any, a full audit carries its own rows from the
ids on, and the ends of the tokens are checked when it has arrived there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from formation.audit.compare import Difference, Findings, Unopened
from formation.audit.kept import KeptRows
from formation.audit.layers import Layers, span
from formation.audit.recorded import Ledger, Rows
from formation.audit.report import Challenge
from formation.audit.steps import Steps
from formation.audit.weights import Weights
from formation.kernels.tensor import F32
from formation.model.architecture import Key, Model
from formation.model.taps import Blind
from formation.probe import step
from formation.probe.head import ModelHead, mean_row
from formation.run.executor import Progress
from formation.run.order import Order

EMBEDDED = 256  # positions whose embeddings are read together


class Execution:
    """`layers` and `steps` count what was executed."""

    def __init__(
        self, ledger: Ledger, rows: Rows, asked: Challenge, findings: Findings, model: Model, weights: Weights, kept: KeptRows, order: Order,
        spelling: Callable[[int], bytes], *, threads: int, chunk: int, progress: Callable[[Progress], None] | None,
    ) -> None:  # fmt: skip
        self._ledger, self._rows, self._asked, self._findings = ledger, rows, asked, findings
        self._model, self._weights, self._order, self._threads, self._progress = model, weights, order, threads, progress
        self._began = time.monotonic()
        self._cells = asked.by_layer(ledger.layers)
        self._carried: F32 | None = None  # of a full audit without committed rows                            [T, D]
        self._aims: dict[int, step.Target] = {}
        self._late = not rows.committed or ledger.run.step_level == "full"  # steps need rows that only the layers give
        self.layers = Layers(model, weights, ledger, rows, findings, self._aims, kept, threads=threads, chunk=chunk)
        self.steps = Steps(ledger, rows, kept, findings, order.chooser, spelling, self._wanted())

    def run(self) -> None:
        ids = [*self._order.prompt_ids, *self._tokens()]
        if len(ids) <= self._ledger.positions:  # a token line could not be read: that is a finding
            return
        self._check_ends(ids)
        self._report("head", 0)
        with self._weights.use(("head",)) as tensors:
            self._begin(ids[: self._ledger.positions], ModelHead(self._model, tensors, threads=self._threads))
        self._run_layers()
        if self._late:
            self._report("head", self._ledger.layers)
            with self._weights.use(("head",)) as tensors:
                head = ModelHead(self._model, tensors, threads=self._threads)
                for position in self._ledger.steps:
                    self.steps.check(position, head, self._aims.get(position))
        self._report("done", self._ledger.layers)

    # ---- the run's own course

    def _tokens(self) -> Iterator[int]:
        """As the token lines have them; ends at one that cannot be had"""
        for position in self._ledger.steps:
            try:
                yield self._ledger.line(position, "token")[1]["measured"]["id"]
            except Unopened as unopened:
                self._findings.add(unopened.difference)
                return

    def _check_ends(self, ids: list[int]) -> None:
        """The run ended where its anchor says, and not before"""
        tokens = ids[len(self._order.prompt_ids) :]
        due = next((n for n in range(1, len(tokens) + 1) if self._order.is_over(tokens[:n])), None)
        got = f"{len(tokens)}, the last of them {tokens[-1]}"
        if due != len(tokens):
            wanted = f"at most {self._order.tokens} tokens, up to the first that ends the run"
            self._findings.add(Difference(-1, "run", "number of tokens", wanted, got))

    def _wanted(self) -> dict[int, list[int]]:
        """Step -> layers that are asked of it"""
        found = {position: set(self._asked.columns) for position in self._ledger.steps}
        for position, layer in self._asked.cells:
            if position in found:
                found[position].add(layer)
        return {position: sorted(layers) for position, layers in found.items() if layers}

    # ---- embedding and head

    def _begin(self, ids: list[int], head: ModelHead) -> None:
        """Embeddings of all positions; of steps what attribution looks at and, if their rows are there, everything else"""
        attributed = self._ledger.run.step_level != "minimal"
        mean = mean_row(head, self._model.shape.hidden) if attributed else None
        wanted = self._wanted()
        kept = [] if self._rows.committed else [np.empty((0, self._model.shape.hidden), np.float32)]
        for position, x in self._embeddings(ids):
            if not self._rows.committed:
                kept.append(x[None].copy())
            aim = self.steps.aim(position, head, mean) if mean is not None and position in self._ledger.steps else None
            self._findings.opened(lambda position=position, x=x, aim=aim: self.steps.check_embedding(position, x, aim))  # type: ignore[misc]
            if aim is not None and (self._late or position in wanted):
                self._aims[position] = aim
            if position in self._ledger.steps and not self._late:
                self.steps.check(position, head, aim)
        self._carried = np.concatenate(kept) if kept else None

    def _embeddings(self, ids: list[int]) -> Iterator[tuple[int, F32]]:
        """x_0 [D] of each position, from the checkpoint"""
        for first in range(0, len(ids), EMBEDDED):
            part = ids[first : first + EMBEDDED]
            positions = span(first, first + len(part))
            yield from zip(positions.tolist(), self._model.embed(self._weights.embedding_rows(part), positions, Blind()), strict=True)

    # ---- layers

    def _run_layers(self) -> None:
        due = sorted({*self._asked.columns, *self._cells})
        for place, layer in enumerate(due):
            self._report("layer", place, len(due))
            ahead: list[Key] = [("layer", due[place + 1])] if place + 1 < len(due) else [("head",)] if self._late else []
            if layer in self._cells:
                self.layers.cells(layer, self._cells[layer], ahead)
                continue
            after = self.layers.column(layer, self._carried, ahead)
            if not self._rows.committed:
                self._carried = after
                if after is None:  # nothing goes on from here: the cells that are missing are missed in the count
                    return

    def _report(self, stage: str, layer: int, layers: int | None = None) -> None:
        if self._progress:
            read, seconds = self._weights.stream.bytes_read, time.monotonic() - self._began
            self._progress(Progress(stage, layer, self._ledger.layers if layers is None else layers, self._ledger.positions, read, seconds))
