// Bytes and their texts: UTF-8, hexadecimal, base64, and comparison.

const STRICT_UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const LOOSE_UTF8 = new TextDecoder("utf-8", { ignoreBOM: true });
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const VALUE_OF = new Int16Array(128).fill(-1);
for (let i = 0; i < 64; i++) VALUE_OF[ALPHABET.charCodeAt(i)] = i;

export const utf8 = (text) => new TextEncoder().encode(text);

/** The text of UTF-8 bytes; throws TypeError on bytes that are not UTF-8. A byte-order mark is a character like any other. */
export const textOf = (bytes) => STRICT_UTF8.decode(bytes);

export const looseText = (bytes) => LOOSE_UTF8.decode(bytes);

export function hex(bytes) {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}

/** The bytes of lowercase or uppercase hexadecimal; null of any other text. */
export function fromHex(text) {
  if (text.length % 2 || /[^0-9a-fA-F]/.test(text)) return null;
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
}

export function equal(a, b) {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export function joined(...parts) {
  const all = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

export function toBase64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 3) {
    const word = (bytes[i] << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    text += ALPHABET[word >> 18] + ALPHABET[(word >> 12) & 63];
    text += i + 1 < bytes.length ? ALPHABET[(word >> 6) & 63] : "=";
    text += i + 2 < bytes.length ? ALPHABET[word & 63] : "=";
  }
  return text;
}

/** The bytes of base64 (RFC 4648, section 4) in its one canonical form: padding present, its spare bits zero; null of any other text. */
export function fromBase64(text) {
  if (text.length % 4) return null;
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  let word = 0;
  let at = 0;
  for (let i = 0; i < text.length - padding; i++) {
    const code = text.charCodeAt(i);
    const value = code < 128 ? VALUE_OF[code] : -1;
    if (value < 0) return null;
    word = ((word << 6) | value) & 0xffffff;
    if (i % 4) bytes[at++] = word >> (6 - 2 * (i % 4));
  }
  const spare = padding === 2 ? word & 15 : padding === 1 ? word & 3 : 0;
  return spare ? null : bytes;
}
