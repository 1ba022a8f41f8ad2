// The field table of ledger/fields.py, which page.py writes into tables.js: it is not written here a second time.

import { DOCUMENT, encode } from "./canonical.js";
import { hex } from "./bytes.js";
import { sha256 } from "./sha256.js";
import { FIELD_TABLE, FIELD_WORDS } from "./tables.js";

export const FIELDS = FIELD_TABLE;
export const { LEVELS, KINDS, TAGS, COMPONENTS } = FIELD_WORDS;
export const { DELTA_LAYER, ATTENTION_LAYER, NO_DELTA, UNGATED, LAYER_KINDS } = FIELD_WORDS;
export const { NOT_A_STEP, DENSE, NO_BIAS, NO_SHARED, NO_RUNNER_UP, ALL_CHOSEN, ZERO_NORM, NEVER, NO_EXPERTS, GREEDY, FORCED } = FIELD_WORDS;

export const absent = (reason) => ({ absent: reason });

/** The fields of a line of `slot` ("layer" for any layer) at capture level `level`, in the table's order */
export function fieldsOf(slot, level) {
  const key = `${slot} ${level}`;
  if (!known.has(key)) {
    const allowed = LEVELS.slice(0, LEVELS.indexOf(level) + 1);
    known.set(key, FIELDS.filter((field) => field.slot === slot && allowed.includes(field.level)));
  }
  return known.get(key);
}

const known = new Map();

/** SHA-256 of the canonical JSON of the table, lowercase hex */
export const digest = () => (found ??= hex(sha256(encode(FIELDS, DOCUMENT))));

let found;
