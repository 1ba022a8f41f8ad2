// Weights and entropies of attention are such as a softmax over the positions so far can have: the twin of ledger/attention.py.

import { log64 } from "./exact64.js";
import { plainSum } from "./formulas.js";
import { exactSum, fact, same, within } from "./gaps.js";
import { LANES, SINGLE, SPARE } from "./norms.js";

export const ATTENTION = "attention";
const OF_HEAD = 3; // weights of each head at most

/** One layer's line, if it says anything of attention */
export function* ofLine(values, place) {
  const { attention_strongest: listed, attention_strongest_by_head: own } = values;
  if (!Array.isArray(listed)) return;
  const byHead = Array.isArray(own) ? own : [];
  const known = [...new Map([...listed, ...byHead].map((each) => [`${each.head} ${each.position} ${each.weight}`, each])).values()].sort(order);
  yield fact(ATTENTION, isListed(listed, known), `order of attention_strongest in ${place}`);
  if (byHead.length) yield fact(ATTENTION, areOfHeads(byHead, known, place), `order of attention_strongest_by_head in ${place}`);
  yield* sums(known, place);
  yield* entropies(values, listed, byHead, place);
}

const order = (a, b) => b.weight - a.weight || a.head - b.head || a.position - b.position;
const begins = (listed, known) => listed.every((each, i) => i < known.length && order(each, known[i]) === 0);

/** The first of all that are known, no place with two weights, all weights in [0, 1] */
function isListed(listed, known) {
  const places = new Set(known.map(({ head, position }) => `${head} ${position}`));
  return begins(listed, known) && places.size === known.length && known[0].weight <= 1 && known.at(-1).weight >= 0;
}

/** Heads in order, of each the first of what is known of it */
function areOfHeads(byHead, known, place) {
  const count = Math.min(OF_HEAD, place.position + 1);
  const own = Array.from({ length: place.run.shape.heads }, () => []);
  for (const each of known) own[each.head].push(each);
  const due = own.flatMap((row) => row.slice(0, count));
  return due.length === byHead.length && begins(byHead, due);
}

/** The weights of a head make 1 if all are known, and less if not */
function* sums(known, place) {
  const found = new Map();
  for (const { head, weight } of known) found.set(head, [...(found.get(head) ?? []), weight]);
  const where = `sum of attention weights in ${place}`;
  const rows = [...found.values()];
  yield within(ATTENTION, 0, Math.max(...rows.map(exactSum)), 1, slackOf(place), where);
  const whole = rows.filter((row) => row.length === place.position + 1).map(exactSum);
  if (whole.length) yield within(ATTENTION, 1, Math.min(...whole), 1, slackOf(place), where);
}

/** What the weights of a head may miss 1 by */
const slackOf = (place) => ((place.position + 1) / LANES + SPARE) * SINGLE;

/** -ln(largest weight) ≤ entropy ≤ ln(p + 1), of each head and of their mean */
function* entropies(values, listed, byHead, place) {
  const { attention_entropy: mean, attention_entropies: found } = values;
  const width = log64(place.position + 1);
  const tolerance = slackOf(place) * (width + 1);
  yield within(ATTENTION, least(listed[0]), mean, width, tolerance, `attention_entropy in ${place}`);
  if (!Array.isArray(found)) return;
  yield same(ATTENTION, [plainSum(found) / found.length], [mean], `mean of attention_entropies in ${place}`);
  const count = Math.min(OF_HEAD, place.position + 1); // the largest of each head stands first
  const beyond = found.map((entropy, head) => Math.max(least(byHead[head * count]) - entropy, entropy - width));
  yield within(ATTENTION, 0, Math.max(0, ...beyond), 0, tolerance, `attention_entropies in ${place}`);
}

/** Of the entropy of a distribution with this largest weight; none has one of 0 */
const least = ({ weight }) => (weight > 0 ? -log64(weight) : Infinity);
