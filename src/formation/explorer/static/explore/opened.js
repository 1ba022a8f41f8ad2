// The ledger opened for looking: where each position's lines are, one row of numbers for each, and the lines of a few. Those are read strictly, as
// the verifier reads them; what is broken ends the reading, and what came before it is shown.
//
// For the views:
//   positions          has an entry for every position from the start. One that is `pending` has not been read: its kind and line are known, its
//                      columns are NaN, its experts chose none, its bytes are "". When entries have come, view.redraw() is called: draw from
//                      ledger.positions[n] again then, and keep no entry, total or text from before.
//   values(), cell()   answer at once for the selected position, for the selection is told only when its lines are here, and for every position of a
//                      small ledger. For another (a pin, a comparison) ask first: `if (!ledger.has(position)) await ledger.want(position)`. Of lines that
//                      are not here every value is {absent: "not read yet"}; nothing throws.
//   reasonOf()         why a metric has no number in a cell: of every position that was read, whether its lines are here or not.

import { LINE, decode } from "../verify/canonical.js";
import { bytesOfBlob } from "../verify/container.js";
import { absent, fieldsOf } from "../verify/fields.js";
import { checkLine, readRun, valuesOf } from "../verify/lines.js";
import { leafHash } from "../verify/merkle.js";
import { CanonicalRefusal, ContainerRefusal, LineRefusal } from "../verify/refusals.js";
import { isAbsent as isAbsence, split, unread } from "./overview.js";
import { Unreachable } from "./stored.js";

export const isAbsent = isAbsence;
const SMALL_BYTES = 1 << 21; // of a ledger that is held whole
const MOST_BYTES = 1 << 25; // of lines that are held
const MOST_DECODED = 512; // lines
const SLICE_MS = 8; // of decoding
const KNOWN = [CanonicalRefusal, LineRefusal, ContainerRefusal, Unreachable];

export class Ledger {
  /** `begins`: [first byte, number of first line] of each position, and at last how many bytes and lines there are */
  constructor(name, file, begins, brokenTold) {
    const starts = begins.slice(0, -1);
    const [, lines] = begins.at(-1) ?? [0, 0];
    Object.assign(this, { name, file, starts, lines, brokenTold, run: null, broken: "", positions: [], held: new Map(), heldBytes: 0, decoded: new Map() });
  }

  get layers() {
    return this.run?.shape.layers ?? 0;
  }

  get steps() {
    return this.positions.filter(({ kind }) => kind !== "prompt");
  }

  /** What readOverview needs of the first line */
  get frame() {
    const { layers, dense_layers: dense, experts } = this.run.shape;
    return { runId: this.run.runId, layers, dense, experts };
  }

  // ---- lines

  /** Number of the line in the file, from 0 */
  lineNumber(position, slot) {
    const after = { run: -1, embed: 0, lm_head: this.layers + 1, sampler: this.layers + 2, token: this.layers + 3 };
    if (slot === "run") return 0;
    return this.starts[position][1] + (slot.startsWith("layer ") ? 1 + Number(slot.slice(6)) : after[slot]);
  }

  /** undefined of a line that is not here */
  bytesOf(line) {
    if (!line) return this.held.get(-1)?.[0];
    const position = this.starts.findLastIndex(([, first]) => first <= line);
    return this.held.get(position)?.[line - this.starts[position][1]];
  }

  leaf(line) {
    return leafHash(this.bytesOf(line));
  }

  has(position) {
    return this.held.has(position);
  }

  /** Reads the lines of a position, if they are not here; those that were wanted longest ago make room. What is in the way is told, not thrown. */
  async want(position) {
    if (this.has(position) || !(position in this.positions)) return;
    try {
      this.hold(position, await bytesOfBlob(this.file.slice(this.starts[position][0], this.starts[position + 1]?.[0] ?? this.file.size)));
    } catch (fault) {
      this.breaks(fault);
    }
  }

  hold(position, bytes) {
    const lines = split(bytes) ?? [];
    this.held.set(position, lines);
    this.heldBytes += bytes.length;
    for (const [other, dropped] of this.held) {
      if (this.heldBytes <= MOST_BYTES) break;
      if (other === -1 || other === position) continue;
      this.heldBytes -= dropped.reduce((total, line) => total + line.length + 1, 0);
      this.held.delete(other);
    }
  }

  // ---- values

  /** All values of one line by name, from its bytes; a few lines are held decoded */
  values(position, slot) {
    const line = this.lineNumber(position, slot);
    if (!this.decoded.has(line)) {
      const bytes = this.bytesOf(line);
      if (!bytes) return this.nothing(position, slot, "not read yet");
      if (this.decoded.size >= MOST_DECODED) this.decoded.delete(this.decoded.keys().next().value); // the one that was decoded first
      this.decoded.set(line, this.decode(bytes, line, position, slot));
    }
    return this.decoded.get(line);
  }

  cell(position, layer) {
    return this.values(position, `layer ${layer}`);
  }

  /** Decodes the lines of all layers beforehand, a few at a time; `pause` lets the page hear its reader */
  async decodeAll(position, pause) {
    let begin = performance.now();
    for (let layer = 0; layer < this.layers && this.has(position); layer++) {
      this.cell(position, layer);
      if (performance.now() - begin < SLICE_MS) continue;
      await pause();
      begin = performance.now();
    }
  }

  decode(bytes, line, position, slot) {
    try {
      const value = decode(bytes, LINE);
      if (slot === "run") return value.measured;
      const place = checkLine(value, this.run);
      if (place.position === position && place.slot === slot) return valuesOf(value, place);
      throw new LineRefusal(`expected ${slot} at position ${position}, got ${place}`);
    } catch (fault) {
      this.breaks(fault, `line ${line + 1}: `);
      return this.nothing(position, slot, "the line is broken");
    }
  }

  nothing(position, slot, reason) {
    const level = this.run.level(this.positions[position]?.kind);
    return Object.fromEntries(fieldsOf(slot.startsWith("layer ") ? "layer" : slot, level).map(({ name }) => [name, absent(reason)]));
  }

  /** Why the column `name` (metrics.js) has no number there, empty if it has one */
  reasonOf(position, name, layer) {
    const { pending, columns, reasons } = this.positions[position];
    if (pending) return "not read yet";
    return Number.isNaN(columns[name][layer]) ? reasons[name][layer] : "";
  }

  // ---- reading

  /** All positions, once; `tell` hears the share that is read, whenever some more have come */
  async readAll(background, tell) {
    if (!this.positions.length) return;
    const take = ({ from, found }) => {
      for (const [n, each] of found.entries()) this.positions[from + n] = each;
      tell((from + found.length) / this.positions.length);
    };
    try {
      const { broken, count } = await background.run("overview", { name: this.name, begins: this.starts, run: this.frame }, take);
      this.positions.length = count; // what lies behind is none: who hears of it now must not look there any more
      tell(1);
      if (broken) this.breaks(new LineRefusal(broken));
    } catch (fault) {
      this.breaks(fault);
    }
  }

  breaks(fault, where = "") {
    if (!KNOWN.some((kind) => fault instanceof kind)) throw fault;
    if (this.broken) return;
    this.broken = `${where}${fault.message}`;
    this.brokenTold(this.broken);
  }
}

/** With its first line read, and all of a small one; positions as far as they are known before they are read */
export async function openLedger(name, file, begins, brokenTold) {
  const ledger = new Ledger(name, file, begins, brokenTold);
  try {
    const bytes = await bytesOfBlob(file.slice(0, Math.min(ledger.starts[0]?.[0] ?? Infinity, LINE.sizeBytes + 1)));
    ledger.hold(-1, bytes);
    ledger.run = readRun(decode(ledger.bytesOf(0) ?? bytes, LINE));
    ledger.positions = ledger.starts.map(([, line], position) => {
      const count = (begins[position + 1]?.[1] ?? 0) - line;
      return unread(count > ledger.layers + 1 ? "generated" : "prompt", position, line, ledger.frame);
    });
  } catch (fault) {
    ledger.breaks(fault, fault instanceof ContainerRefusal ? "" : "line 1: ");
  }
  if (file.size <= SMALL_BYTES) await Promise.all(ledger.positions.map((_, position) => ledger.want(position)));
  return ledger;
}
