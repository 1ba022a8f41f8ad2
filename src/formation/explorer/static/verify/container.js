// A bundle as bytes: a folder, or one ZIP of stored members, read by allow-listed name: the twin of evidence/container.py and archive.py.
// A browser hands over a folder's files without saying which of them were links: that a CLI sees, and this page does not.

import { equal, looseText } from "./bytes.js";
import { has } from "./canonical.js";
import { ascii } from "./quoted.js";
import { ContainerRefusal } from "./refusals.js";
import { CONTAINER } from "./tables.js";

const SIDECAR = /^(?:rows|router)\/[0-9]{8}\.safetensors$/;
const PIECE_BYTES = 1 << 22;

const refuse = (expected, got) => {
  throw new ContainerRefusal(`expected ${expected}, got ${got}`);
};

// ---- what a container may hold

const whole = (name) => (name.endsWith(CONTAINER.part) ? name.slice(0, -CONTAINER.part.length) : name);
const known = (name) => has(CONTAINER.limits, whole(name)) || SIDECAR.test(whole(name)) || name === CONTAINER.progress;
const limitOf = (name) => (has(CONTAINER.limits, whole(name)) ? CONTAINER.limits[whole(name)] : CONTAINER.sidecarLimit);

/** Every file that a bundle must have is there, no other, and none is over its limit. `blobs`: name -> Blob. */
function checked(blobs, untrusted) {
  const names = [...blobs.keys()].sort();
  if (names.length > CONTAINER.mostFiles) refuse(`at most ${CONTAINER.mostFiles} files`, "more");
  const incomplete = names.some((name) => name.endsWith(CONTAINER.part) || name === CONTAINER.progress);
  for (const name of names) {
    const size = blobs.get(name).size;
    if (!known(name)) refuse("only files of a bundle", ascii(name).slice(0, 80));
    if (size > limitOf(name)) throw new ContainerRefusal(`${name}: expected at most ${limitOf(name)} bytes, got ${size}`);
  }
  for (const name of CONTAINER.required) {
    if (!blobs.has(name) && !incomplete) {
      refuse(name, `a bundle without it${CONTAINER.seal.includes(name) ? ": it was never sealed" : ""}`);
    }
  }
  return { blobs: new Map(names.map((name) => [name, blobs.get(name)])), untrusted, incomplete };
}

/** Of a folder's files by their paths in it; paths of folders end in "/" */
export function folderContents(files) {
  const blobs = new Map(files);
  const untrusted = [...blobs.keys()].filter((name) => name.startsWith(`${CONTAINER.untrusted}/`));
  const folders = CONTAINER.folders.map((name) => `${name}/`);
  for (const name of [...untrusted, ...folders]) blobs.delete(name);
  return checked(blobs, untrusted);
}

// ---- a ZIP

const LOCAL_BYTES = 30;
const CENTRAL_BYTES = 46;
const END_BYTES = 22;
const DIRECTORY_LIMIT = 1 << 26;
const REGULAR = [0, 4, 8]; // file types in the high bits of a Unix mode: unsaid, folder, file
const TIMES_AND_OWNERS = [0x5455, 0x7875]; // extra fields that say nothing about name, size or place

const viewOf = async (blob, begin, size) => new DataView(await blob.slice(begin, begin + size).arrayBuffer());
const bytesOf = (view, begin, size) => new Uint8Array(view.buffer, Math.min(begin, view.byteLength), Math.min(size, Math.max(view.byteLength - begin, 0)));

/** Of a ZIP whose members are stored, one right behind the other, in the order of its directory, which ends the file */
export async function zipContents(blob) {
  const { count, directoryBytes, begin } = endRecord(await viewOf(blob, Math.max(blob.size - END_BYTES, 0), END_BYTES), blob.size);
  const directory = await viewOf(blob, begin, directoryBytes);
  const blobs = new Map();
  let position = 0;
  let offset = 0;
  for (let n = 0; n < count; n++) {
    const header = centralHeader(directory, position);
    position = header.end;
    if (header.begin !== offset) refuse(`member ${ascii(header.name).slice(0, 80)} at byte ${offset}, right behind the one before`, `byte ${header.begin}`);
    const data = await localData(blob, header);
    if (blobs.has(header.name)) refuse("each name once", `${ascii(header.name).slice(0, 80)} twice`);
    offset = data + header.size;
    blobs.set(header.name, blob.slice(data, offset));
  }
  if (position !== directoryBytes || offset !== begin) {
    refuse(`${count} members up to byte ${begin} and a directory of ${directoryBytes} bytes`, `${offset} and ${position}`);
  }
  const untrusted = [...blobs.keys()].filter((name) => name.startsWith(`${CONTAINER.untrusted}/`));
  const folders = CONTAINER.folders.map((name) => `${name}/`).filter((name) => blobs.get(name)?.size === 0);
  for (const name of [...untrusted, ...folders]) blobs.delete(name);
  return checked(blobs, untrusted.sort());
}

function endRecord(view, size) {
  if (view.byteLength !== END_BYTES) refuse("a ZIP file", `${size} bytes`);
  const short = (at) => view.getUint16(at, true);
  if (view.getUint32(0) !== 0x504b0506) refuse("a folder or a ZIP file that ends with its directory, without comment", "other bytes");
  const [disk, firstDisk, here, count, comment] = [4, 6, 8, 10, 20].map(short);
  if (disk || firstDisk || comment || here !== count) refuse("one ZIP file without comment", "parts or a comment");
  const directoryBytes = view.getUint32(12, true);
  const begin = view.getUint32(16, true);
  if (directoryBytes > DIRECTORY_LIMIT || begin + directoryBytes + END_BYTES !== size) {
    refuse(`a directory of at most ${DIRECTORY_LIMIT} bytes right before the end`, `${directoryBytes} bytes at ${begin} (or ZIP64)`);
  }
  return { count, directoryBytes, begin };
}

/** What the directory says of one member, and where the next one's header begins; `fixed` must stand again before its data. */
function centralHeader(directory, at) {
  if (at + CENTRAL_BYTES > directory.byteLength) refuse("as many members as the directory says", "fewer");
  const short = (offset) => directory.getUint16(at + offset, true);
  const long = (offset) => directory.getUint32(at + offset, true);
  const [flags, method, time, date] = [8, 10, 12, 14].map(short);
  const [crc, stored, size, external, begin] = [16, 20, 24, 38, 42].map(long);
  const [nameBytes, extraBytes, comment, disk] = [28, 30, 32, 34].map(short);
  const spelled = bytesOf(directory, at + CENTRAL_BYTES, nameBytes);
  const extra = bytesOf(directory, at + CENTRAL_BYTES + nameBytes, extraBytes);
  const name = nameOf(spelled);
  if (directory.getUint32(at) !== 0x504b0102 || spelled.length + extra.length !== nameBytes + extraBytes || comment || disk) {
    refuse("a directory of members without comments", `other bytes at ${at}`);
  }
  if (method !== 0 || stored !== size || (flags !== 0 && flags !== 0x800)) {
    refuse(`member ${shown(name)} stored, neither compressed nor encrypted`, `method ${method}, flags 0x${flags.toString(16)}, ${stored} of ${size} bytes`);
  }
  if (!REGULAR.includes(external >>> 28)) refuse(`member ${shown(name)} to be a regular file`, `mode 0o${(external >>> 16).toString(8)}`);
  checkExtra(extra, name);
  const end = at + CENTRAL_BYTES + nameBytes + extraBytes;
  return { name, size, begin, spelled, end, fixed: [flags, method, time, date, crc, stored, size] };
}

/** As it is shown: a name with anything but printable ASCII is none that a bundle has. */
const nameOf = (spelled) => ascii(looseText(spelled)).slice(1, -1);
const shown = (name) => name.slice(0, 80);

/** Where a member's data begins; its local header must say what the directory says */
async function localData(blob, header) {
  const view = await viewOf(blob, header.begin, LOCAL_BYTES);
  if (view.byteLength !== LOCAL_BYTES || view.getUint32(0) !== 0x504b0304) refuse(`a member at byte ${header.begin}`, "other bytes");
  const shorts = [6, 8, 10, 12].map((at) => view.getUint16(at, true));
  const longs = [14, 18, 22].map((at) => view.getUint32(at, true));
  const nameBytes = view.getUint16(26, true);
  const extraBytes = view.getUint16(28, true);
  const after = await viewOf(blob, header.begin + LOCAL_BYTES, nameBytes + extraBytes);
  const isSame = [...shorts, ...longs].every((value, n) => value === header.fixed[n]);
  if (!isSame || !equal(bytesOf(after, 0, nameBytes), header.spelled)) {
    refuse(`member ${shown(header.name)} to say the same in both its headers`, "two readings");
  }
  checkExtra(bytesOf(after, nameBytes, extraBytes), header.name);
  return header.begin + LOCAL_BYTES + nameBytes + extraBytes;
}

function checkExtra(extra, name) {
  let at = 0;
  while (at + 4 <= extra.length) {
    const kind = extra[at] | (extra[at + 1] << 8);
    if (!TIMES_AND_OWNERS.includes(kind)) refuse(`member ${shown(name)} without extra fields but times and owners`, `0x${kind.toString(16)}`);
    at += 4 + (extra[at + 2] | (extra[at + 3] << 8));
  }
  if (at !== extra.length) refuse(`member ${shown(name)} with whole extra fields`, `${extra.length} bytes`);
}

// ---- reading

export const bytesOfBlob = async (blob) => new Uint8Array(await blob.arrayBuffer());

/** A blob's bytes in pieces: memory does not depend on its size. */
export async function* pieces(blob) {
  for (let at = 0; at < blob.size; at += PIECE_BYTES) yield bytesOfBlob(blob.slice(at, at + PIECE_BYTES));
}

/** The lines of a blob without their LF, as [line, bytes read so far]; ends at the first that has no LF within `limit` bytes and one */
export async function* wholeLines(blob, limit) {
  let rest = new Uint8Array(0);
  for await (const piece of pieces(blob)) {
    const data = rest.length ? concatenated(rest, piece) : piece;
    let begin = 0;
    for (let end = data.indexOf(10); end >= 0; end = data.indexOf(10, begin)) {
      if (end - begin > limit) return;
      yield data.subarray(begin, end);
      begin = end + 1;
    }
    rest = data.subarray(begin);
    if (rest.length > limit) return;
  }
}

function concatenated(a, b) {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}

/** Bytes of a blob in order, as many as are asked for, fewer at its end. */
export class Stream {
  constructor(blob) {
    Object.assign(this, { blob, at: 0, held: new Uint8Array(0), heldAt: 0 });
  }

  async read(size) {
    if (this.at < this.heldAt || this.at + size > this.heldAt + this.held.length) {
      this.held = await bytesOfBlob(this.blob.slice(this.at, this.at + Math.max(size, PIECE_BYTES)));
      this.heldAt = this.at;
    }
    const data = this.held.subarray(this.at - this.heldAt, this.at - this.heldAt + size);
    this.at += data.length;
    return data;
  }
}
