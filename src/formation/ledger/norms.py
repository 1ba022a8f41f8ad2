"""The rule `norms`: lengths and angles that rows of one cell can have together, for u = x + a, x' = u + m, and m the sum of the experts' writes.

Lengths are recorded in binary32, each a sum of D squares, so they agree up to the rounding of that sum: `slack`, relative. Cosines and
projections are binary64. What is absent for want of a length must have none. N = |x'|, X = |x|, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import fsum, inf, sqrt
from typing import Any

from formation.ledger.gaps import Gap, closure, fact, within
from formation.ledger.lines import Place

NORMS = "norms"
LANES, SPARE = 16, 12  # of a sum over a row; roundings beside those of one lane and of the sum of writes
SINGLE, DOUBLE = 2.0**-24, 2.0**-53  # one rounding
LOST_SQUARES = 2.0**-50  # more than binary32 norms lose to squares too small for it
Values = Mapping[str, Any]


def of_cell(x: float, values: Values, place: Place) -> Iterator[Gap]:
    """One layer's line, and the norm of the row that it begins with"""
    a, u, m, after = (values[f"{name}_norm"] for name in ("attention_write", "after_attention", "mlp_write", "residual"))
    slack = roundings(place) * SINGLE
    yield fact(NORMS, min(x, a, u, m, after) >= 0, f"norms below 0 in {place}")
    yield triangle(x, a, u, slack, f"|x + attention write| in {place}")
    yield triangle(u, m, after, slack, f"|u + MLP write| in {place}")
    largest, most = values["residual_largest"], sqrt(place.run.shape.hidden) * values["residual_largest"]
    yield within(NORMS, largest, after, most, slack * (after + abs(most)) + LOST_SQUARES, f"residual_largest in {place}")
    if "attention_cosine" in values:
        yield from shares(x, a, u, m, after, values, place)
        if not absent(values["expert_write_norms"]):
            yield from experts(m, values, place)


def roundings(place: Place) -> float:
    """Of a sum over a row, of one lane and what comes after"""
    return place.run.shape.hidden / LANES + SPARE


def absent(value: Any) -> bool:
    return isinstance(value, dict)


def triangle(p: float, q: float, total: float, slack: float, where: str) -> Gap:
    """||p| - |q|| ≤ |p + q| ≤ |p| + |q|"""
    return within(NORMS, abs(p - q), total, p + q, slack * (p + q + total) + LOST_SQUARES, where)


def shares(x: float, a: float, u: float, m: float, after: float, values: Values, place: Place) -> Iterator[Gap]:
    """Cosine c and projection p of a write w in x': p |x'| = c |w|. The projections say how long x and u are"""
    slack, known = roundings(place) * SINGLE, []
    for name, write in (("attention", a), ("mlp", m)):
        cosine, projection = values[f"{name}_cosine"], values[f"{name}_projection"]
        yield cosines([cosine], write * after, f"{name}_cosine in {place}", place)
        if absent(projection):
            yield fact(NORMS, not after, f"{name}_projection in {place}")
            continue
        along = 0.0 if absent(cosine) else cosine * write
        allowed = slack * (abs(projection) * after + abs(along)) + LOST_SQUARES * (1 + abs(projection))
        yield within(NORMS, along, projection * after, along, allowed, f"{name}_projection in {place}")
        known.append(projection)
    whole = u + m + after
    if len(known) == 2 and whole > 0:
        rest, square = abs(1 - known[0] - known[1]) * after, after * after / whole
        allowed = slack * (x + a + u + m + after) + LOST_SQUARES * (1 + abs(1 - known[0] - known[1]))
        yield within(NORMS, 0.0, rest, x, allowed, f"x along x' in {place}")
        terms = [square, -2 * known[1] * square, m * m / whole]
        allowed = 2 * slack * (fsum(map(abs, terms)) + u * u / whole) + LOST_SQUARES * LOST_SQUARES * (1 + abs(known[1])) / whole
        yield closure(NORMS, u * u / whole, terms, allowed, f"after_attention_norm in {place}")


def cosines(found: list[Any], lengths: float, where: str, place: Place) -> Gap:
    """Within [-1, 1]; absent only if one of the rows, whose `lengths` are multiplied, has none"""
    if any(map(absent, found)):
        return fact(NORMS, not lengths, where)
    return within(NORMS, 0.0, max(map(abs, found)), 1.0, 2 * roundings(place) * DOUBLE, where)


def experts(m: float, values: Values, place: Place) -> Iterator[Gap]:
    """|g output| = g |output|, and |m| is the sum of the writes along m"""
    writes, found, slack = values["expert_write_norms"], values["expert_write_cosines"], roundings(place) * SINGLE
    yield fact(NORMS, min(writes) >= 0 and min(values["expert_output_norms"]) >= 0, f"expert norms below 0 in {place}")
    gated = [*zip(values["gates"], values["expert_output_norms"], writes, strict=True)]
    own = tuple(values[f"shared_{name}"] for name in ("gate", "output_norm", "write_norm"))
    if not any(map(absent, own)):
        gated.append(own)
    beyond = 0.0
    for gate, output, write in gated:
        scaled = abs(gate) * output
        beyond = max(beyond, abs(write - scaled) - slack * (write + scaled) - LOST_SQUARES * (1 + abs(gate)))
    yield within(NORMS, 0.0, beyond, 0.0, 0.0, f"expert_write_norms in {place}")
    yield cosines([found] if absent(found) else list(found), m * min(writes), f"expert_write_cosines in {place}", place)
    shared, cosine = values["shared_write_norm"], values["shared_write_cosine"]
    norms, terms = [m, *writes], [] if absent(found) else [c * w for c, w in zip(found, writes, strict=True)]
    if not absent(shared):
        yield cosines([cosine], m * shared, f"shared_write_cosine in {place}", place)
        norms, terms = [*norms, shared], [*terms, 0.0 if absent(cosine) else cosine * shared]
    if not absent(found):
        allowed = (slack + len(norms) * SINGLE) * fsum(norms) + LOST_SQUARES * len(norms)
        yield closure(NORMS, m, terms, allowed, f"mlp_write_norm of its parts in {place}")


def of_scale(after: float, scale: float, place: Place) -> Gap:
    """r ≥ sqrt(mean(x_L^2)): `after` is the norm of x_L"""
    least = after / sqrt(place.run.shape.hidden)
    return within(NORMS, least, scale, inf, roundings(place) * SINGLE * least + LOST_SQUARES, f"final_scale in {place}")
