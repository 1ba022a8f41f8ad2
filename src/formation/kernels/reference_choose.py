"""Routers and samplers in plain Python, slow and obvious: the bits of csrc/route.c and csrc/sample.c."""

from __future__ import annotations

import math

import numpy as np

from formation.exact64 import exp64
from formation.kernels import reference_math32 as math32
from formation.kernels.choices import Draw, Router, Routing
from formation.kernels.reference_lanes import lane_sum
from formation.kernels.tensor import F32
from formation.philox import uniform

__all__ = ["argmax", "route", "sample", "uniform"]


def best(values: F32, candidates: list[int], count: int) -> list[int]:
    """The `count` candidates of largest value, the lower index first on ties"""
    return sorted(candidates, key=lambda i: (-float(values[i]), i))[:count]


def scores_of(router: Router, logits: F32) -> F32:
    if not router.softmax:
        return math32.sigmoid(logits)
    e = math32.exp(logits - logits.max())
    return e / lane_sum(e)


def open_experts(router: Router, selection: F32) -> list[int]:
    """The experts of the best groups"""
    if router.groups == 1:
        return list(range(router.experts))
    by_group = selection.reshape(router.groups, router.group_width)
    ranked = [np.sort(group)[::-1] for group in by_group]
    group_scores = np.array([group[0] + group[1] if router.group_top2 else group[0] for group in ranked], np.float32)
    kept = best(group_scores, list(range(router.groups)), router.kept_groups)
    return [e for e in range(router.experts) if e // router.group_width in kept]


def gates_of(router: Router, scores: F32, chosen: list[int]) -> F32:
    total = np.float32(0)
    for e in chosen:
        total = total + scores[e]
    total = total + np.float32(1e-20)
    shares = [scores[e] / total if router.normalise else scores[e] for e in chosen]
    return np.array([share * np.float32(router.scale) for share in shares], np.float32)


def route(router: Router, logits: F32, bias: F32 | None) -> Routing:
    if not np.isfinite(logits).all() or not (bias is None or np.isfinite(bias).all()):
        raise ValueError("route: expected finite logits and bias")
    scores = np.zeros_like(logits)
    chosen = np.zeros((len(logits), router.chosen), np.int64)
    gates = np.zeros((len(logits), router.chosen), np.float32)
    for m, row in enumerate(logits):
        scores[m] = scores_of(router, row)
    selection = scores.copy() if bias is None else scores + bias
    for m in range(len(logits)):
        ids = sorted(best(selection[m], open_experts(router, selection[m]), router.chosen))
        chosen[m], gates[m] = ids, gates_of(router, scores[m], ids)
    return Routing(scores, selection, chosen, gates)


def argmax(logits: F32) -> int:
    return best(logits, list(range(len(logits))), 1)[0]


def total_mass(mass: list[float], ids: list[int]) -> float:
    total = 0.0
    for i in sorted(ids):
        total = total + mass[i]
    return total


def nucleus(mass: list[float], ordered: list[int], top_p: float) -> list[int]:
    """The first ids whose mass reaches top_p of all of them"""
    goal, total = top_p * total_mass(mass, ordered), 0.0
    for count, i in enumerate(ordered):
        if total >= goal:
            return ordered[:count]
        total = total + mass[i]
    return ordered


def check_sampling(logits: F32, temperature: float, top_k: int, top_p: float, min_p: float, draw: float) -> None:
    good = 0 < temperature < math.inf and top_k >= 0 and 0 < top_p <= 1 and 0 <= min_p <= 1 and 0 <= draw < 1
    if not good or not len(logits) or not np.isfinite(logits).all():
        raise ValueError("sample: expected arguments within its domain")


def sample(logits: F32, *, temperature: float, top_k: int, top_p: float, min_p: float, draw: float) -> Draw:
    check_sampling(logits, temperature, top_k, top_p, min_p, draw)
    tempered = [float(logit) / temperature for logit in logits]
    top = max(tempered)
    mass = [1.0 if x == top else exp64(x - top) for x in tempered]
    ordered = best(logits, list(range(len(logits))), top_k or len(logits))
    if top_p < 1.0:
        ordered = nucleus(mass, ordered, top_p)
    kept = sorted(i for i in ordered if mass[i] >= min_p and mass[i] > 0.0)
    total, everything = total_mass(mass, kept), total_mass(mass, list(range(len(mass))))
    low = high = 0.0
    for i in kept:
        low, high = high, high + mass[i]
        if high > draw * total:
            return Draw(i, len(kept), draw, low / total, high / total, total / everything)
    raise AssertionError("the last cumulative sum is the total, and draw * total rounds below it")
