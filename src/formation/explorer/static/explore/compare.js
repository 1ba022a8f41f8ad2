// Two runs in one page, linked by the one selection: tokens side by side, how far each cell is apart, where they first depart, and both numbers.

import { anchorsApart, firstApart } from "./apart.js";
import { sideBySide } from "./beside.js";
import { Card } from "./card.js";
import { element } from "../verify/elements.js";
import { metricOf } from "./metrics.js";
import { isAbsent } from "./opened.js";
import { frozen } from "./other.js";
import { colourAt, inkOn } from "./palette.js";
import { button, nameOf, part, shown, spelled } from "./parts.js";
import { everyOf, legend, scaledTo } from "./scales.js";
import { BLANK, Scene } from "./scene.js";

const LEFT = 46;
const TOP = 12;
const RIGHT = 12;
const MOST_BITS = 12;
const SENTENCE = "Δ = B − A at equal positions and layers, derived here, of the quantity that the formation matrix shows; lines are compared in the fields that both ledgers hold. The double frame is the first departure.";

/** `view.other` is { name, ledger, anchor, document, drawer } of the second run, B; the page's own is A. */
export function compare(view) {
  const card = new Card(view, "compare", "Two runs", SENTENCE);
  const { positions, broken } = view.other.ledger;
  if (!positions.length) {
    card.nothing(`No position of B could be read: ${broken}`);
    return card;
  }
  const state = { first: undefined, open: new Set(["Token"]), drawn: "" };
  const facts = element("div.compare-facts");
  const pairs = part("div.pairs.scrolls-x", { tabindex: "0", role: "region", "aria-label": "Tokens of A above those of B" });
  const frames = element("div.frames");
  const beside = element("div");
  card.node.insertBefore(facts, card.body);
  card.node.insertBefore(pairs, card.body);
  card.after.append(beside);
  view.onRedraw(() => (state.drawn = ""));
  card.follow((selection) => {
    const metric = metricOf(selection.metric, view.ledger.run);
    if (state.drawn !== metric.name) {
      draw(view, card, metric).append(frames);
      pairs.replaceChildren(...tokenPairs(view));
    }
    state.drawn = metric.name;
    mark(pairs, selection.position);
    place(view, card, frames, state.first);
    card.read(sentence(view, metric, selection.position, selection.layer));
    return numbers(view, beside, selection, state.open);
  }, ["metric", "position", "layer", "expert"]);
  depart(view, facts, state, () => place(view, card, frames, state.first));
  return card;
}

// ---- what differs first

async function depart(view, facts, state, done) {
  const said = part("p.departure", { role: "status" }, "Looking for the first departure…");
  facts.replaceChildren(sides(view), said, ...anchors((await frozen(view.blobs)).document, view.other.document));
  let slept = performance.now();
  const pause = () => (performance.now() - slept < 40 ? undefined : new Promise((resolve) => setTimeout(resolve)).then(() => (slept = performance.now())));
  const { first, positions } = await firstApart(view.ledger, view.other.ledger, pause);
  state.first = first;
  said.replaceChildren(...(first ? departure(view, first) : [element("span", `They differ nowhere, in the fields that both hold of ${positions} positions.`)]));
  done();
}

function sides({ name, ledger, other }) {
  const side = (title, text, { run, positions, broken }) => element("li", element("b", title), " ", element("span.value", text), element("span.quiet", ` run ${run.runId.slice(0, 16)}, ${positions.length} positions, captured at ${run.stepLevel}${broken ? `, read as far as it can be: ${broken}` : ""}`));
  return part("ul.sides", { role: "list" }, side("A", name, ledger), side("B", other.name, other.ledger));
}

function departure(view, { position, slot, unequal, compared }) {
  const layer = slot.startsWith("layer ") ? Number(slot.slice(6)) : view.selection.layer;
  const where = button(`${slot} at position ${position}`, () => view.selection.set({ position, layer }), { class: "link" });
  const rows = unequal.slice(0, 3).flatMap(({ field, a, b }) => [element("br"), element("span.value", `${field}: A ${valueText(a)}, B ${valueText(b)}`)]);
  return [element("span", "They first differ in "), where, element("span", `, in ${unequal.length} of ${compared} fields${unequal.length > 3 ? ", of which" : ""}:`), ...rows];
}

const valueText = (value) => (isAbsent(value) ? `absent: ${value.absent}` : clip(typeof value === "object" ? JSON.stringify(value) : String(value)));
const clip = (text) => (text.length > 72 ? `${text.slice(0, 71)}…` : text);

function anchors(ours, theirs) {
  if (!ours || !theirs) return [];
  const { shared, unequal } = anchorsApart(ours, theirs);
  if (!unequal.length) return [element("p.quiet", "Their anchors are the same.")];
  const rows = unequal.map(({ field, a, b }) => element("tr", part("th", { scope: "row" }, field), element("td", valueText(a ?? { absent: "not in it" })), element("td", valueText(b ?? { absent: "not in it" }))));
  return [element("details.group", element("summary", `Their anchors differ in ${unequal.length} of ${unequal.length + shared.length} facts`),
    element("table.beside", element("thead", element("tr", ...["fact", "A", "B"].map((text) => part("th", { scope: "col" }, text)))), element("tbody", ...rows)))];
}

// ---- tokens

const stepsOf = (ledger) => ledger.positions.filter(({ kind }) => kind !== "prompt");

/** By the number of the token: prompts may differ in length */
function tokenPairs(view) {
  const [ours, theirs] = [stepsOf(view.ledger), stepsOf(view.other.ledger)];
  return Array.from({ length: Math.max(ours.length, theirs.length) }, (_, n) => {
    const isSame = ours[n] && theirs[n] && ours[n].id === theirs[n].id;
    return part(`div.pair${isSame ? "" : ".differs"}`, {}, chip(view, ours[n], "A"), chip(view, theirs[n], "B"), element("span.pair-mark", isSame ? "=" : "≠"));
  });
}

function chip(view, found, side) {
  if (!found) return part("span.chip.pending", { title: `${side} has ended` }, "–");
  const text = spelled(found);
  const title = `${side}, position ${found.position}: ${found.pending ? "not read yet" : `${shown(found.surprisal_bits)} bits`}`;
  const node = part("button.chip.plain", { type: "button", title, "data-position": found.position, onclick: () => view.selection.set({ position: found.position }) }, text.replaceAll("\n", "↵"));
  if (found.pending) return node;
  const colour = colourAt("heat", found.surprisal_bits / MOST_BITS);
  Object.assign(node.style, { backgroundColor: colour, color: inkOn(colour) });
  return node;
}

function mark(pairs, position) {
  for (const node of pairs.querySelectorAll("button")) node.setAttribute("aria-pressed", String(Number(node.dataset.position) === position));
}

// ---- the matrix of differences

function sizesOf(view) {
  const count = Math.min(view.ledger.positions.length, view.other.ledger.positions.length);
  const layers = Math.min(view.ledger.layers, view.other.ledger.layers);
  const w = Math.max(7, Math.min(40, Math.floor((view.width("compare") - LEFT - RIGHT) / count)));
  const h = Math.max(6, Math.min(28, Math.floor(360 / layers)));
  return { count, layers, w, h, width: Math.max(LEFT + w * count + RIGHT, 320), height: TOP + h * layers + 22 + 34 };
}

/** B − A, NaN where one of them is absent */
function deltaAt(view, metric, position, layer) {
  const [a, b] = [view.ledger, view.other.ledger].map(({ positions }) => positions[position]?.columns[metric.name][layer] ?? NaN);
  return metric.drawn(b) - metric.drawn(a);
}

function draw(view, card, metric) {
  const size = (card.sizes = sizesOf(view));
  let largest = 0;
  for (let position = 0; position < size.count; position++) {
    for (let layer = 0; layer < size.layers; layer++) largest = Math.max(largest, Math.abs(deltaAt(view, metric, position, layer)) || 0);
  }
  const scale = scaledTo("signed", largest || 1);
  const window = (left, width) => sceneOf(view, metric, scale, size, left, width);
  card.say(`${metric.title}: ${SENTENCE}`);
  const sheet = card.canvas(size, window, () => window(0, size.width), () => table(view, metric, size));
  const at = (event) => cellAt(event, sheet, size);
  sheet.addEventListener("click", (event) => at(event) && view.selection.set(at(event)));
  sheet.addEventListener("pointermove", (event) => at(event) && card.read(sentence(view, metric, at(event).position, at(event).layer)));
  return sheet;
}

function sceneOf(view, metric, scale, { count, layers, w, h, height }, left, width) {
  const ink = view.ink();
  const scene = new Scene(width, height);
  const [first, after] = [Math.floor(left / w), Math.min(count, Math.ceil((left + width - LEFT) / w))];
  const columns = after - first;
  const shares = Float64Array.from({ length: columns * layers }, (_, n) => {
    const value = deltaAt(view, metric, first + (n % columns), layers - 1 - Math.floor(n / columns));
    return value === 0 ? BLANK : scale.share(value);
  });
  const x = LEFT + first * w - left;
  scene.grid({ x, y: TOP, w, h, columns, rows: layers, shares, scale: scale.scale }).rect({ x: x - 0.5, y: TOP - 0.5, w: columns * w, h: layers * h, stroke: ink.line });
  scene.rect({ x: 0, y: 0, w: LEFT - 1, h: TOP + h * layers, fill: ink.card });
  for (let layer = 0; layer < layers; layer += everyOf(h, 16)) scene.text({ x: LEFT - 8, y: TOP + (layers - 1 - layer) * h + h / 2 + 4, text: `L${layer}`, anchor: "end", fill: ink.soft });
  const every = everyOf(w, 60);
  for (let n = Math.ceil(first / every) * every; n < after; n += every) scene.text({ x: LEFT + n * w - left, y: TOP + h * layers + 15, text: String(n), fill: ink.soft });
  legend(scene, { ...scale, note: "B − A; blank is equal" }, height - 24, ink);
  return scene;
}

function cellAt(event, sheet, { count, layers, w, h }) {
  const { left, top } = sheet.getBoundingClientRect();
  const position = Math.floor((event.clientX - left - LEFT) / w);
  const layer = layers - 1 - Math.floor((event.clientY - top - TOP) / h);
  return position >= 0 && position < count && layer >= 0 && layer < layers ? { position, layer } : null;
}

function place(view, card, frames, first) {
  const { count, layers, w, h } = card.sizes;
  const frame = ({ position, layer }, kind, high = 1) => {
    const made = element(kind);
    Object.assign(made.style, { left: `${LEFT + position * w - 2}px`, top: `${TOP + (layers - layer - high) * h - 2}px`, width: `${w + 3}px`, height: `${high * h + 3}px` });
    return made;
  };
  const { position, layer } = view.selection;
  const departed = first && (first.slot.startsWith("layer ") ? frame({ position: first.position, layer: Number(first.slot.slice(6)) }, "div.frame.departed") : frame({ position: first.position, layer: 0 }, "div.frame.departed", layers));
  frames.replaceChildren(...(departed ? [departed] : []), ...(position < count && layer < layers ? [frame({ position, layer }, "div.frame")] : []));
  const x = LEFT + position * w;
  if (position < count && (x < card.left + LEFT || x + w > card.left + card.room)) card.scrollTo(x - card.room / 2);
}

function sentence(view, metric, position, layer) {
  const value = deltaAt(view, metric, position, layer);
  return `position ${position}, layer ${layer}: ${metric.title}, ${Number.isNaN(value) ? "absent in one of them" : `B − A = ${shown(value)}`}`;
}

function table(view, metric, { count, layers }) {
  const rows = [];
  const value = (ledger, position, layer) => {
    const found = ledger.positions[position].columns[metric.name][layer];
    return Number.isNaN(found) ? "absent" : metric.drawn(found);
  };
  for (let position = 0; position < count; position++) {
    for (let layer = 0; layer < layers; layer++) {
      const delta = deltaAt(view, metric, position, layer);
      rows.push([position, layer, value(view.ledger, position, layer), value(view.other.ledger, position, layer), Number.isNaN(delta) ? "absent" : delta]);
    }
  }
  return { head: ["position", "layer", `a_${metric.name}`, `b_${metric.name}`, "b_minus_a"], rows };
}

// ---- both numbers

let turn = 0;

async function numbers(view, place, { position, layer, expert }, open) {
  const { other } = view;
  const mine = ++turn;
  if (position >= other.ledger.positions.length || layer >= other.ledger.layers) return place.replaceChildren(element("p.nothing", element("span", `B has no position ${position}, layer ${layer}: it ends before`)));
  if (!other.ledger.has(position)) await other.ledger.want(position);
  if (mine !== turn) return undefined; // the selection has moved on
  const columns = [["B", other], ["A", view]].map(([title, { ledger, drawer }]) => ({ title, ledger, drawer, position, layer, expert }));
  const name = ({ ledger, anchor }) => nameOf(ledger.positions[position], anchor?.promptIds ?? []);
  return place.replaceChildren(element("h3", `Position ${position}, layer ${layer}: A `, element("span.value", name(view)), ", B ", element("span.value", name(other))), element("div.beside-groups.two", ...sideBySide(columns, open, "A and B")));
}
