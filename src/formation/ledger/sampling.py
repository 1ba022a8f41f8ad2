"""The rules of the choice of a token: of its line alone, and of the line beside what the anchor says of the sampler.

A sampled token has two distributions beside the model's: at the sampler's temperature, and of what its filters leave. They and the draw's interval
are measured on different ways, and must agree. All three keep the order of the logits, so that filters leave the first tokens of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from formation.exact64 import exp64, log64
from formation.ledger.formulas import masses
from formation.ledger.gaps import TOLERANCE, Gap, fact, same, within
from formation.ledger.lines import Place

DRAW = "draw"
ROUNDING = 2.0**-53
SUMS = 2.0**-50  # times the vocabulary: what sums of all of it, below 1, may differ by when they run in other orders
NUMBERS = ("log_sum_exp", "mean", "mean_square")
OF_MODEL = {
    "tempered_score": "chosen_logit", "tempered_log_sum_exp": "log_sum_exp", "tempered_mean": "mean_logit",
    "tempered_mean_square": "mean_square_logit", "tempered_rank_low": "rank_low", "tempered_rank_high": "rank_high",
}  # fmt: skip
Values = Mapping[str, Any]


def of_step(sampler: Values, head: Values, token: int, place: Place) -> Iterator[Gap]:
    if sampler["method"] == "greedy":
        yield fact(DRAW, token == head["top"][0], f"greedy token in {place}")
    if sampler["method"] == "sample":
        yield from interval(sampler, place)
        yield from chances(sampler, place)
        yield from bounds(sampler, head, place)


def interval(sampler: Values, place: Place) -> Iterator[Gap]:
    """The draw lies in y's interval; low and high are quotients, so four roundings are allowed"""
    low, high, mass = sampler["low"], sampler["high"], sampler["kept_mass"]
    yield within(DRAW, low, sampler["draw"], high, 4 * ROUNDING, f"draw in {place}")
    yield fact(DRAW, 0 <= sampler["draw"] < 1 and 0 <= low < high <= 1, f"interval in {place}")
    yield fact(DRAW, 1 <= sampler["kept"] <= place.run.shape.vocabulary and 0 < mass <= 1, f"kept in {place}")


def chances(sampler: Values, place: Place) -> Iterator[Gap]:
    """The interval is as wide as q is large; q of what is kept is the tempered probability; what is kept and what is cut off are all"""
    q, p = (exp64(min(sampler[f"{name}_logprob"], 1.0)) for name in ("sampler", "tempered"))
    slack = place.run.shape.vocabulary * SUMS
    yield within(DRAW, q, sampler["high"] - sampler["low"], q, slack, f"interval and sampler_logprob in {place}")
    yield within(DRAW, p, q * sampler["kept_mass"], p, slack, f"sampler_logprob and tempered_logprob in {place}")
    yield within(DRAW, 1.0, sampler["kept_mass"] + sampler["truncated_mass"], 1.0, slack, f"truncated_mass in {place}")
    yield fact(DRAW, sampler["truncated_mass"] >= 0, f"truncated_mass in {place}")


def bounds(sampler: Values, head: Values, place: Place) -> Iterator[Gap]:
    """Ranks are the model's, but that a temperature may make two scores one; entropies are those of so many tokens"""
    low, high = sampler["tempered_rank_low"], sampler["tempered_rank_high"]
    vocabulary, kept = place.run.shape.vocabulary, sampler["kept"]
    holds = 1 <= low <= head["rank_low"] and head["rank_high"] <= high <= vocabulary and low <= kept
    yield fact(DRAW, holds, f"tempered_rank in {place}")
    for prefix, count in (("tempered", vocabulary), ("sampler", kept)):
        total, mean, square = (sampler[f"{prefix}_{name}"] for name in NUMBERS)
        tolerance = TOLERANCE * (abs(total) + abs(mean)) + vocabulary * SUMS
        yield within(DRAW, 0.0, sampler[f"{prefix}_entropy_nats"], log64(float(max(count, 1))), tolerance, f"{prefix}_entropy_nats in {place}")
        yield within(DRAW, 0.0, sampler[f"{prefix}_varentropy"], float("inf"), TOLERANCE * (square + mean * mean), f"{prefix}_varentropy in {place}")


# ---- beside the anchor


def of_settings(rule: str, wanted: Values, sampler: Values, head: Values, vocabulary: int, where: str) -> Iterator[Gap]:
    """Scores, ranks and masses follow from the largest logits and the temperature, bit for bit, as far as these tell"""
    temperature, largest = float(wanted["temperature"]), head["top_logits"]
    plain = [head["chosen_logit"], *largest]
    centred = over(plain, largest[0], temperature)
    tempered = plain if temperature == 1 else centred
    left = tempered if sampler["kept"] == vocabulary else centred
    for prefix, (own, *others) in (("tempered", tempered), ("sampler", left)):
        yield same(rule, [own], [sampler[f"{prefix}_score"]], f"{where}: {prefix}_score")
        shown = others[: sampler["kept"]] if prefix == "sampler" else others
        expected = masses(shown, sampler[f"{prefix}_log_sum_exp"])
        yield same(rule, expected, sampler[f"{prefix}_top_masses"], f"{where}: {prefix}_top_masses")
    yield ranks(rule, tempered, sampler, vocabulary, where)
    if temperature == 1:
        yield same(rule, [head[name] for name in OF_MODEL.values()], [sampler[name] for name in OF_MODEL], f"{where}: tempered at temperature 1")
    if sampler["kept"] == vocabulary:
        both = [[sampler[f"{prefix}_{name}"] for name in NUMBERS] for prefix in ("tempered", "sampler")]
        yield same(rule, [*both[0], 0.0], [*both[1], sampler["truncated_mass"]], f"{where}: sampler, with nothing cut off")


def ranks(rule: str, scores: Sequence[float], sampler: Values, vocabulary: int, where: str) -> Gap:
    """`scores` are y's and the largest ones"""
    own, *largest = scores
    larger, least = sum(x > own for x in largest), sum(x >= own for x in largest)
    low, high = sampler["tempered_rank_low"], sampler["tempered_rank_high"]
    told = own > largest[-1] or len(largest) == vocabulary
    return fact(rule, (low, high) == (1 + larger, least) if told else low > larger and high >= least, f"{where}: tempered_rank")


def over(logits: Sequence[float], largest: float, temperature: float) -> list[float]:
    """z / T less the largest: 0 where they are equal, as both may be infinite"""
    top = largest / temperature
    return [0.0 if z / temperature == top else z / temperature - top for z in logits]
