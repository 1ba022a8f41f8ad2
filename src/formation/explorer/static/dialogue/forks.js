// The tree of forks: what was said from a token on, and what was said instead. An edge is as wide as the token was probable under the model.
//
// The document is tree.json of `formation fork` (dialogue/forks/tree.py): {"format": "formation-fork-tree/1", "root": NODE}. A NODE is one token behind
// what its parent stands for; the root, and a leaf that decides nothing, have none.
//   side, message    whose, and the number of the message; token: its place there, from 1
//   kind             sampled, greedy, forced, end (a forced one that ends the turn), undecided (no token)
//   token_id, bytes  the token; absent where there is none
//   p, q             under the model and under the sampler: { probability, logprob_nats, rank_low, rank_high, zero, entropy_nats }
//   next             of the root: { entropy_nats, top: [{ id, bytes, logprob_nats }] }, what could have been said there
//   children         the tokens that were said after it, the base branch first; [] where a branch ends

import { bytesOfBlob } from "../verify/container.js";
import { fromBase64, textOf } from "../verify/bytes.js";
import { isObject } from "../verify/canonical.js";
import { element } from "../verify/elements.js";
import { ContainerRefusal } from "../verify/refusals.js";
import { Card } from "../explore/card.js";
import { clipped, shown, tokenText } from "../explore/parts.js";
import { Scene } from "../explore/scene.js";

const SENTENCE = "Each edge leads to a token; its width is p, the token's probability under the model after all that stands before it. Full: chosen (sampled or greedy). Dashed: forced. Hollow end: undecided. The base branch is the uppermost. A branch never changes what was said before it.";
const KINDS = ["sampled", "greedy", "forced", "end", "undecided"];
const MOST_NODES = 4000;
const LEFT = 16;
const ROW = 34;
const WIDEST = 12; // pixels of p = 1
const MOST_STEP = 92;
const LEAST_STEP = 20;

/** { given, nodes, broken }: nodes in the order of the tree, each with its parent's place and depth */
export async function readForks(blob) {
  const none = { given: Boolean(blob), nodes: [], broken: "" };
  if (!blob) return none;
  try {
    const { root } = JSON.parse(textOf(await bytesOfBlob(blob)));
    return { ...none, nodes: flattened(root) };
  } catch (fault) {
    if (![SyntaxError, TypeError, ContainerRefusal].some((kind) => fault instanceof kind)) throw fault;
    return { ...none, broken: fault.message };
  }
}

function flattened(root) {
  const found = [];
  const due = [{ node: root, parent: -1, depth: 0 }];
  while (due.length) {
    const { node, parent, depth } = due.pop();
    if (!isNode(node)) throw new TypeError(`node ${found.length}: expected a token of a tree, got something else`);
    if (found.length === MOST_NODES) throw new TypeError(`expected at most ${MOST_NODES} nodes, got more`);
    const place = found.length;
    found.push({ ...plain(node), number: node.id, place, parent, depth, children: [] });
    if (parent >= 0) found[parent].children.push(place);
    for (const child of [...node.children].reverse()) due.push({ node: child, parent: place, depth: depth + 1 });
  }
  return found;
}

function isNode(value) {
  if (!isObject(value) || !KINDS.includes(value.kind) || !Array.isArray(value.children) || ![0, 1].includes(value.side)) return false;
  if (![value.message, value.token].every(Number.isSafeInteger)) return false;
  if (value.kind === "undecided") return true;
  return typeof value.bytes === "string" && fromBase64(value.bytes) !== null && [value.p, value.q].every((each) => isProbability(each?.probability));
}

const isProbability = (value) => typeof value === "number" && value >= 0 && value <= 1;

/** As the views use it: numbers and text, or nothing */
const plain = ({ side, message, token, kind, token_id: id, bytes, p, q, next }) => ({
  side, message, token, kind, id, text: kind === "undecided" ? "" : tokenText(bytes), p: kind === "undecided" ? NaN : p.probability, q: kind === "undecided" ? NaN : q.probability,
  bits: kind === "undecided" ? NaN : bitsOf(-p.logprob_nats), entropyOfPlace: kind === "undecided" ? NaN : bitsOf(p.entropy_nats),
  zero: kind === "undecided" ? "" : String(p.zero), entropy: isObject(next) && typeof next.entropy_nats === "number" ? next.entropy_nats : NaN, top: isObject(next) && Array.isArray(next.top) ? next.top.filter(isLeader) : [],
});

const bitsOf = (nats) => (Number.isFinite(nats) ? nats / Math.LN2 : NaN);
const isLeader = (value) => isObject(value) && typeof value.bytes === "string" && fromBase64(value.bytes) !== null && typeof value.logprob_nats === "number";

export function forks(view) {
  const card = new Card(view, "forks", "Forks", SENTENCE);
  const { nodes, broken } = view.forks;
  if (broken) {
    card.nothing(`The tree could not be read: ${broken}`);
    return card;
  }
  let drawn = -2;
  view.onRedraw(() => (drawn = -2));
  view.selection.follow(({ node }) => {
    const chosen = Math.min(node, nodes.length - 1);
    if (drawn !== chosen) card.svg(draw(view, nodes, chosen), () => tableOf(view, nodes), (place) => choose(view, nodes[place]));
    drawn = chosen;
    card.read(nodes[chosen] ? told(view, nodes[chosen]) : `${nodes.length} tokens, ${nodes.filter(({ children }) => !children.length).length} branches`);
    card.after.replaceChildren(...(nodes[chosen]?.children.length > 1 ? [odds(nodes, nodes[chosen])] : []));
  });
  return card;
}

/** The token of the dialogue that a node is, where it is one */
function choose(view, { place, message: number, token: index, id }) {
  const message = view.talk.byNumber(number);
  const same = message && view.talk.tokensOf(message).find((token) => token.index === index - 1 && token.id === id);
  view.selection.set({ node: place, ...(same ? { token: same.n } : {}) });
}

// ---- the drawing

/** Rows: a leaf has its own, in the order of the tree; a node is level with its first child, so that the base branch is a straight line */
function rowsOf(nodes) {
  const rows = new Array(nodes.length);
  let free = 0;
  for (const { place, children } of nodes) if (!children.length) rows[place] = free++;
  for (const { place, children } of [...nodes].reverse()) if (children.length) rows[place] = rows[children[0]];
  return { rows, count: free };
}

function draw(view, nodes, chosen) {
  const ink = view.ink();
  const { rows, count } = rowsOf(nodes);
  const deepest = nodes.reduce((depth, node) => Math.max(depth, node.depth), 0);
  const step = Math.max(LEAST_STEP, Math.min(MOST_STEP, (view.width("forks") - 2 * LEFT - 40) / (deepest + 1)));
  const scene = new Scene(Math.max(2 * LEFT + 40 + step * (deepest + 1), 240), ROW * count + 30);
  const [x, y] = [(depth) => LEFT + (depth + 1) * step, (place) => 26 + rows[place] * ROW];
  for (const node of nodes) edge(scene, node, { from: [x(node.depth - 1), node.parent < 0 ? y(node.place) : y(node.parent)], to: [x(node.depth), y(node.place)] }, step, node.place === chosen, ink);
  for (const node of nodes) end(scene, view, node, x(node.depth), y(node.place), node.place === chosen, ink);
  return scene;
}

const widthOf = ({ p }) => (p > 0 ? Math.max(0.75, WIDEST * p) : 0.75);

function edge(scene, node, { from: [x0, y0], to: [x1, y1] }, step, isChosen, ink) {
  const corner = x0 + Math.min(10, step / 3);
  const points = y0 === y1 ? [[x0, y0], [x1, y1]] : [[x0, y0], [corner, y1], [x1, y1]];
  const colour = isChosen ? ink.text : node.kind === "forced" ? ink.negative : node.side ? ink.idle : ink.positive;
  scene.line({ points, stroke: colour, width: widthOf(node), dash: node.kind === "forced" ? "6 3" : undefined });
}

function end(scene, view, node, x, y, isChosen, ink) {
  const text = node.kind === "undecided" ? (node.parent < 0 ? "" : "?") : clipped(node.text, 9);
  scene.circle({ x, y, r: isChosen ? 5 : 3, fill: node.kind === "undecided" ? ink.card : ink.text, stroke: ink.text, width: 1.2 });
  scene.text({ x: x - 5, y: y - 8, text, anchor: "end", size: 10.5, weight: isChosen ? 700 : 400, fill: ink.text });
  scene.rect({ x: x - 24, y: y - ROW / 2, w: 30, h: ROW - 4, fill: ink.card, opacity: 0, pick: node.place, label: told(view, node) });
}

const nameOf = ({ text, kind, parent }) => (kind !== "undecided" ? `“${clipped(text, 24)}”` : parent < 0 ? "where it was taken up" : "undecided: no token");
const odd = (value) => (Number.isNaN(value) ? "absent: no token" : shown(value));

function told(view, node) {
  const { message, token, side, kind, p, q, children } = node;
  const more = children.length > 1 ? `; ${children.length} go on from here` : "";
  const numbers = kind === "undecided" ? "" : `, ${kind}, p ${shown(p)}, q ${shown(q)}`;
  return `message ${message}, ${token ? `token ${token}` : "before its first token"}, ${view.talk.names[side]}: ${nameOf(node)}${numbers}${more}`;
}

/** What stood for choice at a fork: odds are p against the base branch's p; and what the model thought likely there */
function odds(nodes, node) {
  const [base, ...others] = node.children.map((place) => nodes[place]);
  const ratio = ({ p }) => (p >= 0 && base.p > 0 ? `${shown(p / base.p)} times the base branch's` : "not to be compared");
  const leaders = node.top.map(({ bytes, logprob_nats: nats }) => element("li", element("b.value", tokenText(bytes)), element("span.quiet", ` p ${shown(Math.exp(nats))}`)));
  return element("div",
    element("ul.odds", element("li", element("b.value", nameOf(base)), element("span.quiet", ` base branch, p ${odd(base.p)}`)),
      ...others.map((each) => element("li", element("b.value", nameOf(each)), element("span.quiet", ` ${each.kind}, p ${odd(each.p)}: ${ratio(each)}`)))),
    ...(leaders.length ? [element("h3", `Likeliest there${Number.isNaN(node.entropy) ? "" : `, of an entropy of ${shown(node.entropy)} nats`}`), element("ol.leaders", ...leaders)] : []));
}

function tableOf({ talk }, nodes) {
  const cell = (value) => (Number.isNaN(value) ? "absent: no token" : value);
  const rows = nodes.map(({ place, parent, message, side, token, id, text, kind, p, q, zero }) => [place, parent, message, talk.names[side], token, typeof id === "number" ? id : "absent", text, kind, cell(p), cell(q), zero]);
  return { head: ["node", "parent", "message", "side", "token", "id", "text", "kind", "p", "q", "zero"], rows };
}
