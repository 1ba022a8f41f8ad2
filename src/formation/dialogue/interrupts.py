"""Ctrl-C in a dialogue: once lets the token that is being formed come to its end, twice gives it up. A third stops the program as it always does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self


class Interrupts:
    """Counts them inside its `with` block, if the block is in the main thread."""

    def __init__(self) -> None:
        self.times = 0
        self._allowed = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.times += 1
        if self.times > 2 or (self.times == 2 and self._allowed):
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Where the second one may come at any instruction: not while an event is being written"""
        if self.times > 1:
            raise KeyboardInterrupt
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False
