"""Work of a recording that nobody waits for yet, in small pieces, done whenever the run would wait for its disk.

    aside = Aside(threads=2)
    stream.idle = aside.do_one  # a piece, and whether there was one
    job = aside.job()
    job.put(piece)              # pieces of the first phase
    job.go(phases)              # then what each step of the iterator gives, phase by phase; its own code counts as a piece
    job.wait()                  # what is left of it, now

A piece is told how many threads it may use, all of them, as the run itself stands still; it should take a few milliseconds, which is how much later
than it could the run may go on. All happens in the run's own thread: nothing competes with it, and nothing depends on when a piece is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

Piece = Callable[[int], "Piece | None"]  # of threads; what it returns is to be done next


class Aside:
    """Jobs, the oldest first. With `later=False` what is put is done at once."""

    def __init__(self, threads: int = 1, *, later: bool = True) -> None:
        self.threads = threads
        self.later = later
        self._jobs: deque[Job] = deque()

    def job(self) -> Job:
        self._jobs.append(Job(self))
        return self._jobs[-1]

    def do_one(self) -> bool:
        """Whether there was something to do"""
        return any(job.do_one() for job in self._jobs)

    def forget(self, job: Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)


class Job:
    """Pieces in phases. `waiting` counts those of this phase that are not done. What a piece raises ends the job, and is raised by `wait` again."""

    def __init__(self, aside: Aside) -> None:
        self._aside = aside
        self._pieces: deque[Piece] = deque()
        self._phases: Iterator[Iterable[Piece]] | None = None
        self._error: BaseException | None = None

    @property
    def waiting(self) -> int:
        return len(self._pieces)

    def put(self, piece: Piece) -> None:
        if self._aside.later:
            self._pieces.append(piece)
        else:
            do_whole(piece, self._aside.threads)

    def go(self, phases: Iterator[Iterable[Piece]]) -> None:
        self._phases = phases

    def wait(self) -> None:
        while self.do_one():
            pass
        if self._error is not None:
            raise self._error

    def do_one(self) -> bool:
        try:
            return self._do_one()
        except BaseException as error:
            self._error = error
            self.cancel()
            raise

    def _do_one(self) -> bool:
        if self._pieces:
            rest = self._pieces.popleft()(self._aside.threads)
            if rest is not None:
                self._pieces.appendleft(rest)
            return True
        if self._phases is None:
            return False
        phase = next(self._phases, None)
        if phase is None:
            self.cancel()
        else:
            self._pieces.extend(phase)
        return True

    def cancel(self) -> None:
        """Nothing more is to be done."""
        self._pieces.clear()
        self._phases = None
        self._aside.forget(self)


def do_whole(piece: Piece, threads: int) -> None:
    """And all that follows from it"""
    rest: Piece | None = piece
    while rest is not None:
        rest = rest(threads)
