// The checks of a dialogue's bytes, done in this page: for a log, that every line is the one that must follow the line before (events.py's Course, in the
// same order and words); for a scored transcript, that its sums are those of its rows. Neither is signed, and no check here says who wrote it.

import { fromBase64, hex, textOf } from "../verify/bytes.js";
import { decode, isObject } from "../verify/canonical.js";
import { bytesOfBlob, pieces, wholeLines } from "../verify/container.js";
import { ascii, quoted } from "../verify/quoted.js";
import { CanonicalRefusal, ContainerRefusal, LineRefusal } from "../verify/refusals.js";
import { Sha256, sha256 } from "../verify/sha256.js";
import { LINE_LIMITS } from "./eventtable.js";
import { checkBody, checkScored, isAbsent } from "./form.js";
import { LN2, viewOf } from "./log.js";

const FIRST = "0".repeat(64);
const ROUNDING = 1e-9; // what a logarithm of a probability may be above 0: a difference of two rounded numbers
const KNOWN = [CanonicalRefusal, ContainerRefusal, LineRefusal];
const isKnown = (fault) => KNOWN.some((kind) => fault instanceof kind);

/** What a check says: [name, what passing means] */
const LOG_CHECKS = {
  bytes: "the log in this page has the SHA-256 that it had when the page was made",
  chain: "every line is canonical JSON, has the next number, and names the SHA-256 of the line before",
  order: "turns follow each other, tokens are in turns, and nothing follows the end",
  fields: "every event has the fields of its kind, and every value its type",
  texts: "every message is what its tokens spell",
  numbers: "log₂ p is ln p / ln 2 to the last bit, ranks and draws are within their bounds",
};
const SCORED_CHECKS = {
  bytes: "the table in this page has the SHA-256 that it had when the page was made",
  rows: "every row has its fields, in the order of the dialogue",
  numbers: "surprisal is −ln p / ln 2 to the last bit, ranks are in order",
  sums: "tokens, nats and counts of the summary are those of the rows",
};

function refuse(check, expected, got) {
  throw Object.assign(new LineRefusal(`expected ${expected}, got ${got}`), { check });
}

// ---- a log

class Course {
  constructor() {
    Object.assign(this, { number: 0, previous: FIRST, isEnded: false, turns: 0, isOpen: false, tokens: 0, said: [], sides: [], total: 0 });
  }

  take(line) {
    if (this.isEnded) refuse("order", "nothing after the event that ends the dialogue", "more bytes");
    const value = at("chain", () => decode(line, LINE_LIMITS));
    const names = isObject(value) ? Object.keys(value).sort().join() : "";
    if (names !== "body,event,kind,previous") refuse("chain", "the fields body, event, kind and previous", quoted(value));
    const { body, event, kind, previous } = value;
    if (event !== this.number) refuse("chain", `event ${this.number}`, quoted(event));
    if (previous !== this.previous) refuse("chain", `previous ${this.previous}, the digest of the line before`, quoted(previous));
    if (!this.kinds.includes(kind)) refuse("order", this.kinds.join(" or "), quoted(kind));
    at("fields", () => checkBody(kind, body));
    this.follow(kind, body);
    this.previous = hex(sha256(line));
    this.number += 1;
  }

  get kinds() {
    if (!this.number) return ["dialogue"];
    return this.isOpen ? ["token", "fault", "turn_end"] : ["turn", "dialogue_end"];
  }

  follow(kind, body) {
    const turns = this.turns + (kind === "turn" ? 1 : 0);
    const counts = { token: ["index", this.tokens], turn_end: ["tokens", this.tokens], dialogue_end: ["messages", this.turns] };
    const expected = [...("turn" in body ? [["turn", turns]] : []), ...(kind in counts ? [counts[kind]] : [])];
    for (const [name, number] of expected) if (body[name] !== number) refuse("order", `${kind}.${name} ${number}`, body[name]);
    if (kind === "dialogue" && (body.sides.length !== 2 || body.first > 1)) refuse("order", "two sides, one of which is first", `${body.sides.length} and ${body.first}`);
    if (kind === "turn" && body.side !== (this.first + this.turns) % 2) refuse("order", `turn.side ${(this.first + this.turns) % 2}`, body.side);
    this[kind]?.(body);
    Object.assign(this, { turns, isOpen: ["turn", "token", "fault"].includes(kind), isEnded: kind === "dialogue_end" });
    this.tokens = kind === "token" ? this.tokens + 1 : 0;
  }

  dialogue({ sides, first }) {
    Object.assign(this, { sides, first });
  }

  turn({ side }) {
    Object.assign(this, { side, said: [] });
  }

  token({ id, bytes, measured }) {
    this.said.push([id, bytes]);
    this.total += 1;
    if (!isAbsent(measured)) checkNumbers(measured);
  }

  fault() {
    this.total -= this.said.length;
    this.said = [];
  }

  turn_end({ text }) {
    const ends = this.said.length && this.sides[this.side].stop_ids.includes(this.said.at(-1)[0]);
    const own = ends ? this.said.slice(0, -1) : this.said;
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const spelt = own.map(([, bytes]) => decoder.decode(fromBase64(bytes), { stream: true })).join("") + decoder.decode();
    if (spelt !== text) refuse("texts", `turn ${this.turns} to be what its tokens spell, ${quoted(spelt)}`, quoted(text));
  }
}

function at(check, work) {
  try {
    return work();
  } catch (fault) {
    if (isKnown(fault)) fault.check ??= check;
    throw fault;
  }
}

function checkNumbers(measured) {
  for (const name of ["model", "edited", "tempered", "sampler"]) {
    const { logprob_nats: nats, logprob_bits: bits, rank_low: low, rank_high: high, support } = viewOf(measured, name);
    if (isAbsent(nats) !== isAbsent(bits) || (!isAbsent(nats) && (nats > ROUNDING || (nats / LN2 || 0) !== bits))) refuse("numbers", `${name}.logprob_bits to be logprob_nats / ln 2`, `${ascii(bits)} of ${ascii(nats)}`);
    if (!isAbsent(low) && !isAbsent(high) && !(1 <= low && low <= high && high <= support)) refuse("numbers", `${name}'s ranks within 1 and ${support}`, `${low} to ${high}`);
  }
  const { method, draw, low, high } = measured;
  if (method === "sample" && !(low <= draw && draw < high)) refuse("numbers", "a draw within the token's interval", `${ascii(draw)} of [${ascii(low)}, ${ascii(high)})`);
}

/** { checks: [{ name, state, said }], isWhole, facts }; `dropped` bytes behind the last whole line are not in the page */
export async function checkLog(blob, digest, dropped, progress) {
  const course = new Course();
  const whole = new Sha256();
  let fault = null;
  try {
    for await (const line of wholeLines(blob, LINE_LIMITS.sizeBytes)) {
      if (!fault) fault = takes(course, line);
      if (!(course.number % 64)) await progress(course.number);
      if (fault) break;
    }
    if (!fault && course.isEnded && dropped) fault = takes(course, new Uint8Array());
    for await (const piece of pieces(blob)) whole.update(piece);
  } catch (refusal) {
    if (!isKnown(refusal)) throw refusal;
    fault ??= Object.assign(refusal, { check: "bytes" });
  }
  const found = hex(whole.digest());
  const head = `${course.number} events, the last with SHA-256 ${course.previous}`;
  const isSame = found === digest;
  const states = statesOf(LOG_CHECKS, fault?.check, fault && `event ${course.number}: ${fault.message}`);
  if (!isSame && states[0].state !== "failed") Object.assign(states[0], { state: "failed", said: `events.jsonl: expected sha256 ${digest}, got ${found}` });
  return { checks: states, isWhole: course.isEnded, facts: { head, events: course.number, tokens: course.total, digest: found, last: course.previous } };
}

function takes(course, line) {
  try {
    course.take(line);
    return null;
  } catch (fault) {
    if (!isKnown(fault)) throw fault;
    return fault;
  }
}

/** All passed, or those after the failed one not reached: the reading ended there */
function statesOf(checks, failed, sentence) {
  return Object.entries(checks).map(([name, says]) => {
    if (name === failed) return { name, says, state: "failed", said: sentence };
    return failed && name !== "bytes" ? { name, says, state: "not reached", said: "the reading ended before" } : { name, says, state: "passed", said: says };
  });
}

// ---- a scored transcript

export async function checkScoredTable(talk, blobs, digests, progress) {
  const found = {};
  for (const name of ["tokens.jsonl", "summary.json"]) {
    found[name] = await digestOf(blobs.get(name));
    await progress(0);
  }
  const other = Object.keys(found).find((name) => found[name] !== digests[name]);
  let fault = talk.broken ? { check: "rows", message: talk.broken } : null;
  try {
    if (!fault) await checkRows(blobs.get("tokens.jsonl"), progress);
    if (!fault) for (const side of talk.summary.sides) checkSums(side, talk.tokens.filter(({ name }) => name === side.name));
  } catch (refusal) {
    if (!isKnown(refusal)) throw refusal;
    fault = refusal;
  }
  const states = statesOf(SCORED_CHECKS, fault?.check, fault?.message);
  if (other) Object.assign(states[0], { state: "failed", said: `${other}: expected sha256 ${digests[other]}, got ${found[other]}` });
  return { checks: states, isWhole: true, facts: { tokens: talk.tokens.length, digest: found["tokens.jsonl"] } };
}

async function digestOf(blob) {
  try {
    return hex(sha256(await bytesOfBlob(blob)));
  } catch (fault) {
    if (!isKnown(fault)) throw fault;
    return fault.message;
  }
}

async function checkRows(blob, progress) {
  let [number, before] = [0, [0, -1]];
  for await (const line of wholeLines(blob, LINE_LIMITS.sizeBytes)) {
    const row = JSON.parse(textOf(line));
    at("rows", () => checkScored(row));
    const here = `row ${++number}: `;
    const place = [row.message, row.index];
    const isNext = place[0] === before[0] ? place[1] === before[1] + 1 : place[0] > before[0] && place[1] === 0;
    if (!isNext) refuse("rows", `${here}the token that follows message ${before[0]} index ${before[1]}`, `message ${place[0]} index ${place[1]}`);
    if (row.logprob_nats > ROUNDING || row.surprisal_bits !== -row.logprob_nats / LN2) refuse("numbers", `${here}surprisal_bits to be −logprob_nats / ln 2`, `${row.surprisal_bits} of ${row.logprob_nats}`);
    if (!(1 <= row.rank_low && row.rank_low <= row.rank_high)) refuse("numbers", `${here}ranks from 1 in order`, `${row.rank_low} to ${row.rank_high}`);
    before = place;
    if (!(number % 256)) await progress(number);
  }
}

const NEAR = 1e-9; // of a sum, relative: it is told as the exact sum rounded, and added here one by one

function checkSums(side, rows) {
  const nats = rows.reduce((total, { surprisal }) => total + surprisal * LN2, 0);
  const messages = new Set(rows.map(({ message }) => message)).size;
  const told = { tokens: rows.length, messages };
  for (const [name, number] of Object.entries(told)) if (side[name] !== number) refuse("sums", `${name} ${number} of ${side.name}, as its rows have it`, ascii(side[name]));
  if (!(Math.abs(side.nats - nats) <= NEAR * nats)) refuse("sums", `${nats} nats of ${side.name}, as its rows have it`, ascii(side.nats));
  const observed = rows.filter(({ id }) => side.count?.ids?.includes(id)).length;
  if (side.count?.observed !== observed) refuse("sums", `${observed} times the event in ${side.name}`, ascii(side.count?.observed));
}
