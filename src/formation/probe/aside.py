"""Work of a recording that nobody waits for yet, done by threads of the lowest priority while the run waits for its disk.

    aside = Aside(workers=2)
    job = aside.job()
    job.put(piece)          # pieces of one phase: in any order, at the same time
    job.go(phases)          # when these are done, what each step of the iterator gives, phase by phase; its own code runs alone
    job.wait(threads=2)     # lends a hand until all of it is done, and raises what a piece raised

A piece gets the number of threads that it may use (workers say 1, so that the pool of the kernels stays the run's) and may return another, to be
done next. Kernels release the interpreter lock. Nothing depends on who does what, or when.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

Piece = Callable[[int], "Piece | None"]

LOWEST_PRIORITY = 19
BREATH_SECONDS = 1e-4  # after a piece, so that whoever waits for the interpreter lock gets it


class Aside:
    """Workers and the jobs they do, oldest first. Without workers whatever is put is done at once, by whoever puts it."""

    def __init__(self, workers: int = 0) -> None:
        self.workers = workers
        self.changed = threading.Condition()
        self._jobs: list[Job] = []
        self._threads: list[threading.Thread] = []
        self._closed = False

    def job(self) -> Job:
        job = Job(self)
        with self.changed:
            self._jobs.append(job)
        if not self._threads:
            self._threads = [threading.Thread(target=self._work, name="formation-aside", daemon=True) for _ in range(self.workers)]
            for thread in self._threads:
                thread.start()
        return job

    def forget(self, job: Job) -> None:
        """Called with the lock"""
        if job in self._jobs:
            self._jobs.remove(job)

    def close(self) -> None:
        """What is not begun is not done any more; returns when no worker is left."""
        with self.changed:
            self._closed = True
            self._jobs.clear()
            self.changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        lower_priority()
        while (found := self._next()) is not None:
            job, piece = found
            job.do(piece, 1)
            time.sleep(BREATH_SECONDS)

    def _next(self) -> tuple[Job, Piece] | None:
        with self.changed:
            while not self._closed:
                for job in self._jobs:
                    piece = job.take()
                    if piece is not None:
                        return job, piece
                self.changed.wait()
        return None


class Job:
    """Pieces in phases. `waiting` counts those that are not done."""

    def __init__(self, aside: Aside) -> None:
        self._aside = aside
        self._pieces: deque[Piece] = deque()
        self._running = 0
        self._phases: Iterator[Iterable[Piece]] | None = None
        self._error: BaseException | None = None

    @property
    def waiting(self) -> int:
        return len(self._pieces) + self._running

    def put(self, piece: Piece) -> None:
        if not self._aside.workers:
            do_whole(piece, 1)
            return
        with self._aside.changed:
            self._pieces.append(piece)
            self._aside.changed.notify()

    def go(self, phases: Iterator[Iterable[Piece]]) -> None:
        with self._aside.changed:
            self._phases = phases
            self._aside.changed.notify()

    def wait(self, threads: int) -> None:
        """After `go`. Raises what the first piece that failed has raised; what came after it is not done."""
        while (piece := self._my_next()) is not None:
            self.do(piece, threads)
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Nobody wants it any more."""
        with self._aside.changed:
            self._end()

    def take(self) -> Piece | None:
        """A piece to be done with `do`, if there is one now. Called with the lock."""
        if self._pieces:
            self._running += 1
            return self._pieces.popleft()
        if self._phases is not None and not self._running:
            self._running += 1
            return self._next_phase
        return None

    def do(self, piece: Piece, threads: int) -> None:
        again, error = None, None
        try:
            again = piece(threads)
        except BaseException as caught:  # whoever waits gets it, an interrupt too
            error = caught
        with self._aside.changed:
            self._running -= 1
            if error is not None:
                self._error = self._error or error
                self._end()
            elif again is not None:
                self._pieces.appendleft(again)
            self._aside.changed.notify_all()

    def _my_next(self) -> Piece | None:
        with self._aside.changed:
            while (piece := self.take()) is None and self._running:
                self._aside.changed.wait()
        return piece

    def _next_phase(self, threads: int) -> None:
        phases = self._phases
        pieces = next(phases, None) if phases is not None else None
        with self._aside.changed:
            if pieces is None:
                self._end()
            elif self._phases is not None:
                self._pieces.extend(pieces)

    def _end(self) -> None:
        """Nothing more is to be done. Called with the lock."""
        self._pieces.clear()
        self._phases = None
        self._aside.forget(self)


def do_whole(piece: Piece, threads: int) -> None:
    """And all that follows from it"""
    rest: Piece | None = piece
    while rest is not None:
        rest = rest(threads)


def lower_priority() -> None:
    """Of this thread alone, where the system has priorities of threads"""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
