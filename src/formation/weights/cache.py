"""What stays in memory: pinned units, then units passing through, then kept units (experts) as far as the budget goes.

    locked    pinned, in use, or being read: never evicted
    wanted    read ahead and not used yet: evicted only for a unit that somebody waits for
    passing   used, and the policy does not keep it (a layer's attention): its slot is the next one's, the latest freed first
    kept      used, and the policy orders them (least recently used first)

A budget that is never exceeded, one slot per unit, no copies. Not locked: the stream's lock is held around every call.
"""

from __future__ import annotations

from collections.abc import Iterator

from formation.kernels.tensor import Tensor
from formation.weights.arena import Arena, Slot
from formation.weights.layout import Key, Layout
from formation.weights.loader import Load
from formation.weights.policy import Policy


class Resident:
    """A unit with a slot. `load` is set while it is being read; `unused_bytes` are those read from disk for no use yet, on a guess if `guessed`:
    `asked` says whether somebody has asked for it since."""

    __slots__ = ("asked", "error", "guessed", "key", "layout", "load", "pinned", "slot", "tensors", "unused_bytes", "users", "wanted")

    def __init__(self, key: Key, layout: Layout, slot: Slot, wanted: bool) -> None:
        self.key = key
        self.layout = layout
        self.slot = slot
        self.load: Load | None = None
        self.tensors: dict[str, Tensor] = {}
        self.error: Exception | None = None
        self.users = 0
        self.pinned = False
        self.wanted = wanted
        self.guessed = False
        self.asked = False
        self.unused_bytes = 0

    @property
    def locked(self) -> bool:
        return self.load is not None or self.users > 0 or self.pinned


class Cache:
    """The residents and their slots. `reserve_bytes` of passing slots survive when kept units look for room."""

    def __init__(self, budget_bytes: int, policy: Policy) -> None:
        self.arena = Arena(budget_bytes)
        self.policy = policy
        self.reserve_bytes = 0
        self.dropped_bytes = 0  # read from disk and evicted without a use, since somebody last reset it
        self.dropped_guesses_bytes = 0  # of these, those read on a guess
        self._residents: dict[Key, Resident] = {}
        self._locked: set[Resident] = set()
        self._passing: dict[Key, Resident] = {}
        self._wanted: dict[Key, Resident] = {}
        self._fixed: list[Slot] = []

    def get(self, key: Key) -> Resident | None:
        return self._residents.get(key)

    @property
    def locked_bytes(self) -> int:
        """Bytes that cannot be evicted now: pinned, in use, being read, fixed."""
        return sum(slot.size_bytes for slot in self._fixed) + sum(resident.slot.size_bytes for resident in self._locked)

    @property
    def pinned_bytes(self) -> int:
        return sum(resident.slot.size_bytes for resident in self._locked if resident.pinned)

    @property
    def reading(self) -> bool:
        """Whether some slot is being filled."""
        return any(resident.load is not None for resident in self._locked)

    def fixed_slot(self, size_bytes: int) -> Slot | None:
        """A slot that is kept until the end: a buffer of the stream itself. None when there is no room."""
        slot = self._room(size_bytes, ahead=False)
        if slot is not None:
            self._fixed.append(slot)
        return slot

    def add(self, key: Key, layout: Layout, *, ahead: bool) -> Resident | None:
        """A resident with a slot still to be filled, or None. `ahead`: evict neither what is locked nor what is wanted."""
        slot = self._room(layout.slot_bytes, ahead)
        if slot is None:
            return None
        resident = self._residents[key] = Resident(key, layout, slot, wanted=ahead)
        self._locked.add(resident)
        return resident

    def hold(self, resident: Resident) -> None:
        """One more user."""
        resident.wanted = False
        self.glance(resident)

    def glance(self, resident: Resident) -> None:
        """One more user, who does not count as the use that it is wanted for."""
        resident.users += 1
        self._lock_in(resident)

    def release(self, resident: Resident) -> None:
        """One user less; the last one makes it evictable."""
        resident.users -= 1
        self.settle(resident)

    def pin(self, resident: Resident) -> None:
        resident.pinned, resident.wanted = True, False
        self._lock_in(resident)

    def want(self, resident: Resident) -> None:
        """It was asked for ahead and is here: keep it until it is used."""
        if not resident.locked:
            self._passing.pop(resident.key, None)
            self._wanted[resident.key] = resident
        resident.wanted = True

    def unwant_all(self) -> None:
        """Nobody waits for what was read ahead any more."""
        for resident in [*self._wanted.values(), *self._locked]:
            self.unwant(resident)

    def unwant(self, resident: Resident) -> None:
        """It was read ahead for nothing: it may be evicted, and goes to those that were used if the policy keeps it."""
        resident.wanted = False
        self._wanted.pop(resident.key, None)
        self.settle(resident)

    def guesses(self) -> list[Resident]:
        """What was read, or is being read, on a guess, and nobody has asked for yet."""
        residents = (*self._wanted.values(), *self._locked)
        return [resident for resident in residents if resident.guessed and not resident.asked and not resident.users]

    def settle(self, resident: Resident) -> None:
        """Put a resident where it belongs after a change: read, released or no longer wanted."""
        if resident.locked or self._residents.get(resident.key) is not resident:
            return
        self._locked.discard(resident)
        if resident.wanted:
            self._wanted[resident.key] = resident
        elif self.policy.keeps(resident.key):
            self.policy.used(resident.key)
        else:
            self._passing.pop(resident.key, None)
            self._passing[resident.key] = resident

    def remove(self, resident: Resident) -> None:
        """Forget a resident and free its slot."""
        del self._residents[resident.key]
        self._locked.discard(resident)
        self._passing.pop(resident.key, None)
        self._wanted.pop(resident.key, None)
        self.policy.forget(resident.key)
        self.dropped_bytes += resident.unused_bytes
        self.dropped_guesses_bytes += resident.unused_bytes * resident.guessed
        resident.tensors.clear()  # who kept the mapping finds nothing in it, rather than another unit's bytes
        self.arena.give(resident.slot)

    def clear(self) -> None:
        """Give back everything that is not in use this moment. Nothing may be being read any more."""
        for resident in list(self._residents.values()):
            if not resident.users:
                self.remove(resident)
        while self._fixed:
            self.arena.give(self._fixed.pop())
        self.arena.unmap_all()

    def _lock_in(self, resident: Resident) -> None:
        self._locked.add(resident)
        self._passing.pop(resident.key, None)
        self._wanted.pop(resident.key, None)

    def _room(self, size_bytes: int, ahead: bool) -> Slot | None:
        untouchable = self.locked_bytes + (sum(resident.slot.size_bytes for resident in self._wanted.values()) if ahead else 0)
        if untouchable + size_bytes > self.arena.budget_bytes:
            return None
        while (slot := self.arena.take(size_bytes)) is None:
            if not self.arena.unmap_one():
                self.remove(next(self._victims(size_bytes)))
        return slot

    def _victims(self, size_bytes: int) -> Iterator[Resident]:
        """Who loses its slot, in this order; the caller has made sure that there is somebody."""
        passing = list(reversed(self._passing.values()))
        if sum(resident.slot.size_bytes for resident in passing) > self.reserve_bytes:
            yield from passing
        yield from (resident for resident in passing if resident.slot.size_bytes == size_bytes)
        yield from (resident for resident in self._kept() if resident.slot.size_bytes == size_bytes)
        yield from passing
        yield from self._kept()
        yield from reversed(self._wanted.values())

    def _kept(self) -> Iterator[Resident]:
        """Kept units that may go, worst first."""
        for key in self.policy.worst_first():
            resident = self._residents[key]
            if not resident.locked and key not in self._wanted:
                yield resident
