"""How far a branch is from the base: their distributions after as many tokens, and the first token that differs.

The reference is the base at the same offset; offset k is after k tokens of both. At offset 0 both are one distribution, and nothing is said of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from formation.dialogue.divergence import divergence
from formation.dialogue.forks.source import Formed
from formation.kernels.tensor import F32
from formation.run.distributions import of_logits

OFFSETS = 8


@dataclass
class Reference:
    """The base's logits after 1, 2, … tokens; `most` of them are kept, 4 bytes for each token of the vocabulary."""

    most: int
    threads: int = 1
    logits: list[F32] = field(default_factory=list)
    heard: int = 0

    def hear(self, formed: Formed, logits: F32) -> None:
        if 0 < self.heard <= self.most:
            self.logits.append(logits)
        self.heard += 1

    def apart(self, name: str, offset: int, logits: F32) -> dict[str, Any] | None:
        """KL and JS of a branch's logits [V] from the base's; None where there are none to compare with"""
        if not 1 <= offset <= len(self.logits):
            return None
        of, reference = (f"{who} after {offset} token{'s' * (offset > 1)}" for who in (name, "base"))
        p, r = (of_logits("model", z, np.zeros(len(z), np.uint8), (), self.threads) for z in (logits, self.logits[offset - 1]))
        return {"offset": offset, **divergence(p, r, of=of, reference=reference).document()}


def first_apart(ids: Sequence[int], base: Sequence[int]) -> int | None:
    """From 1, the first token that differs; None if as far as both go there is none"""
    return next((place for place, (a, b) in enumerate(zip(ids, base, strict=False), 1) if a != b), None)
