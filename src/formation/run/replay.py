"""One capture-off, cache-free, layer-major pass over texts, in a process of its own: digests of every step's logits and of what every cell keeps.

    python -m formation.run.replay < {"checkpoint", "mirrors", "texts": [{"ids", "steps"}…], "memory", "threads"}
                                   > [{"logits": […], "cache": [[…]…]}…]

No probe is installed: logits and cache are read after the pass, as they lie. Only the state of a delta layer is gone when the next position comes:
it is digested as it passes. `ids` end with the last token, which is never stepped; `steps` are the positions of the steps.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from formation.kernels import ops
from formation.kernels.tensor import F32
from formation.model.deltanet import DeltaState
from formation.model.taps import Blind
from formation.run.child import asked_of_parent
from formation.run.generate import Engine
from formation.run.past import Past
from formation.weights.mirror import open_mirrored


class Keeping(Engine):
    """Keeps hold of the caches of the pass it is in, and the digests of states that a cache has left behind."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._kept: list[tuple[list[Any], list[dict[int, str]]]] = []  # of each sequence its caches, and of each layer the states by position

    @property
    def caches(self) -> list[Any]:
        """Of the last sequence"""
        return self._kept[-1][0]

    def _new_caches(self, positions: int) -> list[Any]:
        return self._followed(super()._new_caches(positions))

    def followed_past(self, positions: int) -> Past:
        """For `generate`, with room for so many positions"""
        past = self.past()
        self._followed(past.caches(positions))
        return past

    def _followed(self, caches: list[Any]) -> list[Any]:
        states: list[dict[int, str]] = [{} for _ in caches]
        for cache, own in zip(caches, states, strict=True):
            if isinstance(cache, DeltaState):
                cache.follow = follower(own)
        self._kept.append((caches, states))
        return caches

    def kept(self, positions: int, number: int = -1) -> list[list[str]]:
        """Digest of what each layer keeps of each position of a sequence"""
        return [
            [states[position] for position in range(positions)] if isinstance(cache, DeltaState)
            else [digest(entry) for entry in ops.cache_load(cache.values, 0, positions)]
            for cache, states in zip(*self._kept[number], strict=True)
        ]  # fmt: skip


def follower(states: dict[int, str]) -> Callable[[int, F32, F32], None]:
    def follow(position: int, matrices: F32, tail: F32) -> None:
        states[position] = digest(matrices, tail)

    return follow


def replay(engine: Keeping, texts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each text {"logits": [digest of each step], "cache": [[digest per position] per layer]}: of its ids but for the last, in one pass."""
    found: list[dict[str, Any]] = [{"logits": []} for _ in texts]
    for number, step in engine.score_together([(text["ids"], text["steps"], Blind()) for text in texts]):
        found[number]["logits"].append(digest(step.logits))
    return [each | {"cache": engine.kept(len(text["ids"]) - 1, number)} for number, (each, text) in enumerate(zip(found, texts, strict=True))]


def digest(*values: np.ndarray) -> str:
    """SHA-256 of the values, one array after the other, as little-endian binary32"""
    found = hashlib.sha256()
    for each in values:
        found.update(np.ascontiguousarray(each).astype("<f4", copy=False).data)
    return found.hexdigest()


def main() -> int:
    asked = asked_of_parent()
    with Keeping(open_mirrored(asked["checkpoint"], asked["mirrors"]), memory=asked["memory"], threads=asked["threads"]) as engine:
        json.dump(replay(engine, asked["texts"]), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
