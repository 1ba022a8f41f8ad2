// Small pieces of the page: elements with attributes, numbers as people read them, tokens as text that can do nothing.

import { fromBase64, textOf } from "../verify/bytes.js";
import { element } from "../verify/elements.js";

/** As `element`, then attributes; a name that begins with "on" takes a listener */
export function part(kind, attributes = {}, ...children) {
  const made = element(kind, ...children);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  return made;
}

export const button = (text, onclick, attributes = {}) => part("button", { type: "button", onclick, ...attributes }, text);

/** Five digits are enough to look at; all of them stand in the drawer, the tables and the CSV. */
export function shown(x) {
  if (typeof x !== "number" || Number.isInteger(x)) return String(x).replace("-", "−");
  const size = Math.abs(x);
  const text = size >= 1e-3 && size < 1e6 ? x.toPrecision(5) : x.toExponential(3);
  return text.replaceAll("-", "−");
}

/** A gap or what it may be */
export const size = (x, digits = 2) => (x === 0 ? "0, bit-equal" : x.toExponential(digits).replace("-", "−"));

/** Three digits, for axes */
export const tick = (x) => shown(typeof x === "number" ? Number(x.toPrecision(3)) : x).replace(/(\.[0-9]*?)0+(?=$|e)/, "$1").replace(/\.(?=$|e)/, "");

export function bytesShown(count) {
  const power = Math.min(Math.floor(Math.log10(Math.max(count, 1)) / 3), 4);
  return power ? `${(count / 1000 ** power).toPrecision(3)} ${["", "kB", "MB", "GB", "TB"][power]}` : `${count} B`;
}

/** What a token's bytes spell: UTF-8, and what is none of it byte by byte */
export function tokenText(stored) {
  const bytes = fromBase64(stored) ?? new Uint8Array();
  if (!bytes.length) return "∅";
  return decoded(bytes) ?? piecewise(bytes);
}

function decoded(bytes) {
  try {
    return textOf(bytes);
  } catch {
    return null;
  }
}

function piecewise(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const size = [1, 2, 3, 4].find((n) => at + n <= bytes.length && decoded(bytes.subarray(at, at + n)) !== null);
    text += size ? decoded(bytes.subarray(at, at + size)) : `\\x${bytes[at].toString(16)}`;
    at += size ?? 1;
  }
  return text;
}

/** Short enough for an axis */
const cut = (text, most) => ([...text].length > most ? `${[...text].slice(0, most - 1).join("")}…` : text);

/** What a position formed, as text: a token that spells nothing, as one that ends a turn, is its id */
export const spelled = ({ pending, bytes, id }) => (pending ? "…" : bytes ? tokenText(bytes) : `id ${id}`);

/** A token or prompt position as its name in tables */
export const nameOf = (found, promptIds) => (found.kind === "prompt" ? `id ${promptIds[found.position] ?? "?"}` : spelled(found));

/** A token's text on an axis: short, without the spaces around it */
export const clipped = (text, most) => cut(text.trim() || text.replaceAll(" ", "␣"), most);
export const labelOf = (found, promptIds, most) => clipped(nameOf(found, promptIds), most);

/** What a token id spells, of those that the run formed; empty for others: the bundle holds no vocabulary */
export function textOfId({ positions }, id) {
  const found = positions.find((each) => each.id === id);
  return found?.bytes ? tokenText(found.bytes) : "";
}

/** The name of the token that a position reads: of the prompt, or the one formed by the step before */
export function inputOf({ positions }, promptIds, position) {
  if (position < promptIds.length) return `id ${promptIds[position]}`;
  const before = positions[position - 1];
  return before ? spelled(before) : "?";
}

export const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** Saves text as a file of the reader's */
export function save(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  part("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
