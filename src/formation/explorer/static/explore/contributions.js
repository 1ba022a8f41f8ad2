// The parts of a token's logit as the ledger has them, along three directions, and the sums that they must make.

import { PARTS } from "../verify/formulas.js";
import { closure, exactSum } from "../verify/gaps.js";
import { pathNorms, shareRoundings } from "../verify/rules.js";
import { isAbsent } from "./opened.js";
import { size } from "./parts.js";

/** What a contribution is to: y's logit, or its lead over something. `end` is what all parts together are held against. */
export const DIRECTIONS = {
  raw: {
    title: "y's logit", component: "", formula: "z_y = dla(x₀) + Σ_l (dla(a_l) + dla(m_l)) + roundings, d = W[y] g",
    end: (ledger, position, head) => ({ value: head.chosen_logit, text: "z =", name: "engine's logit", isMeasured: true }),
  },
  centred: {
    title: "y's logit, centred", component: "_centred", formula: "z_y − mean_v z_v = Σ of centred parts, d = (W[y] − mean_v W[v]) g",
    end: (ledger, position, head, bars) => ({ value: exactSum(bars.map(({ value }) => value)), text: "Σ =", name: "sum of parts", isMeasured: false }),
  },
  runner_up: {
    title: "lead over the runner-up", component: "_runner_up", formula: "z_y − z_v, v the other token with the largest logit = Σ of parts, d = (W[y] − W[v]) g",
    end: (ledger, position, head) => ({ value: head.chosen_logit - runnerUpLogit(head, ledger.values(position, "token").id), text: "Δz =", name: "engine's lead", isMeasured: false }),
  },
};

const runnerUpLogit = ({ top, top_logits: logits }, y) => logits[top[0] === y ? 1 : 0];
const named = (component, name) => `dla${component}${name.slice(3)}`; // dla_mlp as dla_centred_mlp

/** { part, layer, kind, value }: the embedding, every write, all roundings in one, and lm_head's own; `value` is absent where the ledger's is */
export function barsOf(ledger, position, head, component = "") {
  const bars = [{ part: "embedding", layer: -1, kind: "embed", value: ledger.values(position, "embed")[`dla${component}`] }];
  const roundings = [];
  for (let layer = 0; layer < ledger.layers; layer++) {
    const cell = ledger.cell(position, layer);
    const [attention, attentionRounding, mlp, mlpRounding] = PARTS.map((name) => cell[named(component, name)]);
    bars.push({ part: ledger.run.kinds[layer] === "delta" ? "delta net" : "attention", layer, kind: "attention", value: attention }, { part: isAbsent(cell.dla_experts) ? "MLP" : "MoE", layer, kind: "mlp", value: mlp });
    roundings.push(attentionRounding, mlpRounding);
  }
  const missing = roundings.find(isAbsent);
  bars.push({ part: "roundings of the residual sums", layer: -1, kind: "rounding", value: missing ?? exactSum(roundings) });
  if (!component) bars.push({ part: "rounding of lm_head", layer: -1, kind: "rounding", value: head.lm_head_rounding });
  return bars;
}

/** { sentence, gap, within }; within is null where no rule of the ledger bounds the distance, gap where the ledger has nothing to measure it by */
export function closings(ledger, position, head, direction, bars) {
  if (!direction.component) return [logitClosure(ledger, position, head)];
  const sum = exactSum(bars.map(({ value }) => value));
  if (direction.component === "_centred") return [{ sentence: "the ledger does not hold the mean of all logits: no measured number stands beside this sum", gap: null, within: null }];
  const { value } = direction.end(ledger, position, head, bars);
  return [{ sentence: "parts, and the difference of the engine's two logits: lm_head's binary32 roundings of both", gap: Math.abs(sum - value), within: null }];
}

function logitClosure(ledger, position, head) {
  const layers = Array.from({ length: ledger.layers }, (_, layer) => ledger.cell(position, layer));
  const embed = ledger.values(position, "embed");
  const terms = [embed.dla, ...PARTS.flatMap((name) => layers.map((cell) => cell[name]))];
  const allowance = shareRoundings(head, "", pathNorms(embed, layers), ledger.run.shape);
  const { size: gap, tolerance, violated } = closure("", head.exact_logit, terms, allowance, "");
  return { sentence: `closing gap: parts and y's logit in binary64, allowed ${size(tolerance, 1)}`, gap, within: !violated };
}

/** The MoE's contribution in its experts' { rows, total, gap, tolerance }, largest first; { absent } of a dense layer, null where nothing was captured */
export function expertsOf(ledger, position, layer, head, component) {
  const cell = ledger.cell(position, layer);
  const [total, shares, shared, rounding] = ["mlp", "experts", "shared", "combination_rounding"].map((name) => cell[`dla${component}_${name}`]);
  if (shares === undefined) return null;
  if (isAbsent(shares)) return shares;
  const rows = cell.chosen.map((expert, n) => ({ name: `expert ${expert}`, expert, value: shares[n], gate: cell.gates[n] })).sort((a, b) => b.value - a.value);
  const norms = [cell.mlp_write_norm, ...cell.expert_write_norms];
  if (!isAbsent(shared)) rows.push({ name: "shared expert", expert: -1, value: shared, gate: NaN });
  if (!isAbsent(cell.shared_write_norm)) norms.push(cell.shared_write_norm);
  rows.push({ name: "rounding of their sum", expert: -1, value: rounding, gate: NaN });
  const allowance = shareRoundings(head, component, norms, ledger.run.shape);
  const { size: gap, tolerance } = closure("", total, rows.map(({ value }) => value), allowance, "");
  return { rows, total, gap, tolerance };
}
