// All lines of the ledger, quickly: what the overviews need of each position. Lines are not held against the field table here: the verifier does
// that, and so does whoever shows a line. What is no line of its place ends the reading.

import { fromBase64, textOf } from "../verify/bytes.js";
import { LINE, decode, decodeF32, has, isObject } from "../verify/canonical.js";
import { bytesOfBlob } from "../verify/container.js";
import { KINDS } from "../verify/fields.js";
import { STEP_SLOTS } from "../verify/lines.js";
import { quoted } from "../verify/quoted.js";
import { CanonicalRefusal, LineRefusal } from "../verify/refusals.js";
import { METRICS } from "./metrics.js";

const BATCH_BYTES = 1 << 21;
export const isAbsent = (value) => isObject(value) && has(value, "absent");
const isNumber = (value) => typeof value === "number";
const TOKEN_FACTS = {
  lm_head: { surprisal_bits: isNumber, logprob: isNumber, rank_low: isNumber, arrival_layer: (value) => isNumber(value) || isAbsent(value) },
  token: { id: isNumber, bytes: (value) => typeof value === "string" && fromBase64(value) !== null },
};

/** `begins`: [first byte, number of first line] of each position; `run`: { runId, layers, dense, experts }. Tells { from, found }, some summaries at
 * a time, and waits for it; gives a sentence for what is broken, empty if nothing is, and how many positions there are before it. */
export async function readOverview(blob, { begins, run }, tell) {
  for (let from = 0; from < begins.length; ) {
    const after = batchEnd(begins, from);
    const bytes = await bytesOfBlob(blob.slice(begins[from][0], begins[after]?.[0] ?? blob.size));
    const { found, broken } = summaries(bytes, begins, from, after, run);
    await tell({ from, found });
    if (broken) return { broken, count: from + found.length };
    from = after;
  }
  return { broken: "", count: begins.length };
}

/** The first position that is not read with `from` */
function batchEnd(begins, from) {
  let after = from + 1;
  while (after + 1 < begins.length && begins[after + 1][0] - begins[from][0] <= BATCH_BYTES) after++;
  return after;
}

function summaries(bytes, begins, from, after, run) {
  const found = [];
  for (let position = from; position < after; position++) {
    const [begin, end] = [position, position + 1].map((n) => (n < after ? begins[n][0] - begins[from][0] : bytes.length));
    try {
      found.push(summary(groupOf(bytes.subarray(begin, end), position, begins[position][1], run), position, begins[position][1], run));
    } catch (refusal) {
      if (!(refusal instanceof LineRefusal)) throw refusal;
      return { found, broken: refusal.message };
    }
  }
  return { found, broken: "" };
}

/** The lines of bytes, without their LF; null if the last has none */
export function split(bytes) {
  const lines = [];
  let begin = 0;
  for (let end; (end = bytes.indexOf(10, begin)) >= 0; begin = end + 1) lines.push(bytes.subarray(begin, end));
  return begin === bytes.length ? lines : null;
}

export const slotsOf = (kind, layers) => ["embed", ...Array.from({ length: layers }, (_, layer) => `layer ${layer}`), ...(kind === "prompt" ? [] : STEP_SLOTS)];

/** slot -> line of one position: exactly its lines, in their order */
function groupOf(bytes, position, firstLine, { runId, layers }) {
  const lines = split(bytes);
  const refuse = (n, sentence) => {
    throw new LineRefusal(`line ${firstLine + n + 1}: ${sentence}`);
  };
  const values = (lines ?? []).map((line, n) => read(line, (sentence) => refuse(n, sentence)));
  const slots = slotsOf(values[0]?.kind, layers);
  for (const [n, slot] of slots.entries()) {
    const line = values[n];
    if (!line) refuse(n, `expected ${slot} at position ${position}, got the end of the ledger`);
    const isHere = line.run_id === runId && line.position === position && line.slot === slot && line.kind === values[0].kind && KINDS.includes(line.kind);
    if (!isHere) refuse(n, `expected ${slot} at position ${position}, got ${quoted(line.slot)} at position ${quoted(line.position)}`);
  }
  if (lines?.length !== slots.length) refuse(slots.length, `expected the end of position ${position}, got more`);
  return new Map(slots.map((slot, n) => [slot, values[n]]));
}

function read(bytes, refuse) {
  try {
    const value = JSON.parse(textOf(bytes));
    return isObject(value) ? value : refuse("expected an object, got another value");
  } catch (fault) {
    if (fault instanceof LineRefusal) throw fault;
    return refuse(whyNot(bytes));
  }
}

/** In the words of the strict reader, which accepts less */
function whyNot(bytes) {
  try {
    decode(bytes, LINE);
    return "expected JSON, got other text";
  } catch (refusal) {
    if (!(refusal instanceof CanonicalRefusal)) throw refusal;
    return refusal.message;
  }
}

// ---- one position

const valueOf = (line, name) => (isObject(line.measured) && has(line.measured, name) ? line.measured[name] : isObject(line.derived) && has(line.derived, name) ? line.derived[name] : undefined);

function summary(group, position, line, run) {
  const layers = Array.from({ length: run.layers }, (_, layer) => group.get(`layer ${layer}`));
  const found = { ...unread(group.get("embed").kind, position, line, run), pending: false, columns: {}, reasons: {} };
  for (const { name, field } of METRICS) {
    const values = layers.map((each) => valueOf(each, field));
    found.columns[name] = Float64Array.from(values, (value) => (isNumber(value) ? value : NaN));
    found.reasons[name] = values.every(isNumber) ? null : values.map((value) => (isAbsent(value) ? String(value.absent) : "not captured"));
  }
  found.experts = layers.map((each, layer) => (layer < run.dense ? null : expertsOf(each, run.experts)));
  for (const [slot, facts] of Object.entries(TOKEN_FACTS)) {
    for (const [name, test] of Object.entries(facts)) {
      const value = group.has(slot) ? valueOf(group.get(slot), name) : undefined;
      if (test(value)) found[name] = value;
    }
  }
  return found;
}

/** Chosen experts of a layer with their gates and attribution */
function expertsOf(line, count) {
  const chosen = valueOf(line, "chosen");
  if (!Array.isArray(chosen) || !chosen.every((expert) => Number.isInteger(expert) && 0 <= expert && expert < count)) return NO_EXPERTS;
  const [gates, dla] = ["gates", "dla_experts"].map((name) => vectorOf(valueOf(line, name)));
  if (gates.length !== chosen.length) return NO_EXPERTS;
  return { chosen, gates, dla: dla.length === chosen.length ? dla : chosen.map(() => NaN) };
}

/** Numbers as they are, or in base64 as binary32; empty if it is neither */
function vectorOf(value) {
  if (typeof value !== "string") return Array.isArray(value) && value.every(isNumber) ? value : [];
  try {
    return decodeF32(value);
  } catch (refusal) {
    if (!(refusal instanceof CanonicalRefusal)) throw refusal;
    return [];
  }
}

const NO_EXPERTS = { chosen: [], gates: [], dla: [] };

/** What is known of a position before it is read */
export function unread(kind, position, line, run) {
  const nothing = new Float64Array(run.layers).fill(NaN);
  const found = { position, kind, line, pending: true, columns: Object.fromEntries(METRICS.map(({ name }) => [name, nothing])), reasons: {} };
  found.experts = Array.from({ length: run.layers }, (_, layer) => (layer < run.dense ? null : NO_EXPERTS));
  return kind === "prompt" ? found : { ...found, surprisal_bits: 0, logprob: 0, rank_low: 0, id: -1, bytes: "" };
}
