"""The forward pass over streamed weights, layer-major: each layer's weights are read once for all positions of the pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from formation.errors import NonFiniteError
from formation.kernels.tensor import F32, Tensor
from formation.model.architecture import Key, Model
from formation.model.quantisation import non_finite
from formation.model.taps import Blind, Probe
from formation.run.account import ReadLog
from formation.run.foresight import MOST_ROWS, Foresight
from formation.run.plan import Plan
from formation.weights.stream import WeightStream

HEAD_ROWS = 16  # whose logits are in memory together, where those of many positions are asked for


@dataclass(frozen=True)
class Progress:
    """Where a pass is: sent before each layer, before the head, and at the end."""

    stage: str  # "layer", "head" or "done"
    layer: int
    layers: int
    positions: int
    bytes_read: int  # from disk, since the engine began
    seconds: float  # of this pass


class Executor:
    """One model over one weight stream. Bits depend on the ids alone; plan, guesses, threads and probe change only memory and speed."""

    def __init__(
        self, model: Model, stream: WeightStream, plan: Plan, *, threads: int, progress: Callable[[Progress], None] | None, guess: bool = True
    ) -> None:  # fmt: skip
        self.model = model
        self.stream = stream
        self.chunk = plan.chunk
        self.threads = threads
        self.reads = ReadLog(stream)
        self._progress = progress
        self._names = stream.checkpoint.tensors
        self._embedding = model.part(("embedding",), self._names).names[0]
        self.resident = frozenset(plan.resident)
        self._to_pin = set(plan.resident)
        self._guess = guess
        self._foresight: Foresight | None = None  # of the pass
        if guess:
            stream.pin(plan.routers)

    def forward(
        self, ids: Sequence[int], first: int, caches: Sequence[Any], *, rows: int, probe: Probe | None = None, hold_head: ExitStack | None = None
    ) -> F32:  # fmt: skip
        """Logits of the last `rows` of `ids`, which stand at positions first, first + 1, …                [rows, vocabulary]

        `caches` (one per layer) hold positions 0..first-1 and receive these. With rows 0 only the caches are filled. The head stays in use until
        `hold_head` is closed, if there is one.
        """
        began = time.monotonic()
        probe = Blind() if probe is None else probe
        positions = np.arange(first, first + len(ids), dtype=np.int64)
        x = self._through(ids, positions, caches, probe, began, only_caches=not rows)
        logits = np.empty((0, self.model.shape.vocabulary), np.float32)
        if rows:
            self._report("head", self.model.shape.layers, len(ids), began)
            with ExitStack() as here:
                tensors = (hold_head or here).enter_context(self._use(("head",)))
                self.stream.prefetch([("layer", 0)])  # of the next step
                logits = self.model.head(x[-rows:], positions[-rows:], tensors, self._foresight or probe, threads=self.threads)
        self._report("done", self.model.shape.layers, len(ids), began)
        return logits

    def logits_at(self, ids: Sequence[int], caches: Sequence[Any], wanted: Sequence[int], probe: Probe | None = None) -> Iterator[F32]:
        """Logits [vocabulary] of each of the positions `wanted`, ascending, of `ids`, which stand at positions 0, 1, …: no more than HEAD_ROWS of
        them at a time in memory. The head is in use until the last is taken."""
        began, positions = time.monotonic(), np.arange(len(ids), dtype=np.int64)
        x = self._through(ids, positions, caches, Blind() if probe is None else probe, began)
        self._report("head", self.model.shape.layers, len(ids), began)
        with self._use(("head",)) as tensors:
            for first in range(0, len(wanted), HEAD_ROWS):
                some = np.array(wanted[first : first + HEAD_ROWS], np.int64)
                yield from self.model.head(x[some], some, tensors, Blind(), threads=self.threads)
        self._report("done", self.model.shape.layers, len(ids), began)

    def _through(
        self, ids: Sequence[int], positions: np.ndarray, caches: Sequence[Any], probe: Probe, began: float, *, only_caches: bool = False
    ) -> F32:  # fmt: skip
        """All layers                                                                                     [T, D]"""
        self._foresight = Foresight(self.model, self.stream, probe, threads=self.threads) if self._guess and len(ids) <= MOST_ROWS else None
        probe, last = self._foresight or probe, self.model.shape.layers - 1
        x = self.model.embed(self.reads.rows(self._embedding, ids), positions, probe)
        for layer in range(self.model.shape.layers):
            self._report("layer", layer, len(ids), began)
            x = self._layer(layer, x, positions, caches[layer], probe, last=layer == last and only_caches)
        return x

    def _layer(self, layer: int, x: F32, positions: np.ndarray, cache: Any, probe: Probe, *, last: bool) -> F32:
        with self._use(("layer", layer)) as tensors:
            self.stream.prefetch(self._after(layer, last))
            return self.model.layer(layer, x, positions, cache, tensors, self._experts, probe, threads=self.threads, chunk=self.chunk)

    def _after(self, layer: int, last: bool) -> list[Key]:
        """Always-needed parts to read while this layer computes."""
        if last:
            return []
        return [("layer", layer + 1) if layer + 1 < self.model.shape.layers else ("head",)]

    def _experts(self, layer: int, chosen: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Tensor]]]:
        keys = [("expert", layer, expert) for expert in chosen]
        self.stream.prefetch(keys, first=True)
        if self._foresight and self.stream.reading:  # what is all in memory needs no guess
            self._foresight.look(layer)
        for expert, key in zip(chosen, keys, strict=True):
            with self._use(key) as tensors:
                yield expert, tensors

    @contextmanager
    def _use(self, key: Key) -> Iterator[Mapping[str, Tensor]]:
        """A part's tensors, kept for ever if the plan says so. A non-finite activation is blamed on the tensor that caused it."""
        with self.stream.use(key) as tensors:
            if key in self._to_pin:
                self.stream.pin([key])  # it is here: this reads nothing
                self._to_pin.discard(key)
            try:
                yield tensors
            except NonFiniteError as error:
                error.hint = error.hint or _culprit(tensors)
                raise

    def _report(self, stage: str, layer: int, positions: int, began: float) -> None:
        if self._progress:
            self._progress(Progress(stage, layer, self.model.shape.layers, positions, self.stream.bytes_read, time.monotonic() - began))


def _culprit(tensors: Mapping[str, Tensor]) -> str | None:
    """A sentence about the first stored tensor that is not finite, if there is one."""
    for tensor in tensors.values():
        where = non_finite(tensor)
        if where is not None:
            return f"tensor {tensor.name} holds a non-finite value at element {where}: the checkpoint is damaged"
    return None
