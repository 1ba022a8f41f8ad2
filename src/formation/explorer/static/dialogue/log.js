// events.jsonl, read for looking: each event is held against its form, and ends the reading where it has none. Chain, order and canonical form are
// chain.js's to check.

import { textOf } from "../verify/bytes.js";
import { isObject } from "../verify/canonical.js";
import { wholeLines } from "../verify/container.js";
import { quoted } from "../verify/quoted.js";
import { ContainerRefusal, LineRefusal } from "../verify/refusals.js";
import { EVENTS, LINE_LIMITS } from "./eventtable.js";
import { checkBody, isAbsent } from "./form.js";
import { Talk } from "./talk.js";

const KNOWN = [LineRefusal, ContainerRefusal, SyntaxError, TypeError];
export const LN2 = Math.LN2;

/** `pause` lets the page draw itself meanwhile */
export async function readLog(blob, pause) {
  const reader = new Reader();
  try {
    for await (const line of wholeLines(blob, LINE_LIMITS.sizeBytes)) {
      reader.take(line);
      if (!(reader.events % 256)) await pause();
    }
  } catch (fault) {
    if (!KNOWN.some((kind) => fault instanceof kind)) throw fault;
    reader.talk.broken = `event ${reader.events}: ${fault.message}`;
  }
  return reader.whole();
}

class Reader {
  constructor() {
    Object.assign(this, { talk: new Talk("dialogue"), events: 0, at: 0, open: null });
  }

  take(line) {
    const event = JSON.parse(textOf(line));
    if (!isObject(event) || !Object.hasOwn(EVENTS, event.kind)) throw new LineRefusal(`expected an event, got ${quoted(event?.kind ?? event)}`);
    checkBody(event.kind, event.body);
    this[event.kind](event.body, [this.at, this.at + line.length, this.events]);
    this.at += line.length + 1;
    this.events += 1;
  }

  dialogue({ sides, ...head }) {
    if (this.events || sides.length !== 2) throw new LineRefusal("expected one beginning with two sides, got another");
    Object.assign(this.talk, { sides, names: sides.map(({ name }) => name), head, stops: head.stops, kickoff: head.kickoff });
  }

  turn({ turn, side, ...prompt }) {
    if (this.open || !this.talk.sides[side]) throw new LineRefusal(`expected the end of turn ${this.open?.number}, got another turn`);
    this.open = { number: turn, side, prompt, said: [] };
  }

  token(body, line) {
    this.inTurn().said.push(rowOf(body, line));
  }

  fault(body) {
    const { number, side, said } = this.inTurn();
    this.talk.faults.push({ ...body, number, side, lost: said.length });
    this.open.said = [];
  }

  turn_end({ reason, text }) {
    const turn = this.inTurn();
    const stop = this.talk.sides[turn.side].stop_ids;
    this.talk.add({ ...turn, reason, stated: text }, ({ id }) => stop.includes(id));
    this.open = null;
  }

  dialogue_end(body) {
    this.talk.end = body;
  }

  inTurn() {
    if (!this.open) throw new LineRefusal("expected a turn before it, got none");
    return this.open;
  }

  /** With the turn that is open, as far as it is there */
  whole() {
    if (this.open) this.talk.add({ ...this.open, reason: "not ended" }, () => false);
    return Object.assign(this.talk, { lines: this.events });
  }
}

// ---- tokens

const number = (value) => (typeof value === "number" ? value : NaN);

/** What the views draw of a token; its line has all of it */
function rowOf({ index, position, id, bytes, measured, reported }, line) {
  const row = { index, position, id: isAbsent(id) ? id.absent : id, bytes, line, ends: false };
  return Object.assign(row, isAbsent(measured) ? ofReport(reported) : ofMeasured(measured));
}

function ofMeasured(measured) {
  const model = measured.model;
  const sampler = viewOf(measured, "sampler");
  return {
    source: "measured", method: measured.method, surprisal: -number(model.logprob_bits), entropy: model.entropy_nats / LN2, varentropy: model.varentropy,
    rank: number(model.rank_low), q: -number(sampler.logprob_bits), truncated: measured.truncated_mass, top: model.top_masses[0] ?? NaN,
    zero: zerosOf(measured).find((zero) => zero !== "POSITIVE") ?? "POSITIVE", chance: NaN,
  };
}

function ofReport(reported) {
  const isValue = !isAbsent(reported) && reported.zero === "POSITIVE";
  const said = isAbsent(reported) ? "" : reported.zero;
  return {
    source: "reported", method: "server", surprisal: isValue ? -number(reported.logprob_nats) / LN2 : NaN, entropy: NaN, varentropy: NaN, rank: NaN, q: NaN,
    truncated: NaN, top: NaN, zero: said, chance: NaN,
  };
}

/** A view, where it stands as the name of one before it too */
export function viewOf(measured, name) {
  const found = measured[name];
  return typeof found === "string" ? viewOf(measured, found) : found;
}

const zerosOf = (measured) => ["model", "edited", "tempered", "sampler"].map((name) => viewOf(measured, name).zero);
