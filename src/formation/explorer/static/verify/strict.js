// Bytes to values, or a refusal that says which check refused them: the twin of evidence/strict.py.

import { fromBase64 as decodeBase64 } from "./bytes.js";
import { DOCUMENT, LARGEST, decode, has, isObject } from "./canonical.js";
import { ascii, quoted, typeName } from "./quoted.js";
import { CanonicalRefusal, Refused } from "./refusals.js";

/** The value of canonical JSON. */
export function valueOf(check, what, data, limits = DOCUMENT) {
  try {
    return decode(data, limits);
  } catch (refusal) {
    if (!(refusal instanceof CanonicalRefusal)) throw refusal;
    throw new Refused(check, `${what}: ${refusal.message}`);
  }
}

/** The canonical JSON object in `data`, which has exactly the fields `names`. */
export const document = (check, what, data, names, limits = DOCUMENT) => fields(check, what, valueOf(check, what, data, limits), names);

export function fields(check, what, value, names) {
  if (!isObject(value) || Object.keys(value).length !== names.length || !names.every((name) => has(value, name))) {
    const got = isObject(value) ? quoted(Object.keys(value).sort().join(", ")) : typeName(value);
    throw new Refused(check, `${what}: expected the fields ${[...names].sort().join(", ")}, got ${got}`);
  }
  return value;
}

export function exactly(check, what, value, wanted) {
  if (value !== wanted) throw new Refused(check, `${what}: expected ${ascii(wanted)}, got ${quoted(value)}`);
}

export function text(check, what, value) {
  if (typeof value !== "string") throw new Refused(check, `${what}: expected text, got ${typeName(value)}`);
  return value;
}

/** A SHA-256 in lowercase hexadecimal */
export function digest(check, what, value) {
  if (typeof value === "string" && /^[0-9a-f]{64}$/.test(value)) return value;
  throw new Refused(check, `${what}: expected a SHA-256 in lowercase hexadecimal, got ${quoted(value)}`);
}

/** An ASCII decimal without leading zeroes, within what JSON numbers hold */
export function count(check, what, value) {
  if (/^(0|[1-9][0-9]{0,15})$/.test(value) && Number(value) <= LARGEST) return Number(value);
  throw new Refused(check, `${what}: expected a decimal number without leading zeroes, got ${quoted(value)}`);
}

/** RFC 4648, section 4, in its one form; of `size` bytes, if given. */
export function fromBase64(check, what, value, size) {
  const data = decodeBase64(text(check, what, value));
  if (!data) throw new Refused(check, `${what}: expected base64 in its one form, got other characters, padding or spare bits`);
  if (size !== undefined && data.length !== size) throw new Refused(check, `${what}: expected ${size} bytes, got ${data.length}`);
  return data;
}
