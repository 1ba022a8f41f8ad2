// The router of one cell: selection decides who is chosen, the gate how much it weighs. Two scales, never one.

import { Card } from "./card.js";
import { element } from "../verify/elements.js";
import { valuesF32 } from "../verify/canonical.js";
import { hex } from "../verify/bytes.js";
import { sha256 } from "../verify/sha256.js";
import { isAbsent } from "./opened.js";
import { part, shown, tick } from "./parts.js";
import { numbersOf } from "./provenance.js";
import { rowOf } from "./rows.js";
import { everyOf } from "./scales.js";
import { Scene } from "./scene.js";

const LEFT = 62;
const HIGH = 110;
const LOW = 70;
const BETWEEN = 44;
const TOP = 24;

export function router(view) {
  const card = new Card(view, "router", "Router", sentenceOf(view.ledger.run));
  let turn = 0;
  const update = async ({ position, layer, expert }) => {
    const mine = ++turn;
    const cell = view.ledger.cell(position, layer);
    if (isAbsent(cell.chosen)) {
      card.nothing(`layer ${layer} has no router: ${cell.chosen.absent}`);
      return card.after.replaceChildren();
    }
    const bars = await barsOf(view, cell, position, layer);
    if (mine !== turn) return undefined; // the selection has moved on
    card.svg(draw(view, bars, expert), () => table(bars.list), (pick) => view.selection.set({ expert: pick }));
    card.read(readout(bars.list.find((bar) => bar.expert === expert) ?? bars.list.find((bar) => bar.isChosen)));
    return card.after.replaceChildren(element("p.quiet", bars.note), ...shared(view, cell, position, layer));
  };
  card.follow(update, ["position", "layer", "expert"]);
  return card;
}

/** What the shared expert's output is multiplied by: it is not chosen, and in some models gated */
function shared(view, cell, position, layer) {
  if (!("shared_gate" in cell) || isAbsent(cell.shared_write_norm)) return [];
  const numbers = (name) => numbersOf(view, { position, slot: `layer ${layer}`, name });
  return [part("p.quiet", {}, "The shared expert runs for every token: gate ", ...numbers("shared_gate"), ", norm of its write ", ...numbers("shared_write_norm"))];
}

/** With the formulas of this run's own router */
function sentenceOf({ router: facts, shape }) {
  if (!facts) return "No layer of this model has a router.";
  const score = facts.softmax ? "s = softmax(q)" : "s = sigmoid(q)";
  const among = facts.groups > 1 ? ` of the ${facts.kept_groups} groups kept of ${facts.groups}` : "";
  const gate = `${facts.normalise ? "s / Σ s" : "s"}${facts.scale === 1 ? "" : ` · ${shown(facts.scale)}`}`;
  return `Above, selection c = ${facts.biased ? "s + b" : "s"} of each expert, ${score}: the ${shape.chosen} largest${among} are chosen (blue), the next was the first refused (orange, ▾). Below, the gate g = ${gate}, of the chosen only: how much their output weighs.`;
}

/** Of all experts where the bundle keeps the row and it is the one that the ledger names, else of those that the line lists */
async function barsOf(view, cell, position, layer) {
  const scores = [...partsOf(cell, "chosen", cell.chosen, cell.gates), ...partsOf(cell, "runner_up", cell.runners_up, null)];
  if (scores.length) Object.assign(scores.find(({ expert }) => expert === cell.runners_up[0]) ?? {}, { isRefused: true });
  const known = new Map(scores.map((bar) => [bar.expert, bar]));
  const row = await rowOf(view, "router", "selection", position, layer - view.ledger.run.shape.dense_layers);
  if (row && hex(sha256(row)) === cell.router_selection_sha256) {
    const other = (expert, selection) => ({ expert, selection, gate: null, isChosen: false, isRefused: false });
    return { list: valuesF32(row).map((selection, expert) => known.get(expert) ?? other(expert, selection)), all: true, note: "All experts, from router/: the row's SHA-256 is the one in the ledger." };
  }
  const left = view.leftOut.some((name) => name.startsWith("router/")) ? "router/ is not in this page" : "router/ is not in this bundle";
  return { list: scores, all: false, note: `Only the chosen experts and the runners-up: ${row ? "the row in router/ is not the one that the ledger names" : left}.` };
}

/** Of the experts that the line lists: logit, score, bias and selection apart */
function partsOf(cell, prefix, experts, gates) {
  const [logits, values, biases, selection] = ["logits", "scores", "biases", "selection"].map((name) => cell[`${prefix}_${name}`]);
  return experts.map((expert, n) => ({
    expert, selection: selection[n], gate: gates ? gates[n] : null, isChosen: gates !== null, isRefused: false,
    logit: logits[n], score: values[n], bias: isAbsent(biases) ? biases : biases[n],
  }));
}

function draw(view, { list, all }, selected) {
  const ink = view.ink();
  const w = Math.max(1.5, Math.min(44, (view.width("router") - LEFT - 20) / list.length));
  const scene = new Scene(Math.max(LEFT + w * list.length + 20, 320), TOP + HIGH + LOW + BETWEEN + 24);
  const [low, high] = [Math.min(0, ...list.map((b) => b.selection)), Math.max(...list.map((b) => b.selection), 1e-9)];
  const most = Math.max(...list.map((b) => b.gate ?? 0), 1e-9);
  const y = (v) => TOP + ((high - v) / (high - low)) * HIGH;
  const base = TOP + HIGH + BETWEEN + LOW;
  axes(scene, y, [low, high], base, most, LEFT + w * list.length, ink);
  const last = Math.min(...list.filter((b) => b.isChosen).map((b) => b.selection));
  for (const [n, bar] of list.entries()) one(scene, bar, LEFT + n * w, w, y, base, most, ink, bar.expert === selected);
  scene.line({ points: [[LEFT, y(last)], [LEFT + w * list.length, y(last)]], stroke: ink.soft, dash: "3 3" });
  const every = all && w < 24 ? everyOf(w, 40) : 1;
  for (const [n, { expert }] of list.entries()) if (n % every === 0) scene.text({ x: LEFT + n * w + w / 2, y: base + 16, text: String(expert), anchor: "middle", size: 10, fill: ink.soft });
  return scene;
}

function axes(scene, y, [low, high], base, most, right, ink) {
  const marks = y(low) - y(0) > 14 ? [low, 0, high] : [0, high];
  for (const v of marks) scene.text({ x: LEFT - 6, y: y(v) + 4, text: tick(v), anchor: "end", fill: ink.soft });
  scene.line({ points: [[LEFT, y(0)], [right, y(0)]], stroke: ink.line });
  scene.line({ points: [[LEFT, base], [right, base]], stroke: ink.line });
  scene.text({ x: LEFT - 6, y: base - LOW + 8, text: tick(most), anchor: "end", fill: ink.soft }).text({ x: LEFT - 6, y: base + 4, text: "0", anchor: "end", fill: ink.soft });
  scene.text({ x: 4, y: TOP - 10, text: "selection c (measured)", fill: ink.soft }).text({ x: 4, y: base - LOW - 12, text: "gate g (measured)", fill: ink.soft });
}

function one(scene, bar, x, w, y, base, most, ink, isSelected) {
  const { expert, selection, gate, isChosen, isRefused } = bar;
  const label = readout(bar);
  if (isSelected) scene.rect({ x: x - 2, y: TOP - 6, w: w + 3, h: base - TOP + 8, fill: ink.accent, opacity: 0.18 });
  const top = Math.min(y(selection), y(0));
  const fill = isChosen ? ink.chosen : isRefused ? ink.refused : ink.idle;
  const bare = w > 3 ? 1 : w > 2 ? 0.5 : 0;
  scene.rect({ x, y: top, w: w - bare, h: Math.max(Math.abs(y(selection) - y(0)), 1), fill, label, pick: expert });
  if (gate !== null) scene.rect({ x, y: base - (gate / most) * LOW, w: w - bare, h: (gate / most) * LOW, fill: ink.chosen, label, pick: expert });
  if (isRefused) scene.text({ x: x + w / 2, y: top - 3, text: "▾", anchor: "middle", fill: ink.refused });
  scene.rect({ x, y: TOP - 6, w, h: base - TOP + 8, fill: ink.card, opacity: 0, label, pick: expert });
}

function readout({ expert, selection, gate, isChosen, isRefused, logit, score, bias }) {
  const what = isChosen ? `chosen, gate ${shown(gate)}` : isRefused ? "first refused" : "not chosen: no gate";
  const how = logit === undefined ? "" : ` = score ${shown(score)}${isAbsent(bias) ? "" : ` + bias ${shown(bias)}`}, from logit ${shown(logit)}`;
  return `expert ${expert}: selection ${shown(selection)}${how}; ${what}`;
}

function table(list) {
  const none = "absent: not in the ledger's line";
  const rows = list.map(({ expert, selection, gate, isChosen, isRefused, logit, score, bias }) =>
    [expert, selection, isChosen ? "chosen" : isRefused ? "first refused" : "not chosen", gate ?? "absent: not chosen", logit ?? none, score ?? none, isAbsent(bias) ? `absent: ${bias.absent}` : bias ?? none]);
  return { head: ["expert", "selection", "choice", "gate", "logit", "score", "bias"], rows };
}
