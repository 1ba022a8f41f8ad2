"""The weights of a model bigger than memory, one unit at a time: who asks gets views, everyone else's reads go on meanwhile.

    with WeightStream(checkpoint, units, budget_bytes) as stream:
        stream.pin(always_needed)
        stream.prefetch(next_keys)                      # in this order, behind whatever somebody waits for
        with stream.use(("expert", 7, 12)) as tensors:  # waits until read; valid inside the block only
            linear(weight_of(tensors), x)

Read-ahead changes what is read early, never what is computed. The budget bounds every slot and buffer together. It knows
no model: which tensors form a unit, and which unit comes next, is the caller's business. One thread at a time should hold
units up to the budget: a demand that cannot fit beside what is in use is refused at once, not queued.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

from formation.errors import BudgetError
from formation.kernels.tensor import I64, Tensor
from formation.weights.account import ReadAccount as ReadAccount
from formation.weights.account import ReadEvent as ReadEvent
from formation.weights.account import Tally
from formation.weights.cache import Cache, Resident
from formation.weights.checkpoint import Checkpoint
from formation.weights.layout import Key, Layout, entries_of, lay_out
from formation.weights.layout import Unit as Unit
from formation.weights.loader import PATIENCE, Load, Loader
from formation.weights.policy import DEFAULT, Policy, policy_named
from formation.weights.reader import Reader
from formation.weights.rows import RowReader


class WeightStream:
    """Units of a checkpoint through a fixed amount of memory. Set `events` to be told of every use, and `idle` to do something else while a use
    waits: it is called until it says that there is nothing to do, or the unit is there. It must not use the stream."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        units: Iterable[Unit],
        budget_bytes: int,
        threads: int = 4,
        *,
        policy: Policy | None = None,
        reader: Reader | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """`threads` are for each folder that is read from; after `patience` seconds without a byte, waiting is a ReadError.
        Raises CheckpointError when a unit names a tensor that the checkpoint lacks. `reader` is closed with the stream."""
        self.checkpoint = checkpoint
        self.events: Callable[[ReadEvent], None] | None = None
        self.idle: Callable[[], bool] | None = None
        self._units = _unique(units)
        for unit in self._units.values():
            entries_of(unit, checkpoint.tensors)
        self._layouts: dict[Key, Layout] = {}
        self._cache = Cache(budget_bytes, policy or policy_named(DEFAULT)())
        self._passing = tuple(key for key in self._units if not self._cache.policy.keeps(key))
        self._queue: dict[Key, None] = {}  # asked for ahead and not begun, in order
        self._guesses: dict[Key, None] = {}  # not begun
        self._failed: dict[Key, Exception] = {}
        self._looking_for_room = 0
        self._tally = Tally()
        self.reader = reader or Reader(checkpoint)
        self._loader = Loader(self.reader, threads * len(self.reader.places), self._begin_ahead, patience)
        self._rows = RowReader(self._loader, self._cache, self._tally)
        self._update_reserve()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def budget_bytes(self) -> int:
        return self._cache.arena.budget_bytes

    @property
    def mapped_bytes(self) -> int:
        """Bytes of all slots and buffers now; never more than the budget."""
        return self._cache.arena.mapped_bytes

    @property
    def peak_bytes(self) -> int:
        """The most that `mapped_bytes` has been."""
        return self._cache.arena.peak_bytes

    @property
    def bytes_read(self) -> int:
        """Bytes read from disk since the stream was opened."""
        return self.reader.bytes_read

    @property
    def reading(self) -> bool:
        """Whether something is being read, or waits for it."""
        with self._loader.lock:
            return bool(self._queue) or self._cache.reading

    def bytes_of(self, key: Key) -> int:
        """Bytes of the unit's slot, alignment included: what it takes from the budget."""
        return self._layout(key).slot_bytes

    def files_of(self, key: Key) -> set[str]:
        """Shards that hold the unit."""
        return {self.checkpoint.tensors[name].file for name in self._units[key].names}

    def check_room(self, keys: Iterable[Key], purpose: str) -> None:
        """Raise BudgetError unless these units fit together beside what is pinned; `purpose` is named in the sentence."""
        with self._loader.lock:
            needed = sum(self.bytes_of(key) for key in set(keys) if not self._is_pinned(key))
            pinned = self._cache.pinned_bytes
        if pinned + needed > self.budget_bytes:
            raise _no_room(f"{purpose}: {needed} bytes", self.budget_bytes, f"{pinned} pinned", pinned + needed)

    def pin(self, keys: Iterable[Key]) -> None:
        """Read these units and keep them for ever; returns when they are there. Raises BudgetError or ReadError."""
        keys = list(dict.fromkeys(keys))
        self.check_room(keys, f"pinning {len(keys)} units")
        residents: list[Resident] = []
        with self._loader.lock:
            try:
                for key in keys:  # all reads are asked for before the first is waited for
                    residents.append(self._present(key))
                    self._cache.pin(residents[-1])
                    self._cache.hold(residents[-1])
                for resident in residents:
                    self._await(resident)
                    self._tally.add(pinned_bytes=resident.unused_bytes)
                    resident.unused_bytes, resident.guessed = 0, False
            finally:
                for resident in residents:
                    self._cache.release(resident)
            self._update_reserve()

    @contextmanager
    def use(self, key: Key) -> Iterator[Mapping[str, Tensor]]:
        """The unit's tensors, by name, valid inside the block. Waits until they are read. Raises ReadError or BudgetError."""
        started = time.perf_counter()
        with self._loader.lock:
            resident = self._present(key)
            self._cache.hold(resident)
        try:
            event = self._arrive(resident, started)
            if self.events is not None:
                self.events(event)
            yield resident.tensors
        finally:
            with self._loader.lock:
                self._cache.release(resident)
                self._loader.work.notify_all()
                if self._loader.closed:
                    self._cache.clear()

    @contextmanager
    def glance(self, *keys: Key) -> Iterator[Mapping[str, Tensor] | None]:
        """The tensors of the first of these units that is in memory, None if none is. No use: nothing is read, waited for or accounted."""
        with self._loader.lock:
            found = (self._cache.get(key) for key in keys)
            resident = next((each for each in found if each is not None and each.load is None), None)
            if resident is not None:
                self._cache.glance(resident)
        try:
            yield resident.tensors if resident is not None else None
        finally:
            if resident is not None:
                with self._loader.lock:
                    self._cache.release(resident)
                    self._loader.work.notify_all()

    def first_there(self, keys: Iterable[Key]) -> Key:
        """The first of these units, at least one, that is in memory now; if none is, the first."""
        keys = list(keys)
        with self._loader.lock:
            found = (key for key in keys if (resident := self._cache.get(key)) is not None and resident.load is None)
            return next(found, keys[0])

    def missing(self, keys: Iterable[Key]) -> set[Key]:
        """Those of these units that nobody has asked for: not in memory, or there or on the way on a guess alone."""
        with self._loader.lock:
            return {key for key in keys if (resident := self._cache.get(key)) is None or resident.guessed}

    def prefetch(self, keys: Iterable[Key], *, first: bool = False) -> None:
        """Read these units when nobody waits for anything else, in this order, behind (`first`: before) what was asked already.

        Takes free slots and evicts what has been used and is not in use; never what is wanted, as those of these units are that are in memory
        already. A failure shows in `use`.
        """
        wanted = dict.fromkeys(keys)
        for key in wanted:
            self._layout(key)
        with self._loader.lock:
            for key in list(wanted):
                resident = self._cache.get(key)
                if resident is not None and not (resident.load and resident.load.dropped):
                    resident.asked = True
                    self._cache.want(resident)
                    del wanted[key]
            earlier = self._queue
            self._queue = {**wanted, **earlier} if first else {**earlier, **wanted}
            self._loader.work.notify_all()

    def guess(self, keys: Iterable[Key]) -> None:
        """Read these units when nothing that was asked for is left to read, in this order: a guess at what will be used.

        Earlier guesses that are not named again are dropped: what is not begun is not read, what is here may be evicted.
        """
        guesses = dict.fromkeys(keys)
        for key in guesses:
            self._layout(key)
        with self._loader.lock:
            self._guesses = guesses
            for resident in self._cache.guesses():
                if resident.key not in guesses:
                    self._drop(resident)
            self._loader.work.notify_all()

    def cancel_prefetch(self) -> None:
        """Forget what was asked for ahead: what is not begun is not read, what is here may be evicted."""
        with self._loader.lock:
            self._queue.clear()
            self._guesses.clear()
            self._failed.clear()
            self._cache.unwant_all()

    def rows(self, name: str, indices: Sequence[int] | I64) -> Tensor:
        """Rows of a big matrix by index, read one by one, never the matrix: a tensor [n, ...] of its own memory. Not cached."""
        return self._rows.read(self.checkpoint.tensors[name], indices)

    def take_accounting(self) -> ReadAccount:
        """What was read and waited for since the last call."""
        with self._loader.lock:
            self._tally.add(unused_bytes=self._cache.dropped_bytes, guessed_unused_bytes=self._cache.dropped_guesses_bytes)
            self._cache.dropped_bytes = self._cache.dropped_guesses_bytes = 0
            return self._tally.take()

    def close(self) -> None:
        """Stop the threads and give the memory back. Calling it again does nothing."""
        self._loader.close()
        with self._loader.lock:
            self._queue.clear()
            self._guesses.clear()
            self._cache.clear()
        self.reader.close()

    # Everything below runs with the loader's lock held, except where it says otherwise.

    def _layout(self, key: Key) -> Layout:
        layout = self._layouts.get(key)  # without the lock: two threads may compute the same layout
        if layout is None:
            layout = self._layouts[key] = lay_out(entries_of(self._units[key], self.checkpoint.tensors))
        return layout

    def _present(self, key: Key) -> Resident:
        """The resident of this key, read or being read, before everything that nobody waits for."""
        self._queue.pop(key, None)
        self._guesses.pop(key, None)
        while True:
            self._loader.check_open()
            if key in self._failed:
                raise self._failed.pop(key)
            resident = self._cache.get(key) or self._begin(key, ahead=False)
            if resident is not None and resident.load is not None and resident.load.dropped:
                self._loader.wait_for_news()  # its last block is on the way: then it is read anew
                continue
            if resident is not None:
                if resident.load is not None:
                    self._loader.demand(resident.load)
                return resident
            self._wait_for_room(key)

    def _begin(self, key: Key, *, ahead: bool) -> Resident | None:
        """A resident with its load, not queued yet; None when there is no room now."""
        layout = self._layout(key)
        resident = self._cache.add(key, layout, ahead=ahead)
        if resident is not None:
            load = Load(layout, resident.slot, lambda: self._end(resident))
            if load.ended:  # only empty tensors
                self._fill(resident)
                self._cache.settle(resident)
            else:
                resident.load = load
        return resident

    def _begin_ahead(self) -> Load | None:
        """The loader's question: what to read while nobody waits."""
        while self._queue and not self._looking_for_room:
            key = next(iter(self._queue))
            resident = self._cache.get(key)
            if resident is not None:
                self._cache.want(resident)
            elif key not in self._failed:
                resident = self._begin(key, ahead=True)
                if resident is None:
                    return None
                if resident.load is not None:
                    del self._queue[key]
                    return resident.load
            del self._queue[key]
        return self._begin_guess()

    def _begin_guess(self) -> Load | None:
        while self._guesses and not self._looking_for_room:
            key = next(iter(self._guesses))
            if self._cache.get(key) is None and key not in self._failed:
                resident = self._begin(key, ahead=True)
                if resident is None:
                    return None
                resident.guessed = True
                if resident.load is not None:
                    del self._guesses[key]
                    return resident.load
            del self._guesses[key]
        return None

    def _drop(self, resident: Resident) -> None:
        """A guess that nobody stands by any more."""
        if resident.load is not None:
            self._loader.drop(resident.load)
        else:
            self._cache.unwant(resident)

    def _end(self, resident: Resident) -> None:
        """A load has ended: its tensors, or its error."""
        load = resident.load
        assert load is not None
        resident.load = None
        resident.unused_bytes = load.bytes_read
        self._tally.add(disk_bytes=load.bytes_read, mirror_bytes=load.mirror_bytes)
        if load.error is None and not load.dropped:
            self._fill(resident)
            self._cache.settle(resident)
            return
        resident.error = load.error
        if load.error is not None and not resident.users:
            self._failed[resident.key] = load.error
        self._cache.remove(resident)

    def _fill(self, resident: Resident) -> None:
        resident.tensors = {tensor.name: tensor for tensor in resident.layout.tensors(resident.slot.data)}

    def _wait_for_room(self, key: Key) -> None:
        """Wait until a read that is in the way has ended; refuse when only units in use are."""
        if not self._cache.reading:
            locked, pinned, size = self._cache.locked_bytes, self._cache.pinned_bytes, self.bytes_of(key)
            raise _no_room(f"unit {key}: {size} bytes", self.budget_bytes, f"{pinned} pinned and {locked - pinned} in use", locked + size)
        self._looking_for_room += 1
        try:
            self._loader.wait_for_news()
        finally:
            self._looking_for_room -= 1

    def _await(self, resident: Resident) -> None:
        if resident.load is not None:
            self._loader.wait(resident.load)
        if resident.error is not None:
            raise resident.error

    def _arrive(self, resident: Resident, started: float) -> ReadEvent:
        """Wait for a held unit and account for the use. Takes the lock itself."""
        while resident.load is not None and self.idle is not None and self.idle():
            pass  # `load` is looked at without the lock: what matters is looked at again with it
        with self._loader.lock:
            self._await(resident)
            seconds, read = time.perf_counter() - started, resident.unused_bytes
            guessed = read * resident.guessed
            resident.unused_bytes, resident.guessed = 0, False
            tier = "disk" if read else "cache"
            self._tally.add(used_bytes=read, guessed_bytes=guessed, seconds_waited=seconds, **{f"{tier}_uses": 1})
        return ReadEvent(resident.key, tier, read, seconds)

    def _is_pinned(self, key: Key) -> bool:
        resident = self._cache.get(key)
        return resident is not None and resident.pinned

    def _update_reserve(self) -> None:
        """Room for two passing units, so that one is read while the other is used: a hint, not a bound."""
        passing = sorted(self.bytes_of(key) for key in self._passing if not self._is_pinned(key))
        self._cache.reserve_bytes = sum(passing[-2:])


def _unique(units: Iterable[Unit]) -> dict[Key, Unit]:
    table: dict[Key, Unit] = {}
    for unit in units:
        if unit.key in table:
            raise ValueError(f"expected each unit's key once, got {unit.key} twice")
        table[unit.key] = unit
    return table


def _no_room(need: str, budget: int, taken: str, enough: int) -> BudgetError:
    return BudgetError(f"expected room for {need}, got a budget of {budget} bytes with {taken}", hint=f"give at least {enough} bytes")
