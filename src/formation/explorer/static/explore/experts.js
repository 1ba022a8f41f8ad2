// The expert grid: every expert of every layer over the whole run, and the tokens that one was chosen for.

import { Card } from "./card.js";
import { element } from "../verify/elements.js";
import { legend } from "./matrix.js";
import { colourAt } from "./palette.js";
import { nameOf, part, shown, tick } from "./parts.js";
import { Scene } from "./scene.js";

const LEFT = 46;
const TOP = 8;
const KINDS = {
  use: { title: "Use", formula: "how many positions chose the expert (measured)", scale: "size", tag: "measured" },
  gate: { title: "Gate", formula: "mean of its gate g over the positions that chose it (derived here)", scale: "size", tag: "derived" },
  dla: { title: "Attribution", formula: "Σ over the run's tokens of what it added to their logits, directly (derived here)", scale: "signed", tag: "derived" },
};
const MOST_LISTED = 200;

export function experts(view) {
  const card = new Card("experts", "Experts of the run", "");
  const { experts: count } = view.ledger.run.shape;
  if (!count) {
    card.nothing("no experts: every layer of this model is dense");
    return card;
  }
  const totals = totalsOf(view.ledger);
  const choose = part("select", { "aria-label": "Quantity", onchange: ({ target }) => view.selection.set({ grid: target.value }) },
    ...Object.entries(KINDS).map(([name, { title }]) => part("option", { value: name }, title)));
  card.controls.append(choose);
  const frame = part("div.frame");
  let drawn = "";
  view.onRedraw(() => (drawn = ""));
  view.selection.follow(({ grid, layer, expert }) => {
    const kind = grid in KINDS ? grid : "use";
    if (drawn !== kind) {
      choose.value = kind;
      draw(view, card, totals, kind);
      card.drawing.append(frame);
    }
    drawn = kind;
    place(view, card, frame, layer, expert);
    card.after.replaceChildren(listing(view, layer, expert));
  });
  return card;
}

/** use, gate and dla: one number for each expert of each layer, NaN where nothing is known */
function totalsOf(ledger) {
  const { dense_layers: dense, experts: width } = ledger.run.shape;
  const size = (ledger.layers - dense) * width;
  const [use, gate, dla] = [0, 1, 2].map(() => new Float64Array(size));
  for (const { experts: layers } of ledger.positions) {
    for (let layer = dense; layer < ledger.layers; layer++) {
      const { chosen, gates, dla: shares } = layers[layer];
      for (const [n, expert] of chosen.entries()) {
        const at = (layer - dense) * width + expert;
        use[at]++;
        gate[at] += gates[n];
        if (!Number.isNaN(shares[n])) dla[at] += shares[n];
      }
    }
  }
  return { use, gate: gate.map((sum, at) => (use[at] ? sum / use[at] : NaN)), dla: dla.map((sum, at) => (use[at] ? sum : NaN)) };
}

function sizesOf(view) {
  const { dense_layers: dense, experts: width } = view.ledger.run.shape;
  const rows = view.ledger.layers - dense;
  const w = Math.max(3, Math.min(44, Math.floor((view.width("experts") - LEFT - 14) / width)));
  return { dense, width, rows, w, h: Math.max(5, Math.min(28, Math.floor(320 / rows))) };
}

function draw(view, card, totals, name) {
  const { title, formula, scale, tag } = KINDS[name];
  const { dense, width, rows, w, h } = (card.sizes = sizesOf(view));
  const ink = view.ink();
  card.say(`${title}: ${formula}. Columns are experts, layers go up. ${name === "use" ? "" : "Hatched or blank: never chosen. "}Click one for its tokens.`);
  const values = totals[name];
  const largest = values.reduce((most, v) => (Number.isNaN(v) ? most : Math.max(most, Math.abs(v))), 0) || 1;
  const scene = new Scene(LEFT + w * width + 12, TOP + h * rows + 50);
  for (let row = 0; row < rows; row++) {
    for (let expert = 0; expert < width; expert++) {
      const value = values[row * width + expert];
      const box = { x: LEFT + expert * w, y: TOP + (rows - 1 - row) * h, w: w - (w > 4 ? 1 : 0), h: h - (h > 4 ? 1 : 0) };
      if (Number.isNaN(value)) w > 5 ? scene.hatch(box) : scene.rect({ ...box, fill: ink.page });
      else scene.rect({ ...box, fill: colourAt(scale, scale === "signed" ? 0.5 + value / largest / 2 : value / largest) });
      if (!Number.isNaN(value) && tag === "derived" && w > 8 && h > 8) scene.rect({ x: box.x + 1.5, y: box.y + 1.5, w: box.w - 3, h: box.h - 3, stroke: ink.card });
    }
  }
  for (let row = 0; row < rows; row += Math.ceil(14 / h)) scene.text({ x: LEFT - 8, y: TOP + (rows - 1 - row) * h + h / 2 + 4, text: `L${row + dense}`, anchor: "end", fill: ink.soft });
  for (let expert = 0; expert < width; expert += Math.ceil(40 / w / 8) * 8) scene.text({ x: LEFT + expert * w, y: TOP + h * rows + 15, text: String(expert), fill: ink.soft });
  legend(scene, { ends: scale === "signed" ? [tick(-largest), `+${tick(largest)}`] : ["0", tick(largest)], scale }, scene.height - 24, ink);
  const canvas = card.canvas(scene, () => table(view, totals), { tabindex: "0" });
  const at = (event) => expertAt(event, canvas, card.sizes);
  canvas.addEventListener("click", (event) => at(event) && view.selection.set(at(event)));
  canvas.addEventListener("pointermove", (event) => {
    const found = at(event);
    const n = found && (found.layer - dense) * width + found.expert;
    if (found) card.read(`layer ${found.layer}, expert ${found.expert}: ${totals.use[n] ? `chosen ${totals.use[n]}×, mean gate ${shown(totals.gate[n])}, attribution ${shown(totals.dla[n])}` : "never chosen"}`);
  });
}

function expertAt(event, canvas, { dense, width, rows, w, h }) {
  const { left, top } = canvas.getBoundingClientRect();
  const expert = Math.floor((event.clientX - left - LEFT) / w);
  const row = rows - 1 - Math.floor((event.clientY - top - TOP) / h);
  return expert >= 0 && expert < width && row >= 0 && row < rows ? { layer: row + dense, expert } : null;
}

function place(view, card, frame, layer, expert) {
  const { dense, rows, w, h } = card.sizes;
  frame.hidden = expert < 0 || layer < dense;
  Object.assign(frame.style, { left: `${LEFT + expert * w - 2}px`, top: `${TOP + (rows - 1 - (layer - dense)) * h - 2}px`, width: `${w + 3}px`, height: `${h + 3}px` });
}

function listing(view, layer, expert) {
  const { dense_layers: dense } = view.ledger.run.shape;
  if (expert < 0 || layer < dense) return element("p.quiet", "No expert is selected: click one here or in the router.");
  const found = view.ledger.positions.flatMap((each) => {
    const n = each.experts[layer].chosen.indexOf(expert);
    return n < 0 ? [] : [{ each, gate: each.experts[layer].gates[n], dla: each.experts[layer].dla[n] }];
  });
  const chips = found.slice(0, MOST_LISTED).map(({ each, gate, dla }) => part("button.chip", {
    type: "button", onclick: () => view.selection.set({ position: each.position }),
    title: `position ${each.position}, gate ${shown(gate)}${Number.isNaN(dla) ? "" : `, attribution ${shown(dla)}`}`,
    class: each.kind === "prompt" ? "chip prompt-id" : "chip plain",
  }, nameOf(each, view.anchor?.promptIds ?? [])));
  const more = found.length > MOST_LISTED ? [element("span.quiet", `and ${found.length - MOST_LISTED} more: the table has all`)] : [];
  return element("div", element("h3", `Expert ${expert} of layer ${layer}: ${found.length ? `chosen for ${found.length} of ${view.ledger.positions.length} positions` : "never chosen"}`), element("div.ribbon", ...chips, ...more));
}

function table(view, totals) {
  const { dense_layers: dense, experts: width } = view.ledger.run.shape;
  const rows = [];
  for (const [n, use] of totals.use.entries()) if (use) rows.push([Math.floor(n / width) + dense, n % width, use, totals.gate[n], totals.dla[n]]);
  return { head: ["layer", "expert", "use", "mean_gate", "dla"], rows };
}
