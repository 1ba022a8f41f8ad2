"""Mutations made by other processes, beside the attacks: a verifier that takes its whole process down is found here too."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from formation.certify import mutations
from formation.certify.forgery import Files, Scene
from formation.certify.judge import Judge
from formation.certify.mutations import Tally

CHUNK = 25  # mutations that a process makes at a time
SMALL = 1 << 12  # bytes of a file of which every bit is flipped, if that is asked for


@dataclass(frozen=True)
class Task:
    """Mutations by their numbers; of a file, if one is named, by its bits."""

    seed: int
    numbers: range
    file: str = ""

    def make(self, judge: Judge) -> Tally:
        if self.file:
            return mutations.flip_every_bit(judge, self.file, self.numbers)
        return mutations.run(judge, self.seed, self.numbers)

    def __str__(self) -> str:
        what = f"bits of {self.file}" if self.file else "mutations"
        return f"{what} {self.numbers[0]} to {self.numbers[-1]}"


def tasks(scene: Scene, seed: int, count: int, *, every_bit: bool) -> Iterator[Task]:
    yield from (Task(seed, chunk) for chunk in chunks(count, CHUNK))
    if every_bit:
        for name, data in scene.files.items():
            if len(data) <= SMALL:
                yield from (Task(seed, chunk, name) for chunk in chunks(8 * len(data), 8 * CHUNK))


def chunks(count: int, size: int) -> list[range]:
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


class Crew:
    """Begins at once; `tally` waits. Results do not depend on how many processes there are."""

    def __init__(self, judge: Judge, seed: int, count: int, processes: int, *, every_bit: bool = False) -> None:
        self._judge = judge
        self._tasks = list(tasks(judge.scene, seed, count, every_bit=every_bit))
        self._pool: ProcessPoolExecutor | None = None
        self._futures: list[Future[Tally]] = []
        if processes and self._tasks:
            context, scene = multiprocessing.get_context("spawn"), judge.scene
            self._pool = ProcessPoolExecutor(processes, context, initializer=prepare, initargs=(dict(scene.files), scene.seed))
            self._futures = [self._pool.submit(work, task) for task in self._tasks]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def tally(self, progress: Callable[[int, int], None]) -> Tally:
        total, count = Tally(), sum(len(task.numbers) for task in self._tasks)
        for number, task in enumerate(self._tasks):
            progress(total.count, count)
            total.add(self._result(number) if self._pool else task.make(self._judge))
        return total

    def _result(self, number: int) -> Tally:
        task = self._tasks[number]
        try:
            return self._futures[number].result()
        except BrokenProcessPool:
            return Tally(len(task.numbers), failures=[f"{task}: crash: the verifier's process died"])


JUDGE: list[Judge] = []  # of this process, made once


def prepare(files: Files, seed: int) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    JUDGE.append(Judge(Scene(files, seed)))
    JUDGE[0].verdict(JUDGE[0].scene.forgery())


def end_with_parent() -> None:
    """A parent that is killed tells its workers nothing"""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def work(task: Task) -> Tally:
    return task.make(JUDGE[0])
