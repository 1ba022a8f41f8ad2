"""The computation of audits, in the order of the weights: the head once for all tokens, then each layer once for all that is asked of it, of all
bundles.

What is of one bundle ends that bundle's audit where it fails, and no other's. What is of the weights ends them all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from formation.audit.course import Course
from formation.audit.layers import NOT_FINITE
from formation.audit.weights import Weights
from formation.kernels.tensor import F32, Tensor
from formation.model.architecture import Key, Model
from formation.model.sequences import Several, Split, places, stretches
from formation.probe.head import ModelHead, mean_row
from formation.run.executor import Progress

Columns = Sequence[tuple[Course, F32]]  # of a layer, with the rows [n, D] that they start from


class Execution:
    def __init__(
        self, courses: Sequence[Course], model: Model, weights: Weights, *, threads: int, chunk: int, progress: Callable[[Progress], None] | None
    ) -> None:  # fmt: skip
        self._courses, self._model, self._weights = courses, model, weights
        self._threads, self._chunk, self._progress = threads, chunk, progress
        self._began = time.monotonic()

    def run(self) -> None:
        self._courses = [course for course in self._courses if self._starts(course)]
        if not self._courses:
            return
        self._report("head", 0)
        with self._head() as head:
            mean = mean_row(head, self._model.shape.hidden) if any(course.attributed for course in self._courses) else None
            for course in self._courses:
                with course.findings.alone():
                    course.begin(head, mean)
        self._run_layers()
        if late := [course for course in self._going() if course.late]:
            self._report("head", self._model.shape.layers)
            with self._head() as head:
                for course in late:
                    with course.findings.alone():
                        course.end(head)
        self._report("done", self._model.shape.layers)

    def _starts(self, course: Course) -> bool:
        started = []
        with course.findings.alone():
            started.append(course.starts())
        return any(started)

    def _going(self) -> list[Course]:
        return [course for course in self._courses if not course.findings.fault]

    @contextmanager
    def _head(self) -> Iterator[ModelHead]:
        with self._weights.use(("head",)) as tensors:
            yield ModelHead(self._model, tensors, threads=self._threads)

    # ---- layers

    def _run_layers(self) -> None:
        due = sorted({layer for course in self._going() for layer in (*course.columns, *course.cells)})
        last: list[Key] = [("head",)] if any(course.late for course in self._courses) else []
        for place, layer in enumerate(due):
            self._report("layer", place, len(due))
            self._run_layer(layer, [("layer", due[place + 1])] if place + 1 < len(due) else last)

    def _run_layer(self, layer: int, ahead: Sequence[Key]) -> None:
        cells, columns = [course for course in self._going() if layer in course.cells], self._columns(layer)
        if not cells and not columns:
            return
        with self._weights.use(("layer", layer), ahead) as tensors:
            for course in cells:
                with course.findings.alone():
                    course.layers.begin(layer, tensors)
                    course.layers.cells(layer, course.cells[layer], tensors)
            for course, _ in columns:
                course.layers.begin(layer, tensors)
            if len(columns) < 2 or not self._together(layer, columns, tensors):
                for course, x in columns:
                    with course.findings.alone():
                        course.column(layer, x, tensors)

    def _columns(self, layer: int) -> Columns:
        found = []
        for course in self._going():
            if layer in course.columns:
                with course.findings.alone():
                    if (x := course.rows_at(layer)) is not None:
                        found.append((course, x))
        return found

    def _together(self, layer: int, columns: Columns, tensors: Mapping[str, Tensor]) -> bool:
        """The layer over the rows of all of them at once, so that each of its experts is read once; False, and nothing done, where a value of any is
        not finite: whose, each alone will say."""
        probes = [course.layers.probe(layer, x, 0, tensors) for course, x in columns]
        caches = Several([self._model.new_cache(layer, len(x)) for _, x in columns])
        where = np.concatenate([places(number, 0, len(x)) for number, (_, x) in enumerate(columns)])
        try:
            after = self._model.layer(
                layer, np.concatenate([x for _, x in columns]), where, caches, tensors, self._weights.experts, Split(probes),
                threads=self._threads, chunk=self._chunk,
            )  # fmt: skip
        except NOT_FINITE:
            return False
        for (course, _), probe, (_, rows) in zip(columns, probes, stretches(where), strict=True):
            with course.findings.alone():
                course.shown(layer, probe, after[rows])
        return True

    def _report(self, stage: str, layer: int, layers: int | None = None) -> None:
        if self._progress:
            read, seconds = self._weights.stream.bytes_read, time.monotonic() - self._began
            positions = sum(course.positions for course in self._courses)
            self._progress(Progress(stage, layer, self._model.shape.layers if layers is None else layers, positions, read, seconds))
