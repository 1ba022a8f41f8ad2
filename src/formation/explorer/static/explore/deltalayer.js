// A delta layer of the selected cell, in attention's place: what its heads keep of their state, and how much they write.

import { element } from "../verify/elements.js";
import { part, shown, tick } from "./parts.js";
import { numbersOf } from "./provenance.js";
import { Scene } from "./scene.js";

const LEFT = 46;
const TOP = 24;
const BETWEEN = 34;
const SENTENCE = "A delta layer keeps one state instead of a position's keys: S = S·decay + k (β (v − Sᵀk))ᵀ for each head, all measured. It reads no single position, so attention is absent here, and nothing is underlined in the ribbon.";
const COLUMNS = [
  { title: "decay: what is left of S", name: "delta_decay", heads: "delta_decays", most: 1 },
  { title: "β: how much is written", name: "delta_beta", heads: "delta_betas", most: 1 },
  { title: "|S| of the head", name: "", heads: "delta_state_norms", most: 0 },
];
const SUMMARIES = ["min", "mean", "max"];

/** Whether the cell is one of a delta layer that was captured, and so was drawn */
export function drawDelta(view, card, cell, position, layer) {
  if (typeof cell.delta_state_norm !== "number") return false;
  const isFull = Array.isArray(cell.delta_decays);
  card.say(`${SENTENCE}${isFull ? "" : " Here smallest, mean and largest of all heads: capture level full has each."}`);
  const columns = COLUMNS.map((column) => ({ ...column, bars: isFull ? cell[column.heads].map((value, head) => [`H${head}`, value]) : summaryOf(cell, column) })).filter(({ bars }) => bars.length);
  card.svg(draw(view, card, columns), () => table(columns, position, layer));
  card.read(`layer ${layer} is a delta layer: attention is absent`);
  card.after.replaceChildren(part("p.quiet", {}, "attention ", element("span.absent", cell.attention_strongest.absent), " length of the state of all heads ", ...numbersOf(view, { position, slot: `layer ${layer}`, name: "delta_state_norm" })));
  return true;
}

const summaryOf = (cell, { name }) => (name ? SUMMARIES.map((each) => [each, cell[`${name}_${each}`]]) : []);

function draw(view, card, columns) {
  const ink = view.ink();
  const count = columns[0].bars.length;
  const h = Math.max(8, Math.min(24, Math.floor(420 / count)));
  const scene = new Scene(card.room, TOP + h * count + 12);
  const wide = (card.room - LEFT - BETWEEN * columns.length) / columns.length;
  for (const [n, { title, bars, most }] of columns.entries()) {
    const x = LEFT + n * (wide + BETWEEN);
    const largest = most || bars.reduce((worst, [, value]) => Math.max(worst, value), 0) || 1;
    scene.text({ x, y: TOP - 10, text: `${title}, 0 to ${tick(largest)}`, fill: ink.soft });
    for (const [row, [name, value]] of bars.entries()) {
      const label = `${name}: ${title}, ${shown(value)}, measured`;
      if (!n && (h >= 12 || row % 2 === 0)) scene.text({ x: LEFT - 8, y: TOP + (row + 0.5) * h + 4, text: name, anchor: "end", size: Math.min(11, h + 2), fill: ink.soft });
      scene.rect({ x, y: TOP + row * h + 1, w: Math.max(1, (Math.min(value, largest) / largest) * wide), h: h - 2, fill: ink.positive, label });
      scene.rect({ x, y: TOP + row * h, w: wide, h, fill: ink.card, opacity: 0, label });
    }
  }
  return scene;
}

function table(columns, position, layer) {
  const rows = columns[0].bars.map(([name], row) => [position, layer, name, ...columns.map(({ bars }) => bars[row][1])]);
  return { head: ["position", "layer", "of", ...columns.map(({ heads, name }) => name || heads)], rows };
}
