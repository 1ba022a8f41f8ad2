// How the direct contributions of all parts add up to the chosen token's logit, and how far the sum is from the engine's own.

import { Card } from "./card.js";
import { DIRECTIONS, barsOf, closings, expertsOf } from "./contributions.js";
import { element } from "../verify/elements.js";
import { isAbsent } from "./opened.js";
import { nameOf, part, shown, size, tick } from "./parts.js";
import { numbersOf } from "./provenance.js";
import { everyOf } from "./scales.js";
import { Scene } from "./scene.js";

const LEFT = 52;
const HEIGHT = 260;
const TOP = 20;
const END = 92; // pixels for the last bar
const SENTENCE = "each part c adds Σ_i d_i c_i / r with the frozen scale r of the last row: the direct path only. Outlined bars are derived, a solid one at the end is the engine's logit. Click an MoE bar to open it into its experts.";

export function waterfall(view) {
  const card = new Card(view, "waterfall", "Logit waterfall", SENTENCE);
  const choose = card.choice("share", "Contribution to", Object.entries(DIRECTIONS).map(([name, { title }]) => [name, title]));
  card.follow(({ position, layer, isStep, share }) => {
    const name = share in DIRECTIONS ? share : "raw";
    const direction = DIRECTIONS[name];
    choose.value = name;
    card.say(`${direction.formula}: ${SENTENCE}`);
    const head = isStep ? view.ledger.values(position, "lm_head") : {};
    const bars = "dla_logit" in head ? barsOf(view.ledger, position, head, direction.component) : [];
    const missing = bars.find(({ value }) => isAbsent(value));
    if (!bars.length || missing) {
      card.nothing(missing ? `absent: ${missing.value.absent}` : isStep ? "attribution was not captured: capture level minimal" : "not a step: no token was formed at this position");
      return card.after.replaceChildren();
    }
    const end = direction.end(view.ledger, position, head, bars);
    card.svg(draw(view, bars, end, layer), () => table(bars, end), (pick) => view.selection.set({ layer: pick }));
    card.read(`token ${JSON.stringify(nameOf(view.ledger.positions[position], []))}`);
    return card.after.replaceChildren(closing(view, head, position, direction, bars), ...experts(view, head, position, layer, direction.component));
  }, ["position", "layer", "expert", "share"]);
  return card;
}

// ---- the drawing

function draw(view, bars, end, chosenLayer) {
  const ink = view.ink();
  const room = view.width("waterfall") - LEFT - END;
  const w = Math.max(3, Math.min(96, room / bars.length));
  const scene = new Scene(LEFT + w * bars.length + END, TOP + HEIGHT + 42);
  let level = 0;
  const spans = bars.map(({ value }) => [level, (level += value)]);
  const all = [0, end.value, ...spans.flat()];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const y = (v) => TOP + ((high - v) / (high - low || 1)) * HEIGHT;
  axis(scene, low, high, y, scene.width - 8, ink);
  const chosen = bars.findIndex(({ layer, kind }) => layer === chosenLayer && kind === "attention");
  if (chosen >= 0) scene.rect({ x: LEFT + chosen * w - 1, y: TOP - 8, w: 2 * w + 2, h: HEIGHT + 16, fill: ink.accent, opacity: 0.12 });
  for (const [n, bar] of bars.entries()) one(scene, bar, spans[n], LEFT + n * w, w, y, ink);
  last(scene, end, scene.width - END / 2, y, ink);
  labels(scene, bars, w, ink, view.ledger.run.delta ? "attention or delta net" : "attention");
  return scene;
}

function one(scene, { part: name, layer, kind, value }, [from, to], x, w, y, ink) {
  const colour = kind === "rounding" ? ink.neutral : value < 0 ? ink.negative : ink.positive;
  const h = Math.max(Math.abs(y(from) - y(to)), 1);
  const label = `${name}${layer >= 0 ? ` of layer ${layer}` : ""}: ${signed(value)}, derived`;
  const gap = w > 6 ? 1 : 0.5;
  scene.line({ points: [[x, y(from)], [x + w, y(from)]], stroke: ink.soft, width: 0.5 });
  scene.rect({ x: x + gap, y: Math.min(y(from), y(to)), w: w - 2 * gap, h, fill: colour, opacity: kind === "attention" ? 0.12 : 0.42, stroke: colour, label, pick: layer >= 0 ? layer : undefined });
  if (layer >= 0) scene.rect({ x, y: TOP - 8, w, h: HEIGHT + 16, fill: ink.card, opacity: 0, label, pick: layer });
}

/** Solid if it is measured, outlined if it is derived */
function last(scene, { value, text, name, isMeasured }, x, y, ink) {
  const [top, bottom] = [y(Math.max(value, 0)), y(Math.min(value, 0))];
  const label = `${name}: ${value}, ${isMeasured ? "measured" : "derived"}`;
  scene.rect({ x: x - 14, y: top, w: 28, h: Math.max(bottom - top, 1), fill: isMeasured ? ink.text : ink.card, stroke: ink.text, width: 1.5, label });
  scene.text({ x: x + END / 2 - 2, y: top - 6, text: `${text} ${shown(value)}`, anchor: "end", size: 12, weight: 600, fill: ink.text });
  scene.text({ x, y: TOP + HEIGHT + 22, text: name, anchor: "middle", fill: ink.text });
}

const signed = (value) => `${value < 0 ? "" : "+"}${shown(value)}`;

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

function labels(scene, bars, w, ink, first) {
  const y = TOP + HEIGHT + 22;
  const every = everyOf(2 * w, 30);
  for (const [n, { layer, kind }] of bars.entries()) {
    if (kind === "attention" && layer % every === 0) scene.text({ x: LEFT + (n + 1) * w, y, text: `L${layer}`, anchor: "middle", fill: ink.soft });
  }
  scene.text({ x: w < 16 ? LEFT - 4 : LEFT + w / 2, y, text: "x₀", anchor: w < 16 ? "end" : "middle", fill: ink.soft });
  scene.text({ x: LEFT, y: y + 16, text: `each layer: ${first} (light), then MLP or MoE (darker); blue up, orange down; last the roundings (grey)`, size: 10, fill: ink.soft });
}

// ---- below it

/** What the sum rules allow and how far it is from holding, with the numbers behind */
function closing(view, head, position, direction, bars) {
  const lines = closings(view.ledger, position, head, direction, bars).map(({ sentence, gap, within }) => {
    const distance = gap === null ? "" : `: ${within === null ? "apart" : "gap"} ${size(gap)}`;
    return element(`li.${within === null ? "quiet" : within ? "passed" : "failed"}`, `${within === null ? "–" : within ? "✓" : "✗"} ${sentence}${distance}`);
  });
  const numbers = (slot, name) => numbersOf(view, { position, slot, name });
  const sums = direction.component ? [] : [element("li", "sum of parts ", ...numbers("lm_head", "dla_logit"), " + rounding of lm_head ", ...numbers("lm_head", "lm_head_rounding"), " = engine's logit ", ...numbers("lm_head", "chosen_logit"))];
  return element("ul.closing", ...lines, ...sums);
}

/** The MoE bar of the selected layer, opened */
function experts(view, head, position, layer, component) {
  const opened = expertsOf(view.ledger, position, layer, head, component);
  if (!opened) return [];
  if (opened.absent) return [element("h3", `The MLP of layer ${layer}`), element("p", element("span.absent", opened.absent), element("span.quiet", " it has no experts to open into"))];
  const { rows, total, gap, tolerance } = opened;
  const largest = rows.reduce((most, { value }) => Math.max(most, Math.abs(value)), 1e-30);
  const within = gap <= tolerance;
  return [element("h3", `The MoE of layer ${layer} in its experts`), element("div.expert-rows", ...rows.map((row) => expertRow(view, row, largest))),
    part("p.closing", {}, part(`span.${within ? "passed" : "failed"}`, {}, `${within ? "✓" : "✗"} Σ = ${shown(total)}, closing gap ${size(gap)}, allowed ${size(tolerance, 1)}`))];
}

function expertRow(view, { name, expert, value, gate }, largest) {
  const bar = part("span.bar", { class: `bar ${value < 0 ? "down" : "up"}` });
  bar.style.width = `${(Math.abs(value) / largest) * 46}%`;
  const isSelected = expert >= 0 && expert === view.selection.expert;
  const label = expert < 0 ? element("span.bar-name", name) : part("button.bar-name.link", { type: "button", "aria-pressed": String(isSelected), onclick: () => view.selection.set({ expert }) }, name);
  return element(`div.expert-row${isSelected ? ".selected" : ""}`, label, element("span.track", bar), element("span.value", signed(value)),
    element("span.quiet", Number.isNaN(gate) || expert < 0 ? "" : `gate ${shown(gate)}`));
}

function table(bars, end) {
  let sum = 0;
  const rows = bars.map(({ part: name, layer, value }) => [name, layer < 0 ? "" : layer, value, (sum += value)]);
  return { head: ["part", "layer", "contribution", "sum"], rows: [...rows, [`${end.name}, ${end.isMeasured ? "measured" : "derived"}`, "", end.value, end.value]] };
}
