// A JSON reader that keeps what the platform's forgets: repeated names, integers beyond 2^53, and where an error stands. Slow: it serves to
// say why a text is refused. Nesting must have been checked: it recurses.

import { quoted } from "./quoted.js";
import { CanonicalRefusal } from "./refusals.js";

const LONGEST_NUMBER = 25; // characters of -0.0000012345678901234567, the longest canonical number
const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?/y;
const PLAIN = /[^"\\\x00-\x1f]*/y;
const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
const WORDS = [["null", null], ["true", true], ["false", false], ["NaN", NaN], ["Infinity", Infinity], ["-Infinity", -Infinity]];

export function readJson(text) {
  const source = { text, at: 0 };
  match(source, SPACE);
  const value = readValue(source);
  match(source, SPACE);
  if (source.at < text.length) fail(source, "extra data");
  return value;
}

function fail(source, what) {
  throw new CanonicalRefusal(`expected JSON, got an error at character ${source.at}: ${what}`);
}

function match(source, pattern) {
  pattern.lastIndex = source.at;
  const found = pattern.exec(source.text);
  if (found) source.at = pattern.lastIndex;
  return found;
}

function readValue(source) {
  const first = source.text[source.at];
  if (first === '"') return readString(source);
  if (first === "{") return readObject(source);
  if (first === "[") return readArray(source);
  for (const [word, value] of WORDS) {
    if (source.text.startsWith(word, source.at)) {
      source.at += word.length;
      return value;
    }
  }
  return readNumber(source);
}

/** Integers that binary64 may not hold come as BigInt, which canonical JSON refuses. */
function readNumber(source) {
  const found = match(source, NUMBER) ?? fail(source, "expecting value");
  const isInteger = found[1] === undefined && found[2] === undefined;
  if (found[0].length > LONGEST_NUMBER) {
    const due = isInteger ? "expected integers within 2^53 - 1" : "expected canonical numbers";
    throw new CanonicalRefusal(`${due}, got one of ${found[0].length} characters`);
  }
  const value = Number(found[0]);
  if (!isInteger) return value;
  return Number.isSafeInteger(value) ? value + 0 : BigInt(found[0]);
}

function readString(source) {
  let value = "";
  source.at++;
  for (;;) {
    value += match(source, PLAIN)[0];
    const next = source.text[source.at];
    if (next === undefined) fail(source, "unterminated string");
    source.at++;
    if (next === '"') return value;
    if (next !== "\\") fail(source, "invalid control character");
    value += readEscape(source);
  }
}

function readEscape(source) {
  const letter = source.text[source.at++];
  if (letter !== "u") return ESCAPES[letter] ?? fail(source, "invalid escape");
  const digits = source.text.slice(source.at, source.at + 4);
  if (!/^[0-9a-fA-F]{4}$/.test(digits)) fail(source, "invalid \\u escape");
  source.at += 4;
  return String.fromCharCode(parseInt(digits, 16));
}

function readArray(source) {
  const items = [];
  source.at++;
  match(source, SPACE);
  if (source.text[source.at] === "]") return source.at++, items;
  for (;;) {
    items.push(readValue(source));
    if (!goesOn(source, "]")) return items;
  }
}

function readObject(source) {
  const pairs = [];
  source.at++;
  match(source, SPACE);
  if (source.text[source.at] === "}") return source.at++, {};
  for (;;) {
    if (source.text[source.at] !== '"') fail(source, "expecting a name in double quotes");
    const name = readString(source);
    match(source, SPACE);
    if (source.text[source.at++] !== ":") fail(source, "expecting ':' delimiter");
    match(source, SPACE);
    pairs.push([name, readValue(source)]);
    if (!goesOn(source, "}")) return tableOf(pairs);
  }
}

function goesOn(source, end) {
  match(source, SPACE);
  const next = source.text[source.at++];
  if (next !== "," && next !== end) fail(source, "expecting ',' delimiter");
  match(source, next === "," ? SPACE : /(?:)/y);
  return next === ",";
}

function tableOf(pairs) {
  const table = Object.fromEntries(pairs);
  if (Object.keys(table).length === pairs.length) return table;
  const times = new Map();
  for (const [name] of pairs) times.set(name, (times.get(name) ?? 0) + 1);
  const [name, most] = [...times].reduce((a, b) => (b[1] > a[1] ? b : a));
  throw new CanonicalRefusal(`expected each name once, got ${quoted(name)} ${most} times`);
}
