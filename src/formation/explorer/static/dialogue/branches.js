// The branches of a fork, token by token: how surprising what each says is, how much could have been said, and how far it is from the base.
//
// The document is fork.json of `formation fork` (dialogue/forks/forking.py), beside the tree; read of it are
//   branches      [{ choice, sample, leaf }]: leaf is the id of a node of the tree
//   divergences   [{ choice, sample, offset, kl_nats, js_nats }], after so many tokens of the branch, the base's distribution being the reference

import { bytesOfBlob } from "../verify/container.js";
import { textOf } from "../verify/bytes.js";
import { isObject } from "../verify/canonical.js";
import { ContainerRefusal } from "../verify/refusals.js";
import { Card } from "../explore/card.js";
import { clipped, shown, tick } from "../explore/parts.js";
import { Scene } from "../explore/scene.js";

const SENTENCE = "After as many tokens: −log₂ p of the branch's token and H = −Σ p log₂ p before it, under the model; KL(branch ‖ base) = Σ p ln(p / r) and the Jensen–Shannon divergence of the two distributions that come next, r the base's. The heavy line is the branch of the chosen token.";
const LANES = [["bits", "surprisal of what each branch says, bits"], ["entropy", "entropy of what could have been said, bits"], ["kl", "KL from the base, nats"], ["js", "JS with the base, nats"]];
const MOST_BRANCHES = 200;
const [LEFT, RIGHT, TOP, HIGH, GAP, BOTTOM] = [54, 16, 20, 84, 30, 22];

/** { given, branches, broken }: of each branch its name, and points { offset, place, bits, entropy, kl, js } in their order; numbers that are not there are NaN */
export async function readBranches(blob, nodes) {
  const none = { given: Boolean(blob) && nodes.length > 0, branches: [], broken: "" };
  if (!none.given) return none;
  try {
    const found = JSON.parse(textOf(await bytesOfBlob(blob)));
    return { ...none, branches: listed(found.branches).slice(0, MOST_BRANCHES).map((branch) => withPoints(branch, listed(found.divergences), nodes)) };
  } catch (fault) {
    if (![SyntaxError, TypeError, ContainerRefusal].some((kind) => fault instanceof kind)) throw fault;
    return { ...none, broken: fault.message };
  }
}

function listed(value) {
  if (!Array.isArray(value) || !value.every(isObject)) throw new TypeError("expected branches and divergences, got something else");
  return value;
}

const number = (value) => (typeof value === "number" ? value : NaN);

function withPoints({ choice, sample, leaf }, divergences, nodes) {
  const last = nodes.find((node) => node.number === leaf);
  if (typeof choice !== "string" || !Number.isSafeInteger(sample) || !last) throw new TypeError("expected a branch with a leaf of the tree, got another");
  const points = [];
  for (let node = last; node && node.depth > 0; node = nodes[node.parent]) points.unshift({ offset: node.depth, place: node.place, bits: node.bits, entropy: node.entropyOfPlace, kl: NaN, js: NaN });
  for (const each of divergences) {
    if (each.choice !== choice || each.sample !== sample || !points[each.offset - 1]) continue;
    Object.assign(points[each.offset - 1], { kl: number(each.kl_nats), js: number(each.js_nats) });
  }
  return { name: `${clipped(choice, 24)}, sample ${sample}`, points };
}

export function branchesOf(view) {
  const card = new Card(view, "branches", "Branches, token by token", SENTENCE);
  const { branches, broken } = view.branches;
  const points = branches.flatMap((branch) => branch.points.map((point) => ({ ...point, branch })));
  if (broken || !points.length) {
    card.nothing(broken ? `The tables of the fork could not be read: ${broken}` : "no branch says anything");
    return card;
  }
  let drawn = -2;
  view.onRedraw(() => (drawn = -2));
  view.selection.follow(({ node }) => {
    if (drawn !== node) card.svg(draw(view, branches, points, node), () => tableOf(branches), (n) => view.selection.set({ node: points[n].place }));
    drawn = node;
    const chosen = points.find(({ place }) => place === node);
    card.read(chosen ? told(chosen) : `${branches.length} branches; the base is the reference`);
  });
  return card;
}

function draw(view, branches, points, node) {
  const ink = view.ink();
  const lanes = LANES.filter(([name]) => points.some((point) => !Number.isNaN(point[name])));
  const width = view.width("branches");
  const longest = points.reduce((most, { offset }) => Math.max(most, offset), 1);
  const scene = new Scene(width, TOP + lanes.length * (HIGH + GAP) - GAP + BOTTOM);
  const x = (offset) => LEFT + ((offset - 0.5) * (width - LEFT - RIGHT)) / longest;
  for (const [n, [name, label]] of lanes.entries()) lane(scene, { name, label, top: TOP + n * (HIGH + GAP), x, width, node, ink }, branches, points);
  for (let offset = 1; offset <= longest; offset += Math.ceil(longest / 20)) scene.text({ x: x(offset), y: scene.height - 6, text: String(offset), size: 10, anchor: "middle", fill: ink.soft });
  return scene;
}

function lane(scene, { name, label, top, x, width, node, ink }, branches, points) {
  const most = points.reduce((found, point) => (point[name] > found ? point[name] : found), 0) || 1;
  const y = (value) => top + HIGH * (1 - Math.max(value, 0) / most);
  scene.text({ x: LEFT, y: top - 7, text: label, fill: ink.soft });
  for (const mark of [0, most / 2, most]) {
    scene.line({ points: [[LEFT, y(mark)], [width - RIGHT, y(mark)]], stroke: ink.line });
    scene.text({ x: LEFT - 6, y: y(mark) + 4, text: tick(mark), anchor: "end", fill: ink.soft });
  }
  for (const { points: own } of branches) {
    const here = own.filter((point) => !Number.isNaN(point[name]));
    const isChosen = own.some(({ place }) => place === node);
    if (here.length > 1) scene.line({ points: here.map((point) => [x(point.offset), y(point[name])]), stroke: isChosen ? ink.text : ink.positive, width: isChosen ? 2.5 : 1 });
    for (const point of here) scene.circle({ x: x(point.offset), y: y(point[name]), r: point.place === node ? 5 : 2.5, fill: isChosen ? ink.text : ink.positive, stroke: ink.card, width: 0.8 });
  }
  for (const [n, point] of points.entries()) {
    if (!Number.isNaN(point[name])) scene.rect({ x: x(point.offset) - 6, y: y(point[name]) - 6, w: 12, h: 12, fill: ink.card, opacity: 0, pick: n, label: told(point) });
  }
}

function told({ branch, offset, bits, entropy, kl, js }) {
  const apartFrom = Number.isNaN(kl) ? "not held against the base" : `KL ${shown(kl)} nats and JS ${shown(js)} nats from the base`;
  return `${branch.name}, token ${offset}: surprisal ${shown(bits)} bits, entropy ${shown(entropy)} bits, then ${apartFrom}`;
}

function tableOf(branches) {
  const cell = (value) => (Number.isNaN(value) ? "absent" : value);
  const rows = branches.flatMap(({ name, points }) => points.map(({ offset, bits, entropy, kl, js }) => [name, offset, cell(bits), cell(entropy), cell(kl), cell(js)]));
  return { head: ["branch", "token", "surprisal_bits", "entropy_bits", "kl_nats", "js_nats"], rows };
}
