"""The final norm and lm_head of a model, as attribution and lens need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from formation.kernels import ops, readout
from formation.kernels.ops import F64
from formation.kernels.tensor import F32, Tensor
from formation.model.architecture import Model
from formation.model.linear import Modules
from formation.model.taps import Blind, Site, Tap, require_finite
from formation.probe.aside import Piece, do_whole

BLOCK_ROWS = 256


class Head(Protocol):
    """`eps` is the final norm's epsilon as the engine adds it: rounded to binary32."""

    @property
    def eps(self) -> float: ...
    @property
    def threads(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...
    def norm_weight(self) -> F32: ...  # what rows are multiplied by                                         [D]
    def rows(self, ids: Sequence[int]) -> F32: ...  # of lm_head, widened                                    [n, D]
    def logits(self, x: F32) -> F32: ...  # of rows x [n, D], by the engine's own arithmetic                 [n, V]
    def normed(self, x: F32) -> F32: ...  # rows x [n, D] under the final norm                               [n, D]
    def some_logits(self, normed: F32, ids: slice, *, threads: int) -> F32: ...  # those of these tokens     [n, ids]
    def using(self, threads: int) -> Head: ...


class ModelHead:
    """The head of a model over the tensors of its part ("head",), which must stay in use as long as this is."""

    def __init__(self, model: Model, tensors: Mapping[str, Tensor], *, threads: int) -> None:
        self.eps = float(np.float32(model.eps))
        self.threads = threads
        self.vocabulary = model.shape.vocabulary
        self._model = model
        self._tensors = tensors
        self._use = Modules(tensors, model.prefix, threads)
        self._name = "model.embed_tokens" if model.tied else "lm_head"

    def using(self, threads: int) -> ModelHead:
        return ModelHead(self._model, self._tensors, threads=threads)

    def norm_weight(self) -> F32:
        stored = self._use.vector("model.norm.weight")
        return ops.add(stored, np.ones_like(stored), threads=1) if self._model.centred else stored

    def rows(self, ids: Sequence[int]) -> F32:
        return ops.gather(self._use.matrix(self._name), np.array(ids, np.int64), threads=self.threads)

    def logits(self, x: F32) -> F32:
        return self._model.head(x, np.zeros(len(x), np.int64), self._tensors, Blind(), threads=self.threads)

    def normed(self, x: F32) -> F32:
        return self._use.norm("model.norm", x, self._model.eps, centred=self._model.centred)

    def some_logits(self, normed: F32, ids: slice, *, threads: int) -> F32:
        """The same sums as in `logits`: a product with fewer rows of lm_head computes each of its sums alike."""
        matrix, count = self._use.matrix(self._name), ids.stop - ids.start
        found = ops.heads_linear(matrix, normed[:, None], stride=0, first=ids.start, rows=count, threads=threads)[:, 0]
        require_finite(Site(Tap.LOGITS), np.zeros(len(found), np.int64), found)
        return found


class MeanRow:
    """The mean of all rows of lm_head, what a component adds to the mean logit: one pass over the matrix, row after row, for the first who asks."""

    def __init__(self, width: int) -> None:
        self._sums = np.zeros(width, np.float64)
        self._count = 0

    def pieces(self, head: Head) -> list[Piece]:
        """The work that is left; one piece follows from another, as sums have an order."""

        def add(threads: int) -> Piece | None:
            end = min(self._count + BLOCK_ROWS, head.vocabulary)
            readout.column_sums(head.using(threads).rows(range(self._count, end)), self._sums, threads=threads)
            self._count = end
            return add if end < head.vocabulary else None

        return [add] if self._count < head.vocabulary else []

    def value(self) -> F64:
        """[D], when no work is left"""
        return self._sums / float(self._count)


def mean_row(head: Head, width: int) -> F64:
    """[D], at once"""
    mean = MeanRow(width)
    for piece in mean.pieces(head):
        do_whole(piece, head.threads)
    return mean.value()
