// Canonical JSON: each value has exactly one sequence of bytes, and every other sequence is refused (RFC 8785, strict profile).
// The twin of ledger/canonical.py: it accepts the same bytes and refuses the others for the same reasons.

import { fromBase64, textOf, utf8 } from "./bytes.js";
import { readJson } from "./json.js";
import { quoted } from "./quoted.js";
import { CanonicalRefusal } from "./refusals.js";

export const LARGEST = 2 ** 53 - 1;
export const LINE = { sizeBytes: 1 << 20, depth: 16 };
export const DOCUMENT = { sizeBytes: 1 << 26, depth: 32 };
const MOST_COMMAS = 1 << 22; // in strings too: without that, a document of 64 MiB could make millions of empty lists
const ASCII = /^[\x00-\x7f]*$/;
const SURROGATE = /\p{Surrogate}/u; // with the u flag, only one without its partner

export const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
export const has = (table, name) => Object.hasOwn(table, name);

// ---- values to bytes

export function encode(value, limits = LINE) {
  return utf8(canonicalText(value, limits));
}

function canonicalText(value, limits) {
  const text = textOfValue(value, limits.depth);
  const lone = /\\u[dD]/.test(text) ? loneSurrogate(value) : "";
  if (lone) throw new CanonicalRefusal(`expected text, got a lone surrogate: ${quoted(lone)}`);
  if (text.length * 3 > Math.min(limits.sizeBytes, MOST_COMMAS)) checkSize(utf8(text), limits); // a UTF-16 unit takes at most three bytes
  return text;
}

/** The first without its partner. JSON.stringify writes it as an escape, which looks like text with a backslash: so the strings are asked. */
function loneSurrogate(value) {
  if (typeof value === "string") return SURROGATE.exec(value)?.[0] ?? "";
  if (value === null || typeof value !== "object") return "";
  for (const name of Object.keys(value).sort()) {
    const found = loneSurrogate(name) || loneSurrogate(value[name]);
    if (found) return found;
  }
  return "";
}

function textOfValue(value, depth) {
  if (typeof value === "string") return JSON.stringify(value); // the escapes of RFC 8785, 3.2.2.2
  if (typeof value === "number") return numberText(value);
  if (value === null || value === true || value === false) return String(value);
  if (typeof value === "bigint") throw new CanonicalRefusal(`expected integers within 2^53 - 1, got one of ${bitLength(value)} bits`);
  if (typeof value !== "object") throw new CanonicalRefusal(`expected a JSON value, got ${typeof value}`);
  if (depth <= 0) throw new CanonicalRefusal("expected shallow JSON, got nesting beyond the limit");
  if (Array.isArray(value)) return "[" + value.map((item) => textOfValue(item, depth - 1)).join(",") + "]";
  const names = Object.keys(value);
  names.forEach(checkName);
  return "{" + names.sort().map((name) => JSON.stringify(name) + ":" + textOfValue(value[name], depth - 1)).join(",") + "}";
}

function checkName(name) {
  for (let i = 0; i < name.length; i++) {
    if (name.charCodeAt(i) > 127) throw new CanonicalRefusal(`expected names of objects in ASCII, got ${quoted(name)}`);
  }
}

const bitLength = (value) => (value < 0n ? -value : value).toString(2).length;

/** Number::toString is what RFC 8785, 3.2.2.3 asks for. */
function numberText(x) {
  if (!(-LARGEST <= x && x <= LARGEST)) throw new CanonicalRefusal(`expected finite numbers within 2^53 - 1, got ${x}`);
  if (Object.is(x, -0)) throw new CanonicalRefusal("expected 0, got -0");
  return String(x);
}

// ---- bytes to values

/** The value whose canonical bytes are `data`. Throws CanonicalRefusal, and nothing else, on any bytes. */
export function decode(data, limits) {
  const text = readText(data, limits);
  checkDepth(text, limits.depth);
  const quick = quickly(text, limits);
  return quick === undefined ? slowly(text, limits) : quick;
}

/** The platform's parser drops repeated names and keeps no order, but what it reads is only taken if its canonical text is this text. What the
 * platform writes again as this text is asked for the rest only: that is several times faster. */
function quickly(text, limits) {
  try {
    const value = JSON.parse(text);
    const isSame = JSON.stringify(value) === text && !/\\u[dD]/.test(text) && isCanonical(value);
    return isSame || canonicalText(value, limits) === text ? value : undefined;
  } catch {
    return undefined; // whatever is wrong, the slow reader names it
  }
}

/** Of a value that JSON.stringify wrote: names in ASCII and in order, numbers within their limits */
function isCanonical(value) {
  if (typeof value === "number") return -LARGEST <= value && value <= LARGEST;
  if (value === null || typeof value !== "object") return true;
  if (Array.isArray(value)) return value.every(isCanonical);
  let before = null;
  for (const name of Object.keys(value)) {
    if ((before !== null && before >= name) || !ASCII.test(name) || !isCanonical(value[name])) return false;
    before = name;
  }
  return true;
}

function slowly(text, limits) {
  const canonical = canonicalText(readJson(text), limits);
  let at = 0;
  while (at < text.length && at < canonical.length && text[at] === canonical[at]) at++;
  const found = quoted(text.slice(at, at + 16));
  throw new CanonicalRefusal(`expected canonical JSON, got another form of the same value, from byte ${utf8(text.slice(0, at)).length}: ${found}`);
}

function readText(data, limits) {
  checkSize(data, limits);
  if (data[0] === 0xef && data[1] === 0xbb && data[2] === 0xbf) {
    throw new CanonicalRefusal("expected JSON from the first byte, got a byte-order mark");
  }
  try {
    return textOf(data);
  } catch {
    throw new CanonicalRefusal("expected UTF-8, got other bytes");
  }
}

function checkSize(data, limits) {
  if (data.length > limits.sizeBytes) throw new CanonicalRefusal(`expected at most ${limits.sizeBytes} bytes, got ${data.length}`);
  if (data.length <= MOST_COMMAS) return;
  let found = 0;
  for (const byte of data) if (byte === 44) found++;
  if (found > MOST_COMMAS) throw new CanonicalRefusal(`expected at most ${MOST_COMMAS} commas, got ${found}`);
}

/** Before a parser, which recurses, sees the text. */
function checkDepth(text, limit) {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 34) i = endOfString(text, i);
    else if (code === 91 || code === 123) {
      if (++depth > limit) throw new CanonicalRefusal(`expected nesting of at most ${limit}, got more at character ${i}`);
    } else if (code === 93 || code === 125) depth--;
  }
}

/** The quotation mark that ends the string which begins at `at`, or the end of the text */
function endOfString(text, at) {
  for (let end = at; ; ) {
    end = text.indexOf('"', end + 1);
    if (end < 0) return text.length;
    let slashes = 0;
    while (text.charCodeAt(end - 1 - slashes) === 92) slashes++;
    if (slashes % 2 === 0) return end;
  }
}

// ---- vectors

/** The values of base64 text of little-endian binary32, one text for one vector. */
export function decodeF32(text) {
  const bytes = fromBase64(text);
  if (!bytes) throw new CanonicalRefusal("expected base64 in its one canonical form, got other characters, padding or spare bits");
  return valuesF32(bytes);
}

export function valuesF32(bytes) {
  if (bytes.length % 4) throw new CanonicalRefusal(`expected binary32 values of 4 bytes each, got ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Array(bytes.length / 4);
  for (let i = 0; i < values.length; i++) {
    values[i] = view.getFloat32(4 * i, true);
    if (!Number.isFinite(values[i])) throw new CanonicalRefusal("expected finite numbers, got NaN or infinity in a vector");
  }
  return values;
}

export function bytesF32(values) {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => view.setFloat32(4 * i, value, true));
  return new Uint8Array(view.buffer);
}
