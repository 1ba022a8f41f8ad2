// How the direct contributions of all parts add up to the chosen token's logit, and how far the sum is from the engine's own.

import { Card } from "./card.js";
import { element } from "../verify/elements.js";
import { PARTS } from "../verify/formulas.js";
import { TOLERANCE, exactSum } from "../verify/gaps.js";
import { pathNorms, shareRoundings } from "../verify/rules.js";
import { isAbsent } from "./opened.js";
import { nameOf, part, shown, tick } from "./parts.js";
import { numbersOf } from "./provenance.js";
import { Scene } from "./scene.js";

const LEFT = 52;
const HEIGHT = 260;
const TOP = 16;
const SENTENCE = "z_y = dla(x₀) + Σ_l (dla(a_l) + dla(m_l)) + roundings: each part c adds Σ_i W[y,i] g_i c_i / r with the frozen scale r, the direct path only. Bars are derived; the last is the engine's logit, measured. Click an MoE bar to open it into its experts.";

export function waterfall(view) {
  const card = new Card("waterfall", "Logit waterfall", SENTENCE);
  const update = ({ position, layer, isStep }) => {
    const head = isStep ? view.ledger.values(position, "lm_head") : {};
    if (!("dla_logit" in head)) {
      card.nothing(isStep ? "attribution was not captured: capture level minimal" : "not a step: no token was formed at this position");
      card.after.replaceChildren();
      return;
    }
    const bars = barsOf(view.ledger, position, head);
    card.svg(draw(view, bars, head, layer), () => table(bars, head), (pick) => view.selection.set({ layer: pick }));
    card.read(`token ${JSON.stringify(nameOf(view.ledger.positions[position], []))}`);
    card.after.replaceChildren(closing(view, bars, head, position), ...experts(view, position, layer));
  };
  view.selection.follow(update);
  return card;
}

/** { part, layer, kind, value }: the embedding, every write, all roundings in one, and lm_head's own */
export function barsOf(ledger, position, head) {
  const bars = [{ part: "embedding", layer: -1, kind: "embed", value: ledger.values(position, "embed").dla }];
  const roundings = [];
  for (let layer = 0; layer < ledger.layers; layer++) {
    const cell = ledger.cell(position, layer);
    bars.push({ part: "attention", layer, kind: "attention", value: cell.dla_attention });
    bars.push({ part: isAbsent(cell.dla_experts) ? "MLP" : "MoE", layer, kind: "mlp", value: cell.dla_mlp });
    roundings.push(cell.dla_attention_rounding, cell.dla_mlp_rounding);
  }
  bars.push({ part: "roundings of the residual sums", layer: -1, kind: "rounding", value: exactSum(roundings) });
  bars.push({ part: "rounding of lm_head", layer: -1, kind: "rounding", value: head.lm_head_rounding });
  return bars;
}

function draw(view, bars, head, chosenLayer) {
  const ink = view.ink();
  const w = Math.max(7, Math.min(64, Math.floor((view.width("waterfall") - LEFT - 70) / (bars.length + 2))));
  const scene = new Scene(LEFT + w * (bars.length + 2) + 60, TOP + HEIGHT + 42);
  let level = 0;
  const spans = bars.map(({ value }) => [level, (level += value)]);
  const all = [0, head.chosen_logit, ...spans.flat()];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const y = (v) => TOP + ((high - v) / (high - low || 1)) * HEIGHT;
  axis(scene, low, high, y, scene.width - 50, ink);
  for (const [n, bar] of bars.entries()) one(scene, bar, spans[n], LEFT + n * w, w, y, ink, chosenLayer, view);
  const x = LEFT + (bars.length + 1) * w;
  const [top, bottom] = [y(Math.max(head.chosen_logit, 0)), y(Math.min(head.chosen_logit, 0))];
  scene.rect({ x, y: top, w: Math.max(w - 2, 14), h: Math.max(bottom - top, 1), fill: ink.text, label: `engine's logit ${head.chosen_logit}, measured` });
  scene.text({ x: x + 8, y: top - 5, text: `z = ${shown(head.chosen_logit)}`, anchor: "middle", size: 12, weight: 600, fill: ink.text });
  labels(scene, bars, w, ink);
  return scene;
}

function one(scene, { part: name, layer, kind, value }, [from, to], x, w, y, ink, chosenLayer, view) {
  const colour = kind === "rounding" ? ink.neutral : value < 0 ? ink.negative : ink.positive;
  const top = Math.min(y(from), y(to));
  const h = Math.max(Math.abs(y(from) - y(to)), 1);
  const label = `${name}${layer >= 0 ? ` of layer ${layer}` : ""}: ${value < 0 ? "" : "+"}${shown(value)}, derived`;
  if (layer >= 0 && layer === chosenLayer && kind === "attention") {
    scene.rect({ x: x - 1, y: TOP - 8, w: 2 * w, h: HEIGHT + 16, fill: ink.accent, opacity: 0.12 });
  }
  scene.line({ points: [[x, y(from)], [x + w, y(from)]], stroke: ink.soft, width: 0.5 });
  scene.rect({ x: x + 1, y: top, w: w - 2, h, fill: colour, opacity: kind === "attention" ? 0.12 : 0.42, stroke: colour, label, pick: layer >= 0 ? layer : undefined });
  if (layer >= 0) scene.rect({ x, y: TOP - 8, w, h: HEIGHT + 16, fill: ink.card, opacity: 0, label, pick: layer });
}

function axis(scene, low, high, y, right, ink) {
  for (const v of ticks(low, high)) {
    scene.line({ points: [[LEFT - 4, y(v)], [right, y(v)]], stroke: v === 0 ? ink.soft : ink.line });
    scene.text({ x: LEFT - 8, y: y(v) + 4, text: tick(v), anchor: "end", fill: ink.soft });
  }
}

/** About five round numbers */
export function ticks(low, high) {
  const rough = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) found.push(Number((n * step).toPrecision(6)));
  return found;
}

function labels(scene, bars, w, ink) {
  const y = TOP + HEIGHT + 22;
  const every = Math.ceil(28 / (2 * w));
  for (const [n, { layer, kind }] of bars.entries()) {
    if (kind === "attention" && layer % every === 0) scene.text({ x: LEFT + (n + 1) * w, y, text: `L${layer}`, anchor: "middle", fill: ink.soft });
  }
  scene.text({ x: w < 16 ? LEFT - 4 : LEFT + w / 2, y, text: "x₀", anchor: w < 16 ? "end" : "middle", fill: ink.soft });
  scene.text({ x: LEFT + (bars.length - 1) * w, y, text: "≈", anchor: "middle", fill: ink.soft });
  scene.text({ x: LEFT + (bars.length + 1.4) * w, y, text: "engine", anchor: "middle", fill: ink.text });
  scene.text({ x: LEFT, y: y + 16, text: "each layer: attention (light), then MLP or MoE (darker); blue up, orange down", size: 10, fill: ink.soft });
}

/** The two gaps that the sum rules allow, as they are */
function closing(view, bars, head, position) {
  const lines = gaps(view.ledger, position, head);
  return element("ul.closing", ...lines.map(({ sentence, gap, within }) =>
    part(`li.${within ? "passed" : "failed"}`, {}, `${within ? "✓" : "✗"} ${sentence}: gap ${gap === 0 ? "0, bit-equal" : gap.toExponential(2)}`)),
  element("li", "engine's logit ", ...numbersOf(view, { position, slot: "lm_head", name: "chosen_logit" }), " sum of parts ", ...numbersOf(view, { position, slot: "lm_head", name: "dla_logit" }),
    " rounding of lm_head ", ...numbersOf(view, { position, slot: "lm_head", name: "lm_head_rounding" })));
}

export function gaps(ledger, position, head) {
  const layers = Array.from({ length: ledger.layers }, (_, layer) => ledger.cell(position, layer));
  const embed = ledger.values(position, "embed");
  const terms = [embed.dla, ...PARTS.flatMap((name) => layers.map((cell) => cell[name]))];
  const tolerance = TOLERANCE * exactSum(terms.map(Math.abs)) + shareRoundings(head, "", pathNorms(embed, layers), ledger.run.shape);
  const closure = Math.abs(exactSum([...terms, -head.exact_logit]));
  const ends = Math.abs(exactSum([head.dla_logit, head.lm_head_rounding, -head.chosen_logit]));
  return [
    { sentence: `closing gap: parts and y's logit in binary64, allowed ${tolerance.toExponential(1)}`, gap: closure, within: closure <= tolerance },
    { sentence: "parts with lm_head's rounding, and the engine's logit", gap: ends, within: ends <= 2 ** -53 * Math.abs(head.lm_head_rounding) },
  ];
}

// ---- an MoE bar opened

function experts(view, position, layer) {
  const cell = view.ledger.cell(position, layer);
  if (isAbsent(cell.dla_experts) || !("dla_experts" in cell)) return [];
  const rows = cell.chosen.map((expert, n) => ({ name: `expert ${expert}`, expert, value: cell.dla_experts[n], gate: cell.gates[n] }));
  rows.sort((a, b) => b.value - a.value);
  if (!isAbsent(cell.dla_shared)) rows.push({ name: "shared expert", expert: -1, value: cell.dla_shared, gate: 1 });
  rows.push({ name: "rounding of their sum", expert: -1, value: cell.dla_combination_rounding, gate: NaN });
  const largest = rows.reduce((most, { value }) => Math.max(most, Math.abs(value)), 1e-30);
  const gap = Math.abs(exactSum([...rows.map(({ value }) => value), -cell.dla_mlp]));
  const items = rows.map((row) => expertRow(view, row, largest));
  return [element("h3", `The MoE of layer ${layer} in its experts`), element("div.expert-rows", ...items),
    element("p.quiet", `Σ = ${shown(cell.dla_mlp)}, closing gap ${gap === 0 ? "0" : gap.toExponential(2)}`)];
}

function expertRow(view, { name, expert, value, gate }, largest) {
  const bar = part("span.bar", { class: `bar ${value < 0 ? "down" : "up"}` });
  bar.style.width = `${(Math.abs(value) / largest) * 46}%`;
  const label = expert < 0 ? element("span.bar-name", name) : part("button.bar-name.link", { type: "button", onclick: () => view.selection.set({ expert }) }, name);
  return element("div.expert-row", label, element("span.track", bar), element("span.value", `${value < 0 ? "" : "+"}${shown(value)}`),
    element("span.quiet", Number.isNaN(gate) || expert < 0 ? "" : `gate ${shown(gate)}`));
}

function table(bars, head) {
  let sum = 0;
  const rows = bars.map(({ part: name, layer, value }) => [name, layer < 0 ? "" : layer, value, (sum += value)]);
  return { head: ["part", "layer", "contribution", "sum"], rows: [...rows, ["engine's logit, measured", "", head.chosen_logit, head.chosen_logit]] };
}
