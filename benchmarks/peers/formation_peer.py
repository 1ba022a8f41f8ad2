"""Formation itself, as a peer among others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import metered
import numpy as np

import formation
from formation.run.sample import Choice


@dataclass(frozen=True)
class Forced:
    """Says what it is told to say, however probable."""

    ids: list[int]
    first: int

    def choose(self, logits: np.ndarray, position: int) -> Choice:
        return Choice(self.ids[min(position - self.first, len(self.ids) - 1)])


def load(asked: dict[str, Any]) -> Callable[[list[int]], np.ndarray]:
    engine = formation.Engine(formation.open(asked["folder"]), memory=asked["weights_bytes"], threads=asked["threads"])
    forced = Forced(asked["forced"], len(asked["prompt"]))
    steps = engine.generate(asked["prompt"], len(asked["forced"]) + 1, forced)
    return lambda ids: next(steps).logits


metered.run(load)
