"""The forward pass over streamed weights, layer-major: each layer's weights are read once for all positions, of all sequences, of the pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from formation.errors import NonFiniteError
from formation.kernels.tensor import F32, I64, Tensor
from formation.model.architecture import Key, Model
from formation.model.quantisation import non_finite
from formation.model.sequences import Several, Split, places
from formation.model.taps import Blind, Probe
from formation.run.account import ReadLog
from formation.run.foresight import MOST_ROWS, Foresight, Luck
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


@dataclass(frozen=True)
class Stretch:
    """What a pass computes of one sequence: `ids`, which stand at positions first, first + 1, …; `caches` (one per layer) hold positions 0..first-1
    and receive these."""

    ids: Sequence[int]
    first: int
    caches: Sequence[Any]
    probe: Probe = field(default_factory=Blind)


def _ends(parts: Sequence[Stretch]) -> list[int]:
    """Of each stretch, the row after its last"""
    return list(accumulate(len(part.ids) for part in parts))


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
        self._layers: list[Key] = [("layer", layer) for layer in range(model.shape.layers)]
        self.resident = frozenset(plan.resident)
        self._to_pin = set(plan.resident)
        self._guess = guess
        self._few = False  # rows in the pass
        self._luck = Luck()
        self._arrived: Mapping[str, Tensor] = {}  # of the expert in use
        self._foresight: Foresight | None = None  # of the pass
        if guess:
            stream.pin(plan.routers)

    def forward(self, parts: Sequence[Stretch], *, rows: int = 1, hold_head: ExitStack | None = None) -> F32:
        """Logits of the last `rows` of each stretch, one after the other                                  [rows * len(parts), vocabulary]

        With rows 0 only the caches are filled. The head stays in use until `hold_head` is closed, if there is one.
        """
        began = time.monotonic()
        next_step = self._layers if rows == 1 else ()
        x, places, probe = self._through(parts, began, [("head",), *next_step] if rows else ())
        logits = np.empty((0, self.model.shape.vocabulary), np.float32)
        if rows:
            self._report("head", self.model.shape.layers, len(x), began)
            with ExitStack() as here:
                tensors = (hold_head or here).enter_context(self._use(("head",)))
                last = np.concatenate([np.arange(end - rows, end) for end in _ends(parts)])
                logits = self.model.head(x[last], places[last], tensors, probe, threads=self.threads)
        self._report("done", self.model.shape.layers, len(x), began)
        return logits

    def logits_at(self, parts: Sequence[Stretch], wanted: Sequence[Sequence[int]]) -> Iterator[F32]:
        """Logits [vocabulary] of each of the `wanted` positions, ascending, of each stretch: no more than HEAD_ROWS of them at a time in memory. The
        head is in use until the last is taken."""
        began = time.monotonic()
        x, places, _ = self._through(parts, began, [("head",)])
        begins = [end - len(part.ids) - part.first for part, end in zip(parts, _ends(parts), strict=True)]
        rows = [begin + position for begin, positions in zip(begins, wanted, strict=True) for position in positions]
        self._report("head", self.model.shape.layers, len(x), began)
        with self._use(("head",)) as tensors:
            for first in range(0, len(rows), HEAD_ROWS):
                some = rows[first : first + HEAD_ROWS]
                yield from self.model.head(x[some], places[some], tensors, Blind(), threads=self.threads)
        self._report("done", self.model.shape.layers, len(x), began)

    def _through(self, parts: Sequence[Stretch], began: float, after: Sequence[Key]) -> tuple[F32, I64, Probe]:
        """All layers: x [T, D], the places of its rows, and the probe of the pass. `after` is what will be needed after them."""
        ids = [i for part in parts for i in part.ids]
        where = np.concatenate([places(number, part.first, len(part.ids)) for number, part in enumerate(parts)])
        probe = parts[0].probe if len(parts) == 1 else Split([part.probe for part in parts])
        self._few, self._arrived = len(ids) <= MOST_ROWS, {}
        self._foresight = Foresight(self.model, self.stream, probe, self._luck, threads=self.threads) if self._guess and self._few else None
        probe = self._foresight or probe
        x = self.model.embed(self.reads.rows(self._embedding, ids), where, probe)
        for layer in range(self.model.shape.layers):
            self._report("layer", layer, len(ids), began)
            cache = parts[0].caches[layer] if len(parts) == 1 else Several([part.caches[layer] for part in parts])
            x = self._layer(layer, x, where, cache, probe, after)
        return x, where, probe

    def _layer(self, layer: int, x: F32, positions: np.ndarray, cache: Any, probe: Probe, after: Sequence[Key]) -> F32:
        with self._use(("layer", layer)) as tensors:
            self.stream.prefetch(self._ahead(layer, after))
            return self.model.layer(layer, x, positions, cache, tensors, self._experts, probe, threads=self.threads, chunk=self.chunk)

    def _ahead(self, layer: int, after: Sequence[Key]) -> list[Key]:
        """Always-needed parts to read while this layer computes: of those that come after it, and do not stay in memory, as many as the plan has
        room for beside it."""
        here, *rest = self._layers[layer:]
        return [key for key in (*rest, *after) if self._passes(key)][: 1 if self._passes(here) else 2]

    def _passes(self, key: Key) -> bool:
        return key not in self.resident or key in self._to_pin

    def _experts(self, layer: int, chosen: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Tensor]]]:
        """Asks for all of them at once; gives first what is in memory, where few rows wait for what comes later."""
        keys = {("expert", layer, expert): expert for expert in chosen}
        self.stream.prefetch(keys, first=True)
        if self._foresight and self.stream.reading:  # what is all in memory needs no guess
            self._foresight.look(layer, chosen)
        return self._arriving(keys)

    def _arriving(self, keys: dict[Key, int]) -> Iterator[tuple[int, Mapping[str, Tensor]]]:
        while keys:
            key = self.stream.first_there(keys) if self._few else next(iter(keys))
            with self._use(key) as self._arrived:
                yield keys.pop(key), self._arrived
        self._arrived = {}

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
                error.hint = error.hint or _culprit({**tensors, **self._arrived})  # what is wrong with an expert shows where it is used
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
