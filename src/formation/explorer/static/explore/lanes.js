// Lens lanes: how rank and probability of the chosen token and of its rivals go through the layers.

import { Card } from "./card.js";
import { element } from "../verify/elements.js";
import { isAbsent } from "./opened.js";
import { part, shown, textOfId, tick } from "./parts.js";
import { numbersOf } from "./provenance.js";
import { everyOf } from "./scales.js";
import { Scene } from "./scene.js";
import { ticks } from "./waterfall.js";

const LEFT = 56;
const RIGHT = 82;
const HEIGHT = 118; // of a lane where two are drawn
const GAP = 38;
const TOP = 20;
const SENTENCE = "The lens reads a row x as if it were the last: z = W norm(x) with the row's own statistics, then rank 1 + #{v : z_v > z_y} and probability exp(z_y − log Σ exp z). The runner-up is the other token with the largest final logit, the leader whichever leads there.";
const BOUNDARIES = { x: "x′, after each layer", u: "u, after each attention", both: "u and x′ in turn" };
const PREFIXES = { x: "lens_", u: "mid_lens_" };
const LANES = {
  rank: { title: "rank", of: ({ ranks }) => ranks },
  probability: { title: "probability", of: ({ logprobs }) => logprobs.map(Math.exp) },
  logprob: { title: "log probability, nats", of: ({ logprobs }) => logprobs },
};
const SHOWN = { both: ["rank", "probability"], rank: ["rank"], probability: ["probability"], logprob: ["logprob"] };
const TITLES = { both: "rank and probability", rank: "rank", probability: "probability", logprob: "log probability" };

export function lanes(view) {
  const card = new Card(view, "lanes", "Lens lanes", SENTENCE);
  const isFull = view.ledger.run.stepLevel === "full";
  const why = isFull ? undefined : "capture full";
  const chooseRow = card.choice("boundary", "Row", [["x", BOUNDARIES.x], ["u", BOUNDARIES.u, why], ["both", BOUNDARIES.both, why]]);
  const chooseLane = card.choice("lane", "Lane", Object.entries(TITLES));
  card.follow(({ position, layer, isStep, boundary, lane }) => {
    const rows = isFull && boundary in BOUNDARIES ? boundary : "x";
    const kinds = SHOWN[lane in SHOWN ? lane : "both"];
    chooseRow.value = rows;
    chooseLane.value = lane in SHOWN ? lane : "both";
    const points = pointsOf(view.ledger, rows);
    const series = isStep ? seriesOf(view.ledger, position, points) : [];
    if (!series.length) {
      card.nothing(isStep ? "the lens was not captured: capture level minimal" : "not a step: the lens looks for the token that a step chose");
      return card.after.replaceChildren();
    }
    card.svg(draw(view, series, points, layer, kinds), () => table(series, points), (pick) => view.selection.set({ layer: pick }));
    const n = points.findLastIndex((point) => point.layer === layer);
    card.read(said(series, points, n));
    return card.after.replaceChildren(leaders(view, position, points[n]));
  }, ["position", "layer", "boundary", "lane"]);
  return card;
}

/** What is drawn from left to right: { layer, prefix, row } */
function pointsOf({ layers }, rows) {
  const of = { x: ["x"], u: ["u"], both: ["u", "x"] }[rows];
  return Array.from({ length: layers }, (_, layer) => of.map((row) => ({ layer, row, prefix: PREFIXES[row] }))).flat();
}

function seriesOf(ledger, position, points) {
  const values = points.map(({ layer, prefix }) => [ledger.cell(position, layer), prefix]);
  const found = [["chosen", ""], ["runner-up", "runner_up_"]].flatMap(([name, infix]) => {
    const [ranks, logprobs] = ["rank", "logprob"].map((field) => values.map(([cell, prefix]) => cell[`${prefix}${infix}${field}`]));
    return ranks.some((rank) => rank === undefined || isAbsent(rank)) ? [] : [{ name, ranks, logprobs }];
  });
  if (!found.length) return [];
  const leader = values.map(([cell, prefix]) => cell[`${prefix}top_logits`][0] - logSumExp(cell, prefix));
  return [...found, { name: "leader", ranks: leader.map(() => 1), logprobs: leader, ids: values.map(([cell, prefix]) => cell[`${prefix}top`][0]) }];
}

const logSumExp = (cell, prefix) => cell[`${prefix}logit`] - cell[`${prefix}logprob`];

// ---- the drawing

const STYLES = { chosen: ["positive", undefined], "runner-up": ["negative", "5 4"], leader: ["soft", "1 3"] };

function draw(view, series, points, layer, kinds) {
  const ink = view.ink();
  const width = view.width("lanes");
  const high = kinds.length > 1 ? HEIGHT : 2 * HEIGHT;
  const bottom = TOP + kinds.length * (high + GAP) - GAP;
  const scene = new Scene(width, bottom + 34);
  const step = (width - LEFT - RIGHT - 16) / Math.max(points.length - 1, 1);
  const x = (n) => LEFT + 8 + n * step;
  const seen = points.flatMap((point, n) => (point.layer === layer ? [n] : []));
  const band = Math.max(step, 6);
  scene.rect({ x: x(seen[0]) - band / 2, y: TOP - 8, w: x(seen.at(-1)) - x(seen[0]) + band, h: bottom - TOP + 16, fill: ink.accent, opacity: 0.12 });
  for (const [n, kind] of kinds.entries()) lane(scene, kind, series, x, TOP + n * (high + GAP), high, width, ink);
  const rows = points.length / view.ledger.layers;
  const every = everyOf(step * rows, 30) * rows;
  for (const [n, { layer: l }] of points.entries()) if (n % every === 0) scene.text({ x: x(n), y: bottom + 22, text: `L${l}`, anchor: "middle", fill: ink.soft });
  for (const [n, point] of points.entries()) scene.rect({ x: x(n) - step / 2, y: TOP - 8, w: step, h: bottom - TOP + 16, fill: ink.card, opacity: 0, pick: point.layer, label: said(series, points, n) });
  return scene;
}

/** Hollow marks: all of this is derived */
function lane(scene, kind, series, x, top, high, width, ink) {
  const drawn = series.filter(({ name }) => name !== "leader" || kind !== "rank").map((each) => ({ name: each.name, values: LANES[kind].of(each) }));
  const { at, marks } = scaleOf(kind, drawn.flatMap(({ values }) => values), top, high);
  scene.text({ x: 4, y: top - 8, text: LANES[kind].title, fill: ink.soft });
  for (const v of marks) {
    scene.line({ points: [[LEFT, at(v)], [width - RIGHT + 4, at(v)]], stroke: ink.line });
    scene.text({ x: LEFT - 6, y: at(v) + 4, text: tick(v), anchor: "end", fill: ink.soft });
  }
  for (const { name, values } of [...drawn].reverse()) one(scene, name, values.map(at), x, ink);
  const ends = spread(drawn.map(({ name, values }) => ({ name, y: at(values.at(-1)) })), top + high);
  for (const { name, y } of ends) scene.text({ x: x(drawn[0].values.length - 1) + 8, y: y + 4, text: name, size: 11, weight: 600, fill: ink[STYLES[name][0]] });
}

function one(scene, name, ys, x, ink) {
  const [colour, dash] = STYLES[name];
  scene.line({ points: ys.map((y, n) => [x(n), y]), stroke: ink[colour], width: name === "leader" ? 1.5 : 2, dash });
  if (name === "leader" || ys.length > 70) return;
  for (const [n, y] of ys.entries()) scene.circle({ x: x(n), y, r: ys.length > 24 ? 2.2 : 3.5, fill: ink.card, stroke: ink[colour], width: 1.5 });
}

function scaleOf(kind, values, top, high) {
  if (kind === "rank") {
    const worst = Math.max(10, ...values);
    const marks = Array.from({ length: Math.floor(Math.log10(worst)) + 1 }, (_, n) => 10 ** n);
    return { at: (rank) => top + (Math.log(rank) / Math.log(worst)) * high, marks };
  }
  if (kind === "probability") return { at: (p) => top + (1 - p) * high, marks: [0, 0.5, 1] };
  const low = Math.min(-1, ...values);
  return { at: (v) => top + (v / low) * high, marks: ticks(low, 0) };
}

/** Names that do not lie on one another, nor below `lowest` */
function spread(ends, lowest) {
  const sorted = ends.sort((a, b) => a.y - b.y);
  for (let n = 1; n < sorted.length; n++) sorted[n].y = Math.max(sorted[n].y, sorted[n - 1].y + 13);
  for (let n = sorted.length - 1; n >= 0; n--) sorted[n].y = Math.min(sorted[n].y, sorted[n + 1] ? sorted[n + 1].y - 13 : lowest);
  return sorted;
}

function said(series, points, n) {
  const { layer, row } = points[n];
  const of = ({ name, ranks, logprobs, ids }) => `${name}${ids ? ` id ${ids[n]}` : `: rank ${ranks[n]}`}, probability ${shown(Math.exp(logprobs[n]))}`;
  return `layer ${layer}, ${row === "u" ? "u" : "x′"}: ${series.map(of).join("; ")}`;
}

/** What the lens would say at the selected layer: its five largest logits */
function leaders(view, position, { layer, prefix, row }) {
  const cell = view.ledger.cell(position, layer);
  const total = logSumExp(cell, prefix);
  const items = cell[`${prefix}top`].map((id, n) => {
    const text = textOfId(view.ledger, id);
    return element("li", ...(text ? [element("b.value", text), " "] : []), element("span.quiet", `id ${id}, p ${shown(Math.exp(cell[`${prefix}top_logits`][n] - total))}`));
  });
  return element("div", element("h3", `What the lens of ${row === "u" ? "u" : "x′"} leads with in layer ${layer}`), element("ol.leaders", ...items),
    part("p.quiet", {}, "logits ", ...numbersOf(view, { position, slot: `layer ${layer}`, name: `${prefix}top_logits` })));
}

function table(series, points) {
  const rows = series.flatMap(({ name, ranks, logprobs, ids }) => points.map(({ layer, row }, n) => [ids ? `leader, id ${ids[n]}` : name, layer, row === "u" ? "u" : "x'", ranks[n], logprobs[n], Math.exp(logprobs[n])]));
  return { head: ["token", "layer", "row", "lens_rank", "lens_logprob", "probability"], rows };
}
