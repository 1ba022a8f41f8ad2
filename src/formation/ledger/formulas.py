"""Every derived value that follows from values of the same ledger: one function each, named as its field, whose parameters are its inputs.

Writer and verifier call the same functions, and the spec prints the formulas, so a second implementation must get the same bits: each
`+ - * /` rounds once to binary64, sums run in the order given, exp64 is the contract's, and nothing else is used. Where a value cannot be had the
result says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from formation.ledger import canonical
from formation.ledger.exact64 import exp64
from formation.ledger.fields import ALL_CHOSEN, FIELDS, NEVER, TOPS, ZERO_NORM, Field, absent
from formation.ledger.zero import LN2 as LN2
from formation.ledger.zero import of_logprob

Absence = dict[str, str]


def gate_sum(gates: Sequence[float]) -> float:
    return plain_sum(gates)


def router_margin(chosen_selection: Sequence[float], runner_up_selection: Sequence[float]) -> float | Absence:
    return min(chosen_selection) - runner_up_selection[0] if runner_up_selection else absent(ALL_CHOSEN)


def attention_relative(attention_write_norm: float, residual_norm: float) -> float | Absence:
    return share(attention_write_norm, residual_norm)


def mlp_relative(mlp_write_norm: float, residual_norm: float) -> float | Absence:
    return share(mlp_write_norm, residual_norm)


def share(norm: float, whole: float) -> float | Absence:
    return norm / whole if whole else absent(ZERO_NORM)


def logprob(chosen_logit: float, log_sum_exp: float) -> float:
    return chosen_logit - log_sum_exp


def surprisal_nats(chosen_logit: float, log_sum_exp: float) -> float:
    return log_sum_exp - chosen_logit


def surprisal_bits(surprisal_nats: float) -> float:
    return surprisal_nats / LN2


def entropy_nats(log_sum_exp: float, mean_logit: float) -> float:
    return log_sum_exp - mean_logit


def varentropy(mean_square_logit: float, mean_logit: float) -> float:
    return mean_square_logit - mean_logit * mean_logit


def top_margin(top_logits: Sequence[float]) -> float:
    return top_logits[0] - top_logits[1]


def top_masses(top_logits: Sequence[float], log_sum_exp: float) -> list[float]:
    return masses(top_logits, log_sum_exp)


def masses(scores: Sequence[float], log_sum_exp: float) -> list[float]:
    """Probability of the TOPS first of `scores` together, which are the largest, descending; of all if there are fewer"""
    sums = [plain_sum([exp64(score - log_sum_exp) for score in scores[:count]]) for count in TOPS]
    return [canonical.number(each) for each in sums]


def zero_kind(logprob: float) -> str:
    return str(of_logprob(logprob))


def tempered_logprob(tempered_score: float, tempered_log_sum_exp: float) -> float:
    return tempered_score - tempered_log_sum_exp


def tempered_logprob_bits(tempered_logprob: float) -> float:
    return tempered_logprob / LN2


def tempered_entropy_nats(tempered_log_sum_exp: float, tempered_mean: float) -> float:
    return tempered_log_sum_exp - tempered_mean


def tempered_varentropy(tempered_mean_square: float, tempered_mean: float) -> float:
    return tempered_mean_square - tempered_mean * tempered_mean


def tempered_zero_kind(tempered_logprob: float) -> str:
    return zero_kind(tempered_logprob)


def sampler_logprob(sampler_score: float, sampler_log_sum_exp: float) -> float:
    """log q"""
    return sampler_score - sampler_log_sum_exp


def sampler_logprob_bits(sampler_logprob: float) -> float:
    return sampler_logprob / LN2


def sampler_entropy_nats(sampler_log_sum_exp: float, sampler_mean: float) -> float:
    return sampler_log_sum_exp - sampler_mean


def sampler_varentropy(sampler_mean_square: float, sampler_mean: float) -> float:
    return sampler_mean_square - sampler_mean * sampler_mean


def sampler_zero_kind(sampler_logprob: float) -> str:
    return zero_kind(sampler_logprob)


def arrival_layer(lens_rank: Sequence[int]) -> int | Absence:
    """`lens_rank` of layers 0 … L-1"""
    first = len(lens_rank)
    while first and lens_rank[first - 1] == 1:
        first -= 1
    return first if first < len(lens_rank) else absent(NEVER)


def dla_logit(
    dla: float,
    dla_attention: Sequence[float],
    dla_attention_rounding: Sequence[float],
    dla_mlp: Sequence[float],
    dla_mlp_rounding: Sequence[float],
) -> float:
    """The embedding's, then for each layer in order: attention, its rounding, MLP, its rounding"""
    layers = zip(dla_attention, dla_attention_rounding, dla_mlp, dla_mlp_rounding, strict=True)
    return plain_sum([dla, *(term for layer in layers for term in layer)])


def lm_head_rounding(chosen_logit: float, dla_logit: float) -> float:
    return chosen_logit - dla_logit


def plain_sum(values: Sequence[float]) -> float:
    """From +0, in order; Python's sum() of floats is another function since 3.12"""
    total = 0.0
    for value in values:
        total = total + value
    return total


FORMULAS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        gate_sum, router_margin, attention_relative, mlp_relative, logprob, surprisal_nats, surprisal_bits, entropy_nats, varentropy,
        top_margin, top_masses, zero_kind, arrival_layer, dla_logit, lm_head_rounding,
        tempered_logprob, tempered_logprob_bits, tempered_entropy_nats, tempered_varentropy, tempered_zero_kind,
        sampler_logprob, sampler_logprob_bits, sampler_entropy_nats, sampler_varentropy, sampler_zero_kind,
    )
}  # fmt: skip
DERIVED: dict[str, Field] = {field.name: field for field in FIELDS if field.recompute == "ledger"}

PARTS = ("dla_attention", "dla_attention_rounding", "dla_mlp", "dla_mlp_rounding")  # of a layer, in the order they are added
WHOLE_POSITION = ("dla_logit", "arrival_layer")  # whose inputs stand in several lines of a position
ONE_LINE = tuple(name for name in DERIVED if name not in WHOLE_POSITION)


def position_inputs(embed: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The inputs of WHOLE_POSITION, from the values of a step's `embed` and of its layers in order"""
    columns = {name: [layer[name] for layer in layers] for name in (*PARTS, "lens_rank")}
    return {"dla": embed["dla"], **columns}


def recompute(name: str, values: Mapping[str, Any]) -> Any:
    """The derived value `name` from its inputs among `values` (vectors as sequences), as a line holds it: absent if an input is,
    for the input's reason. Raises KeyError if an input is missing."""
    inputs = {key: values[key] for key in DERIVED[name].inputs}
    for value in inputs.values():
        if isinstance(value, dict):
            return value
    result = FORMULAS[name](**inputs)
    return canonical.number(result) if isinstance(result, float) else result
