// What the formation matrix can show of a cell, each from one field of the ledger.

import { FIELDS } from "../verify/fields.js";

const probability = (logprob) => Math.exp(logprob); // for drawing; the field itself is shown beside it
const plain = (x) => x;

/** scale: "rank" (logarithmic, 1 is best), "share" (0 to 1), "size" (from 0), "signed" */
const ALL = [
  ["lens_rank", "lens_rank", "rank", "Lens rank", "rank of y among all logits of norm and lm_head on x′; 1 means y already leads"],
  ["lens_probability", "lens_logprob", "share", "Lens probability", "p(y) = exp(lens_logprob), from norm and lm_head on x′ with its own statistics"],
  ["dla_attention", "dla_attention", "signed", "Attribution: attention", "Σ_i W[y,i] g_i a_i / r: what the attention write adds to y's logit, directly"],
  ["dla_mlp", "dla_mlp", "signed", "Attribution: MLP or MoE", "Σ_i W[y,i] g_i m_i / r: what the MLP or MoE write adds to y's logit, directly"],
  ["residual_norm", "residual_norm", "size", "Norm of x′", "|x′|, the row after the layer"],
  ["attention_write_norm", "attention_write_norm", "size", "Norm of the attention write", "|a|"],
  ["mlp_write_norm", "mlp_write_norm", "size", "Norm of the MLP or MoE write", "|m|"],
  ["lens_kl", "lens_kl", "size", "KL from the final distribution", "KL(p* ‖ p) = Σ p* (log p* − log p), p of the lens, p* of the head"],
  ["lens_entropy", "lens_entropy", "size", "Lens entropy", "log Σ exp z − Σ p z, of the lens"],
  ["attention_entropy", "attention_entropy", "size", "Attention entropy", "entropy of attention over positions, mean over heads"],
  ["delta_state_norm", "delta_state_norm", "size", "Norm of the delta state", "length of the state's matrices of all heads together, S = S·decay + k (β (v − Sᵀk))ᵀ"],
  ["delta_decay_mean", "delta_decay_mean", "share", "Delta decay", "what is left of a head's state when it writes, mean over heads"],
  ["router_margin", "router_margin", "size", "Router margin", "min(chosen_selection) − runner_up_selection[0]: how far the last chosen expert was from refusal"],
];

const WITH_DELTA = {
  dla_attention: { title: "Attribution: attention or delta net", formula: "Σ_i W[y,i] g_i a_i / r: what the write of attention, or of the delta net in its place, adds to y's logit, directly" },
  attention_write_norm: { title: "Norm of the attention or delta write", formula: "|a|, the write of attention, or of the delta net in its place" },
};

export const METRICS = ALL.map(([name, field, scale, title, formula]) => ({
  name, field, scale, title, formula, tag: FIELDS.find((each) => each.slot === "layer" && each.name === field).tag,
  drawn: name === "lens_probability" ? probability : plain, needsDelta: name.startsWith("delta_"),
}));

/** Those that a run can have; where some layers have a delta net in attention's place, what they write is named so */
export const metricsOf = (run) => METRICS.filter(({ needsDelta }) => !needsDelta || run.delta).map((metric) => (run.delta && metric.name in WITH_DELTA ? { ...metric, ...WITH_DELTA[metric.name] } : metric));
export const metricOf = (name, run) => metricsOf(run).find((metric) => metric.name === name) ?? METRICS[0];
