"""A child of this process that sends answers, one after the other, over a pipe; it shares the code and what was read so far (fork).

An answer is bytes without LF, sent with one. The child is at most a pipe's buffer ahead. It leaves nothing behind: who stops asking, by Ctrl-C
too, ends it, and it ends by itself if its parent is gone.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from formation.errors import EnvironmentFault

LONG = 1 << 20  # bytes to look at, a quarter of a second of a ledger in one process
MOST = 8  # processes


def processes(size_bytes: int) -> int:
    """How many to share the work out to. More than one on Linux only, and from a process of one thread: a lock that another thread holds would
    stay locked in a child"""
    if size_bytes < LONG or sys.platform != "linux" or len(list(Path("/proc/self/task").iterdir())) > 1:
        return 1
    return min(len(os.sched_getaffinity(0)), MOST)


class Worker:
    """Begins at once. `answers` is called in the child."""

    def __init__(self, answers: Callable[[], Iterator[bytes]]) -> None:
        parent = os.getpid()
        receiving, sending = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(receiving)
            serve(answers, sending, parent)
        os.close(sending)
        self._pipe = os.fdopen(receiving, "rb")

    def receive(self) -> bytes:
        """The next answer. Raises EnvironmentFault if the child died before it."""
        line = self._pipe.readline()
        if line.endswith(b"\n"):
            return line[:-1]
        status = os.waitstatus_to_exitcode(self._reap())
        how = f"one killed by signal {-status}" if status < 0 else f"one that ended with code {status}"
        raise EnvironmentFault(f"expected every process of the verification to finish, got {how}", hint="see that there is memory, and verify again")

    def _reap(self) -> int:
        pid, self._pid = self._pid, 0
        return os.waitpid(pid, 0)[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._reap()


def serve(answers: Callable[[], Iterator[bytes]], sending: int, parent: int) -> None:
    """The child's life; it never returns, so nothing of the parent's is done twice."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the parent, which ends its children
        for answer in answers():
            if os.getppid() != parent:
                break
            send(sending, answer + b"\n")
        else:
            code = 0
    finally:
        os._exit(code)


def send(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
