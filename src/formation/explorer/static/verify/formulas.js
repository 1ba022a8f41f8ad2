// Every derived value that follows from values of the same ledger: the twin of ledger/formulas.py, the same operations in the same order.

import { has, isObject } from "./canonical.js";
import { exp64, hexadecimal } from "./exact64.js";
import { ALL_CHOSEN, FIELDS, NEVER, ZERO_NORM, absent } from "./fields.js";

const LN2 = hexadecimal("0x1.62e42fefa39efp-1");
const TOPS = [1, 5, 20]; // sizes of the sets of most likely tokens whose probability is told
const DTYPES = [["float64", 1075], ["float32", 150], ["bfloat16", 134], ["float16", 25]]; // each prints 0 for a probability up to 2^-n
export const plainSum = (values) => values.reduce((total, value) => total + value, 0);
const share = (norm, whole) => (whole ? norm / whole : absent(ZERO_NORM));

/** Probability of the first of `scores` together, which are the largest, descending; of all if there are fewer */
export const masses = (scores, total) => TOPS.map((count) => plainSum(scores.slice(0, count).map((score) => exp64(score - total))));

/** Of a finite log probability */
function zeroKind(logprob) {
  const [dtype] = DTYPES.find(([, n]) => logprob <= -n * LN2) ?? [];
  return dtype ? `UNDERFLOW(${dtype})` : "POSITIVE";
}

/** What follows of a distribution over scores x */
const ofScores = (name) => ({
  [`${name}_logprob`]: (v) => v[`${name}_score`] - v[`${name}_log_sum_exp`],
  [`${name}_logprob_bits`]: (v) => v[`${name}_logprob`] / LN2,
  [`${name}_entropy_nats`]: (v) => v[`${name}_log_sum_exp`] - v[`${name}_mean`],
  [`${name}_varentropy`]: (v) => v[`${name}_mean_square`] - v[`${name}_mean`] * v[`${name}_mean`],
  [`${name}_zero_kind`]: (v) => zeroKind(v[`${name}_logprob`]),
});

function arrivalLayer(ranks) {
  let first = ranks.length;
  while (first && ranks[first - 1] === 1) first--;
  return first < ranks.length ? first : absent(NEVER);
}

/** The embedding's, then for each layer in order: attention, its rounding, MLP, its rounding */
function dlaLogit(v) {
  return plainSum([v.dla, ...v.dla_attention.flatMap((_, l) => PARTS.map((name) => v[name][l]))]);
}

export const PARTS = ["dla_attention", "dla_attention_rounding", "dla_mlp", "dla_mlp_rounding"]; // of a layer, in the order they are added

const FORMULAS = {
  gate_sum: (v) => plainSum(v.gates),
  router_margin: (v) => (v.runner_up_selection.length ? Math.min(...v.chosen_selection) - v.runner_up_selection[0] : absent(ALL_CHOSEN)),
  attention_relative: (v) => share(v.attention_write_norm, v.residual_norm),
  mlp_relative: (v) => share(v.mlp_write_norm, v.residual_norm),
  logprob: (v) => v.chosen_logit - v.log_sum_exp,
  surprisal_nats: (v) => v.log_sum_exp - v.chosen_logit,
  surprisal_bits: (v) => v.surprisal_nats / LN2,
  entropy_nats: (v) => v.log_sum_exp - v.mean_logit,
  varentropy: (v) => v.mean_square_logit - v.mean_logit * v.mean_logit,
  top_margin: (v) => v.top_logits[0] - v.top_logits[1],
  top_masses: (v) => masses([...v.top_logits], v.log_sum_exp),
  zero_kind: (v) => zeroKind(v.logprob),
  ...ofScores("tempered"),
  ...ofScores("sampler"),
  arrival_layer: (v) => arrivalLayer(v.lens_rank),
  dla_logit: dlaLogit,
  lm_head_rounding: (v) => v.chosen_logit - v.dla_logit,
};
const DERIVED = Object.fromEntries(FIELDS.filter((field) => field.recompute === "ledger").map((field) => [field.name, field]));

export const WHOLE_POSITION = ["dla_logit", "arrival_layer"]; // whose inputs stand in several lines of a position
export const ONE_LINE = Object.keys(DERIVED).filter((name) => !WHOLE_POSITION.includes(name));

/** The inputs of WHOLE_POSITION, from the values of a step's `embed` and of its layers in order */
export function positionInputs(embed, layers) {
  const columns = [...PARTS, "lens_rank"].map((name) => [name, layers.map((layer) => layer[name])]);
  return { dla: embed.dla, ...Object.fromEntries(columns) };
}

/** The derived value `name` from its inputs among `values`: absent if an input is, for the input's reason */
export function recompute(name, values) {
  const missing = DERIVED[name].inputs.map((key) => values[key]).find((value) => isObject(value) && has(value, "absent"));
  const result = missing ?? FORMULAS[name](values);
  return typeof result === "number" ? result + 0 : result; // -0 becomes 0
}
