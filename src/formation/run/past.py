"""What the layers keep of a sequence that goes on: a later run that begins with the same ids computes only the others, to the same bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from formation.model.architecture import Model
from formation.model.attention import KeyCache


@dataclass(frozen=True, eq=False)
class Mark:
    """Where a past stood, and what of it later positions overwrite: {layer: state}"""

    ids: tuple[int, ...]
    states: Mapping[int, Any]


class Past:
    """Made by `Engine.past`. `ids` are those whose positions the caches hold; keys of later positions may lie behind them, and count for nothing.

    A layer with attention can go back to any position. A delta layer has its last state only: where ids differ from those that it has seen, all
    begins again at position 0, unless somebody has left a mark where they part.
    """

    def __init__(self, model: Model) -> None:
        self.capacity = 0
        self.ids: list[int] = []
        self._model = model
        self._caches: list[Any] = []

    @property
    def nbytes(self) -> int:
        return self.bytes_for(self.capacity) if self._caches else 0

    def bytes_for(self, capacity: int) -> int:
        return sum(self._model.cache_bytes(layer, capacity) for layer in range(self._model.shape.layers))

    def roomy(self, positions: int) -> int:
        """A capacity for so many positions: what there is, or twice that, so that a sequence that grows is not copied at each turn"""
        return self.capacity if positions <= self.capacity else max(positions, min(2 * self.capacity, self._model.shape.context))

    def caches(self, capacity: int) -> list[Any]:
        """With room for so many positions"""
        if not self._caches:
            self._caches, self.capacity = [self._model.new_cache(layer, capacity) for layer in range(self._model.shape.layers)], capacity
        if capacity > self.capacity:
            for layer, cache in enumerate(self._caches):
                self._caches[layer] = self._longer(layer, cache, capacity)  # one after the other: both are in memory for one layer only
            self.capacity = capacity
        return self._caches

    def _longer(self, layer: int, cache: Any, capacity: int) -> Any:
        if not isinstance(cache, KeyCache):
            return cache
        longer = self._model.new_cache(layer, capacity)
        longer.values[: len(cache.values)] = cache.values
        return longer

    def known(self, ids: Sequence[int]) -> int:
        """How many of `ids` need not be computed; never the last, whose logits are asked for"""
        same = next((place for place, (old, new) in enumerate(zip(self.ids, ids, strict=False)) if old != new), min(len(self.ids), len(ids)))
        done = min(same, len(ids) - 1)
        can_go_back = all(isinstance(cache, KeyCache) for cache in self._caches)
        return done if can_go_back or done == len(self.ids) else 0

    def copy(self, capacity: int) -> Past:
        """One that goes on by itself, with room for so many positions"""
        other = Past(self._model)
        for mine, own in zip(self._caches, other.caches(max(capacity, len(self.ids))), strict=True):
            if isinstance(mine, KeyCache):
                own.values[: len(mine.values)] = mine.values[: len(own.values)]
            else:
                own.state[:], own.tail[:], own.filled = mine.state, mine.tail, mine.filled
        other.ids = list(self.ids)
        return other

    def mark(self) -> Mark:
        """For `go_back`, whatever comes after the ids that are here now"""
        return Mark(tuple(self.ids), {layer: deepcopy(cache) for layer, cache in enumerate(self._caches) if not isinstance(cache, KeyCache)})

    def holds(self, mark: Mark) -> bool:
        """Whether it has gone on from there, and not been elsewhere since"""
        return tuple(self.ids[: len(mark.ids)]) == mark.ids

    def go_back(self, mark: Mark) -> None:
        """To where it stood. Raises ValueError for a mark that it does not hold."""
        if not self.holds(mark):
            raise ValueError("expected a past that went on from its mark, got one that begins otherwise")
        for layer, state in mark.states.items():
            cache = self._caches[layer]
            cache.state[:], cache.tail[:], cache.filled = state.state, state.tail, state.filled
        self.ids = list(mark.ids)
