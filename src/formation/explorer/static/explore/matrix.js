// The formation matrix: one cell for each token and layer, of one quantity at a time. Only the columns that are seen are painted.

import { Card } from "./card.js";
import { element } from "../verify/elements.js";
import { metricOf, metricsOf } from "./metrics.js";
import { labelOf, nameOf, part, shown } from "./parts.js";
import { everyOf, legend, scaledTo } from "./scales.js";
import { BLANK, Scene } from "./scene.js";

const LEFT = 46;
const TOP = 8;
const RIGHT = 12;

export function matrix(view) {
  const card = new Card(view, "matrix", "Formation matrix", "");
  const choose = card.choice("metric", "Quantity", metricsOf(view.ledger.run).map(({ name, title }) => [name, title]));
  const frames = part("div.frames");
  let drawn = "";
  view.onRedraw(() => (drawn = ""));
  card.follow((selection) => {
    const metric = metricOf(selection.metric, view.ledger.run);
    if (drawn !== metric.name) {
      choose.value = metric.name;
      draw(view, card, metric).append(frames);
    }
    drawn = metric.name;
    place(view, card, frames);
    card.read(sentence(view, metric, selection.position, selection.layer));
  }, ["metric", "position", "layer", "pins"], true);
  return card;
}

function sizes(view) {
  const { positions, layers } = view.ledger;
  const room = view.width("matrix") - LEFT - RIGHT;
  const w = Math.max(7, Math.min(56, Math.floor(room / positions.length)));
  const h = Math.max(7, Math.min(44, Math.floor(430 / layers)));
  const labels = w >= 13 ? 64 : 20;
  return { w, h, labels, width: LEFT + w * positions.length + RIGHT, height: TOP + h * layers + labels + 34 };
}

/** The sheet that the drawing lies on */
function draw(view, card, metric) {
  const { ledger, selection } = view;
  card.say(`${metric.title}: ${metric.formula} (${metric.tag}). Columns are positions, layers go up; hatched is absent.`);
  const size = (card.sizes = sizes(view));
  const scale = scaleOf(metric, ledger);
  const window = (left, width) => sceneOf(view, metric, scale, size, left, width);
  const sheet = card.canvas(size, window, () => window(0, size.width), () => table(view, metric));
  const at = (event) => cellAt(event, sheet, size, ledger);
  sheet.addEventListener("click", (event) => at(event) && selection.set(at(event)));
  sheet.addEventListener("pointermove", (event) => {
    const found = at(event);
    if (found) card.read(sentence(view, metric, found.position, found.layer));
  });
  return sheet;
}

/** What is seen of it: the columns from `left` on; names of layers and the legend stay */
function sceneOf(view, metric, scale, { w, h, labels, height }, left, width) {
  const { ledger } = view;
  const ink = view.ink();
  const scene = new Scene(width, height);
  const first = Math.floor(left / w);
  const after = Math.min(ledger.positions.length, Math.ceil((left + width - LEFT) / w));
  const x = (n) => LEFT + n * w - left;
  const shares = sharesOf(ledger, metric, scale, first, after);
  scene.grid({ x: x(first), y: TOP, w, h, columns: after - first, rows: ledger.layers, shares, scale: scale.scale, isOutlined: metric.tag === "derived" });
  tokenLabels(scene, view, [first, after], x, w, TOP + h * ledger.layers, ink);
  scene.rect({ x: 0, y: 0, w: LEFT - 1, h: TOP + h * ledger.layers, fill: ink.card }).rect({ x: 0, y: TOP + h * ledger.layers + labels, w: width, h: 34, fill: ink.card });
  layerLabels(scene, ledger, h, ink);
  legend(scene, scale, height - 24, ink);
  return scene;
}

/** Of the positions from `first` to `after`, the last layer's first */
function sharesOf({ positions, layers }, { name, drawn }, { share }, first, after) {
  const shares = new Float64Array((after - first) * layers);
  for (let n = first; n < after; n++) {
    const { columns, pending } = positions[n];
    for (let layer = 0; layer < layers; layer++) shares[(layers - 1 - layer) * (after - first) + n - first] = pending ? BLANK : share(drawn(columns[name][layer]));
  }
  return shares;
}

function cellAt(event, sheet, { w, h }, ledger) {
  const { left, top } = sheet.getBoundingClientRect();
  const position = Math.floor((event.clientX - left - LEFT) / w);
  const layer = ledger.layers - 1 - Math.floor((event.clientY - top - TOP) / h);
  return position >= 0 && position < ledger.positions.length && layer >= 0 && layer < ledger.layers ? { position, layer } : null;
}

/** The selection and the pins, over the canvas: moving them redraws nothing */
function place(view, card, frames) {
  const { selection, ledger } = view;
  const { w, h } = card.sizes;
  const frame = ({ position, layer }, kind, text) => {
    const made = part(kind, {}, ...(text ? [element("span", text)] : []));
    const [x, y] = [LEFT + position * w, TOP + (ledger.layers - 1 - layer) * h];
    Object.assign(made.style, { left: `${x - 2}px`, top: `${y - 2}px`, width: `${w + 3}px`, height: `${h + 3}px` });
    return made;
  };
  frames.replaceChildren(frame(selection, "div.frame", ""), ...selection.pins.map((pin, n) => frame(pin, "div.frame.pinned", String(n + 1))));
  const x = LEFT + selection.position * w;
  if (x < card.left + LEFT || x + w > card.left + card.room) card.scrollTo(x - card.room / 2);
}

function sentence(view, { name, title, drawn }, position, layer) {
  const found = view.ledger.positions[position];
  const where = `position ${position}, layer ${layer}`;
  if (!found || found.pending) return found ? `${where}: not read yet` : "";
  const value = found.columns[name][layer];
  if (value === undefined) return "";
  if (!Number.isNaN(value)) return `${where}: ${title}, ${shown(drawn(value))}`;
  return `${where}: absent, ${view.ledger.reasonOf(position, name, layer)}`;
}

// ---- scales

function scaleOf(metric, ledger) {
  let largest = 0;
  for (const { columns } of ledger.positions) {
    for (const value of columns[metric.name]) if (!Number.isNaN(value)) largest = Math.max(largest, Math.abs(metric.drawn(value)));
  }
  return scaledTo(metric.scale, largest || 1);
}

/** δ: a layer with a delta net in attention's place */
function layerLabels(scene, { layers, run }, h, ink) {
  const every = everyOf(h, 16);
  for (let layer = 0; layer < layers; layer += every) {
    scene.text({ x: LEFT - 8, y: TOP + (layers - 1 - layer) * h + h / 2 + 4, text: `L${layer}${run.kinds[layer] === "delta" ? "δ" : ""}`, anchor: "end", fill: ink.soft });
  }
}

function tokenLabels(scene, view, [first, after], x, w, y, ink) {
  const { positions } = view.ledger;
  if (w >= 13) {
    for (let n = first; n < after; n++) {
      const text = labelOf(positions[n], view.anchor?.promptIds ?? [], 9);
      scene.text({ x: x(n) + w / 2 + 3, y: y + 12, text, anchor: "end", turned: 45, fill: positions[n].kind === "prompt" ? ink.soft : ink.text });
    }
    return;
  }
  const every = everyOf(w, 60);
  for (let n = Math.ceil(first / every) * every; n < after; n += every) scene.text({ x: x(n), y: y + 15, text: String(n), fill: ink.soft });
}

function table(view, { name, field }) {
  const { positions } = view.ledger;
  const rows = positions.flatMap((found) => [...found.columns[name]].map((value, layer) =>
    [found.position, layer, nameOf(found, view.anchor?.promptIds ?? []), Number.isNaN(value) ? view.ledger.reasonOf(found.position, name, layer) : value]));
  return { head: ["position", "layer", "token", field], rows };
}
