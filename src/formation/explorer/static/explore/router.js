// The router of one cell: selection decides who is chosen, the gate how much it weighs. Two scales, never one.

import { Card } from "./card.js";
import { element } from "../verify/elements.js";
import { valuesF32 } from "../verify/canonical.js";
import { hex } from "../verify/bytes.js";
import { sha256 } from "../verify/sha256.js";
import { isAbsent } from "./opened.js";
import { shown, tick } from "./parts.js";
import { rowOf } from "./rows.js";
import { Scene } from "./scene.js";

const LEFT = 56;
const HIGH = 110;
const LOW = 70;
const TOP = 22;
const SENTENCE = "Above, selection c = s + b of each expert, s = sigmoid(q) or softmax: the largest are chosen. Below, the gate g = s / Σ s · scale, of the chosen only: how much their output weighs. Blue is chosen, orange the first refused.";

export function router(view) {
  const card = new Card("router", "Router", SENTENCE);
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
    return card.after.replaceChildren(element("p.quiet", bars.note));
  };
  view.selection.follow(update);
  return card;
}

/** Of all experts where the bundle keeps the row and it is the one that the ledger names, else of those that the line lists */
async function barsOf(view, cell, position, layer) {
  const gateOf = new Map(cell.chosen.map((expert, n) => [expert, cell.gates[n]]));
  const bar = (expert, selection) => ({ expert, selection, gate: gateOf.get(expert) ?? null, isChosen: gateOf.has(expert), isRefused: expert === cell.runners_up[0] });
  const row = await rowOf(view, "router", "selection", position, layer - view.ledger.run.shape.dense_layers);
  if (row && hex(sha256(row)) === cell.router_selection_sha256) {
    return { list: valuesF32(row).map((selection, expert) => bar(expert, selection)), all: true, note: "All experts, from router/: the row's SHA-256 is the one in the ledger." };
  }
  const listed = [...cell.chosen.map((e, n) => bar(e, cell.chosen_selection[n])), ...cell.runners_up.map((e, n) => bar(e, cell.runner_up_selection[n]))];
  const why = row ? "the row in router/ is not the one that the ledger names" : "router/ is not in this bundle";
  return { list: listed, all: false, note: `Only the chosen experts and the runners-up: ${why}.` };
}

function draw(view, { list, all }, selected) {
  const ink = view.ink();
  const w = Math.max(1.5, Math.min(44, (view.width("router") - LEFT - 20) / list.length));
  const scene = new Scene(Math.max(LEFT + w * list.length + 20, 320), TOP + HIGH + LOW + 60);
  const [low, high] = [Math.min(0, ...list.map((b) => b.selection)), Math.max(...list.map((b) => b.selection), 1e-9)];
  const most = Math.max(...list.map((b) => b.gate ?? 0), 1e-9);
  const y = (v) => TOP + ((high - v) / (high - low)) * HIGH;
  const base = TOP + HIGH + 30 + LOW;
  axes(scene, y, [low, high], base, most, LEFT + w * list.length, ink);
  const last = Math.min(...list.filter((b) => b.isChosen).map((b) => b.selection));
  for (const [n, bar] of list.entries()) one(scene, bar, LEFT + n * w, w, y, base, most, ink, bar.expert === selected);
  scene.line({ points: [[LEFT, y(last)], [LEFT + w * list.length, y(last)]], stroke: ink.soft, dash: "3 3" });
  const every = all && w < 24 ? Math.ceil(34 / w / 5) * 5 : 1;
  for (const [n, { expert }] of list.entries()) if (n % every === 0) scene.text({ x: LEFT + n * w + w / 2, y: base + 16, text: String(expert), anchor: "middle", size: 10, fill: ink.soft });
  return scene;
}

function axes(scene, y, [low, high], base, most, right, ink) {
  for (const v of [low, high]) scene.text({ x: LEFT - 6, y: y(v) + 4, text: tick(v), anchor: "end", fill: ink.soft });
  scene.line({ points: [[LEFT, y(0)], [right, y(0)]], stroke: ink.line });
  scene.line({ points: [[LEFT, base], [right, base]], stroke: ink.line });
  scene.text({ x: LEFT - 6, y: base - LOW + 8, text: tick(most), anchor: "end", fill: ink.soft });
  scene.text({ x: 4, y: TOP - 10, text: "selection c (measured)", fill: ink.soft }).text({ x: 4, y: base - LOW - 8, text: "gate g (measured)", fill: ink.soft });
}

function one(scene, bar, x, w, y, base, most, ink, isSelected) {
  const { expert, selection, gate, isChosen, isRefused } = bar;
  const label = readout(bar);
  if (isSelected) scene.rect({ x: x - 1, y: TOP - 6, w: w + 1, h: base - TOP + 8, fill: ink.accent, opacity: 0.18 });
  const top = Math.min(y(selection), y(0));
  const fill = isChosen ? ink.chosen : isRefused ? ink.refused : ink.idle;
  const bare = w > 3 ? 1 : w > 2 ? 0.5 : 0;
  scene.rect({ x, y: top, w: w - bare, h: Math.max(Math.abs(y(selection) - y(0)), 1), fill, label, pick: expert });
  if (gate !== null) scene.rect({ x, y: base - (gate / most) * LOW, w: w - bare, h: (gate / most) * LOW, fill: ink.chosen, label, pick: expert });
  if (isRefused) scene.text({ x: x + w / 2, y: top - 3, text: "▾", anchor: "middle", fill: ink.refused });
}

function readout({ expert, selection, gate, isChosen, isRefused }) {
  const what = isChosen ? `chosen, gate ${shown(gate)}` : isRefused ? "first refused" : "not chosen: no gate";
  return `expert ${expert}: selection ${shown(selection)}, ${what}`;
}

function table(list) {
  const rows = list.map(({ expert, selection, gate, isChosen, isRefused }) => [expert, selection, isChosen ? "chosen" : isRefused ? "first refused" : "not chosen", gate ?? "absent: not chosen"]);
  return { head: ["expert", "selection", "choice", "gate"], rows };
}
