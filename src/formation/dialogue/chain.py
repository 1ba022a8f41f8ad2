"""How the next token is chosen in a dialogue: edits, then the contract's sampler over the tokens that are left.

The sampler is that of every other run (contract rule 8): it decides. It is given the logits that are left in id order, so its ties, filters and
draws are what they would be in a vocabulary without the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from formation.dialogue.edits import Edits, Mask, apply
from formation.errors import UsageError
from formation.kernels.tensor import F32
from formation.run.distributions import Edited
from formation.run.order import sampler_of, settings_of
from formation.run.sample import Choice, Greedy, Sample


@dataclass(frozen=True)
class Chain:
    sampler: Greedy | Sample = field(default_factory=Greedy)
    edits: Edits = field(default_factory=Edits)

    def edited(self, logits: F32, history: Sequence[int] = ()) -> Edited:
        """Raises UsageError, as `edits.apply` does."""
        return apply(self.edits, logits, history)

    def choose(self, logits: F32, position: int, history: Sequence[int] = ()) -> Choice:
        """The token at `position` from logits [V]; `history` are the ids that penalties count."""
        return choose(self.sampler, self.edited(logits, history), position)


def choose(sampler: Greedy | Sample, edited: Edited, position: int) -> Choice:
    left = np.flatnonzero(edited.out == 0)  # [K]
    choice = sampler.choose(np.ascontiguousarray(edited.logits[left]), position)
    token = int(left[choice.id])
    return Choice(token, replace(choice.draw, id=token) if choice.draw else None)


# ---- as events.jsonl has it


def documents(chain: Chain) -> dict[str, Any]:
    """`sampler`, as in an anchor, and `edits`"""
    edits = chain.edits
    return {
        "sampler": settings_of(chain.sampler),
        "edits": {
            "repetition": edits.repetition, "presence": edits.presence, "frequency": edits.frequency,
            "bias": [{"id": token, "bias": value} for token, value in edits.bias],
            "masks": [{"rule": mask.rule, "allow": mask.allow, "ids": sorted(mask.ids)} for mask in edits.masks],
        },
    }  # fmt: skip


def chain_of(sampler: Mapping[str, Any], edits: Mapping[str, Any]) -> Chain:
    """Of records that were held against the event table. Raises UsageError for settings that no sampler has."""
    masks = tuple(Mask(mask["rule"], frozenset(mask["ids"]), mask["allow"]) for mask in edits["masks"])
    bias = tuple((each["id"], float(each["bias"])) for each in edits["bias"])
    repetition, presence, frequency = (float(edits[name]) for name in ("repetition", "presence", "frequency"))
    found = sampler_of(sampler)
    if not isinstance(found, Greedy | Sample):
        raise UsageError(f"sampler: expected one that is greedy or samples, got {type(found).__name__}")
    return Chain(found, Edits(repetition, presence, frequency, bias, masks))
