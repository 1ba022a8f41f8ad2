"""The rules that the lines of a complete ledger obey, and how far each is from being broken.

`check` reads a ledger once, one position at a time, and returns a result for each of RULES: the recorder refuses to close a ledger that
violates one, the verifier fails it. It needs neither weights nor rows. Closure of a sum proves the book-keeping, not the parts.
`addition` needs rows and routing.of_all_experts the router's sidecar: they serve who has these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import fsum, inf, isfinite
from operator import add as plus
from struct import pack, unpack
from typing import Any

from formation.exact64 import log64
from formation.ledger import attention, fields, routing, sampling
from formation.ledger.formulas import ONE_LINE, PARTS, WHOLE_POSITION, plain_sum, position_inputs, recompute
from formation.ledger.gaps import TOLERANCE, Gap, RuleResult, Tally, closure, fact, same, within
from formation.ledger.line_reader import LineReader
from formation.ledger.lines import STEP_SLOTS, LineRefusal, Place, Run, check_line, read_run
from formation.ledger.norms import LANES, LOST_SQUARES, NORMS, SPARE, of_cell, of_scale

CENSUS, FORMULAS, ATTRIBUTION, EXPERTS, LENS = "census", "formulas", "attribution", "experts", "lens"
RANKS, ENTROPY, ADDITION = "ranks", "entropy", "addition"
RULES = (
    CENSUS, FORMULAS, ATTRIBUTION, EXPERTS, LENS, routing.CHOICE, routing.SCORES, routing.GATES, RANKS, ENTROPY, sampling.DRAW, NORMS,
    attention.ATTENTION,
)  # fmt: skip
ROUNDING = 2.0**-53
SHARED = tuple(field.name for field in fields.FIELDS if fields.NO_SHARED in field.absent)
AGAINST = tuple(field.name for field in fields.FIELDS if fields.NO_RUNNER_UP in field.absent)
FAMILIES = {"dla": ("dla", "direction_norm"), "lens": ("lens",), "mid_lens": ("mid_lens",)}
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Observed:
    """A checked line: where it stands and all its values by name."""

    place: Place
    values: Values


def check(lines: Iterable[object], kinds: Sequence[str]) -> tuple[RuleResult, ...]:
    """A result for each of RULES over the decoded `lines` of a ledger that should hold positions 0, 1, … of these `kinds`.
    What the census refuses ends the reading; the other rules then speak of the lines before."""
    tally, source = Tally(RULES), iter(lines)
    try:
        run = first_line(source, tally)
        for position in positions(source, run, kinds, tally):
            tally.take(of_lines(position))
    except LineRefusal as refusal:
        tally.take([Gap(CENSUS, inf, 0.0, str(refusal))])
    return tally.results()


def violated(results: Iterable[RuleResult]) -> tuple[RuleResult, ...]:
    return tuple(result for result in results if result.violated)


# ---- census


def first_line(source: Iterator[object], tally: Tally) -> Run:
    """Raises LineRefusal."""
    run = read_run(next(source, None))
    tally.take([fact(CENSUS, True, "run")])
    return run


def positions(source: Iterator[object], run: Run, kinds: Iterable[str], tally: Tally, start: int = 0) -> Iterator[list[Observed]]:
    """The lines of each position from `start` on, exactly the expected ones in their order, each with exactly its fields. A kind is asked for
    when the lines of the position before were yielded. Raises LineRefusal."""
    count, reader = start, LineReader(run)
    for position, kind in enumerate(kinds, start):
        group = [observe(next(source, None), reader, Place(run, position, kind, slot)) for slot in due_slots(run, kind)]
        tally.take(chain.from_iterable(map(shared_gaps, group)))
        count += 1
        yield group
    if (extra := next(source, None)) is not None:
        raise LineRefusal(f"expected the end after position {count - 1}, got {check_line(extra, run)}")


def slots(run: Run, kind: str) -> tuple[str, ...]:
    return tuple(due_slots(run, kind))


def due_slots(run: Run, kind: str) -> Iterator[str]:
    """One by one: a first line may claim any number of layers"""
    yield "embed"
    yield from (f"layer {n}" for n in range(run.shape.layers))
    yield from STEP_SLOTS if kind != "prompt" else ()


def observe(line: object, reader: LineReader, due: Place) -> Observed:
    if line is None:
        raise LineRefusal(f"expected {due}, got the end of the ledger")
    found, values = reader.read(line)
    if (found.position, found.kind, found.slot) != (due.position, due.kind, due.slot):
        raise LineRefusal(f"expected {due} of kind {due.kind}, got {found} of kind {found.kind}")
    return Observed(found, values)


def shared_gaps(observed: Observed) -> Iterator[Gap]:
    """A line is one item of the census. Its values of the shared expert are all absent or none is, and none where that has a gate."""
    reasons = {reason(observed.values[name]) for name in SHARED if name in observed.values} - {fields.DENSE, fields.NOT_A_STEP}
    router = observed.place.run.router
    holds = fields.NO_SHARED not in reasons or (len(reasons) == 1 and router is not None and not router.shared_gated)
    yield fact(CENSUS, holds, f"fields of the shared expert in {observed.place}")


def runner_up_gaps(lines: Sequence[Observed], place: Place) -> Iterator[Gap]:
    """The runner-up of a step is known to all its attributions or to none, and so it is to its lenses."""
    for family, prefixes in FAMILIES.items():
        names = [name for name in AGAINST if name.startswith(prefixes)]
        reasons = {reason(observed.values[name]) for observed in lines for name in names if name in observed.values}
        holds = fields.NO_RUNNER_UP not in reasons or "" not in reasons
        yield fact(CENSUS, holds, f"{family} of the runner-up at position {place.position}")


def reason(value: Any) -> str:
    """Why a value is absent, empty if it is there"""
    return str(value["absent"]) if isinstance(value, dict) and "absent" in value else ""


# ---- of one line


def of_lines(position: Sequence[Observed]) -> Iterator[Gap]:
    """All rules of the lines of one position"""
    yield from chain.from_iterable(map(of_line, position))
    yield from of_position(position)


def of_line(observed: Observed) -> Iterator[Gap]:
    place, values = observed.place, observed.values
    for name in ONE_LINE:
        if name in values:
            yield formula(name, values, values[name], place)
    if place.layer >= 0:
        yield from routing.of_line(values, place)
        yield from attention.of_line(values, place)
        yield from delta_gates(values, place)
        for prefix in ("lens", "mid_lens"):
            yield from lens_bounds(values, prefix, place)


def delta_gates(values: Values, place: Place) -> Iterator[Gap]:
    """Those of all heads lie between 0 and 1; where each is there, least, mean and largest are theirs"""
    for gate in ("delta_beta", "delta_decay"):
        found = [values.get(f"{gate}_{name}") for name in ("min", "mean", "max")]
        if found[0] is None or reason(found[0]):
            continue
        low, mean, high = map(float, found)  # type: ignore[arg-type]
        yield fact(routing.GATES, 0 <= low <= mean <= high <= 1, f"{gate} in {place}")
        if heads := values.get(f"{gate}s"):
            yield same(routing.GATES, [min(heads), plain_sum(heads) / len(heads), max(heads)], [low, mean, high], f"{gate}s in {place}")


def formula(name: str, inputs: Values, found: Any, place: Place) -> Gap:
    expected, where = recompute(name, inputs), f"{name} in {place}"
    if isinstance(expected, list) and isinstance(found, tuple):
        return same(FORMULAS, expected, found, where)
    if not isinstance(expected, int | float) or isinstance(found, dict):
        return fact(FORMULAS, expected == found, where)
    return same(FORMULAS, [expected], [found], where)


def lens_bounds(values: Values, prefix: str, place: Place) -> Iterator[Gap]:
    logit = values.get(f"{prefix}_logit")
    if logit is None or reason(logit):
        return
    vocabulary, rank, tops = place.run.shape.vocabulary, values[f"{prefix}_rank"], values[f"{prefix}_top_logits"]
    yield fact(RANKS, 1 <= rank <= vocabulary, f"{prefix}_rank in {place}")
    yield from ordered(values[f"{prefix}_top"], tops, f"{prefix}_top in {place}")
    yield rank_in(logit, rank, tops, f"{prefix}_rank in {place}")
    log_sum_exp, entropy = logit - values[f"{prefix}_logprob"], values[f"{prefix}_entropy"]
    tolerance = TOLERANCE * (abs(log_sum_exp) + abs(log_sum_exp - entropy))
    yield within(ENTROPY, 0.0, entropy, log64(vocabulary), tolerance, f"{prefix}_entropy in {place}")


def ordered(top: Sequence[int], logits: Sequence[float], where: str) -> Iterator[Gap]:
    pairs = routing.ranked(top, logits)
    yield fact(RANKS, pairs == sorted(pairs) and len(set(top)) == len(top), f"order of {where}")


def rank_in(logit: float, rank: int, tops: Sequence[float], where: str) -> Gap:
    """The rank of `logit` follows from the largest logits if it is one of them, and lies behind them if not"""
    larger = sum(top > logit for top in tops)
    return fact(RANKS, rank > len(tops) if larger == len(tops) else rank == 1 + larger, where)


# ---- of one position


def of_position(lines: Sequence[Observed]) -> Iterator[Gap]:
    """What joins the lines of a position"""
    by_slot = {observed.place.slot: observed.values for observed in lines}
    before = by_slot["embed"]["residual_norm"]
    for observed in lines:
        if observed.place.layer >= 0:
            yield from of_cell(before, observed.values, observed.place)
            before = observed.values["residual_norm"]
    if "lm_head" not in by_slot:
        return
    place = next(observed.place for observed in lines if observed.place.slot == "lm_head")
    head, token = by_slot["lm_head"], by_slot["token"]["id"]
    cells = [observed for observed in lines if observed.place.layer >= 0]
    layers = [observed.values for observed in cells]
    yield from runner_up_gaps(lines, place)
    yield from head_ranks(head, token, place)
    yield from entropy_bounds(head, place)
    yield from sampling.of_step(by_slot["sampler"], head, token, place)
    yield of_scale(before, head["final_scale"], place)
    if "dla_logit" in head:
        yield from attribution(by_slot["embed"], layers, head, place)
        for observed in cells:
            yield from expert_closures(observed.values, head, observed.place)
        yield from last_lens(layers[-1], head, token, place)


def head_ranks(head: Values, token: int, place: Place) -> Iterator[Gap]:
    """rank_low = 1 + number of larger logits, rank_high = number of those not smaller, as far as the twenty largest tell"""
    top, tops, logit, low, high = head["top"], head["top_logits"], head["chosen_logit"], head["rank_low"], head["rank_high"]
    yield from ordered(top, tops, f"top in {place}")
    if token in top:
        yield same(RANKS, [tops[top.index(token)]], [logit], f"chosen_logit in {place}")
    else:
        yield fact(RANKS, (-tops[-1], top[-1]) < (-logit, token), f"token {token} outside top in {place}")
    yield rank_in(logit, low, tops, f"rank_low in {place}")
    least = sum(t >= logit for t in tops)
    exact = logit > tops[-1] or len(tops) == place.run.shape.vocabulary
    yield fact(RANKS, high == least if exact else max(low, least) <= high, f"rank_high in {place}")
    yield fact(RANKS, low <= high <= place.run.shape.vocabulary, f"rank_high in {place}")


def entropy_bounds(head: Values, place: Place) -> Iterator[Gap]:
    """0 ≤ entropy ≤ ln V and max z ≤ log Σ exp z ≤ max z + ln V, up to the rounding of binary64"""
    largest, width, total, mean = head["top_logits"][0], log64(place.run.shape.vocabulary), head["log_sum_exp"], head["mean_logit"]
    tolerance = TOLERANCE * (abs(total) + abs(mean))
    yield within(ENTROPY, 0.0, head["entropy_nats"], width, tolerance, f"entropy_nats in {place}")
    yield within(ENTROPY, largest, total, largest + width, TOLERANCE * (abs(largest) + width), f"log_sum_exp in {place}")
    square = head["mean_square_logit"]
    yield within(ENTROPY, 0.0, head["varentropy"], inf, TOLERANCE * (square + mean * mean), f"varentropy in {place}")


def attribution(embed: Values, layers: Sequence[Values], head: Values, place: Place) -> Iterator[Gap]:
    """The direct contributions make y's logit; that lm_head's rounding makes it the engine's is a formula"""
    inputs = position_inputs(embed, layers)
    for name in WHOLE_POSITION:
        yield formula(name, inputs, head[name], place)
    terms = [embed["dla"], *(term for name in PARTS for term in inputs[name])]
    norms = [embed["residual_norm"], layers[-1]["residual_norm"]]
    norms += [layer[name] for layer in layers for name in ("attention_write_norm", "mlp_write_norm")]
    allowance = share_roundings(head, "", norms, place)
    yield closure(ATTRIBUTION, head["exact_logit"], terms, allowance, f"exact_logit in {place}")


def expert_closures(values: Values, head: Values, place: Place) -> Iterator[Gap]:
    """dla(m) = Σ experts + shared + rounding, of what is there: whether all is that should be, the census says"""
    for component in fields.COMPONENTS:
        names = [f"dla{component}_{part}" for part in ("mlp", "combination_rounding", "experts", "shared")]
        total, rounding, experts, shared = (values[name] for name in names)
        if any(map(reason, (total, rounding, experts, head[f"direction_norm{component}"]))):
            continue
        terms, norms = [*experts, rounding], [values["mlp_write_norm"], *values["expert_write_norms"]]
        if not reason(shared) and not reason(values["shared_write_norm"]):
            terms, norms = [*terms, shared], [*norms, values["shared_write_norm"]]
        yield closure(EXPERTS, total, terms, share_roundings(head, component, norms, place), f"{names[0]} in {place}")


def share_roundings(head: Values, component: str, norms: Sequence[float], place: Place) -> float:
    """How far the shares of components of these `norms` may be off together: each is a sum over D products whose rounding grows with |d| |c| / r,
    however much of the sum cancels (docs/decisions/0011-tolerance-of-attribution.md)"""
    shape, scale = place.run.shape, head["final_scale"]
    roundings = (shape.hidden / LANES + shape.chosen + SPARE) * ROUNDING
    slope = head[f"direction_norm{component}"] / scale if scale > 0 else 0.0
    allowance = roundings * slope * (fsum(norms) + LOST_SQUARES)
    return allowance if isfinite(allowance) else 0.0  # no honest scale is that small


def last_lens(layer: Values, head: Values, token: int, place: Place) -> Iterator[Gap]:
    """The lens at the last boundary is the engine's head"""
    yield same(LENS, [head["chosen_logit"]], [layer["lens_logit"]], f"lens_logit in {place}")
    yield same(LENS, [head["rank_low"]], [layer["lens_rank"]], f"lens_rank in {place}")
    count = len(layer["lens_top"])
    yield fact(LENS, head["top"][:count] == layer["lens_top"], f"lens_top in {place}")
    yield same(LENS, head["top_logits"][:count], layer["lens_top_logits"], f"lens_top_logits in {place}")
    found = layer["lens_runner_up_logit"]
    if not reason(found):
        at = 1 if head["top"][0] == token else 0
        yield same(LENS, [head["top_logits"][at]], [found], f"lens_runner_up_logit in {place}")


# ---- with rows


def addition(x: bytes, write: bytes, result: bytes, where: str) -> Gap:
    """x + write = result, bit for bit, of three rows of little-endian f32: for x + a = u and u + m = x'"""
    if not len(x) == len(write) == len(result) or len(x) % 4:
        return fact(ADDITION, False, f"lengths of the rows of {where}")
    found = added(x, write)
    if found is None:
        return fact(ADDITION, False, where)
    form = f"<{len(x) // 4}f"
    worst = same(ADDITION, unpack(form, found), unpack(form, result), where)
    return worst if worst.violated else fact(ADDITION, found == result, where)


def added(x: bytes, write: bytes) -> bytes | None:
    """x + write in binary32, None if a sum lies beyond it"""
    form = f"<{len(x) // 4}f"
    try:
        return pack(form, *map(plus, unpack(form, x), unpack(form, write)))
    except OverflowError:
        return None
