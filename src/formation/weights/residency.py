"""What a policy would have kept: the experts that a recorded run used, in order, through a cache of so many of them.

An access is the set of experts that one token uses in one layer: all of them are needed together, so none of them is evicted for another.
`optimum` is Belady's (IBM Systems Journal 5, 1966): it evicts what will not be used for the longest time, which needs the future; no policy
that evicts on demand misses less.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from formation.weights.layout import Key
from formation.weights.policy import Policy

Access = Sequence[Key]


@dataclass(frozen=True)
class Kept:
    """How often an expert was there when it was used."""

    uses: int
    hits: int

    @property
    def share(self) -> float:
        return self.hits / self.uses if self.uses else 0.0


def replay(policy: Policy, accesses: Sequence[Access], slots: int) -> Kept:
    """`slots` experts fit; each access names at most as many."""
    here: set[Key] = set()
    uses = hits = 0
    for access in accesses:
        uses, hits = uses + len(access), hits + sum(key in here for key in access)
        _make_room(here, set(access), slots, policy)
        for key in access:
            policy.used(key)
    return Kept(uses, hits)


def _make_room(here: set[Key], access: set[Key], slots: int, policy: Policy) -> None:
    surplus = len(here | access) - slots
    victims = [key for key in policy.worst_first() if key not in access][: max(0, surplus)]
    for key in victims:
        policy.forget(key)
        here.discard(key)
    here |= access


def optimum(accesses: Sequence[Access], slots: int) -> Kept:
    """With the future known."""
    ahead = _uses_ahead(accesses)
    here: dict[Key, int] = {}  # key -> its next use
    farthest: list[tuple[int, int, Key]] = []  # what the heap says and `here` does not is out of date
    uses, hits, serial = 0, 0, count()
    for access in accesses:
        uses, hits = uses + len(access), hits + sum(key in here for key in access)
        for key in access:
            here[key] = ahead[key].pop()
            heapq.heappush(farthest, (-here[key], next(serial), key))
        _evict(here, farthest, set(access), slots, lambda: next(serial))
    return Kept(uses, hits)


def _evict(here: dict[Key, int], farthest: list[tuple[int, int, Key]], access: set[Key], slots: int, serial: Callable[[], int]) -> None:
    needed = []
    while len(here) > slots:
        negative, _, key = heapq.heappop(farthest)
        if here.get(key) != -negative:
            continue
        if key in access:
            needed.append(key)
        else:
            del here[key]
    for key in needed:
        heapq.heappush(farthest, (-here[key], serial(), key))


def _uses_ahead(accesses: Sequence[Access]) -> dict[Key, list[int]]:
    """For each key the times of its second and later uses, then never; the next one last, to be taken off."""
    times: defaultdict[Key, list[int]] = defaultdict(list)
    for time, access in enumerate(accesses):
        for key in access:
            times[key].append(time)
    never = len(accesses)
    return {key: [never, *reversed(found[1:])] for key, found in times.items()}
