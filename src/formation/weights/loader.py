"""Threads that fill slots, block by block: what somebody waits for first, then what was asked for ahead.

The lock and its two conditions are shared with the stream: `work` wakes the threads, `done` wakes who waits for a load.
A block in flight is never called back; demand therefore waits for at most one block per thread. A file system that has stopped answering
(a network mount whose server is gone) would keep everybody for ever: who waits gives up when no block has come for `patience` seconds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from formation.errors import ReadError
from formation.weights.arena import Slot
from formation.weights.layout import Block, Layout
from formation.weights.reader import Got, Reader

PATIENCE = 600.0  # seconds: a hard-mounted server may take minutes to come back, and then the run goes on
GRACE = 0.1  # seconds
STALL_HINT = "look at the mount and its server; a recording goes on with --resume"


class Load:
    """The filling of one slot. It has ended when no block is left and none is in flight; `error` says why it failed, `dropped` that nobody wants
    it any more: what had not begun was not read."""

    __slots__ = ("blocks", "bytes_read", "dropped", "error", "in_flight", "mirror_bytes", "slot", "then")

    def __init__(self, layout: Layout, slot: Slot, then: Callable[[], None] | None = None) -> None:
        """`then` is called once, with the lock held, when the load has ended."""
        self.slot = slot
        self.blocks = deque(layout.blocks())
        self.in_flight = 0
        self.bytes_read = 0
        self.mirror_bytes = 0  # of these, those that did not come from the checkpoint's own folder
        self.error: Exception | None = None
        self.dropped = False
        self.then = then

    @property
    def ended(self) -> bool:
        return not self.blocks and not self.in_flight


class Loader:
    """`threads` reading threads over one Reader. `ahead()` is asked, with the lock held, for more work when nobody waits."""

    def __init__(self, reader: Reader, threads: int, ahead: Callable[[], Load | None], patience: float = PATIENCE) -> None:
        self.lock = threading.Lock()
        self.work = threading.Condition(self.lock)
        self.done = threading.Condition(self.lock)
        self.closed = False
        self._reader = reader
        self._ahead = ahead
        self._patience = patience
        self._reading: dict[int, Block] = {}  # thread -> its block
        self._news = 0.0  # when the last block came, or the first was asked for
        self._stalled = self._left = False
        self._demanded: deque[Load] = deque()
        self._early: deque[Load] = deque()
        self._threads = [threading.Thread(target=self._run, name=f"formation-read-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def demand(self, load: Load) -> None:
        """Somebody waits for this load, new or already begun: its blocks go before everything read ahead. Lock held."""
        if load not in self._demanded and load.blocks:
            self._demanded.append(load)
            self.work.notify_all()

    def drop(self, load: Load) -> None:
        """Read no more of it than what is in flight. Lock held."""
        load.dropped = True
        load.blocks.clear()
        self._end_if_done(load)

    def wait(self, load: Load) -> None:
        """Until the load has ended. Lock held. Raises ReadError when the loader is closed meanwhile."""
        while not load.ended:
            self.check_open()
            self.wait_for_news()

    def wait_for_news(self) -> None:
        """Until some load has ended, or may have. Lock held. Raises ReadError when no block has come for too long."""
        left = self._news + self._patience - time.monotonic() if self._reading else self._patience
        if left <= 0:
            self._stalled = True
            files = ", ".join(sorted({block.extent.file for block in self._reading.values()}))
            raise ReadError(f"{files}: expected bytes within {self._patience:g} seconds, got none", hint=STALL_HINT)
        self.done.wait(left)

    def check_open(self) -> None:
        """Raises ReadError after close()."""
        if self.closed:
            raise ReadError("expected an open weight stream, got one that was closed", hint="read while the stream is open")

    def close(self) -> None:
        """Stop after the blocks in flight and join the threads. Calling it again does nothing. After a stall nobody waits for the threads
        that hang in a read: they end with the process, and until then nothing else uses their slots."""
        with self.lock:
            self.closed = True
            self.work.notify_all()
            self.done.notify_all()
        for thread in self._threads:
            thread.join(GRACE if self._stalled else None)
        with self.lock:
            self._left = True

    def _run(self) -> None:
        while (job := self._next()) is not None:
            load, block = job
            try:
                got, error = self._reader.read(block, load.slot.view), None
            except Exception as caught:  # raised again, in the thread that waits for this load
                got, error = Got(0, 0), caught
            self._finish(load, got, error)

    def _next(self) -> tuple[Load, Block] | None:
        with self.lock:
            while not self.closed:
                load = self._front()
                if load is not None:
                    return load, self._take(load)
                self.work.wait()
        return None

    def _take(self, load: Load) -> Block:
        if not self._reading:
            self._news = time.monotonic()
        load.in_flight += 1
        block = self._reading[threading.get_ident()] = load.blocks.popleft()
        return block

    def _front(self) -> Load | None:
        for queue in (self._demanded, self._early):
            while queue and not queue[0].blocks:
                queue.popleft()
            if queue:
                return queue[0]
        load = self._ahead()
        if load is not None:
            self._early.append(load)
        return load

    def _finish(self, load: Load, got: Got, error: Exception | None) -> None:
        with self.lock:
            if self._left:
                return  # long after the end: nobody knows this load any more
            del self._reading[threading.get_ident()]
            self._news = time.monotonic()
            load.in_flight -= 1
            load.bytes_read += got.bytes
            load.mirror_bytes += got.bytes if got.place else 0
            if error is not None:
                load.error = load.error or error
                load.blocks.clear()
            self._end_if_done(load)

    def _end_if_done(self, load: Load) -> None:
        if load.ended:
            then, load.then = load.then, None
            if then is not None:
                then()
            self.done.notify_all()
