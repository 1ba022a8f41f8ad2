// Two ledgers: what their anchors share, and the first line in which they differ. The twin of evidence/comparison.py: lines are compared at equal
// positions and slots, in the fields that both hold.

import { fieldOf } from "./provenance.js";
import { isAbsent } from "./opened.js";
import { slotsOf } from "./overview.js";
import { NOT_A_STEP } from "../verify/fields.js";
import { isObject } from "../verify/canonical.js";

const RUN_ID = 64; // characters
const HEAD = "lm_head";

/** { shared: [names], unequal: [{ field, a, b }] } of two anchors' documents */
export function anchorsApart(a, b) {
  const [ours, theirs] = [a, b].map((document) => new Map(leaves(document, "")));
  const names = [...new Set([...ours.keys(), ...theirs.keys()])];
  const same = (name) => JSON.stringify(ours.get(name)) === JSON.stringify(theirs.get(name));
  return { shared: names.filter(same), unequal: names.filter((name) => !same(name)).map((field) => ({ field, a: ours.get(field), b: theirs.get(field) })) };
}

function* leaves(value, prefix) {
  for (const [name, inner] of Object.entries(value)) {
    if (isObject(inner)) yield* leaves(inner, `${prefix}${name}.`);
    else yield [prefix + name, inner];
  }
}

/** { position, slot, unequal: [{ field, a, b }], compared } of the first line that differs, null if none does, and how many positions were compared;
 * `pause` is waited for between two positions */
export async function firstApart(a, b, pause) {
  const positions = Math.min(a.positions.length, b.positions.length);
  for (let position = 0; position < positions; position++) {
    for (const ledger of [a, b]) if (!ledger.has(position)) await ledger.want(position);
    if (![a, b].every((ledger) => ledger.has(position))) return { first: null, positions: position }; // what cannot be read is not compared
    const found = [...differences(a, b, position)][0];
    if (found) return { first: found, positions };
    await pause(position);
  }
  return { first: null, positions };
}

/** Lines that differ, those first in which something measured does: attribution and lens are of the chosen token, and differ with it */
function differences(a, b, position) {
  const found = causal(a, b, position).map((slot) => difference(a, b, position, slot)).filter(Boolean);
  const isMeasured = ({ slot, unequal }) => unequal.some(({ field }) => fieldOf({ slot, name: field.split(/\[|,/)[0] }).tag === "measured");
  return [...found.filter(isMeasured), ...found.filter((each) => !isMeasured(each))];
}

/** Slots of both in the order in which one leads to the next: where all logits are equal, the rest of lm_head follows from the choice */
function causal(a, b, position) {
  const slots = slotsAt(a, position).filter((slot) => slotsAt(b, position).includes(slot));
  const same = slots.includes(HEAD) && a.values(position, HEAD).logits_sha256 === b.values(position, HEAD).logits_sha256;
  return same ? [...slots.filter((slot) => slot !== HEAD), HEAD] : slots;
}

const slotsAt = ({ layers, positions }, position) => slotsOf(positions[position].kind, layers);

function difference(a, b, position, slot) {
  if (sameBytes(a, b, position, slot)) return null;
  const [ours, theirs] = [a, b].map((ledger) => ledger.values(position, slot));
  const both = Object.keys(ours).filter((name) => comparable(ours, theirs, name));
  const unequal = both.filter((name) => JSON.stringify(ours[name]) !== JSON.stringify(theirs[name])).map((name) => unequalField(name, ours[name], theirs[name]));
  return unequal.length ? { position, slot, unequal, compared: both.length } : null;
}

/** But for the run's id, which stands before the slot at the end of a canonical line */
function sameBytes(a, b, position, slot) {
  const [ours, theirs] = [a, b].map((ledger) => ledger.bytesOf(ledger.lineNumber(position, slot)));
  if (ours.length !== theirs.length) return false;
  const end = ours.length - `","slot":"${slot}"}`.length;
  const equal = (from, to) => {
    for (let n = from; n < to; n++) if (ours[n] !== theirs[n]) return false;
    return true;
  };
  return equal(0, end - RUN_ID) && equal(end, ours.length);
}

/** Both hold it, and both or neither as a step does */
const comparable = (ours, theirs, name) => name in theirs && ![ours[name], theirs[name]].some((value) => isAbsent(value) && value.absent === NOT_A_STEP);

/** Of an array the first element that differs */
function unequalField(name, a, b) {
  if (!Array.isArray(a) || !Array.isArray(b)) return { field: name, a, b };
  const n = a.findIndex((value, i) => i < b.length && JSON.stringify(value) !== JSON.stringify(b[i]));
  return n < 0 ? { field: `${name}, length`, a: a.length, b: b.length } : { field: `${name}[${n}]`, a: a[n], b: b[n] };
}
