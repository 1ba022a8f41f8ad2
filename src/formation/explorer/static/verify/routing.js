// The rules of routing: the twin of ledger/routing.py. E experts, K chosen.

import { bytesF32, isObject, valuesF32 } from "./canonical.js";
import { hex } from "./bytes.js";
import * as exact32 from "./exact32.js";
import { exactSum, fact, same } from "./gaps.js";
import { sha256 } from "./sha256.js";

export const CHOICE = "choice";
export const SCORES = "scores";
export const GATES = "gates";
export const ALL_EXPERTS = "all experts";
const TINY = exact32.f32(1e-20);
const LANES = 16; // of a sum in binary32
const SPARE = 8; // roundings beside those of one lane
const DOUBLE_ROUNDING = 2 ** -23; // twice the size of one
const LARGEST_BITS = 0x7f800000 - 4; // of a finite binary32 number with four more above it

/** The rules of one layer's line with experts */
export function* ofLine(values, place) {
  const { router } = place.run;
  if (!router || isObject(values.chosen)) return;
  yield* choice(values, place);
  for (const [prefix, ids] of [["chosen_", values.chosen], ["runner_up_", values.runners_up]]) yield* scores(values, prefix, ids, place, router);
  if (router.softmax && !router.biased && router.groups === 1) yield* oneTotal(values, place);
  yield same(GATES, gatesOf(values.chosen_scores, router), values.gates, `gates in ${place}`);
  yield* sharedGate(values, router, place);
}

/** chosen = the best by selection among chosen and runners-up, ties low */
function* choice(values, place) {
  const { chosen, runners_up: refused } = values;
  yield fact(CHOICE, chosen.every((e, i) => !i || chosen[i - 1] < e), `order of chosen in ${place}`);
  yield fact(CHOICE, new Set([...chosen, ...refused]).size === chosen.length + refused.length, `an expert listed twice in ${place}`);
  const behind = ranked(refused, values.runner_up_selection);
  yield fact(CHOICE, isSorted(behind), `order of runners_up in ${place}`);
  if (behind.length) {
    const last = ranked(chosen, values.chosen_selection).reduce((a, b) => (before(a, b) ? b : a));
    yield fact(CHOICE, before(last, behind[0]), `expert ${last.id} chosen before ${behind[0].id} in ${place}`);
  }
}

/** Ordered as the router does: large selection first, ties low first */
export const ranked = (ids, selection) => ids.map((id, i) => ({ id, selection: selection[i] }));
const before = (a, b) => (a.selection === b.selection ? a.id < b.id : a.selection > b.selection);
export const isSorted = (pairs) => pairs.every((pair, i) => !i || !before(pair, pairs[i - 1]));
const sorted = (pairs) => pairs.sort((a, b) => (before(a, b) ? -1 : before(b, a) ? 1 : 0));

/** s = sigmoid(q) and c = s + b; a softmax needs all experts' logits */
function* scores(values, prefix, ids, place, router) {
  const found = values[`${prefix}scores`];
  if (!router.softmax) yield same(SCORES, values[`${prefix}logits`].map(exact32.sigmoid), found, `${prefix}scores in ${place}`);
  let biases = ids.map(() => 0);
  if (router.biased) {
    biases = values[`${prefix}biases`];
    const stored = place.run.biases.get(place.layer);
    yield same(SCORES, ids.map((e) => stored[e]), biases, `${prefix}biases in ${place}`);
  }
  yield same(SCORES, found.map((s, i) => exact32.add(s, biases[i])), values[`${prefix}selection`], `${prefix}selection in ${place}`);
}

/** s = fl(exp(q - largest) / total) with one total for all that are listed, though its other terms are not: routing.py says when and why */
function* oneTotal(values, place) {
  const [logits, found] = ["logits", "scores"].map((name) => [...values[`chosen_${name}`], ...values[`runner_up_${name}`]]);
  const best = Math.max(...found);
  if (values.runners_up.length && found.at(-1) === best) return;
  const largest = Math.max(...logits);
  const powers = logits.map((q) => exact32.exp(exact32.subtract(q, largest)));
  const { experts } = place.run.shape;
  const rounding = (experts / LANES + SPARE) * DOUBLE_ROUNDING;
  const least = exactSum(powers);
  const most = least + (experts - powers.length) * powers.at(-1);
  const possible = totals(best).filter((total) => least * (1 - rounding) <= total && total <= most * (1 + rounding));
  const holds = possible.some((total) => powers.every((power, i) => exact32.divide(power, total) === found[i]));
  yield fact(SCORES, holds, `one total of a softmax for the scores in ${place}`);
}

const view = new DataView(new ArrayBuffer(4));

/** Every binary32 number whose reciprocal may round to `share`, and a few beside them */
function totals(share) {
  if (!(0 < share && share <= 1)) return [];
  view.setFloat32(0, exact32.divide(1, share));
  const bits = view.getInt32(0);
  return bits < LARGEST_BITS ? [-3, -2, -1, 0, 1, 2, 3].map((step) => (view.setInt32(0, bits + step), view.getFloat32(0))) : [];
}

/** Of the shared expert: a sigmoid, or none; then its write is its output */
function* sharedGate(values, router, place) {
  const { shared_output_norm: output, shared_write_norm: write, shared_gate: gate } = values;
  if (output === undefined || isObject(output)) return;
  if (router.shared_gated) yield fact(GATES, 0 <= gate && gate <= 1, `shared_gate in ${place}`);
  else yield fact(GATES, output === write, `shared_write_norm in ${place}`);
}

/** g = fl(fl(s / fl(Σ s + 1e-20)) scale), Σ s in ascending id; without normalisation g = fl(s scale) */
function gatesOf(chosenScores, router) {
  const total = exact32.add(chosenScores.reduce(exact32.add, 0), TINY);
  const shares = router.normalise ? chosenScores.map((score) => exact32.divide(score, total)) : chosenScores;
  return shares.map((share) => exact32.multiply(share, router.scale));
}

// ---- with the logits of all experts

/** The router of the contract over logits [E]; `ranking` holds the experts of kept groups, best first: the first K are chosen. */
export function route(run, layer, logits) {
  const { router } = run;
  const scores = router.softmax ? softmax(logits) : logits.map(exact32.sigmoid);
  const biases = run.biases.get(layer);
  const selection = router.biased ? scores.map((s, e) => exact32.add(s, biases[e])) : scores;
  const open = kept(selection, router);
  return { scores, selection, ranking: sorted(ranked(open, open.map((e) => selection[e]))).map((pair) => pair.id) };
}

function softmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const powers = logits.map((q) => exact32.exp(exact32.subtract(q, largest)));
  const total = exact32.laneSum(powers);
  return powers.map((power) => exact32.divide(power, total));
}

/** The experts of the best groups, by the sum of a group's two best or by its best; ties low */
function kept(selection, router) {
  const every = selection.map((_, e) => e);
  if (router.groups === 1) return every;
  const width = selection.length / router.groups;
  const numbers = Array.from({ length: router.groups }, (_, g) => g);
  const groups = numbers.map((g) => selection.slice(g * width, (g + 1) * width).sort((a, b) => b - a));
  const marks = groups.map((group) => (router.group_top2 ? exact32.add(group[0], group[1]) : group[0]));
  const best = new Set(sorted(ranked(numbers, marks)).slice(0, router.kept_groups).map((pair) => pair.id));
  return every.filter((e) => best.has(Math.floor(e / width)));
}

/** A line with experts against the sidecar row of all its router logits, little-endian f32[E] */
export function* ofAllExperts(values, place, logits) {
  const { shape, runnersUp } = place.run;
  yield fact(ALL_EXPERTS, hex(sha256(logits)) === values.router_logits_sha256, `router_logits_sha256 in ${place}`);
  const q = valuesF32(logits);
  if (q.length !== shape.experts) {
    yield fact(ALL_EXPERTS, false, `number of router logits in ${place}`);
    return;
  }
  const found = route(place.run, place.layer, q);
  const digest = hex(sha256(bytesF32(found.selection)));
  yield fact(ALL_EXPERTS, digest === values.router_selection_sha256, `router_selection_sha256 in ${place}`);
  const chosen = found.ranking.slice(0, shape.chosen).sort((a, b) => a - b);
  const refused = found.ranking.slice(shape.chosen, shape.chosen + runnersUp);
  const agrees = String(chosen) === String(values.chosen) && String(refused) === String(values.runners_up);
  yield fact(ALL_EXPERTS, agrees, `chosen and runners_up in ${place}`);
  for (const [prefix, ids] of [["chosen_", chosen], ["runner_up_", refused]]) {
    for (const [name, row] of [["logits", q], ["scores", found.scores], ["selection", found.selection]]) {
      yield same(ALL_EXPERTS, ids.map((e) => row[e]), values[`${prefix}${name}`], `${prefix}${name} in ${place}`);
    }
  }
}
