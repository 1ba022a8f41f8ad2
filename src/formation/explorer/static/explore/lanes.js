// Lens lanes: how rank and probability of the chosen token and of its runner-up go through the layers.

import { Card } from "./card.js";
import { isAbsent } from "./opened.js";
import { shown } from "./parts.js";
import { Scene } from "./scene.js";

const LEFT = 56;
const LANE = 118;
const GAP = 34;
const TOP = 20;
const SENTENCE = "The lens reads each layer's x′ as if it were the last: z = W norm(x′), with the row's own statistics. Above the rank 1 + #{v : z_v > z_y}, below the probability exp(z_y − log Σ exp z). The runner-up is the other token with the largest final logit.";

export function lanes(view) {
  const card = new Card("lanes", "Lens lanes", SENTENCE);
  const update = ({ position, layer, isStep }) => {
    const series = isStep ? seriesOf(view.ledger, position) : [];
    if (!series.length) return card.nothing(isStep ? "the lens was not captured: capture level minimal" : "not a step: the lens looks for the token that a step chose");
    card.svg(draw(view, series, layer), () => table(series), (pick) => view.selection.set({ layer: pick }));
    return card.read(series.map(({ name, ranks, probabilities }) => `${name} in layer ${layer}: rank ${ranks[layer]}, probability ${shown(probabilities[layer])}`).join("; "));
  };
  view.selection.follow(update);
  return card;
}

function seriesOf(ledger, position) {
  const cells = Array.from({ length: ledger.layers }, (_, layer) => ledger.cell(position, layer));
  return [["chosen", "lens_"], ["runner-up", "lens_runner_up_"]].flatMap(([name, prefix]) => {
    const [ranks, logprobs] = [`${prefix}rank`, `${prefix}logprob`].map((field) => cells.map((cell) => cell[field]));
    if (ranks.some((rank) => rank === undefined || isAbsent(rank))) return [];
    return [{ name, ranks, logprobs, probabilities: logprobs.map(Math.exp) }];
  });
}

function draw(view, series, layer) {
  const ink = view.ink();
  const count = series[0].ranks.length;
  const width = view.width("lanes");
  const scene = new Scene(width, TOP + 2 * LANE + GAP + 40);
  const step = (width - LEFT - 90) / Math.max(count - 1, 1);
  const x = (l) => LEFT + 8 + l * step;
  scene.rect({ x: x(layer) - Math.max(step / 2, 3), y: TOP - 8, w: Math.max(step, 6), h: 2 * LANE + GAP + 12, fill: ink.accent, opacity: 0.12 });
  const worst = Math.max(10, ...series.flatMap(({ ranks }) => ranks));
  const rankAt = (rank) => TOP + (Math.log(rank) / Math.log(worst)) * LANE;
  const chanceAt = (p) => TOP + LANE + GAP + (1 - p) * LANE;
  for (let rank = 1; rank <= worst; rank *= 10) gridLine(scene, rankAt(rank), String(rank), width, ink);
  for (const p of [0, 0.5, 1]) gridLine(scene, chanceAt(p), String(p), width, ink);
  scene.text({ x: 4, y: TOP - 8, text: "rank", fill: ink.soft }).text({ x: 4, y: TOP + LANE + GAP - 8, text: "probability", fill: ink.soft });
  for (const [n, each] of series.entries()) {
    lane(scene, each, "rank", each.ranks.map(rankAt), each.ranks, x, n, ink);
    lane(scene, each, "probability", each.probabilities.map(chanceAt), each.probabilities, x, n, ink);
  }
  const every = Math.ceil(30 / step);
  for (let l = 0; l < count; l += every) scene.text({ x: x(l), y: TOP + 2 * LANE + GAP + 22, text: `L${l}`, anchor: "middle", fill: ink.soft });
  for (let l = 0; l < count; l++) scene.rect({ x: x(l) - step / 2, y: TOP - 8, w: step, h: 2 * LANE + GAP + 16, fill: ink.card, opacity: 0, pick: l, label: at(series, l) });
  return scene;
}

const at = (series, l) => `layer ${l}: ${series.map(({ name, ranks, probabilities }) => `${name} rank ${ranks[l]}, p ${shown(probabilities[l])}`).join("; ")}`;

function gridLine(scene, y, text, width, ink) {
  scene.line({ points: [[LEFT, y], [width - 70, y]], stroke: ink.line });
  scene.text({ x: LEFT - 6, y: y + 4, text, anchor: "end", fill: ink.soft });
}

/** Hollow marks: all of this is derived */
function lane(scene, { name }, what, ys, values, x, n, ink) {
  const colour = n ? ink.negative : ink.positive;
  scene.line({ points: ys.map((y, l) => [x(l), y]), stroke: colour, width: 2, dash: n ? "5 4" : undefined });
  const r = ys.length > 24 ? 2.2 : 3.5;
  for (const [l, y] of ys.entries()) scene.circle({ x: x(l), y, r, fill: ink.card, stroke: colour, width: 1.5 });
  scene.text({ x: x(ys.length - 1) + 8, y: ys.at(-1) + 4 + (n ? 4 : -2), text: name, size: 11, weight: 600, fill: colour });
}

function table(series) {
  const rows = series.flatMap(({ name, ranks, logprobs, probabilities }) => ranks.map((rank, l) => [name, l, rank, logprobs[l], probabilities[l]]));
  return { head: ["token", "layer", "lens_rank", "lens_logprob", "probability"], rows };
}
