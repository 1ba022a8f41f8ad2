// Every derived value that follows from values of the same ledger: the twin of ledger/formulas.py, the same operations in the same order.

import { has, isObject } from "./canonical.js";
import { hexadecimal } from "./exact64.js";
import { ALL_CHOSEN, FIELDS, NEVER, ZERO_NORM, absent } from "./fields.js";

const LN2 = hexadecimal("0x1.62e42fefa39efp-1");
export const plainSum = (values) => values.reduce((total, value) => total + value, 0);
const share = (norm, whole) => (whole ? norm / whole : absent(ZERO_NORM));

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
