// rows/ and router/ held against the ledger, position by position: the twin of ledger/blocks.py and evidence/sidecar_pass.py.

import { equal, hex } from "./bytes.js";
import { DOCUMENT, encode } from "./canonical.js";
import { Stream } from "./container.js";
import { fact } from "./gaps.js";
import { CanonicalRefusal, ContainerRefusal } from "./refusals.js";
import { ALL_EXPERTS, ofAllExperts } from "./routing.js";
import { ADDITION, added, addition } from "./rules.js";
import { sha256 } from "./sha256.js";

export const ROWS = "rows";
export const POSITIONS = 64; // of a file
const ALIGNMENT = 4096;
const LARGEST_SIDE = 1 << 20; // so that no offset is beyond 2^53
const LARGEST_POSITION = 1 << 30; // bytes, held in memory
const WRITES = ["attention_write", "mlp_write"];
const refuse = (sentence) => {
  throw new ContainerRefusal(sentence);
};

// ---- the one form of a file

/** `tensors`: [name, rows, width] of what each position has, in the order of its bytes. */
class Layout {
  constructor(folder, tensors) {
    if (!tensors.every(([, rows, width]) => 0 < rows && rows < LARGEST_SIDE && 0 < width && width < LARGEST_SIDE)) {
      const [first, ...more] = tensors.map(([name, rows, width]) => `('${name}', ${rows}, ${width})`);
      const found = more.length ? [first, ...more].join(", ") : `${first},`;
      refuse(`${folder}/: expected 1 to 3 tensors with sides from 1 to ${LARGEST_SIDE - 1}, got (${found})`);
    }
    this.tensors = tensors;
    this.positionBytes = tensors.reduce((total, [, rows, width]) => total + rows * width * 4, 0);
    this.starts = new Map();
  }

  /** Bytes before the data: room for the header of a full file, whatever the file holds */
  start(first) {
    if (!this.starts.has(first)) this.starts.set(first, Math.ceil((8 + this.table(first, POSITIONS).length) / ALIGNMENT) * ALIGNMENT);
    return this.starts.get(first);
  }

  header(first, count) {
    const header = new Uint8Array(this.start(first)).fill(32);
    new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
    header.set(this.table(first, count), 8);
    return header;
  }

  table(first, count) {
    const entries = {};
    let begin = 0;
    for (let position = first; position < first + count; position++) {
      for (const [name, rows, width] of this.tensors) {
        const end = begin + rows * width * 4;
        entries[`${name}.${position}`] = { data_offsets: [begin, end], dtype: "F32", shape: [rows, width] };
        begin = end;
      }
    }
    return encode(entries, DOCUMENT);
  }
}

export const fileName = (first) => `${String(first).padStart(8, "0")}.safetensors`;

/** Those that the ledger's first line allows */
export function layouts(folder, { shape }) {
  const { layers, dense_layers, hidden, experts } = shape;
  if (folder === "router") return [new Layout(folder, ["logits", "selection"].map((name) => [name, layers - dense_layers, experts]))];
  const boundaries = ["residual", layers + 1, hidden];
  return [[], WRITES].map((writes) => new Layout(folder, [boundaries, ...writes.map((name) => [name, layers, hidden])]));
}

/** The one layout that the file's header and size have, and how many positions there are; the stream stands before the first then. */
export async function fitting(candidates, blob, first, name) {
  for (const layout of candidates.filter((each) => each.positionBytes <= LARGEST_POSITION)) {
    const data = blob.size - layout.start(first);
    const positions = Math.floor(data / layout.positionBytes);
    if (data % layout.positionBytes || positions < 1 || positions > POSITIONS) continue;
    const stream = new Stream(blob);
    if (equal(await stream.read(layout.start(first)), layout.header(first, positions))) return { layout, positions, stream };
  }
  return refuse(`${name}: expected the one header and size that positions from ${first} of this run have, got others`);
}

/** The rows of one position, by tensor */
function split(data, layout, name) {
  if (data.length !== layout.positionBytes) refuse(`${name}: expected ${layout.positionBytes} bytes of a position, got a file that changes`);
  const found = {};
  let at = 0;
  for (const [tensor, rows, width] of layout.tensors) {
    found[tensor] = Array.from({ length: rows }, (_, n) => data.subarray(at + n * width * 4, at + (n + 1) * width * 4));
    at += rows * width * 4;
  }
  return found;
}

// ---- both folders

/** The two folders of one container, or none of them; `blobs` has all files by name, sorted. */
export class Sidecars {
  constructor(blobs) {
    const inside = (folder) => [...blobs].filter(([name]) => name.startsWith(`${folder}/`));
    this.files = new Map(["rows", "router"].map((folder) => [folder, inside(folder)]));
    this.streams = new Map();
    this.refused = false;
  }

  /** The gaps of one position, given its observed lines */
  async ofPosition(lines) {
    if (this.refused || ![...this.files.values()].some((files) => files.length)) return [];
    const { run } = lines[0].place;
    try {
      const rows = await this.next("rows", run);
      const router = run.shape.experts ? await this.next("router", run) : null;
      return [...against(lines, rows, router, run)];
    } catch (refusal) {
      if (!(refusal instanceof ContainerRefusal)) throw refusal;
      this.refused = true;
      return [fact(ROWS, false, refusal.message)];
    }
  }

  /** No file begins after the last position, and no row lies behind it */
  async atEnd(positions) {
    const gaps = [];
    for (const [folder, files] of this.files) {
      if (!files.length || this.refused) continue;
      const holds = files.length === Math.ceil(positions / POSITIONS) && (await this.ended(folder));
      gaps.push(fact(ROWS, holds, `${folder}/: expected rows of ${positions} positions and no more`));
    }
    return gaps;
  }

  async ended(folder) {
    try {
      return this.streams.has(folder) && (await this.streams.get(folder).next()).done;
    } catch (refusal) {
      if (!(refusal instanceof ContainerRefusal)) throw refusal;
      return false;
    }
  }

  async next(folder, run) {
    if (!this.streams.has(folder)) this.streams.set(folder, this.read(folder, run));
    const { value, done } = await this.streams.get(folder).next();
    return done ? refuse(`${folder}/: expected rows of every position, got fewer`) : value;
  }

  async *read(folder, run) {
    const files = this.files.get(folder);
    let candidates = layouts(folder, run);
    for (const [n, [name, blob]] of files.entries()) {
      const first = n * POSITIONS;
      if (name !== `${folder}/${fileName(first)}`) refuse(`expected ${folder}/${fileName(first)}, got ${name}`);
      const { layout, positions, stream } = await fitting(candidates, blob, first, name);
      candidates = [layout];
      if (positions < POSITIONS && n < files.length - 1) {
        refuse(`${name}: expected ${POSITIONS} positions, got ${positions} in a file that is not the last`);
      }
      for (let i = 0; i < positions; i++) yield split(await stream.read(layout.positionBytes), layout, name);
    }
  }
}

// ---- against the lines

function* against(lines, rows, router, run) {
  const layers = lines.filter((each) => each.place.layer >= 0);
  yield digest(rows.residual[0], lines[0], "residual_sha256");
  for (const [n, each] of layers.entries()) yield* digests(n, each, rows, router, run);
  for (const each of layers) {
    yield* additions(each, rows);
    yield* experts(each, router, run);
  }
}

function* digests(n, observed, rows, router, run) {
  yield digest(rows.residual[n + 1], observed, "residual_sha256");
  for (const write of WRITES) if (rows[write]) yield digest(rows[write][n], observed, `${write}_sha256`);
  if (!router || n < run.shape.dense_layers) return;
  for (const tensor of ["logits", "selection"]) yield digest(router[tensor][n - run.shape.dense_layers], observed, `router_${tensor}_sha256`);
}

function digest(row, { place, values }, name) {
  const found = hex(sha256(row));
  return fact(ROWS, found === values[name], `${name} of ${place}: the row has ${found}`);
}

/** fl(fl(x + a) + m) = x' */
function* additions({ place }, rows) {
  if (!rows.attention_write) return;
  const n = place.layer;
  const [x, a, m, result] = [rows.residual[n], rows.attention_write[n], rows.mlp_write[n], rows.residual[n + 1]].map(numbersOf);
  const after = added(x, a);
  yield after ? addition(after, m, result, String(place)) : fact(ADDITION, false, String(place));
}

const numbersOf = (row) => Array.from({ length: row.length / 4 }, (_, i) => new DataView(row.buffer, row.byteOffset).getFloat32(4 * i, true));

function* experts({ place, values }, router, run) {
  const at = place.layer - run.shape.dense_layers;
  if (!router || at < 0) return;
  try {
    yield* ofAllExperts(values, place, router.logits[at]);
  } catch (refusal) {
    if (!(refusal instanceof CanonicalRefusal)) throw refusal;
    yield fact(ALL_EXPERTS, false, `router logits of ${place}: ${refusal.message}`);
  }
}
