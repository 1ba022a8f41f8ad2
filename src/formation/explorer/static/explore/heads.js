// Attention of the selected cell: the largest weights of its heads over the positions they read, and how spread each head is.

import { Card } from "./card.js";
import { drawDelta } from "./deltalayer.js";
import { isAbsent } from "./opened.js";
import { colourAt } from "./palette.js";
import { clipped, inputOf, part, shown, tick } from "./parts.js";
import { numbersOf } from "./provenance.js";
import { everyOf, legend } from "./scales.js";
import { Scene } from "./scene.js";

const LEFT = 46;
const TOP = 20;
const RIGHT = 118; // for entropies
const SENTENCE = "softmax over the positions t that a head reads, of its score for t: the recorded largest weights of each head (measured; the others are smaller), with the head's entropy −Σ w log w at the right. Click a mark to select its position; the ribbon underlines what is read here.";
const NONE = "attention was not captured here: prompt positions are observed at the level minimal unless asked otherwise";

export function attention(view) {
  const card = new Card(view, "attention", view.ledger.run.delta ? "Attention and delta nets by head" : "Attention by head", SENTENCE);
  card.follow(({ position, layer }) => {
    const cell = view.ledger.cell(position, layer);
    const found = weightsOf(cell);
    if (isAbsent(cell.attention_strongest) && drawDelta(view, card, cell, position, layer)) return undefined;
    if (found.absent) {
      card.say(`Weight = ${SENTENCE}`);
      card.nothing(found.absent);
      return card.after.replaceChildren();
    }
    card.say(`Weight = ${SENTENCE}${found.isFull ? "" : " Here only the layer's eight largest: capture level full has three of every head."}`);
    card.svg(draw(view, found, position), () => table(view, found, position, layer), (pick) => view.selection.set({ position: pick }));
    card.read(readout(view, found.weights[0]));
    return card.after.replaceChildren(part("p.quiet", {}, "mean entropy over heads ", ...numbersOf(view, { position, slot: `layer ${layer}`, name: "attention_entropy" }), " nats"));
  }, ["position", "layer"]);
  return card;
}

/** { weights: [{ head, position, weight }], entropies, isFull }, or { absent } and why */
function weightsOf(cell) {
  const strongest = cell.attention_strongest_by_head ?? cell.attention_strongest;
  if (strongest === undefined) return { absent: NONE };
  if (isAbsent(strongest)) return { absent: `absent: ${strongest.absent}` };
  const entropies = Array.isArray(cell.attention_entropies) ? cell.attention_entropies : null;
  return { weights: [...strongest].sort((a, b) => b.weight - a.weight), entropies, isFull: "attention_strongest_by_head" in cell };
}

/** The largest recorded weight of each position that the cell reads */
export function strongestBySource(cell) {
  const found = new Map();
  for (const { position, weight } of weightsOf(cell).weights ?? []) found.set(position, Math.max(weight, found.get(position) ?? 0));
  return found;
}

function draw(view, { weights, entropies, isFull }, position) {
  const ink = view.ink();
  const { heads: count } = view.ledger.run.shape;
  const heads = isFull ? Array.from({ length: count }, (_, head) => head) : [...new Set(weights.map(({ head }) => head))].sort((a, b) => a - b);
  const width = view.width("attention");
  const w = Math.min(72, (width - LEFT - (entropies ? RIGHT : 24)) / (position + 1));
  const h = Math.max(8, Math.min(26, Math.floor(420 / heads.length)));
  const bottom = TOP + h * heads.length;
  const labels = w >= 13 ? 66 : 22;
  const scene = new Scene(width, bottom + labels + 30);
  for (const [n, head] of heads.entries()) {
    scene.line({ points: [[LEFT, TOP + (n + 0.5) * h], [LEFT + w * (position + 1), TOP + (n + 0.5) * h]], stroke: ink.line });
    if (h >= 12 || n % 2 === 0) scene.text({ x: LEFT - 8, y: TOP + (n + 0.5) * h + 4, text: `H${head}`, anchor: "end", size: Math.min(11, h + 2), fill: ink.soft });
  }
  for (const each of weights) mark(scene, view, each, LEFT + each.position * w, TOP + heads.indexOf(each.head) * h, w, h);
  entropyBars(scene, heads, entropies, Math.log(position + 1), LEFT + w * (position + 1) + 18, h, ink);
  sources(scene, view, position, w, bottom, ink);
  legend(scene, { ends: ["0", "1"], scale: "size", note: "weight", hasAbsent: false }, scene.height - 24, ink);
  return scene;
}

function mark(scene, view, each, x, y, w, h) {
  const wide = Math.max(w - 1, 3);
  scene.rect({ x: x + (w - wide) / 2, y: y + 1, w: wide, h: h - 2, fill: colourAt("size", each.weight), stroke: view.ink().neutral, width: 0.5, label: readout(view, each), pick: each.position });
}

/** As shares of the largest that is possible, log of how many positions there are */
function entropyBars(scene, heads, entropies, most, x, h, ink) {
  if (!entropies) return;
  const room = 60;
  scene.text({ x, y: TOP - 8, text: `entropy, 0 to ${tick(most)}`, fill: ink.soft });
  for (const [n, head] of heads.entries()) {
    const label = `head ${head}: entropy ${shown(entropies[head])} nats of at most ${shown(most)}`;
    scene.rect({ x, y: TOP + n * h + 2, w: Math.min(room, Math.max(1, (entropies[head] / (most || 1)) * room)), h: h - 4, fill: ink.positive, label });
    scene.rect({ x, y: TOP + n * h, w: room, h, fill: ink.card, opacity: 0, label });
  }
}

/** Under each position the token that it reads */
function sources(scene, view, last, w, y, ink) {
  const ids = view.anchor?.promptIds ?? [];
  const every = w >= 13 ? 1 : everyOf(w, 60);
  for (let n = 0; n <= last; n += every) {
    if (w >= 13) scene.text({ x: LEFT + (n + 0.5) * w + 3, y: y + 13, text: clipped(inputOf(view.ledger, ids, n), 9), anchor: "end", turned: 45, fill: n < ids.length ? ink.soft : ink.text });
    else scene.text({ x: LEFT + n * w, y: y + 15, text: String(n), fill: ink.soft });
  }
}

function readout(view, each) {
  if (!each) return "";
  return `head ${each.head} reads position ${each.position}, ${JSON.stringify(inputOf(view.ledger, view.anchor?.promptIds ?? [], each.position))}, with weight ${shown(each.weight)}, measured`;
}

function table(view, { weights, entropies }, position, layer) {
  const ids = view.anchor?.promptIds ?? [];
  const rows = weights.map((each) => [position, layer, each.head, each.position, inputOf(view.ledger, ids, each.position), each.weight, entropies ? entropies[each.head] : "absent: capture level full"]);
  return { head: ["position", "layer", "head", "source", "text", "weight", "head_entropy_nats"], rows };
}
