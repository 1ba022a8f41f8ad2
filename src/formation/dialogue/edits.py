"""Edits of logits before they become probabilities: penalties, bias, masks, applied in this order, each operation rounding once to binary32.

repetition r   of every token in the history: z > 0 ? z / r : z * r      (Keskar et al., CTRL, 2019)
presence a     z - a                                                     (as servers of the OpenAI protocol have it)
frequency b    z - b * (times in the history)
bias           z + its bias
masks          the token is put out; the first mask that names it is why
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formation.errors import UsageError
from formation.kernels.tensor import F32
from formation.ledger.zero import Kind, Zero
from formation.run.distributions import Edited

MOST_MASKS = 200


@dataclass(frozen=True)
class Mask:
    """Puts the tokens `ids` out, or all others if `allow`; `rule` names it wherever a token is missing."""

    rule: str
    ids: frozenset[int]
    allow: bool = False


@dataclass(frozen=True)
class Edits:
    """`bias` holds pairs of id and what is added to its logit."""

    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0
    bias: tuple[tuple[int, float], ...] = ()
    masks: tuple[Mask, ...] = ()

    def __post_init__(self) -> None:
        names = [mask.rule for mask in self.masks]
        limits = (
            ("repetition penalty", 0.0 < self.repetition <= 1e3, "a number above 0, at most 1000", self.repetition),
            ("presence penalty", abs(self.presence) <= 1e3, "a number within 1000", self.presence),
            ("frequency penalty", abs(self.frequency) <= 1e3, "a number within 1000", self.frequency),
            ("bias", all(math.isfinite(value) for _, value in self.bias), "finite numbers", self.bias),
            ("bias", len({token for token, _ in self.bias}) == len(self.bias), "each token once", self.bias),
            ("masks", len(set(names)) == len(names) <= MOST_MASKS and all(names), f"at most {MOST_MASKS} rules with different names", names),
        )
        for name, valid, expected, got in limits:
            if not valid:
                raise UsageError(f"{name}: expected {expected}, got {str(got)[:60]}")


def apply(edits: Edits, logits: F32, history: Sequence[int]) -> Edited:
    """Of logits [V]; `history` holds the ids that penalties count. Raises UsageError for ids outside the vocabulary, and for edits that leave
    nothing, or nothing finite."""
    z = logits.astype(np.float32)
    penalise(edits, z, history)
    tokens, values = ids_of([token for token, _ in edits.bias], len(z), "bias"), [value for _, value in edits.bias]
    with np.errstate(over="ignore"):
        z[tokens] = z[tokens] + np.array(values, np.float32)
    if not np.isfinite(z).all():
        raise UsageError("edits: expected logits that stay finite in binary32, got an overflow")
    out = np.zeros(len(z), np.uint8)
    for place, mask in enumerate(edits.masks, 1):
        hit = np.full(len(z), mask.allow)
        hit[ids_of(sorted(mask.ids), len(z), f"mask {mask.rule}")] = not mask.allow
        out[hit & (out == 0)] = place
    if out.all():
        raise UsageError("masks: expected at least one token that is left, got none")
    return Edited(z, out, tuple(Zero(Kind.MASKED, mask.rule) for mask in edits.masks))


def penalise(edits: Edits, z: F32, history: Sequence[int]) -> None:
    counts = Counter(history)
    seen = ids_of(sorted(counts), len(z), "history")
    with np.errstate(over="ignore"):
        if edits.repetition != 1.0:
            r, own = np.float32(edits.repetition), z[seen]
            z[seen] = np.where(own > 0, own / r, own * r)
        if edits.presence:
            z[seen] = z[seen] - np.float32(edits.presence)
        if edits.frequency:
            times = np.array([counts[int(token)] for token in seen], np.float32)
            z[seen] = z[seen] - np.float32(edits.frequency) * times


def ids_of(ids: Sequence[int], vocabulary: int, what: str) -> NDArray[np.int64]:
    outside = [token for token in ids if not 0 <= token < vocabulary]
    if outside:
        raise UsageError(f"{what}: expected ids from 0 to {vocabulary - 1}, got {outside[0]}")
    return np.array(ids, np.int64)
