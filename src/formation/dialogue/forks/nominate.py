"""One model nominates a token: the first that it would answer with, among those that the other can be told of and can say as one token.

It is drawn with the nominating side's own sampler (sample s with branch number + s), or is the least likely of them. An operator may nominate a text
instead, of whatever tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from formation.dialogue.chain import Chain
from formation.dialogue.edits import Mask
from formation.dialogue.forks.source import Draws, method_of
from formation.dialogue.local import LocalSide
from formation.dialogue.measure import document, measure
from formation.dialogue.side import Turn
from formation.errors import UsageError
from formation.kernels.tensor import F32
from formation.run.sample import Choice, Sample
from formation.text import Tokenizer

DRAWN, LEAST = "drawn", "least"
RULE = "not one token of the other"
QUESTION = "Name one token that the other model will never say."


@dataclass(frozen=True)
class Nomination:
    """`sample` from 0. `told` says how it came: by which side, under which distributions."""

    sample: int
    text: str
    told: dict[str, Any]


def shared_tokens(own: Tokenizer, other: Tokenizer) -> frozenset[int]:
    """Ids of `own` whose text the other encodes to one id, and that are more than white space"""
    found = []
    for token in range(own.size):
        spelt = own.token_bytes(token)
        try:
            text = spelt.decode()
        except UnicodeDecodeError:
            continue
        if text.strip() and token not in own.specials.values() and len(other.encode(text)) == 1:
            found.append(token)
    return frozenset(found)


def nominations(side: LocalSide, other: Tokenizer, question: str, how: str, samples: int) -> list[Nomination]:
    """By `side`, which has not spoken yet. Raises UsageError where the two vocabularies share nothing."""
    allowed = shared_tokens(side.tokenizer, other)
    if not allowed:
        raise UsageError("nomination: expected texts that are a token of both sides, got none", hint="give --token")
    ids = side.prompt([Turn(0, False, question)])
    (step,) = side.engine.generate(ids, 1, past=side.past)
    chain = side.manner.chain
    masked = replace(chain, edits=replace(chain.edits, masks=(*chain.edits.masks, Mask(RULE, allowed, allow=True))))
    return [nominated(side, masked, step.logits, len(ids), how, sample, allowed) for sample in range(samples)]


def nominated(side: LocalSide, chain: Chain, logits: F32, position: int, how: str, sample: int, allowed: frozenset[int]) -> Nomination:
    drawn = drawn_for(chain, sample)
    if how == LEAST:
        ordered = sorted(allowed)
        choice, method = Choice(ordered[int(logits[ordered].argmin())]), "forced"
    else:
        choice, method = drawn.choose(logits, position), method_of(chain)
    measured = document(measure(drawn, logits, choice, method, threads=side.engine.threads))
    told = {"by": side.name, "how": how, "id": choice.id, "measured": measured}
    return Nomination(sample, side.tokenizer.token_bytes(choice.id).decode(), told)


def drawn_for(chain: Chain, sample: int) -> Chain:
    """With the draws of this sample"""
    sampler = chain.sampler
    return Draws(0, sample, sampler.seed, (sampler.branch + sample) % (1 << 64)).of(chain) if isinstance(sampler, Sample) else chain


def by_operator(text: str, samples: int) -> list[Nomination]:
    return [Nomination(sample, text, {"by": "the operator"}) for sample in range(samples)]


def distinct(found: Sequence[Nomination]) -> list[str]:
    return list(dict.fromkeys(each.text for each in found))
