// Lengths and angles that rows of one cell can have together, for u = x + a, x' = u + m, and m the sum of the experts' writes: the twin of
// ledger/norms.py, which says why each tolerance suffices.

import { isObject } from "./canonical.js";
import { closure, exactSum, fact, within } from "./gaps.js";

export const NORMS = "norms";
export const LANES = 16; // of a sum over a row
export const SPARE = 12; // roundings beside those of one lane and of the sum of writes
export const SINGLE = 2 ** -24; // one rounding
const DOUBLE = 2 ** -53;
export const LOST_SQUARES = 2 ** -50; // more than binary32 norms lose to squares too small for it

const { abs, max, min, sqrt } = Math;
const absent = isObject;
const roundings = (place) => place.run.shape.hidden / LANES + SPARE;

/** One layer's line, and the norm of the row that it begins with */
export function* ofCell(x, values, place) {
  const { attention_write_norm: a, after_attention_norm: u, mlp_write_norm: m, residual_norm: after, residual_largest: largest } = values;
  const slack = roundings(place) * SINGLE;
  yield fact(NORMS, min(x, a, u, m, after) >= 0, `norms below 0 in ${place}`);
  yield triangle(x, a, u, slack, `|x + attention write| in ${place}`);
  yield triangle(u, m, after, slack, `|u + MLP write| in ${place}`);
  const most = sqrt(place.run.shape.hidden) * largest;
  yield within(NORMS, largest, after, most, slack * (after + abs(most)) + LOST_SQUARES, `residual_largest in ${place}`);
  if (!("attention_cosine" in values)) return;
  yield* shares(x, { a, u, m, after }, values, place);
  if (!absent(values.expert_write_norms)) yield* experts(m, values, place);
}

/** ||p| - |q|| ≤ |p + q| ≤ |p| + |q| */
function triangle(p, q, total, slack, where) {
  return within(NORMS, abs(p - q), total, p + q, slack * (p + q + total) + LOST_SQUARES, where);
}

/** Cosine c and projection p of a write w in x': p |x'| = c |w|. The projections say how long x and u are */
function* shares(x, { a, u, m, after }, values, place) {
  const slack = roundings(place) * SINGLE;
  const known = [];
  for (const [name, write] of [["attention", a], ["mlp", m]]) {
    const cosine = values[`${name}_cosine`];
    const projection = values[`${name}_projection`];
    const where = `${name}_projection in ${place}`;
    yield cosines([cosine], write * after, `${name}_cosine in ${place}`, place);
    if (absent(projection)) {
      yield fact(NORMS, !after, where);
      continue;
    }
    const along = absent(cosine) ? 0 : cosine * write;
    const allowed = slack * (abs(projection) * after + abs(along)) + LOST_SQUARES * (1 + abs(projection));
    yield within(NORMS, along, projection * after, along, allowed, where);
    known.push(projection);
  }
  const whole = u + m + after;
  if (known.length < 2 || !(whole > 0)) return;
  const left = abs(1 - known[0] - known[1]);
  const square = after * after / whole;
  yield within(NORMS, 0, left * after, x, slack * (x + a + u + m + after) + LOST_SQUARES * (1 + left), `x along x' in ${place}`);
  const terms = [square, -2 * known[1] * square, m * m / whole];
  const allowed = 2 * slack * (exactSum(terms.map(abs)) + u * u / whole) + LOST_SQUARES * LOST_SQUARES * (1 + abs(known[1])) / whole;
  yield closure(NORMS, u * u / whole, terms, allowed, `after_attention_norm in ${place}`);
}

/** Within [-1, 1]; absent only if one of the rows, whose `lengths` are multiplied, has none */
function cosines(found, lengths, where, place) {
  if (found.some(absent)) return fact(NORMS, !lengths, where);
  return within(NORMS, 0, max(...found.map(abs)), 1, 2 * roundings(place) * DOUBLE, where);
}

/** |g output| = g |output|, and |m| is the sum of the writes along m */
function* experts(m, values, place) {
  const { gates, expert_output_norms: outputs, expert_write_norms: writes, expert_write_cosines: found } = values;
  const slack = roundings(place) * SINGLE;
  yield fact(NORMS, min(...writes) >= 0 && min(...outputs) >= 0, `expert norms below 0 in ${place}`);
  const gated = writes.map((write, k) => [gates[k], outputs[k], write]);
  const { shared_gate: own, shared_output_norm: output, shared_write_norm: shared, shared_write_cosine: cosine } = values;
  if (![own, output, shared].some(absent)) gated.push([own, output, shared]);
  const beyond = gated.map(([gate, whole, write]) => {
    const scaled = abs(gate) * whole;
    return abs(write - scaled) - slack * (write + scaled) - LOST_SQUARES * (1 + abs(gate));
  });
  yield within(NORMS, 0, max(0, ...beyond), 0, 0, `expert_write_norms in ${place}`);
  yield cosines(absent(found) ? [found] : found, m * min(...writes), `expert_write_cosines in ${place}`, place);
  const norms = [m, ...writes];
  const terms = absent(found) ? [] : writes.map((write, k) => found[k] * write);
  if (!absent(shared)) {
    yield cosines([cosine], m * shared, `shared_write_cosine in ${place}`, place);
    norms.push(shared);
    terms.push(absent(cosine) ? 0 : cosine * shared);
  }
  if (absent(found)) return;
  const allowed = (slack + norms.length * SINGLE) * exactSum(norms) + LOST_SQUARES * norms.length;
  yield closure(NORMS, m, terms, allowed, `mlp_write_norm of its parts in ${place}`);
}

/** r ≥ sqrt(mean(x_L^2)): `after` is the norm of x_L */
export function ofScale(after, scale, place) {
  const least = after / sqrt(place.run.shape.hidden);
  return within(NORMS, least, scale, Infinity, roundings(place) * SINGLE * least + LOST_SQUARES, `final_scale in ${place}`);
}
