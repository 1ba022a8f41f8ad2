// The rules that the lines of a complete ledger obey: the twin of ledger/rules.py. Lines are pushed in one after the other.

import { ATTENTION, ofLine as attentionOf } from "./attention.js";
import { has, isObject } from "./canonical.js";
import { f32 } from "./exact32.js";
import { log64 } from "./exact64.js";
import * as fields from "./fields.js";
import { ONE_LINE, PARTS, WHOLE_POSITION, plainSum, positionInputs, recompute } from "./formulas.js";
import { TOLERANCE, Tally, closure, exactSum, fact, same, within } from "./gaps.js";
import { Place, STEP_SLOTS, checkLine, readRun, valuesOf } from "./lines.js";
import { LANES, LOST_SQUARES, NORMS, SPARE, ofCell, ofScale } from "./norms.js";
import { LineRefusal } from "./refusals.js";
import * as routing from "./routing.js";
import { DRAW, ofStep } from "./sampling.js";

export const CENSUS = "census";
const FORMULAS = "formulas";
const ATTRIBUTION = "attribution";
const EXPERTS = "experts";
const LENS = "lens";
const RANKS = "ranks";
const ENTROPY = "entropy";
export const RULES = [
  CENSUS, FORMULAS, ATTRIBUTION, EXPERTS, LENS, routing.CHOICE, routing.SCORES, routing.GATES, RANKS, ENTROPY, DRAW, NORMS,
  ATTENTION,
];
const ROUNDING = 2 ** -53;
const SHARED = fields.FIELDS.filter((field) => field.absent.includes(fields.NO_SHARED)).map((field) => field.name);
const AGAINST = fields.FIELDS.filter((field) => field.absent.includes(fields.NO_RUNNER_UP)).map((field) => field.name);
const FAMILIES = [["dla", ["dla", "direction_norm"]], ["lens", ["lens"]], ["mid_lens", ["mid_lens"]]];

/** A result for each of RULES over the lines of a ledger that should hold positions 0, 1, … of these `kinds`. What the census refuses ends
 * the reading; the other rules then speak of the lines before. */
export function check(lines, kinds) {
  const tally = new Tally(RULES);
  const reader = new Reader(whole(kinds, tally), (refusal) => tally.take([fact(CENSUS, false, refusal.message)]));
  for (const line of lines) reader.push(line);
  reader.end();
  return tally.results();
}

function* whole(kinds, tally) {
  const run = firstLine(yield, tally);
  yield* positions(run, kinds, tally, (group) => tally.take(ofLines(group)));
}

/** Lines pushed into a generator that takes one at each yield, undefined after the last, and may refuse one, which ends it. */
export class Reader {
  constructor(generator, refused) {
    Object.assign(this, { generator, refused, done: false });
    this.push(undefined); // to the first yield
  }

  push(line) {
    if (this.done) return;
    try {
      this.done = this.generator.next(line).done;
    } catch (refusal) {
      if (!(refusal instanceof LineRefusal)) throw refusal;
      this.done = true;
      this.refused(refusal);
    }
  }

  end() {
    this.push(undefined);
  }
}

// ---- census

export function firstLine(line, tally) {
  const run = readRun(line);
  tally.take([fact(CENSUS, true, "run")]);
  return run;
}

/** The lines of each position, exactly the expected ones in their order, each with exactly its fields; `observe` gets each position whole. A
 * kind is asked for when the position before was observed. */
export function* positions(run, kinds, tally, observe) {
  let position = 0;
  for (const kind of kinds) {
    const group = [];
    for (const slot of slots(run, kind)) group.push(observed(yield, run, new Place(run, position, kind, slot)));
    for (const each of group) tally.take(sharedGaps(each));
    observe(group);
    position++;
  }
  const extra = yield;
  if (extra !== undefined) throw new LineRefusal(`expected the end after position ${position - 1}, got ${checkLine(extra, run)}`);
}

function* slots(run, kind) {
  yield "embed";
  for (let n = 0; n < run.shape.layers; n++) yield `layer ${n}`;
  if (kind !== "prompt") yield* STEP_SLOTS;
}

function observed(line, run, due) {
  if (line === undefined) throw new LineRefusal(`expected ${due}, got the end of the ledger`);
  const found = checkLine(line, run);
  if (found.position !== due.position || found.kind !== due.kind || found.slot !== due.slot) {
    throw new LineRefusal(`expected ${due} of kind ${due.kind}, got ${found} of kind ${found.kind}`);
  }
  return { place: found, values: valuesOf(line, found) };
}

/** A line is one item of the census. Its values of the shared expert are all absent or none is, and none where that has a gate. */
function* sharedGaps({ place, values }) {
  const reasons = reasonsOf(SHARED.filter((name) => name in values).map((name) => values[name]));
  reasons.delete(fields.DENSE);
  reasons.delete(fields.NOT_A_STEP);
  const { router } = place.run;
  const holds = !reasons.has(fields.NO_SHARED) || (reasons.size === 1 && router !== null && !router.shared_gated);
  yield fact(CENSUS, holds, `fields of the shared expert in ${place}`);
}

/** The runner-up of a step is known to all its attributions or to none, and so it is to its lenses. */
function* runnerUpGaps(lines, place) {
  for (const [family, prefixes] of FAMILIES) {
    const names = AGAINST.filter((name) => prefixes.some((prefix) => name.startsWith(prefix)));
    const found = lines.flatMap(({ values }) => names.filter((name) => name in values).map((name) => values[name]));
    const reasons = reasonsOf(found);
    yield fact(CENSUS, !reasons.has(fields.NO_RUNNER_UP) || !reasons.has(""), `${family} of the runner-up at position ${place.position}`);
  }
}

/** Why a value is absent, empty if it is there */
const reason = (value) => (isObject(value) && has(value, "absent") ? value.absent : "");
const reasonsOf = (values) => new Set(values.map(reason));

// ---- of one line

/** All rules of the lines of one position */
export function* ofLines(position) {
  for (const each of position) yield* ofLine(each);
  yield* ofPosition(position);
}

function* ofLine({ place, values }) {
  for (const name of ONE_LINE) if (name in values) yield formula(name, values, values[name], place);
  if (place.layer < 0) return;
  yield* routing.ofLine(values, place);
  yield* attentionOf(values, place);
  yield* deltaGates(values, place);
  for (const prefix of ["lens", "mid_lens"]) yield* lensBounds(values, prefix, place);
}

/** Those of all heads lie between 0 and 1; where each is there, least, mean and largest are theirs */
function* deltaGates(values, place) {
  for (const gate of ["delta_beta", "delta_decay"]) {
    const [low, mean, high] = ["min", "mean", "max"].map((name) => values[`${gate}_${name}`]);
    if (low === undefined || reason(low)) continue;
    yield fact(routing.GATES, 0 <= low && low <= mean && mean <= high && high <= 1, `${gate} in ${place}`);
    const heads = values[`${gate}s`];
    if (!heads) continue;
    const found = [Math.min(...heads), plainSum(heads) / heads.length, Math.max(...heads)];
    yield same(routing.GATES, found, [low, mean, high], `${gate}s in ${place}`);
  }
}

function formula(name, inputs, found, place) {
  const expected = recompute(name, inputs);
  const where = `${name} in ${place}`;
  if (Array.isArray(expected) && Array.isArray(found)) return same(FORMULAS, expected, found, where);
  if (typeof expected === "string") return fact(FORMULAS, expected === found, where);
  if (reason(expected) || reason(found)) return fact(FORMULAS, reason(expected) === reason(found), where);
  return same(FORMULAS, [expected], [found], where);
}

function* lensBounds(values, prefix, place) {
  const logit = values[`${prefix}_logit`];
  if (logit === undefined || reason(logit)) return;
  const { vocabulary } = place.run.shape;
  const rank = values[`${prefix}_rank`];
  const tops = values[`${prefix}_top_logits`];
  yield fact(RANKS, 1 <= rank && rank <= vocabulary, `${prefix}_rank in ${place}`);
  yield ordered(values[`${prefix}_top`], tops, `${prefix}_top in ${place}`);
  yield rankIn(logit, rank, tops, `${prefix}_rank in ${place}`);
  const logSumExp = logit - values[`${prefix}_logprob`];
  const entropy = values[`${prefix}_entropy`];
  const tolerance = TOLERANCE * (Math.abs(logSumExp) + Math.abs(logSumExp - entropy));
  yield within(ENTROPY, 0, entropy, log64(vocabulary), tolerance, `${prefix}_entropy in ${place}`);
}

function ordered(top, logits, where) {
  const distinct = new Set(top).size === top.length;
  return fact(RANKS, distinct && routing.isSorted(routing.ranked(top, logits)), `order of ${where}`);
}

/** The rank of `logit` follows from the largest logits if it is one of them, and lies behind them if not */
function rankIn(logit, rank, tops, where) {
  const larger = tops.filter((top) => top > logit).length;
  return fact(RANKS, larger === tops.length ? rank > tops.length : rank === 1 + larger, where);
}

// ---- of one position

/** What joins the lines of a position */
function* ofPosition(lines) {
  const bySlot = new Map(lines.map(({ place, values }) => [place.slot, values]));
  let before = bySlot.get("embed").residual_norm;
  for (const { place, values } of lines) {
    if (place.layer < 0) continue;
    yield* ofCell(before, values, place);
    before = values.residual_norm;
  }
  if (!bySlot.has("lm_head")) return;
  const { place } = lines.find((each) => each.place.slot === "lm_head");
  const head = bySlot.get("lm_head");
  const token = bySlot.get("token").id;
  const cells = lines.filter((each) => each.place.layer >= 0);
  const layers = cells.map((each) => each.values);
  yield* runnerUpGaps(lines, place);
  yield* headRanks(head, token, place);
  yield* entropyBounds(head, place);
  yield* ofStep(bySlot.get("sampler"), head, token, place);
  yield ofScale(before, head.final_scale, place);
  if ("dla_logit" in head) {
    yield* attribution(bySlot.get("embed"), layers, head, place);
    for (const cell of cells) yield* expertClosures(cell.values, head, cell.place);
    yield* lastLens(layers.at(-1), head, token, place);
  }
}

/** rank_low = 1 + number of larger logits, rank_high = number of those not smaller, as far as the twenty largest tell */
function* headRanks(head, token, place) {
  const { top, top_logits: tops, chosen_logit: logit, rank_low: low, rank_high: high } = head;
  const { vocabulary } = place.run.shape;
  yield ordered(top, tops, `top in ${place}`);
  if (top.includes(token)) yield same(RANKS, [tops[top.indexOf(token)]], [logit], `chosen_logit in ${place}`);
  else yield fact(RANKS, tops.at(-1) > logit || (tops.at(-1) === logit && top.at(-1) < token), `token ${token} outside top in ${place}`);
  yield rankIn(logit, low, tops, `rank_low in ${place}`);
  const least = tops.filter((t) => t >= logit).length;
  const exact = logit > tops.at(-1) || tops.length === vocabulary;
  yield fact(RANKS, exact ? high === least : Math.max(low, least) <= high, `rank_high in ${place}`);
  yield fact(RANKS, low <= high && high <= vocabulary, `rank_high in ${place}`);
}

/** 0 ≤ entropy ≤ ln V and max z ≤ log Σ exp z ≤ max z + ln V, up to the rounding of binary64 */
function* entropyBounds(head, place) {
  const largest = head.top_logits[0];
  const width = log64(place.run.shape.vocabulary);
  const { log_sum_exp: total, mean_logit: mean, mean_square_logit: square } = head;
  yield within(ENTROPY, 0, head.entropy_nats, width, TOLERANCE * (Math.abs(total) + Math.abs(mean)), `entropy_nats in ${place}`);
  yield within(ENTROPY, largest, total, largest + width, TOLERANCE * (Math.abs(largest) + width), `log_sum_exp in ${place}`);
  yield within(ENTROPY, 0, head.varentropy, Infinity, TOLERANCE * (square + mean * mean), `varentropy in ${place}`);
}

/** The direct contributions make y's logit; that lm_head's rounding makes it the engine's is a formula */
function* attribution(embed, layers, head, place) {
  const inputs = positionInputs(embed, layers);
  for (const name of WHOLE_POSITION) yield formula(name, inputs, head[name], place);
  const terms = [embed.dla, ...PARTS.flatMap((name) => inputs[name])];
  yield closure(ATTRIBUTION, head.exact_logit, terms, shareRoundings(head, "", pathNorms(embed, layers), place.run.shape), `exact_logit in ${place}`);
}

/** Norms of the components that attribution adds up, and of the row that they make */
export function pathNorms(embed, layers) {
  const writes = layers.flatMap((layer) => [layer.attention_write_norm, layer.mlp_write_norm]);
  return [embed.residual_norm, layers.at(-1).residual_norm, ...writes];
}

/** dla(m) = Σ experts + shared + rounding, of what is there: whether all is that should be, the census says */
function* expertClosures(values, head, place) {
  for (const component of fields.COMPONENTS) {
    const names = ["mlp", "combination_rounding", "experts", "shared"].map((part) => `dla${component}_${part}`);
    const [total, combination, experts, shared] = names.map((name) => values[name]);
    if ([total, combination, experts, head[`direction_norm${component}`]].some(reason)) continue;
    const terms = [...experts, combination];
    const norms = [values.mlp_write_norm, ...values.expert_write_norms];
    if (!reason(shared) && !reason(values.shared_write_norm)) {
      terms.push(shared);
      norms.push(values.shared_write_norm);
    }
    yield closure(EXPERTS, total, terms, shareRoundings(head, component, norms, place.run.shape), `${names[0]} in ${place}`);
  }
}

/** How far the shares of components of these `norms` may be off together: each is a sum over D products whose rounding grows with |d| |c| / r,
 * however much of the sum cancels */
export function shareRoundings(head, component, norms, shape) {
  const roundings = (shape.hidden / LANES + shape.chosen + SPARE) * ROUNDING;
  const slope = head.final_scale > 0 ? head[`direction_norm${component}`] / head.final_scale : 0;
  const allowance = roundings * slope * (exactSum(norms) + LOST_SQUARES);
  return Number.isFinite(allowance) ? allowance : 0; // no honest scale is that small
}

/** The lens at the last boundary is the engine's head */
function* lastLens(layer, head, token, place) {
  yield same(LENS, [head.chosen_logit], [layer.lens_logit], `lens_logit in ${place}`);
  yield same(LENS, [head.rank_low], [layer.lens_rank], `lens_rank in ${place}`);
  const count = layer.lens_top.length;
  const agrees = layer.lens_top.every((v, i) => v === head.top[i]);
  yield fact(LENS, agrees, `lens_top in ${place}`);
  yield same(LENS, head.top_logits.slice(0, count), layer.lens_top_logits, `lens_top_logits in ${place}`);
  const found = layer.lens_runner_up_logit;
  if (reason(found)) return;
  yield same(LENS, [head.top_logits[head.top[0] === token ? 1 : 0]], [found], `lens_runner_up_logit in ${place}`);
}

// ---- with rows

export const ADDITION = "addition";

/** x + write in binary32, null if a sum lies beyond it; of two rows of numbers */
export function added(x, write) {
  const sums = x.map((a, i) => f32(a + write[i]));
  return sums.every(Number.isFinite) ? sums : null;
}

/** x + write = result, bit for bit, of three rows of numbers: -0 is not 0 */
export function addition(x, write, result, where) {
  const found = added(x, write);
  if (!found) return fact(ADDITION, false, where);
  const worst = same(ADDITION, found, result, where);
  return worst.violated ? worst : fact(ADDITION, found.every((a, i) => Object.is(a, result[i])), where);
}
