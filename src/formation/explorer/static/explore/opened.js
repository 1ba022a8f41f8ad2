// The ledger opened for looking: where each line is, and one row of numbers for each position. Lines are read strictly, as the verifier reads
// them; what is broken ends the reading, and what came before it is shown.

import { LINE, decode, has, isObject } from "../verify/canonical.js";
import { bytesOfBlob } from "../verify/container.js";
import { Tally } from "../verify/gaps.js";
import { checkLine, valuesOf } from "../verify/lines.js";
import { leafHash } from "../verify/merkle.js";
import { CanonicalRefusal } from "../verify/refusals.js";
import { RULES, Reader, firstLine, positions } from "../verify/rules.js";
import { METRICS } from "./metrics.js";

const PAUSE_LINES = 64;
const TOKEN_FACTS = { lm_head: ["surprisal_bits", "logprob", "rank_low", "arrival_layer"], token: ["id", "bytes"] };
export const isAbsent = (value) => isObject(value) && has(value, "absent");

export class Ledger {
  constructor(data) {
    Object.assign(this, { data, begins: [], ends: [], run: null, broken: "", positions: [], held: new Map() });
  }

  get layers() {
    return this.run?.shape.layers ?? 0;
  }

  get steps() {
    return this.positions.filter(({ kind }) => kind !== "prompt");
  }

  /** Number of the line in the file, from 0 */
  lineNumber(position, slot) {
    const after = { run: -1, embed: 0, lm_head: this.layers + 1, sampler: this.layers + 2, token: this.layers + 3 };
    if (slot === "run") return 0;
    return this.positions[position].line + (slot.startsWith("layer ") ? 1 + Number(slot.slice(6)) : after[slot]);
  }

  bytesOf(line) {
    return this.data.subarray(this.begins[line], this.ends[line]);
  }

  leaf(line) {
    return leafHash(this.bytesOf(line));
  }

  /** All values of one line by name, read from its bytes again; a few lines are held */
  values(position, slot) {
    const line = this.lineNumber(position, slot);
    if (!this.held.has(line)) {
      if (this.held.size > 512) this.held.clear();
      const value = decode(this.bytesOf(line), LINE);
      this.held.set(line, slot === "run" ? value.measured : valuesOf(value, checkLine(value, this.run)));
    }
    return this.held.get(line);
  }

  cell(position, layer) {
    return this.values(position, `layer ${layer}`);
  }
}

/** Reads all lines; `progress` is told the share that is read, now and then, and waited for. */
export async function openLedger(blob, progress) {
  const ledger = new Ledger(await bytesOfBlob(blob));
  findLines(ledger);
  const next = { kind: undefined };
  const reader = new Reader(reading(ledger, next), (refusal) => (ledger.broken ||= refusal.message));
  let line = lineAt(ledger, 0);
  for (let n = 0; line !== undefined && !ledger.broken; n++) {
    const following = lineAt(ledger, n + 1);
    next.kind = following?.kind;
    reader.push(line);
    line = following;
    if (n % PAUSE_LINES === 0) await progress(n / ledger.begins.length);
  }
  reader.end();
  return ledger;
}

function findLines(ledger) {
  for (let begin = 0, end; (end = ledger.data.indexOf(10, begin)) >= 0; begin = end + 1) {
    ledger.begins.push(begin);
    ledger.ends.push(end);
  }
}

function lineAt(ledger, n) {
  if (n >= ledger.begins.length) return undefined;
  try {
    return decode(ledger.bytesOf(n), LINE);
  } catch (refusal) {
    if (!(refusal instanceof CanonicalRefusal)) throw refusal;
    ledger.broken ||= `line ${n + 1}: ${refusal.message}`;
    return undefined;
  }
}

function* reading(ledger, next) {
  const tally = new Tally(RULES);
  ledger.run = firstLine(yield, tally);
  let line = 1;
  yield* positions(ledger.run, kinds(next), tally, (group) => {
    ledger.positions.push(summary(group, line));
    line += group.length;
  });
}

/** Of the position whose first line comes next */
function* kinds(next) {
  while (next.kind !== undefined) yield next.kind;
}

/** What the overviews need of one position */
function summary(group, line) {
  const { position, kind } = group[0].place;
  const layers = group.filter(({ place }) => place.layer >= 0).map(({ values }) => values);
  const columns = Object.fromEntries(METRICS.map(({ name, field }) => [name, Float64Array.from(layers, (values) => number(values[field]))]));
  const found = { position, kind, line, columns, experts: layers.map(expertsOf) };
  for (const { place, values } of group) {
    for (const name of TOKEN_FACTS[place.slot] ?? []) if (name in values) found[name] = values[name];
  }
  return found;
}

const number = (value) => (typeof value === "number" ? value : NaN);

/** Chosen experts of a layer with their gates and attribution; null of a dense layer */
function expertsOf(values) {
  if (isAbsent(values.chosen)) return null;
  const dla = Array.isArray(values.dla_experts) ? values.dla_experts : values.chosen.map(() => NaN);
  return { chosen: values.chosen, gates: values.gates, dla };
}
