"""Which experts stay in memory: who is worth keeping after use, and who goes first when another needs the room.

Nothing is known here of models: a key whose first word is "expert" competes, everything else passes. What a policy is worth on a real
model, `formation bench --replay` measures on the routes of a recorded run: see residency.py.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Protocol

from formation.errors import UsageError
from formation.weights.layout import Key


class Policy(Protocol):
    """What the cache asks."""

    def keeps(self, key: Key) -> bool:
        """Whether a unit competes for the cache at all; one that does not is passing."""

    def used(self, key: Key) -> None:
        """A kept unit was just used, or was read on a guess that was wrong: such a one is often wanted soon after (docs/log.md)."""

    def forget(self, key: Key) -> None:
        """A kept unit was evicted."""

    def worst_first(self) -> Iterator[Key]:
        """Every unit used and not forgotten, the least valuable first."""


def is_expert(key: Key) -> bool:
    return key[0] == "expert"


class Recency:
    """Least recently used goes first."""

    def __init__(self) -> None:
        self._order: OrderedDict[Key, None] = OrderedDict()

    def keeps(self, key: Key) -> bool:
        return is_expert(key)

    def used(self, key: Key) -> None:
        self._order[key] = None
        self._order.move_to_end(key)

    def forget(self, key: Key) -> None:
        self._order.pop(key, None)

    def worst_first(self) -> Iterator[Key]:
        return iter(self._order)


class Frequency:
    """Least often used goes first, of equals the least recently used. Uses are counted over the whole run, also of those that went."""

    def __init__(self) -> None:
        self._uses: dict[Key, int] = {}
        self._here: dict[int, OrderedDict[Key, None]] = {}  # uses -> keys, the least recently used first

    def keeps(self, key: Key) -> bool:
        return is_expert(key)

    def used(self, key: Key) -> None:
        self.forget(key)
        uses = self._uses[key] = self._uses.get(key, 0) + 1
        self._here.setdefault(uses, OrderedDict())[key] = None

    def forget(self, key: Key) -> None:
        uses = self._uses.get(key, 0)
        if key in self._here.get(uses, ()):
            del self._here[uses][key]
            if not self._here[uses]:
                del self._here[uses]

    def worst_first(self) -> Iterator[Key]:
        return chain.from_iterable(self._here[uses] for uses in sorted(self._here))


class Segmented:
    """Two lists by recency: who was used once goes before who was used again while it was here. Of a full cache at most `share` is protected
    so; who loses that place is as one that was used once."""

    def __init__(self, share: float = 0.75) -> None:
        self._share, self._full = share, False
        self._once: OrderedDict[Key, None] = OrderedDict()
        self._again: OrderedDict[Key, None] = OrderedDict()

    def keeps(self, key: Key) -> bool:
        return is_expert(key)

    def used(self, key: Key) -> None:
        if key not in self._once and key not in self._again:
            self._once[key] = None
            return
        self._once.pop(key, None)
        self._again[key] = None
        self._again.move_to_end(key)
        while self._full and len(self._again) > self._share * (len(self._once) + len(self._again)):
            oldest, _ = self._again.popitem(last=False)
            self._once[oldest] = None

    def forget(self, key: Key) -> None:
        self._full = True
        self._once.pop(key, None)
        self._again.pop(key, None)

    def worst_first(self) -> Iterator[Key]:
        return chain(self._once, self._again)


class Fading:
    """Least often used of late goes first: a use counts half as much after as many uses as experts are known (the weighing of uses by age of Lee et
    al., IEEE Transactions on Computers 50, 2001). Uses are also counted of those that went.

    A value is the base-2 logarithm of a sum over uses of 2^(clock at the use): all fade alike, so that their order changes with uses only.
    """

    def __init__(self) -> None:
        self._clock = 0.0  # half-lives
        self._values: dict[Key, float] = {}
        self._here: list[tuple[float, Key]] = []  # ascending

    def keeps(self, key: Key) -> bool:
        return is_expert(key)

    def used(self, key: Key) -> None:
        self.forget(key)
        self._clock += 1 / max(1, len(self._values))
        before = self._values.get(key, -math.inf) - self._clock
        self._values[key] = self._clock + math.log2(1 + 2**before)
        insort(self._here, (self._values[key], key))

    def forget(self, key: Key) -> None:
        entry = (self._values.get(key, 0.0), key)
        place = bisect_left(self._here, entry)
        if self._here[place : place + 1] == [entry]:
            del self._here[place]

    def worst_first(self) -> Iterator[Key]:
        return (key for _, key in self._here)


POLICIES: dict[str, Callable[[], Policy]] = {"fading": Fading, "lru": Recency, "lfu": Frequency, "segmented": Segmented}
DEFAULT = "fading"  # the best on recorded routes, whatever the size of the cache: docs/log.md


def policy_named(name: str) -> Callable[[], Policy]:
    """Raises UsageError."""
    if name not in POLICIES:
        raise UsageError(f"policy: expected one of {', '.join(POLICIES)}, got {name!r}")
    return POLICIES[name]
