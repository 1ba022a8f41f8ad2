// One line held against the field table: the twin of ledger/lines.py.

import { fromBase64 } from "./bytes.js";
import { LARGEST, decodeF32, has, isObject } from "./canonical.js";
import { f32 } from "./exact32.js";
import * as fields from "./fields.js";
import { quoted, typeName } from "./quoted.js";
import { CanonicalRefusal, LineRefusal } from "./refusals.js";

const KEYS = ["run_id", "position", "slot", "kind", "measured", "derived"];
export const STEP_SLOTS = ["lm_head", "sampler", "token"];
const RUNNERS_UP = 8;
const METHODS = { generated: ["greedy", "sample"], scored: ["forced", "greedy", "sample"], forced: ["forced"] }; // of each kind of step
const FREE = [fields.NO_SHARED, fields.NO_RUNNER_UP, fields.ZERO_NORM, fields.NEVER]; // reasons that no shape decides

/** What the first line says. `biases` holds one vector for each layer with experts, by layer; `kinds` says of each layer what mixes positions in
 * it, `delta` the sizes of delta layers if there are any. */
export class Run {
  constructor(runId, promptLevel, stepLevel, shape, router, biases = new Map(), kinds = [], delta = null) {
    Object.assign(this, { runId, promptLevel, stepLevel, shape, router, biases, kinds, delta });
  }

  /** How many experts a line lists behind the chosen ones: of those in kept groups that are not chosen, at most eight */
  get runnersUp() {
    const { router, shape } = this;
    return router ? Math.min(RUNNERS_UP, Math.floor(shape.experts / router.groups) * router.kept_groups - shape.chosen) : 0;
  }

  level(kind) {
    return kind === "prompt" ? this.promptLevel : this.stepLevel;
  }
}

/** Where a value stands. `layer` is -1 outside the layers, `method` is empty outside the sampler. */
export class Place {
  constructor(run, position, kind, slot, layer = -1, method = "") {
    Object.assign(this, { run, position, kind, slot, layer, method });
  }

  toString() {
    return `${this.slot} at position ${this.position}`;
  }
}

/** The number in "layer 12", -1 of any other slot */
export function layerOf(slot) {
  const found = /^layer (0|[1-9][0-9]{0,8})$/.exec(slot);
  return found ? Number(found[1]) : -1;
}

function sameNames(table, names) {
  return isObject(table) && Object.keys(table).length === names.length && names.every((name) => has(table, name));
}

const refuse = (sentence) => {
  throw new LineRefusal(sentence);
};

// ---- the first line

export function readRun(line) {
  const checked = envelope(line);
  if (checked.slot !== "run" || checked.position !== -1 || checked.kind !== "run") {
    refuse(`expected the run line first, got slot ${quoted(checked.slot)}`);
  }
  if (!isSha256(checked.run_id)) refuse(`expected a run_id of 64 hexadecimal digits, got ${quoted(checked.run_id)}`);
  checkTable(checked.measured.fields_sha256);
  const nothing = { layers: 0, dense_layers: 0, hidden: 0, heads: 0, experts: 0, chosen: 0, vocabulary: 0 };
  const draft = new Run(checked.run_id, "minimal", "minimal", nothing, null);
  checkNames(checked, "run", "full", new Place(draft, -1, "run", "run"));
  const values = checked.measured;
  const run = assemble(values, draft);
  const place = new Place(run, -1, "run", "run");
  const reasons = reasonsAt(place);
  for (const field of fields.fieldsOf("run", "full")) checkValue(field, values[field.name], place, reasons);
  return withBiases(run, values.router_biases);
}

/** The fields that the others are checked by, first */
function assemble(values, draft) {
  const place = new Place(draft, -1, "run", "run");
  const byName = Object.fromEntries(fields.fieldsOf("run", "full").map((field) => [field.name, field]));
  for (const name of ["capture", "shape"]) checkTyped(byName[name], values[name], place);
  const levels = [values.capture.prompt, values.capture.steps];
  if (!levels.every((level) => fields.LEVELS.includes(level))) {
    refuse(`expected capture levels of ${fields.LEVELS.join(", ")}, got ${quoted(levels)}`);
  }
  if (values.shape.experts) checkTyped(byName.router, values.router, place);
  const router = values.shape.experts ? values.router : null;
  checkShape(values.shape, router);
  const { kinds, delta } = readKinds(values, byName, new Place(new Run(draft.runId, ...levels, values.shape, router), -1, "run", "run"));
  return new Run(draft.runId, ...levels, values.shape, router, new Map(), kinds, delta);
}

/** First of all: every other field is read by the table */
function checkTable(claimed) {
  if (claimed !== fields.digest()) refuse(`expected the field table ${fields.digest()}, got ${quoted(claimed)}`);
}

/** Of each layer its kind, and the sizes of delta layers if there are any */
function readKinds(values, byName, place) {
  checkTyped(byName.layer_kinds, values.layer_kinds, place);
  const kinds = values.layer_kinds;
  const strange = kinds.find((kind) => !fields.LAYER_KINDS.includes(kind));
  if (strange !== undefined) refuse(`expected layer_kinds of ${fields.LAYER_KINDS.join(", ")}, got ${quoted(strange)}`);
  if (!kinds.includes("delta")) return { kinds, delta: null };
  checkTyped(byName.delta, values.delta, place);
  const { key_heads: keyHeads, heads, key, value, taps } = values.delta;
  if (Math.min(keyHeads, heads, key, value, taps) < 1 || heads % keyHeads) {
    refuse(`expected sizes that a delta layer can have, got ${quoted(values.delta)}`);
  }
  return { kinds, delta: values.delta };
}

function checkShape(shape, router) {
  const { layers, dense_layers, hidden, heads, experts, chosen, vocabulary } = shape;
  let good = layers >= 1 && dense_layers <= layers && hidden >= 1 && heads >= 1 && vocabulary >= 2;
  good &&= experts > 0 === dense_layers < layers;
  if (!router) good &&= chosen === 0;
  else {
    good &&= router.groups >= 1 && experts % router.groups === 0 && 1 <= router.kept_groups && router.kept_groups <= router.groups;
    good &&= 1 <= chosen && chosen <= Math.floor(experts / router.groups) * router.kept_groups;
  }
  if (!good) refuse(`expected a shape that a model can have, got ${quoted(shape)} and ${quoted(router)}`);
}

function withBiases(run, stored) {
  if (!run.router?.biased) return run;
  const first = run.shape.dense_layers;
  if (!stored.every((row, n) => row.layer === first + n)) {
    refuse(`expected router biases of layers ${first} to ${run.shape.layers - 1} in order, got ${quoted(stored.map((row) => row.layer))}`);
  }
  const biases = new Map(stored.map((row) => [row.layer, decodeF32(row.biases)]));
  return new Run(run.runId, run.promptLevel, run.stepLevel, run.shape, run.router, biases, run.kinds, run.delta);
}

// ---- the other lines

/** That `line` has exactly the fields of its slot, kind and capture level, each of its type, or absent for a reason that holds there. */
export function checkLine(line, run) {
  const checked = envelope(line);
  let place = placeOf(checked, run);
  const level = run.level(place.kind);
  const slot = place.layer >= 0 ? "layer" : place.slot;
  checkNames(checked, slot, level, place);
  if (slot === "sampler") place = samplerPlace(checked, place);
  const reasons = reasonsAt(place);
  for (const field of fields.fieldsOf(slot, level)) checkValue(field, checked[field.tag][field.name], place, reasons);
  return place;
}

function envelope(line) {
  if (!sameNames(line, KEYS)) {
    refuse(`expected a line of ${[...KEYS].sort().join(", ")}, got ${quoted(isObject(line) ? Object.keys(line).sort() : typeName(line))}`);
  }
  for (const tag of fields.TAGS) if (!isObject(line[tag])) refuse(`expected an object ${tag}, got ${typeName(line[tag])}`);
  return line;
}

function placeOf({ run_id, position, slot, kind }, run) {
  if (run_id !== run.runId) refuse(`expected run_id ${run.runId}, got ${quoted(run_id)}`);
  if (!Number.isInteger(position) || position < 0) refuse(`expected a position from 0, got ${quoted(position)}`);
  if (!fields.KINDS.includes(kind)) {
    refuse(`expected a kind of ${fields.KINDS.join(", ")} at position ${position}, got ${quoted(kind)}`);
  }
  const layer = typeof slot === "string" ? layerOf(slot) : -1;
  const allowed = slot === "embed" || (0 <= layer && layer < run.shape.layers) || (STEP_SLOTS.includes(slot) && kind !== "prompt");
  if (!allowed) refuse(`expected a slot of a ${kind} position, got ${quoted(slot)} at position ${position}`);
  return new Place(run, position, kind, slot, layer);
}

function checkNames(line, slot, level, place) {
  for (const tag of fields.TAGS) {
    const expected = fields.fieldsOf(slot, level).filter((field) => field.tag === tag).map((field) => field.name);
    if (sameNames(line[tag], expected)) continue;
    for (const name of expected.sort()) if (!has(line[tag], name)) refuse(`expected ${tag} field ${name} in ${place}, got none`);
    const other = Object.keys(line[tag]).sort().find((name) => !expected.includes(name));
    refuse(`expected the ${tag} fields of level ${level} in ${place}, got ${quoted(other)} too`);
  }
}

function samplerPlace(line, place) {
  const { method } = line.measured;
  if (!METHODS[place.kind].includes(method)) {
    refuse(`expected method ${METHODS[place.kind].join(" or ")} in ${place}, got ${quoted(method)}`);
  }
  return new Place(place.run, place.position, place.kind, place.slot, place.layer, method);
}

// ---- values

/** A value of the field's type, or an absence for the first reason of the field that holds at `place` */
function checkValue(field, value, place, reasons) {
  const due = field.absent.find((reason) => reasons.has(reason)) ?? "";
  if (isObject(value) && has(value, "absent")) {
    const allowed = due ? [due] : field.absent.filter((reason) => FREE.includes(reason));
    if (Object.keys(value).length !== 1 || !allowed.includes(value.absent)) {
      const wanted = allowed.length ? `${field.name} absent (${allowed.join(" or ")})` : `a value of ${field.name}`;
      refuse(`expected ${wanted} in ${place}, got ${quoted(value)}`);
    }
    return;
  }
  if (due) refuse(`expected ${field.name} absent (${due}) in ${place}, got a value`);
  checkTyped(field, value, place);
}

/** The reasons that hold here and make the fields that know them absent, decided by shape, router, kind and method */
function reasonsAt(place) {
  const { shape, router, runnersUp, kinds, delta } = place.run;
  const kind = place.layer >= 0 ? kinds[place.layer] : "";
  const holds = [
    [fields.DELTA_LAYER, kind === "delta"],
    [fields.ATTENTION_LAYER, kind === "attention"],
    [fields.NO_DELTA, !delta],
    [fields.UNGATED, !router?.shared_gated],
    [fields.DENSE, 0 <= place.layer && place.layer < shape.dense_layers],
    [fields.NOT_A_STEP, place.kind === "prompt"],
    [fields.NO_EXPERTS, !router],
    [fields.NO_BIAS, !router?.biased],
    [fields.ALL_CHOSEN, runnersUp === 0],
    [fields.GREEDY, place.method === "greedy"],
    [fields.FORCED, place.method === "forced"],
  ];
  return new Set(holds.filter(([, here]) => here).map(([reason]) => reason));
}

function checkTyped(field, value, place) {
  const problem = problemOf(field, value, place);
  if (problem) refuse(`expected ${field.name} in ${place} to be ${problem}, got ${quoted(value)}`);
}

/** What `value` should have been, empty if it is */
function problemOf(field, value, place) {
  const kind = field.dtype.replace("[]", "");
  if (field.dtype === "f32[]") return f32ArrayProblem(value, lengthOf(field.length, place));
  if (!field.dtype.endsWith("[]")) return itemProblem(field, kind, value, place);
  const length = lengthOf(field.length, place);
  if (!Array.isArray(value) || value.length !== length) return `an array of ${length}`;
  for (const item of value) {
    const problem = itemProblem(field, kind, item, place);
    if (problem) return problem;
  }
  return "";
}

function itemProblem(field, kind, value, place) {
  if (kind === "record") return recordProblem(field, value, place);
  if (!TYPES[kind](value)) return PHRASES[kind];
  const { experts, vocabulary, layers, hidden } = place.run.shape;
  const bound = kind === "int" ? { expert: experts, token: vocabulary, layer: layers, dimension: hidden }[field.unit] : undefined;
  return bound !== undefined && value >= bound ? `below ${bound}` : "";
}

function recordProblem(field, value, place) {
  const names = field.keys.map(([name]) => name);
  if (!sameNames(value, names)) return `an object of ${names.join(", ")}`;
  for (const [name, dtype] of field.keys) {
    const isVector = dtype.endsWith("]");
    const problem = isVector ? f32ArrayProblem(value[name], lengthOf(dtype.slice(4, -1), place)) : TYPES[dtype](value[name]) ? "" : PHRASES[dtype];
    if (problem) return `an object whose ${name} is ${problem}`;
  }
  const head = has(value, "head") ? value.head : -1;
  const position = has(value, "position") ? value.position : -1;
  const outside = head >= place.run.shape.heads || (place.position >= 0 && position > place.position);
  return outside ? "of a head of the model and a position not after its own" : "";
}

function f32ArrayProblem(value, length) {
  const expected = `base64 of ${length} finite binary32 values`;
  if (typeof value !== "string") return expected;
  try {
    return decodeF32(value).length === length ? "" : expected;
  } catch (refusal) {
    if (!(refusal instanceof CanonicalRefusal)) throw refusal;
    return expected;
  }
}

function lengthOf(length, place) {
  const { shape, runnersUp, delta } = place.run;
  if (/^[0-9]+$/.test(length)) return Number(length);
  if (length[0] === "T") return Math.min(Number(length.slice(1)), shape.vocabulary);
  const keys = place.position + 1;
  if (length === "S3H") return shape.heads * Math.min(3, keys);
  if (length[0] === "S") return Math.min(Number(length.slice(1)), shape.heads * keys);
  const { layers, heads, experts, chosen, dense_layers: dense } = shape;
  return { K: chosen, R: runnersUp, H: heads, G: delta?.heads ?? 0, E: experts, L: layers, M: layers - dense }[length];
}

const isNumber = (value) => typeof value === "number" && -LARGEST <= value && value <= LARGEST;
const isSha256 = (value) => typeof value === "string" && /^[0-9a-f]{64}$/.test(value);

const TYPES = {
  f32: (v) => isNumber(v) && f32(v) === v,
  f64: isNumber,
  int: (v) => Number.isInteger(v) && 0 <= v && v <= LARGEST,
  bool: (v) => typeof v === "boolean",
  text: (v) => typeof v === "string",
  sha256: isSha256,
  bytes: (v) => typeof v === "string" && fromBase64(v) !== null,
};
const PHRASES = {
  f32: "a finite binary32 number", f64: "a finite number", int: "an integer from 0", bool: "true or false", text: "text",
  sha256: "64 hexadecimal digits", bytes: "base64",
};

// ---- reading

/** All values of a checked line, by name: vectors as arrays of numbers, everything else as it is stored */
export function valuesOf(line, place) {
  const present = fields.fieldsOf(place.layer >= 0 ? "layer" : place.slot, place.run.level(place.kind));
  const values = Object.create(null);
  for (const field of present) {
    const stored = line[field.tag][field.name];
    values[field.name] = field.dtype === "f32[]" && typeof stored === "string" ? decodeF32(stored) : stored;
  }
  return values;
}
