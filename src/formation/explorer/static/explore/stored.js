// Where a bundle's bytes are: in this page, packed in pieces, or with the server that gave the page. Either way a piece is had when it is asked
// for, and few are kept: memory does not grow with the bundle.

import { joined } from "../verify/bytes.js";
import { unpacked } from "./embedded.js";

const MOST_HELD = 32; // pieces, the last that were asked for

/** The server that gave this page does not answer: nothing can be said of bytes that were not had. */
export class Unreachable extends Error {}

/** As much of a Blob as the views and the verifier's modules use; `read(begin, end)` gives bytes. */
class Lazy {
  constructor(read, begin, end) {
    Object.assign(this, { read, begin, end });
  }

  get size() {
    return this.end - this.begin;
  }

  slice(begin = 0, end = this.size) {
    const inside = (at) => Math.min(this.begin + Math.max(at, 0), this.end);
    return new Lazy(this.read, inside(begin), Math.max(inside(begin), inside(end)));
  }

  async arrayBuffer() {
    const bytes = this.size ? await this.read(this.begin, this.end) : new Uint8Array();
    return bytes.length === bytes.buffer.byteLength ? bytes.buffer : bytes.slice().buffer;
  }
}

/** A source in two: `first` for the reader, answered at once; `patient` for long work, a piece at a time and none while the reader waits for one */
export function inTwo(source) {
  let [ahead, last] = [null, null];
  const first = (...wanted) => {
    const found = source(...wanted);
    ahead = Promise.allSettled([ahead, found]);
    return found;
  };
  const patient = (...wanted) => {
    const found = Promise.resolve(last).then(() => ahead).then(() => source(...wanted));
    last = Promise.allSettled([found]);
    return found;
  };
  return { first, patient };
}

/** name -> Lazy of the files of one bundle. `sizes`: name -> bytes; `source(name, begin, end, n)` gives piece n of a file, `most` bytes but for its last,
 * or the text that they are packed in. */
export function lazyFiles({ sizes, most }, source) {
  const held = new Map();
  const get = async (name, begin, end, n) => {
    const piece = await source(name, begin, end, n);
    return typeof piece === "string" ? unpacked(name, piece, end - begin) : piece;
  };
  /** A promise is held, so that two who ask at once ask once */
  const piece = (name, n) => {
    const key = `${n} ${name}`;
    const found = held.get(key) ?? get(name, n * most, Math.min((n + 1) * most, sizes[name]), n);
    held.delete(key);
    held.set(key, found);
    found.catch(() => held.delete(key));
    if (held.size > MOST_HELD) held.delete(held.keys().next().value);
    return found;
  };
  const read = async (name, begin, end) => {
    const first = Math.floor(begin / most);
    const wanted = Array.from({ length: Math.ceil(end / most) - first }, (_, n) => first + n);
    const parts = await Promise.all(wanted.map(async (n) => (await piece(name, n)).subarray(Math.max(begin - n * most, 0), end - n * most)));
    return parts.length === 1 ? parts[0] : joined(...parts);
  };
  return new Map(Object.entries(sizes).map(([name, size]) => [name, new Lazy((begin, end) => read(name, begin, end), 0, size)]));
}
