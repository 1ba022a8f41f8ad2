// What an event's body and a scored token must be: the twin of event_table.py's checks, from the same table. What passed has numbers where numbers are
// shown, and text where text is.

import { fromBase64 } from "../verify/bytes.js";
import { LARGEST, has, isObject } from "../verify/canonical.js";
import { quoted } from "../verify/quoted.js";
import { LineRefusal } from "../verify/refusals.js";
import { EVENTS, RECORDS, TYPE_PHRASES, VIEWS, ZERO_KINDS } from "./eventtable.js";

const ZERO = new RegExp(`^(?:${ZERO_KINDS.join("|")})(?:\\(.{1,300}\\))?$`, "su");

const isNumber = (value) => typeof value === "number" && Math.abs(value) <= LARGEST;
const TYPES = {
  f64: isNumber,
  int: (value) => Number.isSafeInteger(value) && value >= 0,
  bool: (value) => typeof value === "boolean",
  text: (value) => typeof value === "string",
  sha256: (value) => typeof value === "string" && /^[0-9a-f]{64}$/.test(value),
  bytes: (value) => typeof value === "string" && fromBase64(value) !== null,
};

/** A value that is absent with its reason */
export const isAbsent = (value) => isObject(value) && has(value, "absent");

function refuse(where, expected, value) {
  throw new LineRefusal(`${where}: expected ${expected}, got ${quoted(value)}`);
}

/** Throws LineRefusal unless `body` is one of this kind of event. */
export const checkBody = (kind, body) => checkFields(body, EVENTS[kind], kind);

function checkFields(value, fields, where) {
  const isWhole = isObject(value) && Object.keys(value).length === fields.length && fields.every(({ name }) => has(value, name));
  if (!isWhole) refuse(where, `the fields ${fields.map(({ name }) => name).sort().join(", ")}`, isObject(value) ? Object.keys(value).sort() : value);
  for (const { name, type, absent } of fields) {
    const given = value[name];
    if (!isAbsent(given)) check(given, type, where, name);
    else if (Object.keys(given).length > 1 || !absent.includes(given.absent)) refuse(`${where}.${name}`, `it absent for ${absent.join(" or ") || "no reason"}`, given);
  }
}

const pathOf = (where, name) => (typeof name === "number" ? `${where}[${name}]` : `${where}.${name}`);

/** A place's own name is joined to it only where a value has parts or is refused: most are neither, and there are many */
function check(value, type, where, name) {
  if (has(TYPES, type)) return TYPES[type](value) || refuse(pathOf(where, name), TYPE_PHRASES[type], value);
  if (type.startsWith("list ")) return checkList(value, type.slice(5), pathOf(where, name));
  if (type === "sampler") return checkFields(value, RECORDS[value?.method === "greedy" ? "sampler greedy" : "sampler sample"], pathOf(where, name));
  if (type === "view" && typeof value === "string") return checkSameView(value, name, pathOf(where, name));
  return has(RECORDS, type) ? checkFields(value, RECORDS[type], pathOf(where, name)) : checkWord(value, type, pathOf(where, name));
}

function checkList(value, type, where) {
  if (!Array.isArray(value)) refuse(where, "an array", value);
  for (let place = 0; place < value.length; place++) check(value[place], type, where, place);
}

function checkSameView(value, name, where) {
  const at = VIEWS.indexOf(value);
  if (at < 0 || at >= VIEWS.indexOf(name)) refuse(where, "a view or the name of one before it", value);
}

function checkWord(value, type, where) {
  if (typeof value !== "string") refuse(where, "text", value);
  if (type === "zero") return ZERO.test(value) || refuse(where, `one of ${ZERO_KINDS.join(", ")}`, value);
  return type === value || type.split(" | ").includes(value) || refuse(where, type.replaceAll(" | ", ", "), value);
}

// ---- scored tokens

const SCORED = {
  side: "text", message: "int", index: "int", position: "int", id: "int", bytes: "bytes", ends_turn: "bool", logprob_nats: "f64",
  surprisal_bits: "f64", rank_low: "int", rank_high: "int", entropy_nats: "f64", varentropy: "f64", event_probability: "f64",
};

/** Throws LineRefusal unless `row` has what tokens.jsonl says of a token; what it says besides is left alone. */
export function checkScored(row) {
  if (!isObject(row)) refuse("token", "an object", row);
  for (const [name, type] of Object.entries(SCORED)) if (!TYPES[type](row[name])) refuse(`token.${name}`, TYPE_PHRASES[type], row[name]);
}
