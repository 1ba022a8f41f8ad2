"""The final norm and lm_head of a checkpoint, a block of rows at a time: what is computed from them needs no room for them.

A block has the same rows whatever the memory, so that nothing that is summed over blocks depends on it. A quantised lm_head, whose scales span rows,
is read whole. Letters: V vocabulary, D width, B rows of a block, K states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from formation.dialogue.named import check_id
from formation.errors import BudgetError
from formation.kernels import ops
from formation.kernels.tensor import F32, Tensor, Weight
from formation.model.catalog import read_model
from formation.model.linear import PLAIN, Modules
from formation.model.taps import Site, Tap, require_finite
from formation.run import machine
from formation.run.check import check_tensors
from formation.weights.checkpoint import Checkpoint
from formation.weights.layout import Key, slot_bytes
from formation.weights.stream import Unit, WeightStream

BLOCK_ROWS = 128
WORK = 48  # bytes of scratch memory for each number of a block, and less than that
NORM, WHOLE = ("norm",), ("matrix",)
Passing = Callable[[str, int, int, int], None]  # what is done, rows so far, rows in all, bytes read since the head was opened


@dataclass(frozen=True)
class Block:
    """Rows [first, first + count) of lm_head; `at` is where they begin in `weight`."""

    first: int
    count: int
    weight: Weight
    at: int
    threads: int

    def rows(self) -> F32:
        """Widened, or dequantised                                                                                     [B, D]"""
        return ops.gather(self.weight, np.arange(self.at, self.at + self.count), threads=self.threads)

    def logits(self, normed: F32) -> F32:
        """Of rows [K, D] under the final norm, with the bits of the model's own head                                  [K, B]"""
        return ops.heads_linear(self.weight, normed[:, None], stride=0, first=self.at, rows=self.count, threads=self.threads)[:, 0]

    def mixed(self, weights: F32) -> F32:
        """The rows, weighed [K, B] and added                                                                          [K, D]"""
        return ops.heads_linear_t(self.weight, np.ascontiguousarray(weights[:, None]), stride=0, first=self.at, threads=self.threads)[:, 0]


class LmHead:
    """Opened on a checkpoint under a memory budget, of which `taken` bytes are somebody else's. Close it, or use it as a context manager.

    What fits into the budget is read once; else every pass reads it again. `digests` holds, after the first pass, the SHA-256 of each tensor.
    Raises what opening a model raises, and BudgetError.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, memory: str | int | None = None, threads: int | None = None, taken: int = 0, progress: Passing | None = None
    ) -> None:  # fmt: skip
        self.checkpoint = checkpoint
        self.model = read_model(checkpoint.config)
        self.threads = threads or machine.cores()
        self.vocabulary, self.width = self.model.shape.vocabulary, self.model.shape.hidden
        self.digests: dict[str, str] = {}
        self._progress = progress
        norm, *matrix = check_tensors(self.model, checkpoint)[("head",)].names
        self._norm, self._matrix = norm, tuple(matrix)
        self._plain = len(matrix) == 1 and checkpoint.tensors[matrix[0]].dtype in PLAIN
        self._units = {unit.key: unit for unit in self._parts()}
        budget = machine.default_budget_bytes() if memory is None else machine.parse_bytes(memory)
        self._keep, room = self._room(budget, taken)
        self._stream = WeightStream(checkpoint, self._units.values(), room)
        self._pinned: set[Key] = set()

    def _parts(self) -> Iterator[Unit]:
        yield Unit(NORM, (self._norm,))
        if not self._plain:
            yield Unit(WHOLE, self._matrix)
        for first in range(0, self.vocabulary if self._plain else 0, BLOCK_ROWS):
            yield Unit((*WHOLE, first), self._matrix, (first, min(BLOCK_ROWS, self.vocabulary - first)))

    def _room(self, budget: int, taken: int) -> tuple[bool, int]:
        """Whether all of it stays in memory, and what the weights may take of the budget"""
        sizes = [slot_bytes(unit, self.checkpoint.tensors) for unit in self._units.values()]
        work = taken + BLOCK_ROWS * self.width * WORK
        least = work + sizes[0] + 3 * max(sizes) if self._plain else work + sum(sizes)
        if least > budget:
            raise BudgetError(
                f"memory budget: expected at least {machine.show_bytes(least)} for lm_head in blocks, got {machine.show_bytes(budget)}",
                hint=f"give --memory {-(-least // 2**20)}MiB or more",
            )  # fmt: skip
        return work + sum(sizes) <= budget, budget - work

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()

    @property
    def bytes_read(self) -> int:
        return self._stream.bytes_read

    @contextmanager
    def _use(self, key: Key) -> Iterator[Mapping[str, Tensor]]:
        with self._stream.use(key) as tensors:
            if self._keep and key not in self._pinned:
                self._stream.pin([key])  # it is here: this reads nothing
                self._pinned.add(key)
            yield tensors

    def norm_weight(self) -> F32:
        """What the final norm multiplies by, one added already where it is stored without                             [D]"""
        with self._use(NORM) as tensors:
            self.digests[self._norm] = hashlib.sha256(tensors[self._norm].data.data).hexdigest()
            stored = Modules(tensors, "", 1).vector(self._norm)
        return ops.add(stored, np.ones_like(stored), threads=1) if self.model.centred else stored

    def normed(self, x: F32) -> F32:
        """Rows x [K, D] under the final norm, by the model's own arithmetic"""
        with self._use(NORM) as tensors:
            found = Modules(tensors, "", self.threads).norm(self._norm.removesuffix(".weight"), x, self.model.eps, centred=self.model.centred)
        require_finite(Site(Tap.FINAL_NORM), np.zeros(len(found), np.int64), found)
        return found

    def blocks(self, what: str) -> Iterator[Block]:
        """One pass over lm_head; `what` is for whoever watches. Raises ReadError."""
        first_pass = not self.digests.keys() & set(self._matrix)
        digest = hashlib.sha256()
        for first in range(0, self.vocabulary, BLOCK_ROWS):
            count = min(BLOCK_ROWS, self.vocabulary - first)
            with self._use((*WHOLE, first) if self._plain else WHOLE) as tensors:
                if self._plain and first + count < self.vocabulary:
                    self._stream.prefetch([(*WHOLE, first + BLOCK_ROWS)])
                if first_pass:
                    self._hash(tensors, digest)
                yield Block(first, count, self._weight(tensors), 0 if self._plain else first, self.threads)
            if self._progress:
                self._progress(what, first + count, self.vocabulary, self.bytes_read)
        if first_pass and self._plain:
            self.digests[self._matrix[0]] = digest.hexdigest()

    def _hash(self, tensors: Mapping[str, Tensor], digest: Any) -> None:
        if self._plain:
            digest.update(tensors[self._matrix[0]].data.data)
        elif not self.digests.keys() & set(self._matrix):
            self.digests |= {name: hashlib.sha256(tensors[name].data.data).hexdigest() for name in self._matrix}

    def _weight(self, tensors: Mapping[str, Tensor]) -> Weight:
        return Modules(tensors, "", self.threads).matrix(self._matrix[0].rpartition(".")[0])

    def rows(self, ids: Sequence[int]) -> F32:
        """Of lm_head, widened                                                                                         [n, D]"""
        for token in ids:
            check_id(token, self.vocabulary)
        found = np.empty((len(ids), self.width), np.float32)
        for place, token in enumerate(ids):
            first = token // BLOCK_ROWS * BLOCK_ROWS
            with self._use((*WHOLE, first) if self._plain else WHOLE) as tensors:
                at = np.array([token - first if self._plain else token])
                found[place] = ops.gather(self._weight(tensors), at, threads=1)[0]
        return found
