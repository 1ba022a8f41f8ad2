// The expert grid: every expert of every layer over the whole run, and the tokens that one was chosen for.

import { Card } from "./card.js";
import { element } from "../verify/elements.js";
import { nameOf, part, shown } from "./parts.js";
import { everyOf, legend, scaledTo } from "./scales.js";
import { BLANK, Scene } from "./scene.js";

const LEFT = 46;
const TOP = 8;
const KINDS = {
  use: { title: "Use", formula: "how many positions chose the expert (measured)", scale: "size", tag: "measured" },
  gate: { title: "Gate", formula: "mean of its gate g over the positions that chose it (derived here)", scale: "size", tag: "derived" },
  dla: { title: "Attribution", formula: "Σ over the run's tokens of what it added to their logits, directly (derived here)", scale: "signed", tag: "derived" },
};
const MOST_LISTED = 200;

export function experts(view) {
  const card = new Card(view, "experts", "Experts of the run", "");
  const { experts: count } = view.ledger.run.shape;
  if (!count) {
    card.nothing("no experts: every layer of this model is dense");
    return card;
  }
  let totals = totalsOf(view.ledger);
  const choose = card.choice("grid", "Quantity", Object.entries(KINDS).map(([name, { title }]) => [name, title]));
  const frame = part("div.frame");
  let drawn = "";
  view.onRedraw(() => {
    totals = totalsOf(view.ledger); // of what has been read by now
    drawn = "";
  });
  card.follow(({ grid, layer, expert }) => {
    const kind = grid in KINDS ? grid : "use";
    if (drawn !== kind) {
      choose.value = kind;
      draw(view, card, totals, kind).append(frame);
    }
    drawn = kind;
    place(view, card, frame, layer, expert);
    card.after.replaceChildren(listing(view, layer, expert));
  }, ["grid", "layer", "expert"], true);
  return card;
}

/** use, gate and dla: one number for each expert of each layer, NaN where nothing is known */
function totalsOf(ledger) {
  const { dense_layers: dense, experts: width } = ledger.run.shape;
  const size = (ledger.layers - dense) * width;
  const [use, gate, dla] = [0, 0, NaN].map((start) => new Float64Array(size).fill(start));
  for (const { experts: layers } of ledger.positions) {
    for (let layer = dense; layer < ledger.layers; layer++) {
      const { chosen, gates, dla: shares } = layers[layer];
      for (const [n, expert] of chosen.entries()) {
        const at = (layer - dense) * width + expert;
        use[at]++;
        gate[at] += gates[n];
        if (!Number.isNaN(shares[n])) dla[at] = (Number.isNaN(dla[at]) ? 0 : dla[at]) + shares[n];
      }
    }
  }
  return { use, gate: gate.map((sum, at) => (use[at] ? sum / use[at] : NaN)), dla };
}

function sizesOf(view) {
  const { dense_layers: dense, experts } = view.ledger.run.shape;
  const rows = view.ledger.layers - dense;
  const w = Math.max(3, Math.min(44, Math.floor((view.width("experts") - LEFT - 14) / experts)));
  const h = Math.max(5, Math.min(28, Math.floor(320 / rows)));
  return { dense, experts, rows, w, h, width: LEFT + w * experts + 12, height: TOP + h * rows + 50 };
}

/** The sheet that the drawing lies on */
function draw(view, card, totals, name) {
  const { title, formula } = KINDS[name];
  const size = (card.sizes = sizesOf(view));
  card.say(`${title}: ${formula}. Columns are experts, layers go up. ${{ use: "", gate: "Hatched or blank: never chosen. ", dla: "Hatched or blank: never chosen, or at no step. " }[name]}Click one for its tokens.`);
  const values = totals[name];
  const largest = values.reduce((most, v) => (Number.isNaN(v) ? most : Math.max(most, Math.abs(v))), 0) || 1;
  const window = (left, width) => sceneOf(view, values, { ...KINDS[name], name, largest }, size, left, width);
  const sheet = card.canvas(size, window, () => window(0, size.width), () => table(view, totals));
  const at = (event) => expertAt(event, sheet, size);
  sheet.addEventListener("click", (event) => at(event) && view.selection.set(at(event)));
  sheet.addEventListener("pointermove", (event) => at(event) && card.read(readout(totals, at(event), size)));
  return sheet;
}

function sceneOf(view, values, { name, scale, tag, largest }, { dense, experts: count, rows, w, h, height }, left, seen) {
  const ink = view.ink();
  const scene = new Scene(seen, height);
  const x = (expert) => LEFT + expert * w - left;
  const [first, after] = [Math.floor(left / w), Math.min(count, Math.ceil((left + seen - LEFT) / w))];
  const columns = after - first;
  const known = scaledTo(scale, largest);
  const shares = Float64Array.from({ length: columns * rows }, (_, n) => {
    const value = values[(rows - 1 - Math.floor(n / columns)) * count + first + (n % columns)];
    return Number.isNaN(value) && w <= 5 ? BLANK : known.share(value); // too narrow to be hatched
  });
  scene.grid({ x: x(first), y: TOP, w, h, columns, rows, shares, scale, isOutlined: tag === "derived" });
  const every = everyOf(w, 40);
  for (let expert = Math.ceil(first / every) * every; expert < after; expert += every) scene.text({ x: x(expert) + w / 2, y: TOP + h * rows + 15, text: String(expert), anchor: "middle", fill: ink.soft });
  scene.rect({ x: 0, y: 0, w: LEFT - 1, h: height, fill: ink.card });
  for (let row = 0; row < rows; row++) if ((row + dense) % everyOf(h, 16) === 0) scene.text({ x: LEFT - 8, y: TOP + (rows - 1 - row) * h + h / 2 + 4, text: `L${row + dense}`, anchor: "end", fill: ink.soft });
  legend(scene, { ...known, hasAbsent: name !== "use" }, height - 24, ink);
  return scene;
}

function readout({ use, gate, dla }, { layer, expert }, { dense, experts }) {
  const n = (layer - dense) * experts + expert;
  return `layer ${layer}, expert ${expert}: ${use[n] ? `chosen ${use[n]}×, mean gate ${shown(gate[n])}, attribution ${Number.isNaN(dla[n]) ? "not known" : shown(dla[n])}` : "never chosen"}`;
}

function expertAt(event, sheet, { dense, experts: width, rows, w, h }) {
  const { left, top } = sheet.getBoundingClientRect();
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
