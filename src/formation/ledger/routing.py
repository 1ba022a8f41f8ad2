"""The rules of routing: who was chosen, and with what weight, follows from the router's logits in binary32 arithmetic, bit for bit.

A line holds the chosen experts and the runners-up. `of_line` checks what can be told from these; `of_all_experts` redoes the choice from the
sidecar row of all logits. Selection (DeepSeek-V3, arXiv 2412.19437, section 2.1.2) is by c = s + b, weights are by s. E experts, K chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import fsum
from operator import add as plus
from struct import pack, unpack
from typing import Any

from formation import exact32
from formation.ledger import canonical
from formation.ledger.gaps import Gap, fact, same
from formation.ledger.lines import Place, Router, Run

CHOICE, SCORES, GATES, ALL_EXPERTS = "choice", "scores", "gates", "all experts"
TINY = exact32.f32(1e-20)
LARGEST = exact32.f32(3.4e38)  # a distance from which on exp is 0 in any case, within binary32
LANES, SPARE, DOUBLE_ROUNDING = 16, 8, 2.0**-23  # of a sum in binary32: roundings of a lane, others, and twice the size of one
LARGEST_BITS = 0x7F800000 - 4  # of a finite binary32 number with four more above it
Values = Mapping[str, Any]
F32s = Sequence[float]


def of_line(values: Values, place: Place) -> Iterator[Gap]:
    """The rules of one layer's line with experts; `values` as lines.values_of gives them"""
    router = place.run.router
    if router is None or isinstance(values["chosen"], dict):
        return
    yield from choice(values, place)
    count, sigmoids = len(values["chosen"]), [] if router.softmax else exact32.sigmoids([*values["chosen_logits"], *values["runner_up_logits"]])
    for prefix, ids, due in (("chosen_", values["chosen"], sigmoids[:count]), ("runner_up_", values["runners_up"], sigmoids[count:])):
        yield from scores(values, prefix, ids, due, place)
    if router.softmax and not router.biased and router.groups == 1:
        yield from one_total(values, place)
    yield same(GATES, gates_of(values["chosen_scores"], router), values["gates"], f"gates in {place}")
    yield from shared_gate(values, router, place)


def choice(values: Values, place: Place) -> Iterator[Gap]:
    """chosen = the best by selection among chosen and runners-up, ties low"""
    chosen, refused = values["chosen"], values["runners_up"]
    yield fact(CHOICE, chosen == sorted(set(chosen)), f"order of chosen in {place}")
    yield fact(CHOICE, len({*chosen, *refused}) == len(chosen) + len(refused), f"an expert listed twice in {place}")
    behind = ranked(refused, values["runner_up_selection"])
    yield fact(CHOICE, behind == sorted(behind), f"order of runners_up in {place}")
    if behind:
        last = max(ranked(chosen, values["chosen_selection"]))
        yield fact(CHOICE, last < behind[0], f"expert {last[1]} chosen before {behind[0][1]} in {place}")


def ranked(ids: Sequence[int], selection: F32s) -> list[tuple[float, int]]:
    """Sorts as the router does: large selection first, ties low first"""
    return [(-c, e) for c, e in zip(selection, ids, strict=True)]


def scores(values: Values, prefix: str, ids: Sequence[int], sigmoids: F32s, place: Place) -> Iterator[Gap]:
    """s = sigmoid(q) and c = s + b; a softmax needs all experts' logits"""
    router, found = place.run.router, values[f"{prefix}scores"]
    assert router is not None
    if not router.softmax:
        yield same(SCORES, sigmoids, found, f"{prefix}scores in {place}")
    biases: F32s = [0.0] * len(ids)
    if router.biased:
        biases = values[f"{prefix}biases"]
        known = place.run.biases[place.layer]
        yield same(SCORES, [known[e] for e in ids], biases, f"{prefix}biases in {place}")
    yield same(SCORES, exact32.rounded(list(map(plus, found, biases))), values[f"{prefix}selection"], f"{prefix}selection in {place}")


def one_total(values: Values, place: Place) -> Iterator[Gap]:
    """s = fl(exp(q - largest) / total) with one total for all that are listed, though its other terms are not.

    The best score is that of the largest logit, and it is fl(1 / total): at most three binary32 totals give it. Without biases and groups that expert
    is listed, unless all that are listed have the same score and others may have it too. No term that is not listed is larger than the last that is.
    """
    logits, found = ([*values[f"chosen_{name}"], *values[f"runner_up_{name}"]] for name in ("logits", "scores"))
    best = max(found)
    if values["runners_up"] and found[-1] == best:
        return
    largest, experts = max(logits), place.run.shape.experts
    powers = exact32.exps(exact32.rounded([max(q - largest, -LARGEST) for q in logits]))
    least, rounding = fsum(powers), (experts / LANES + SPARE) * DOUBLE_ROUNDING
    most = least + (experts - len(powers)) * powers[-1]
    possible = [total for total in totals(best) if least * (1 - rounding) <= total <= most * (1 + rounding)]
    holds = any(rounded_shares(powers, total) == found for total in possible)
    yield fact(SCORES, holds, f"one total of a softmax for the scores in {place}")


def rounded_shares(powers: F32s, total: float) -> list[float]:
    return list(exact32.rounded([power / total for power in powers]))


def totals(share: float) -> list[float]:
    """Every binary32 number whose reciprocal may round to `share`, and a few beside them"""
    if not 0 < share <= 1:
        return []
    (bits,) = unpack("<i", pack("<f", exact32.divide(1.0, share)))
    return [unpack("<f", pack("<i", bits + step))[0] for step in range(-3, 4)] if bits < LARGEST_BITS else []


def shared_gate(values: Values, router: Router, place: Place) -> Iterator[Gap]:
    """Of the shared expert: a sigmoid, or none; then its write is its output"""
    output, write, gate = (values.get(f"shared_{name}") for name in ("output_norm", "write_norm", "gate"))
    if output is None or isinstance(output, dict):
        return
    if router.shared_gated:
        yield fact(GATES, not isinstance(gate, dict) and 0 <= float(gate) <= 1, f"shared_gate in {place}")  # type: ignore[arg-type]
    else:
        yield fact(GATES, output == write, f"shared_write_norm in {place}")


def gates_of(chosen_scores: F32s, router: Router) -> F32s:
    """g = fl(fl(s / fl(Σ s + 1e-20)) scale), Σ s in ascending id; without normalisation g = fl(s scale)"""
    total = 0.0
    for score in chosen_scores:
        total = exact32.add(total, score)
    total = exact32.add(total, TINY)
    shares = [exact32.divide(score, total) for score in chosen_scores] if router.normalise else chosen_scores
    return exact32.rounded([share * router.scale for share in shares])


# ---- with the logits of all experts


@dataclass(frozen=True)
class Routing:
    """`ranking` holds the experts of kept groups, best first: the first K are chosen."""

    scores: list[float]
    selection: list[float]
    ranking: list[int]


def route(run: Run, layer: int, logits: F32s) -> Routing:
    """The router of the contract over logits [E]; the run has experts"""
    router = run.router
    assert router is not None
    found = softmax(logits) if router.softmax else exact32.sigmoids(logits)
    selection = list(exact32.rounded(list(map(plus, found, run.biases[layer])))) if router.biased else found
    return Routing(found, selection, sorted(kept(selection, router), key=selection.__getitem__, reverse=True))  # stable: ties low first


def softmax(logits: F32s) -> list[float]:
    largest = max(logits)
    powers = exact32.exps(exact32.rounded([max(q - largest, -LARGEST) for q in logits]))
    total = exact32.lane_sum(powers)
    return list(exact32.rounded([power / total for power in powers]))


def kept(selection: F32s, router: Router) -> list[int]:
    """The experts of the best groups in ascending order, by the sum of a group's two best or by its best; ties low"""
    if router.groups == 1:
        return list(range(len(selection)))
    width = len(selection) // router.groups
    groups = [sorted(selection[g * width : (g + 1) * width], reverse=True) for g in range(router.groups)]
    marks = [exact32.add(group[0], group[1]) if router.group_top2 else group[0] for group in groups]
    best = {g for _, g in sorted(ranked(range(router.groups), marks))[: router.kept_groups]}
    return [e for e in range(len(selection)) if e // width in best]


def of_all_experts(values: Values, place: Place, logits: bytes) -> Iterator[Gap]:
    """A line with experts against the sidecar row of all its router logits, little-endian f32[E]"""
    shape = place.run.shape
    yield fact(ALL_EXPERTS, sha256(logits).hexdigest() == values["router_logits_sha256"], f"router_logits_sha256 in {place}")
    q = canonical.values_f32(logits)
    if len(q) != shape.experts:
        yield fact(ALL_EXPERTS, False, f"number of router logits in {place}")
        return
    found = route(place.run, place.layer, q)
    digest = sha256(pack(f"<{len(q)}f", *found.selection)).hexdigest()
    yield fact(ALL_EXPERTS, digest == values["router_selection_sha256"], f"router_selection_sha256 in {place}")
    chosen = sorted(found.ranking[: shape.chosen])
    refused = found.ranking[shape.chosen :][: place.run.runners_up]
    yield fact(ALL_EXPERTS, (chosen, refused) == (values["chosen"], values["runners_up"]), f"chosen and runners_up in {place}")
    for prefix, ids in (("chosen_", chosen), ("runner_up_", refused)):
        for name, row in (("logits", q), ("scores", found.scores), ("selection", found.selection)):
            yield same(ALL_EXPERTS, [row[e] for e in ids], values[f"{prefix}{name}"], f"{prefix}{name} in {place}")
