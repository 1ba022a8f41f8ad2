// The formation matrix: one cell for each token and layer, of one quantity at a time.

import { Card } from "./card.js";
import { METRICS, metricOf } from "./metrics.js";
import { isAbsent } from "./opened.js";
import { colourAt } from "./palette.js";
import { labelOf, nameOf, part, shown, tick } from "./parts.js";
import { Scene } from "./scene.js";

const LEFT = 46;
const TOP = 8;
const LARGEST_CANVAS = 15000; // pixels

export function matrix(view) {
  const card = new Card("matrix", "Formation matrix", "");
  const options = METRICS.map(({ name, title }) => part("option", { value: name }, title));
  const choose = part("select", { "aria-label": "Quantity", onchange: ({ target }) => view.selection.set({ metric: target.value }) }, ...options);
  card.controls.append(choose);
  const frame = part("div.frame");
  let drawn = "";
  view.onRedraw(() => (drawn = ""));
  view.selection.follow(({ metric, position, layer }) => {
    if (drawn !== metric) {
      choose.value = metricOf(metric).name;
      draw(view, card, metricOf(metric));
      card.drawing?.append(frame);
    }
    drawn = metric;
    place(view, card, frame, position, layer);
    card.read(sentence(view, metricOf(metric), position, layer));
  });
  return card;
}

function sizes(view) {
  const { positions, layers } = view.ledger;
  const room = view.width("matrix") - LEFT - 14;
  const most = Math.floor(LARGEST_CANVAS / positions.length);
  const w = Math.max(2, Math.min(56, most, Math.max(7, Math.floor(room / positions.length))));
  return { w, h: Math.max(7, Math.min(44, Math.floor(430 / layers))), labels: w >= 13 ? 64 : 20 };
}

function draw(view, card, metric) {
  const { ledger, selection } = view;
  card.say(`${metric.title}: ${metric.formula} (${metric.tag}). Columns are positions, layers go up.`);
  const { w, h, labels } = (card.sizes = sizes(view));
  const scene = new Scene(LEFT + w * ledger.positions.length + 12, TOP + h * ledger.layers + labels + 34);
  const scale = scaleOf(metric, ledger);
  const ink = view.ink();
  for (const [n, { columns }] of ledger.positions.entries()) {
    for (let layer = 0; layer < ledger.layers; layer++) {
      const value = metric.drawn(columns[metric.name][layer]);
      const box = { x: LEFT + n * w, y: TOP + (ledger.layers - 1 - layer) * h, w: w - (w > 4 ? 1 : 0), h: h - (h > 4 ? 1 : 0) };
      if (Number.isNaN(value)) scene.hatch(box);
      else scene.rect({ ...box, fill: scale.colour(value) });
      if (!Number.isNaN(value) && metric.tag === "derived" && w > 8 && h > 8) scene.rect({ x: box.x + 1.5, y: box.y + 1.5, w: box.w - 3, h: box.h - 3, stroke: ink.card, width: 1 });
    }
  }
  layerLabels(scene, ledger, h, ink);
  tokenLabels(scene, view, w, TOP + h * ledger.layers, ink);
  legend(scene, scale, scene.height - 24, ink);
  const canvas = card.canvas(scene, () => table(view, metric), { tabindex: "0" });
  const at = (event) => cellAt(event, canvas, card.sizes, ledger);
  canvas.addEventListener("click", (event) => at(event) && selection.set(at(event)));
  canvas.addEventListener("pointermove", (event) => {
    const found = at(event);
    if (found) card.read(sentence(view, metric, found.position, found.layer));
  });
}

function cellAt(event, canvas, { w, h }, ledger) {
  const { left, top } = canvas.getBoundingClientRect();
  const position = Math.floor((event.clientX - left - LEFT) / w);
  const layer = ledger.layers - 1 - Math.floor((event.clientY - top - TOP) / h);
  return position >= 0 && position < ledger.positions.length && layer >= 0 && layer < ledger.layers ? { position, layer } : null;
}

/** The selection, over the canvas: moving it redraws nothing */
function place(view, card, frame, position, layer) {
  const { w, h } = card.sizes;
  const { ledger } = view;
  const x = LEFT + position * w;
  Object.assign(frame.style, { left: `${x - 2}px`, top: `${TOP + (ledger.layers - 1 - layer) * h - 2}px`, width: `${w + 3}px`, height: `${h + 3}px` });
  const room = view.width("matrix");
  if (x < card.left + LEFT || x + w > card.left + room) card.drawing.scrollLeft = card.left = Math.max(0, x - room / 2);
}

function sentence(view, { name, field, title, drawn }, position, layer) {
  const value = view.ledger.positions[position]?.columns[name][layer];
  const where = `position ${position}, layer ${layer}`;
  if (value === undefined) return "";
  if (!Number.isNaN(value)) return `${where}: ${title}, ${shown(drawn(value))}`;
  const stored = view.ledger.cell(position, layer)[field];
  return `${where}: absent, ${isAbsent(stored) ? stored.absent : "not captured at this level"}`;
}

// ---- scales

function scaleOf(metric, ledger) {
  const all = ledger.positions.flatMap(({ columns }) => [...columns[metric.name]].filter((v) => !Number.isNaN(v)).map(metric.drawn));
  const largest = all.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
  const logs = Math.log(Math.max(largest, 2));
  const kinds = {
    rank: { share: (v) => 1 - Math.log(v) / logs, ends: [tick(largest), "1"], scale: "size" },
    share: { share: (v) => v, ends: ["0", "1"], scale: "size" },
    size: { share: (v) => v / largest, ends: ["0", tick(largest)], scale: "size" },
    signed: { share: (v) => 0.5 + v / largest / 2, ends: [tick(-largest), `+${tick(largest)}`], scale: "signed" },
  };
  const { share, ends, scale } = kinds[metric.scale];
  return { ends, scale, note: metric.scale === "rank" ? "logarithmic" : "", colour: (value) => colourAt(scale, share(value)) };
}

export function legend(scene, { ends, scale, note }, y, ink) {
  const width = 120;
  scene.text({ x: LEFT, y: y + 14, text: ends[0], fill: ink.soft });
  const begin = LEFT + 8 + ends[0].length * 6.5;
  for (let i = 0; i < 24; i++) scene.rect({ x: begin + (i * width) / 24, y: y + 4, w: width / 24 + 0.5, h: 11, fill: colourAt(scale, i / 23) });
  scene.text({ x: begin + width + 6, y: y + 14, text: `${ends[1]}${note ? `, ${note}` : ""}`, fill: ink.soft });
}

function layerLabels(scene, { layers }, h, ink) {
  const every = Math.ceil(14 / h);
  for (let layer = 0; layer < layers; layer += every) {
    scene.text({ x: LEFT - 8, y: TOP + (layers - 1 - layer) * h + h / 2 + 4, text: `L${layer}`, anchor: "end", fill: ink.soft });
  }
}

function tokenLabels(scene, view, w, y, ink) {
  const { positions } = view.ledger;
  if (w >= 13) {
    for (const [n, found] of positions.entries()) {
      const text = labelOf(found, view.anchor?.promptIds ?? [], 9);
      scene.text({ x: LEFT + n * w + w / 2 + 3, y: y + 12, text, anchor: "end", turned: 45, fill: found.kind === "prompt" ? ink.soft : ink.text });
    }
    return;
  }
  const every = Math.ceil(60 / w / 10) * 10;
  for (let n = 0; n < positions.length; n += every) scene.text({ x: LEFT + n * w, y: y + 15, text: String(n), fill: ink.soft });
}

function table(view, { name, field }) {
  const { positions } = view.ledger;
  const reason = (position, layer) => view.ledger.cell(position, layer)[field]?.absent ?? "not captured";
  const rows = positions.flatMap(({ position, columns }) => [...columns[name]].map((value, layer) =>
    [position, layer, nameOf(positions[position], view.anchor?.promptIds ?? []), Number.isNaN(value) ? reason(position, layer) : value]));
  return { head: ["position", "layer", "token", field], rows };
}


