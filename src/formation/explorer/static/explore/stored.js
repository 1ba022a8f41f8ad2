// Where a bundle's bytes are: in this page, packed in pieces, or with the server that gave the page. Either way a piece is had when it is asked
// for, and few are kept: memory does not grow with the bundle.

import { joined } from "../verify/bytes.js";

const MOST_HELD = 32; // pieces, the last that were asked for

/** The server that gave this page does not answer: nothing can be said of bytes that were not had. */
export class Unreachable extends Error {}

/** As much of a Blob as the views and the verifier's modules use; `read(begin, end)` gives bytes. */
export class Lazy {
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

/** name -> Lazy of the files of one bundle. `sizes`: name -> bytes; `get(name, begin, end, n)` gives piece n of a file, `most` bytes but for its last. */
export function lazyFiles({ sizes, most }, get) {
  const held = new Map();
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
