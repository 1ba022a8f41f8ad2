"""The field table: every value a ledger holds, with its unit, type, definition, formula and what it can be recomputed from.

It is the single source of the writer, the verifier, the spec (docs/spec/ledger.md prints it) and of `formation show --fields`; its digest
stands in the first line of every ledger. A layer's fields stand in every layer; the ones only experts have are absent ("dense layer") in
dense layers; so are those of attention in a layer that has a delta net instead ("delta layer"), and the delta net's in all others ("attention
layer"). The run line says which layers have which. Fields above the level of a line are not in it at all. lines.py holds a line against this table.

Notation: x row at the layer's start, a attention write, or in its place the delta net's, u = x + a, m MLP or MoE write, x' = u + m, y the token
the step chose, runner-up the other token with the largest logit (ties low), W lm_head, g what the final norm multiplies by, x_L the last row,
r = sqrt(mean(x_L^2) + eps).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from formation.ledger import canonical

LEVELS = ("minimal", "standard", "full")
KINDS = ("prompt", "generated", "scored", "forced")  # of positions; all but "prompt" are steps
SLOTS = ("run", "embed", "layer", "lm_head", "sampler", "token")
TAGS = ("measured", "derived")  # what is declared before a run lives in its anchor
COMPONENTS = ("", "_centred", "_runner_up")  # of attribution: y's logit, less the mean logit, less the runner-up's

NOT_A_STEP, DENSE, NO_BIAS, NO_SHARED = "not a step", "dense layer", "no bias", "no shared expert"
NO_RUNNER_UP, ALL_CHOSEN, ZERO_NORM, NEVER, NO_EXPERTS = "runner-up not known", "all chosen", "zero norm", "never", "no experts"
GREEDY, FORCED = "greedy", "forced"
DELTA_LAYER, ATTENTION_LAYER, NO_DELTA, UNGATED = "delta layer", "attention layer", "no delta layer", "no gate"
LAYER_KINDS = ("attention", "delta")  # what mixes positions in a layer
TOPS = (1, 5, 20)  # sizes of the sets of most likely tokens whose probability is told


@dataclass(frozen=True)
class Field:
    """One value of a line.

    dtype  f32 f64 int text bool; sha256 lowercase hex; bytes base64; f32[] one base64 string of little-endian binary32;
           f64[] int[] arrays; record an object with exactly `keys`; record[] an array of them
    length of an array: a number, or K chosen experts, R runners-up, H heads, G heads of a delta layer, E experts, L layers, M layers with
           experts, T20 T5 that many of the vocabulary, S8 that many attention weights of the position, S3H three of each head
    absent the reasons for which {"absent": reason} may stand in its place; the first that applies does
    recompute ledger: from `inputs`, fields of the same ledger; weights: from rows and the checkpoint; empty: measured
    """

    name: str
    slot: str
    tag: str
    dtype: str
    unit: str
    level: str
    definition: str
    formula: str = ""
    recompute: str = ""
    inputs: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    length: str = ""
    keys: tuple[tuple[str, str], ...] = ()


Rows = Iterable[tuple[str, ...]]  # name, dtype, unit, definition[, length]


def measured(slot: str, level: str, rows: Rows, absent: tuple[str, ...] = ()) -> Iterator[Field]:
    for name, dtype, unit, definition, *length in rows:
        yield Field(name, slot, "measured", dtype, unit, level, definition, absent=absent, length=length[0] if length else "")


def records(slot: str, name: str, level: str, definition: str, keys: str, *, length: str = "", absent: tuple[str, ...] = ()) -> Field:
    """`keys` as "name:dtype name:dtype", all required"""
    pairs = tuple((key, dtype) for key, _, dtype in (part.partition(":") for part in keys.split()))
    dtype = "record[]" if length else "record"
    return Field(name, slot, "measured", dtype, "", level, definition, absent=absent, length=length, keys=pairs)


def derived(slot: str, level: str, name: str, kind: str, definition: str, formula: str, inputs: str, **rest: Any) -> Field:
    """`kind` as "dtype unit"; recomputed from the ledger"""
    dtype, _, unit = kind.partition(" ")
    return Field(name, slot, "derived", dtype, unit, level, definition, formula, "ledger", tuple(inputs.split()), **rest)


def from_weights(slot: str, level: str, name: str, kind: str, definition: str, formula: str, inputs: str, **rest: Any) -> Field:
    dtype, _, unit = kind.partition(" ")
    return Field(name, slot, "derived", dtype, unit, level, definition, formula, "weights", tuple(inputs.split()), **rest)


# ---- run


def run_fields() -> Iterator[Field]:
    yield from measured("run", "minimal", [("fields_sha256", "sha256", "", "digest of the canonical JSON of this table")])
    yield records("run", "capture", "minimal", "capture levels of prompt positions and of steps", "prompt:text steps:text")
    shape = "layers dense_layers hidden heads experts chosen vocabulary"
    yield records("run", "shape", "minimal", "the model's sizes; the first dense_layers layers have no experts", spelled(shape, "int"))
    kinds = f"of each layer what mixes positions in it: {' or '.join(LAYER_KINDS)}"
    yield from measured("run", "minimal", [("layer_kinds", "text[]", "", kinds, "L")])
    sizes = "of a delta layer: heads, the key heads they share, widths of a head's keys and values, taps of its convolution"
    yield records("run", "delta", "minimal", sizes, spelled("key_heads heads key value taps", "int"), absent=(NO_DELTA,))
    router = "groups:int kept_groups:int softmax:bool group_top2:bool normalise:bool scale:f32 biased:bool shared_gated:bool"
    weighed = "how experts are chosen and weighed, and whether the shared one has a gate"
    yield records("run", "router", "minimal", weighed, router, absent=(NO_EXPERTS,))
    yield from measured("run", "minimal", [("norm_eps", "f32", "", "the final norm's epsilon as the engine adds it")])
    biases = "what is added to each expert's score before selection, f32[E] of every layer with experts"
    yield records("run", "router_biases", "minimal", biases, "layer:int biases:f32[E]", length="M", absent=(NO_EXPERTS, NO_BIAS))


def spelled(names: str, dtype: str) -> str:
    return " ".join(f"{name}:{dtype}" for name in names.split())


# ---- embed and layers: measured


def embed_fields() -> Iterator[Field]:
    yield from measured("embed", "minimal", [
        ("residual_sha256", "sha256", "", "x_0, the embedding's row, as little-endian f32"),
        ("residual_norm", "f32", "", "|x_0|: square root of the sum of squares by rule 2 of the contract"),
    ])  # fmt: skip
    for component in COMPONENTS:
        yield attribution("embed", f"dla{component}", component, "the embedding", "x_0")


def layer_measured() -> Iterator[Field]:
    yield from measured("layer", "minimal", [
        ("residual_sha256", "sha256", "", "x' as little-endian f32"),
        ("attention_write_sha256", "sha256", "", "a as little-endian f32"),
        ("mlp_write_sha256", "sha256", "", "m as little-endian f32"),
        *((f"{name}_norm", "f32", "", f"|{row}|: square root of the sum of squares by rule 2 of the contract")
          for name, row in (("attention_write", "a"), ("after_attention", "u"), ("mlp_write", "m"), ("residual", "x'"))),
        ("residual_largest", "f32", "", "largest absolute value in x'"),
        ("residual_largest_dimension", "int", "dimension", "where it stands, the first on ties"),
    ])  # fmt: skip
    kept = ("cache_entry_sha256", "sha256", "", "what attention keeps of this position, as little-endian f32")
    yield from measured("layer", "minimal", [kept], (DELTA_LAYER,))
    yield from delta_measured()
    yield from routing_measured()
    entropy = ("attention_entropy", "f64", "nats", "entropy of attention over positions, mean over heads")
    yield from measured("layer", "standard", [entropy], (DELTA_LAYER,))
    head = "head:int position:int weight:f32"
    strongest = "largest attention weights over all heads, descending; ties lower head, then lower position"
    yield records("layer", "attention_strongest", "standard", strongest, head, length="S8", absent=(DELTA_LAYER,))
    yield from experts_measured()
    yield from measured("layer", "full", [("attention_entropies", "f64[]", "nats", "entropy of attention of each head", "H")], (DELTA_LAYER,))
    by_head = "three largest attention weights of each head, descending, heads in order; ties lower position"
    yield records("layer", "attention_strongest_by_head", "full", by_head, head, length="S3H", absent=(DELTA_LAYER,))


STATE = (
    "the state after this position, as little-endian f32: of each head its matrix [key, value], row after row; then the rows before the "
    "convolution that the next position sees, [taps - 1, channels], oldest first, zeros before position 0; channels are q, k, v, each head after head"
)
GATES = (("beta", "β", "how much a head writes of what its state got wrong"), ("decay", "the decay", "what is left of a head's state when it writes"))


def delta_measured() -> Iterator[Field]:
    """S = S·decay; S = S + k (β (v - Sᵀk))ᵀ: what a delta layer has instead of attention over positions"""
    yield from measured("layer", "minimal", [("delta_state_sha256", "sha256", "", STATE)], (ATTENTION_LAYER,))
    length = "length of the matrices of all heads together: square root of the sum of squares by rule 2 of the contract"
    summaries = (("min", "f32", "the smallest of all heads"), ("mean", "f64", "mean over heads"), ("max", "f32", "the largest of all heads"))
    yield from measured("layer", "standard", [
        ("delta_state_norm", "f32", "", length),
        *((f"delta_{gate}_{name}", dtype, "", f"{letter}, {meaning}: {what}") for gate, letter, meaning in GATES for name, dtype, what in summaries),
    ], (ATTENTION_LAYER,))  # fmt: skip
    yield from measured("layer", "full", [
        ("delta_state_norms", "f32[]", "", "length of each head's matrix", "G"),
        *((f"delta_{gate}s", "f32[]", "", f"{letter} of each head", "G") for gate, letter, _ in GATES),
    ], (ATTENTION_LAYER,))  # fmt: skip


def routing_measured() -> Iterator[Field]:
    """Selection decides who is chosen, the gate how much it weighs: fields of their own, in the order of `chosen` and of `runners_up`."""
    yield from measured("layer", "minimal", [("chosen", "int[]", "expert", "chosen experts, ascending", "K")], (DENSE,))
    yield from measured("layer", "minimal", routing_rows("chosen_", "K"), (DENSE,))
    yield from measured("layer", "minimal", [bias_row("chosen_", "K")], (DENSE, NO_BIAS))
    refused = "experts next in selection, at most eight, among those that were open to the choice (of kept groups): descending, ties low first"
    yield from measured("layer", "minimal", [
        ("gates", "f32[]", "", "weights of the chosen experts' outputs", "K"),
        ("runners_up", "int[]", "expert", refused, "R"),
        *routing_rows("runner_up_", "R"),
        ("router_logits_sha256", "sha256", "", "f32[E] of all router logits, a sidecar row"),
        ("router_selection_sha256", "sha256", "", "f32[E] of all selection scores, a sidecar row"),
    ], (DENSE,))  # fmt: skip
    yield from measured("layer", "minimal", [bias_row("runner_up_", "R")], (DENSE, NO_BIAS))


def routing_rows(prefix: str, length: str) -> list[tuple[str, ...]]:
    return [
        (f"{prefix}logits", "f32[]", "", "router logits q", length),
        (f"{prefix}scores", "f32[]", "", "s: sigmoid of the logit, or its share of the softmax over all experts", length),
        (f"{prefix}selection", "f32[]", "", "c = s + b, or s without a bias: decides who is chosen", length),
    ]


def bias_row(prefix: str, length: str) -> tuple[str, ...]:
    return f"{prefix}biases", "f32[]", "", "b, which selects and does not weigh", length


def experts_measured() -> Iterator[Field]:
    yield from measured("layer", "standard", [
        ("expert_output_norms", "f32[]", "", "norm of each chosen expert's output, before its gate", "K"),
        ("expert_write_norms", "f32[]", "", "norm of each chosen expert's write, its output times its gate", "K"),
    ], (DENSE,))  # fmt: skip
    cosines = ("expert_write_cosines", "f64[]", "", "cosine of each chosen expert's write with m", "K")
    yield from measured("layer", "standard", [cosines], (DENSE, ZERO_NORM))
    yield from measured("layer", "standard", [
        ("shared_output_norm", "f32", "", "norm of the shared expert's output, before its gate"),
        ("shared_write_norm", "f32", "", "norm of the shared expert's write: its output times its gate, or as it is without one"),
    ], (DENSE, NO_SHARED))  # fmt: skip
    gate = ("shared_gate", "f32", "", "sigmoid that the shared expert's output is multiplied by")
    yield from measured("layer", "standard", [gate], (DENSE, UNGATED))
    shared = ("shared_write_cosine", "f64", "", "cosine of the shared expert's write with m")
    yield from measured("layer", "standard", [shared], (DENSE, NO_SHARED, ZERO_NORM))


# ---- layers: derived


def layer_derived() -> Iterator[Field]:
    total = "sum of the gates in ascending expert id, binary64"
    yield derived("layer", "minimal", "gate_sum", "f64", total, "Σ gates", "gates", absent=(DENSE,))
    margin = "smallest selection among the chosen minus the first runner-up's"
    yield derived("layer", "minimal", "router_margin", "f64", margin, "min(chosen_selection) - runner_up_selection[0]",
                  "chosen_selection runner_up_selection", absent=(DENSE, ALL_CHOSEN))  # fmt: skip
    for name, row in (("attention", "a"), ("mlp", "m")):
        norm = f"{name}_write_norm"
        yield derived("layer", "standard", f"{name}_relative", "f64", f"|{row}| as a share of |x'|", f"{norm} / residual_norm",
                      f"{norm} residual_norm", absent=(ZERO_NORM,))  # fmt: skip
        yield from_weights("layer", "standard", f"{name}_cosine", "f64", f"cosine of {row} with x'", f"{row}·x' / (|{row}| |x'|)",
                           f"{row} x'", absent=(ZERO_NORM,))  # fmt: skip
        yield from_weights("layer", "standard", f"{name}_projection", "f64", f"signed share of {row} in x'", f"{row}·x' / |x'|^2",
                           f"{row} x'", absent=(ZERO_NORM,))  # fmt: skip
    for component in COMPONENTS:
        yield from layer_attribution(component)
    yield from lens("lens", "x'", "standard")
    yield from lens("mid_lens", "u", "full")


MEANING = {
    "": ("direct contribution of {} to y's logit", "Σ_i W[y,i] g_i c_i / r, c = {}"),
    "_centred": ("direct contribution of {} to y's logit, less that to the mean logit of the vocabulary",
                 "Σ_i (W[y,i] - mean_v W[v,i]) g_i c_i / r, c = {}"),
    "_runner_up": ("direct contribution of {} to y's logit, less that to the runner-up's",
                   "Σ_i (W[y,i] - W[runner-up,i]) g_i c_i / r, c = {}"),
}  # fmt: skip


def attribution(slot: str, name: str, component: str, what: str, row: str, absent: tuple[str, ...] = (), length: str = "") -> Field:
    """Direct logit attribution with the frozen final scale r: the direct path only"""
    definition, formula = MEANING[component]
    structural = tuple(reason for reason in absent if reason == DENSE)
    others = tuple(reason for reason in absent if reason != DENSE)
    reasons = (*structural, NOT_A_STEP, *others, *((NO_RUNNER_UP,) if component == "_runner_up" else ()))
    kind = "f64[] logit" if length else "f64 logit"
    return from_weights(slot, "standard", name, kind, definition.format(what), formula.format(row),
                        f"{row} lm_head final_norm r", absent=reasons, length=length)  # fmt: skip


def layer_attribution(component: str) -> Iterator[Field]:
    prefix = f"dla{component}_"
    yield attribution("layer", f"{prefix}attention", component, "the attention write, or the delta net's,", "a")
    yield attribution("layer", f"{prefix}attention_rounding", component, "the rounding of x + a", "u-x-a")
    yield attribution("layer", f"{prefix}mlp", component, "the MLP or MoE write", "m")
    yield attribution("layer", f"{prefix}mlp_rounding", component, "the rounding of u + m", "x'-u-m")
    yield attribution("layer", f"{prefix}experts", component, "each chosen expert's write", "gate·output", (DENSE,), "K")
    yield attribution("layer", f"{prefix}shared", component, "the shared expert's write", "shared", (DENSE, NO_SHARED))
    yield attribution("layer", f"{prefix}combination_rounding", component, "the roundings of the sum of writes", "m-Σwrites", (DENSE,))


def lens(prefix: str, row: str, level: str) -> Iterator[Field]:
    """The logits z = W norm(row) with the row's own norm statistics, never the frozen scale"""
    logits, inputs = f"logits z of the final norm and lm_head on {row}", f"{row} lm_head final_norm"

    def one(name: str, kind: str, what: str, formula: str, *absent: str, length: str = "") -> Field:
        return from_weights("layer", level, f"{prefix}_{name}", kind, f"lens of {row}: {what}", f"{formula}; {logits}", inputs,
                            absent=(NOT_A_STEP, *absent), length=length)  # fmt: skip

    for infix, token, absent in (("", "y", ()), ("runner_up_", "runner-up", (NO_RUNNER_UP,))):
        yield one(f"{infix}logit", "f32 logit", f"{token}'s logit", f"z[{token}]", *absent)
        yield one(f"{infix}logprob", "f64 nats", f"{token}'s log probability", f"z[{token}] - log Σ exp z", *absent)
        yield one(f"{infix}rank", "int", f"{token}'s rank", f"1 + number of v with z[v] > z[{token}]", *absent)
    yield one("top", "int[] token", "the five largest logits' tokens, ties low first", "argsort z", length="T5")
    yield one("top_logits", "f32[] logit", "their logits", f"z[{prefix}_top]", length="T5")
    yield one("entropy", "f64 nats", "entropy", "log Σ exp z - Σ p z")
    yield one("kl", "f64 nats", "divergence of it from the final distribution p*", "KL(p* || p) = Σ p* (log p* - log p)")


# ---- head, sampler, token: at steps only


def head_fields() -> Iterator[Field]:
    yield from measured("lm_head", "minimal", [
        ("logits_sha256", "sha256", "", "all logits z as little-endian f32"),
        ("top", "int[]", "token", "tokens of the twenty largest logits, descending, ties low first", "T20"),
        ("top_logits", "f32[]", "logit", "their logits", "T20"),
        ("chosen_logit", "f32", "logit", "y's logit"),
        ("log_sum_exp", "f64", "nats", "log Σ exp z"),
        ("mean_logit", "f64", "logit", "Σ p z"),
        ("mean_square_logit", "f64", "logit^2", "Σ p z^2"),
        ("rank_low", "int", "", "1 + number of larger logits than y's"),
        ("rank_high", "int", "", "number of logits that are not smaller than y's"),
        ("final_scale", "f64", "", "r = sqrt(mean(x_L^2) + norm_eps), binary64"),
    ])  # fmt: skip
    for name, kind, definition, formula, inputs in HEAD_FORMULAS:
        yield derived("lm_head", "minimal", name, kind, definition, formula, inputs)
    masses = "Σ_i exp64(top_logits[i] - log_sum_exp), the most likely first"
    yield derived("lm_head", "minimal", "top_masses", "f64[]", MASSES, masses, "top_logits log_sum_exp", length=str(len(TOPS)))
    yield derived("lm_head", "minimal", "zero_kind", "text", ZERO, "POSITIVE, or UNDERFLOW of a dtype, of logprob", "logprob")
    arrival = "first layer from which on y's rank in the lens of x' is 1"
    yield derived("lm_head", "standard", "arrival_layer", "int layer", arrival, "min l with lens_rank = 1 in layers l…L-1",
                  "lens_rank", absent=(NEVER,))  # fmt: skip
    yield from_weights("lm_head", "standard", "exact_logit", "f64 logit", "y's logit from x_L in binary64", "Σ_i W[y,i] g_i x_L[i] / r",
                       "x_L lm_head final_norm r")  # fmt: skip
    for component, row in zip(COMPONENTS, ("W[y]", "W[y] - mean_v W[v]", "W[y] - W[runner-up]"), strict=True):
        length = "length of the direction d that contributions are taken along: " + row + " times g, number by number"
        yield from_weights("lm_head", "standard", f"direction_norm{component}", "f64", length, f"sqrt(Σ_i d_i^2), d_i = ({row})_i g_i",
                           "lm_head final_norm", absent=(NO_RUNNER_UP,) if component == "_runner_up" else ())  # fmt: skip
    parts = "dla dla_attention dla_attention_rounding dla_mlp dla_mlp_rounding"
    yield derived("lm_head", "standard", "dla_logit", "f64 logit", "sum of all direct contributions, in the order they stand",
                  "dla + Σ_l (dla_attention + dla_attention_rounding + dla_mlp + dla_mlp_rounding)", parts)  # fmt: skip
    yield derived("lm_head", "standard", "lm_head_rounding", "f64 logit", "what lm_head's binary32 arithmetic adds",
                  "chosen_logit - dla_logit", "chosen_logit dla_logit")  # fmt: skip


MASSES = f"probability of the {', '.join(map(str, TOPS[:-1]))} and {TOPS[-1]} most likely tokens together"
ZERO = (
    "whether y's probability is zero, and in which sense: UNDERFLOW names the widest dtype that prints 0 for it, where ln p is at most "
    "-25 ln 2 (float16), -134 ln 2 (bfloat16), -150 ln 2 (float32), -1075 ln 2 (float64)"
)
HEAD_FORMULAS = (
    ("logprob", "f64 nats", "log probability of y", "chosen_logit - log_sum_exp", "chosen_logit log_sum_exp"),
    ("surprisal_nats", "f64 nats", "surprisal of y", "log_sum_exp - chosen_logit", "chosen_logit log_sum_exp"),
    ("surprisal_bits", "f64 bits", "surprisal of y", "surprisal_nats / ln 2, ln 2 = 0x1.62e42fefa39efp-1", "surprisal_nats"),
    ("entropy_nats", "f64 nats", "entropy of the distribution", "log_sum_exp - mean_logit", "log_sum_exp mean_logit"),
    ("varentropy", "f64 nats^2", "variance of the surprisal; as it comes, so rounding may leave it just below 0",
     "mean_square_logit - mean_logit * mean_logit", "mean_square_logit mean_logit"),
    ("top_margin", "f64 logit", "lead of the largest logit over the second", "top_logits[0] - top_logits[1]", "top_logits"),
)  # fmt: skip


def choice_fields() -> Iterator[Field]:
    """The model's own distribution is lm_head's. No edit of logits comes between: it is the edited one too."""
    yield from measured("sampler", "minimal", [("method", "text", "", "how the token came: greedy, sample or forced")])
    yield from measured("sampler", "minimal", [
        ("draw", "f64", "", "the uniform draw in [0, 1)"),
        ("low", "f64", "", "start of y's interval in the cumulative distribution of what was kept"),
        ("high", "f64", "", "its end"),
        ("kept", "int", "tokens", "how many tokens the sampler's filters kept"),
        ("kept_mass", "f64", "", "their probability at the sampler's temperature, before the filters"),
        ("truncated_mass", "f64", "", "that of the tokens that the filters cut off, summed on its own"),
        ("tempered_rank_low", "int", "", "1 + number of larger scores than y's; the same among what the filters leave"),
        ("tempered_rank_high", "int", "", "number of scores that are not smaller than y's"),
    ], (GREEDY, FORCED))  # fmt: skip
    scores = "the logits over the temperature, less the largest; at temperature 1 the logits themselves, and all numbers those of lm_head"
    yield from of_scores("tempered", f"x of the tempered distribution: {scores}")
    left = "the logits over the temperature, less the largest, of the tokens that the filters leave; where they cut nothing off, tempered's"
    yield from of_scores("sampler", f"x of the sampler's distribution q: {left}")
    yield from measured("token", "minimal", [
        ("id", "int", "token", "y"),
        ("bytes", "bytes", "", "what it spells; empty for a token without text"),
    ])  # fmt: skip


def of_scores(prefix: str, scores: str) -> Iterator[Field]:
    """A distribution p = exp(x) / Σ exp(x) that a token was sampled from, or would have been"""
    absent, lse = (GREEDY, FORCED), f"{prefix}_log_sum_exp"
    yield from measured("sampler", "minimal", [
        (f"{prefix}_score", "f64", "", f"y's score; {scores}"),
        (lse, "f64", "nats", "log Σ exp x"),
        (f"{prefix}_mean", "f64", "", "Σ p x"),
        (f"{prefix}_mean_square", "f64", "", "Σ p x^2"),
    ], absent)  # fmt: skip
    yield from measured("sampler", "minimal", [(f"{prefix}_top_masses", "f64[]", "", MASSES, str(len(TOPS)))], absent)
    for name, kind, what, formula, inputs in (
        ("logprob", "f64 nats", "log probability of y", f"{prefix}_score - {lse}", f"{prefix}_score {lse}"),
        ("logprob_bits", "f64 bits", "log probability of y", f"{prefix}_logprob / ln 2", f"{prefix}_logprob"),
        ("entropy_nats", "f64 nats", "entropy", f"{lse} - {prefix}_mean", f"{lse} {prefix}_mean"),
        ("varentropy", "f64 nats^2", "variance of the surprisal, as it comes", f"{prefix}_mean_square - {prefix}_mean * {prefix}_mean",
         f"{prefix}_mean_square {prefix}_mean"),
        ("zero_kind", "text", ZERO, f"POSITIVE, or UNDERFLOW of a dtype, of {prefix}_logprob", f"{prefix}_logprob"),
    ):  # fmt: skip
        yield derived("sampler", "minimal", f"{prefix}_{name}", kind, what, formula, inputs, absent=absent)


# ---- the table

FIELDS: tuple[Field, ...] = (*run_fields(), *embed_fields(), *layer_measured(), *layer_derived(), *head_fields(), *choice_fields())


def absent(reason: str) -> dict[str, str]:
    """A value that could not be had"""
    return {"absent": reason}


def fields_of(slot: str, level: str, moe: bool = True) -> tuple[Field, ...]:
    """The fields of a line of `slot` ("layer" for any layer) at capture level `level`, in the table's order. With `moe` False: those which
    can have a value in a dense layer; the others stand there too, absent ("dense layer")."""
    allowed = LEVELS[: LEVELS.index(level) + 1]
    return tuple(f for f in FIELDS if f.slot == slot and f.level in allowed and (moe or DENSE not in f.absent))


def table() -> list[dict[str, Any]]:
    """The table as JSON"""
    return [{k: listed(v) for k, v in vars(field).items()} for field in FIELDS]


def listed(value: Any) -> Any:
    return [listed(v) for v in value] if isinstance(value, tuple) else value


def digest() -> str:
    """SHA-256 of the canonical JSON of the table, lowercase hex"""
    return sha256(canonical.encode(table(), limits=canonical.DOCUMENT)).hexdigest()
