"""The rule `attention`: the weights and entropies that are recorded of attention can be those of a softmax over the positions so far.

A head's weights are binary32 quotients by their own sum, so they add up to 1 within `slack`, and entropies of them err as much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import fsum
from typing import Any

from formation.exact64 import log64
from formation.ledger.formulas import plain_sum
from formation.ledger.gaps import Gap, fact, same, within
from formation.ledger.lines import Place
from formation.ledger.norms import LANES, SINGLE, SPARE

ATTENTION = "attention"
OF_HEAD = 3  # weights of each head at most
Values = Mapping[str, Any]
Weight = tuple[float, int, int]  # -weight, head, position: sorts as they are listed


def of_line(values: Values, place: Place) -> Iterator[Gap]:
    """One layer's line, if it says anything of attention"""
    strongest = values.get("attention_strongest")
    if not isinstance(strongest, list):
        return
    listed, by_head = weights(strongest), weights(values.get("attention_strongest_by_head", []))
    known = sorted({*listed, *by_head})
    yield fact(ATTENTION, is_listed(listed, known), f"order of attention_strongest in {place}")
    if by_head:
        yield fact(ATTENTION, are_of_heads(by_head, known, place), f"order of attention_strongest_by_head in {place}")
    yield from sums(known, place)
    yield from entropies(values, listed, by_head, place)


def weights(records: Sequence[Any]) -> list[Weight]:
    return [(-record["weight"], record["head"], record["position"]) for record in records]


def is_listed(listed: Sequence[Weight], known: Sequence[Weight]) -> bool:
    """The first of all that are known, no place with two weights, all weights in [0, 1]"""
    places = {(head, position) for _, head, position in known}
    return list(listed) == known[: len(listed)] and len(places) == len(known) and -1 <= known[0][0] and known[-1][0] <= 0


def are_of_heads(by_head: Sequence[Weight], known: Sequence[Weight], place: Place) -> bool:
    """Heads in order, of each the first of what is known of it"""
    count = min(OF_HEAD, place.position + 1)
    own: list[list[Weight]] = [[] for _ in range(place.run.shape.heads)]
    for weight in known:
        own[weight[1]].append(weight)
    return list(by_head) == [weight for head in own for weight in head[:count]]


def sums(known: Sequence[Weight], place: Place) -> Iterator[Gap]:
    """The weights of a head make 1 if all are known, and less if not"""
    keys, found = place.position + 1, dict[int, list[float]]()
    for weight, head, _ in known:
        found.setdefault(head, []).append(-weight)
    slack, where = slack_of(place), f"sum of attention weights in {place}"
    yield within(ATTENTION, 0.0, max(map(fsum, found.values())), 1.0, slack, where)
    if whole := [fsum(row) for row in found.values() if len(row) == keys]:
        yield within(ATTENTION, 1.0, min(whole), 1.0, slack, where)


def slack_of(place: Place) -> float:
    """What the weights of a head may miss 1 by"""
    return ((place.position + 1) / LANES + SPARE) * SINGLE


def entropies(values: Values, listed: Sequence[Weight], by_head: Sequence[Weight], place: Place) -> Iterator[Gap]:
    """-ln(largest weight) ≤ entropy ≤ ln(p + 1), of each head and of their mean"""
    mean, width = values["attention_entropy"], log64(place.position + 1)
    tolerance = slack_of(place) * (width + 1)
    yield within(ATTENTION, least(listed[0]), mean, width, tolerance, f"attention_entropy in {place}")
    found = values.get("attention_entropies")
    if found is not None and not isinstance(found, dict):
        yield same(ATTENTION, [plain_sum(found) / len(found)], [mean], f"mean of attention_entropies in {place}")
        firsts = by_head[:: min(OF_HEAD, place.position + 1)]  # the largest of each head
        beyond = max(max(least(first) - entropy, entropy - width) for first, entropy in zip(firsts, found, strict=True))
        yield within(ATTENTION, 0.0, max(beyond, 0.0), 0.0, tolerance, f"attention_entropies in {place}")


def least(largest: Weight) -> float:
    """Of the entropy of a distribution with this largest weight; none has one of 0"""
    return -log64(-largest[0]) if largest[0] < 0 else float("inf")
