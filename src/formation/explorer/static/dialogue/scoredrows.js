// tokens.jsonl and summary.json of `formation score`, as a dialogue: what was said as far as its sides were scored.

import { bytesOfBlob, wholeLines } from "../verify/container.js";
import { textOf } from "../verify/bytes.js";
import { isObject } from "../verify/canonical.js";
import { quoted } from "../verify/quoted.js";
import { ContainerRefusal, LineRefusal } from "../verify/refusals.js";
import { LINE_LIMITS } from "./eventtable.js";
import { checkScored } from "./form.js";
import { LN2 } from "./log.js";
import { Talk } from "./talk.js";

const KNOWN = [LineRefusal, ContainerRefusal, SyntaxError, TypeError];

export async function readScored(tokens, summary, pause) {
  const talk = new Talk("scored");
  const said = new Map(); // number of the message -> its rows
  try {
    talk.summary = summaryOf(JSON.parse(textOf(await bytesOfBlob(summary))));
    let at = 0;
    for await (const line of wholeLines(tokens, LINE_LIMITS.sizeBytes)) {
      const row = JSON.parse(textOf(line));
      checkScored(row);
      if (!said.has(row.message)) said.set(row.message, []);
      said.get(row.message).push(rowOf(row, [at, at + line.length, talk.lines]));
      at += line.length + 1;
      if (!(++talk.lines % 256)) await pause();
    }
  } catch (fault) {
    if (!KNOWN.some((kind) => fault instanceof kind)) throw fault;
    talk.broken = `line ${talk.lines + 1} of tokens.jsonl, or summary.json: ${fault.message}`;
  }
  return whole(talk, said);
}

/** Gives the row of a token as tokens.jsonl has it */
export const rowOfFile = (blobs) => async ({ line }) => JSON.parse(textOf(await bytesOfBlob(blobs.get("tokens.jsonl").slice(line[0], line[1]))));

/** { sides } with what the views use of each; the rest is shown as it is */
function summaryOf(value) {
  if (!isObject(value) || !Array.isArray(value.sides) || !value.sides.length || !value.sides.every((side) => isObject(side) && typeof side.name === "string")) {
    throw new LineRefusal(`summary.json: expected sides with names, got ${quoted(value)}`);
  }
  return value;
}

/** Messages in their order; of a side that was not scored there is nothing here. The first-named side is the one of odd messages. */
function whole(talk, said) {
  const numbers = [...said.keys()].sort((a, b) => a - b);
  const names = [...new Set(numbers.map((number) => said.get(number)[0].name))];
  const first = numbers.length && numbers[0] % 2 === 0 && names.length < 2 ? 1 : 0;
  talk.names = first ? ["the other side", names[0]] : [names[0] ?? "A", names[1] ?? "the other side"];
  for (const number of numbers) {
    const rows = said.get(number);
    talk.add({ number, side: talk.names.indexOf(rows[0].name), reason: "scored", said: rows }, ({ isLast }) => isLast);
  }
  return talk;
}

function rowOf(row, line) {
  return {
    name: row.side, index: row.index, position: row.position, id: row.id, bytes: row.bytes, line, ends: false, isLast: row.ends_turn, source: "measured",
    method: "scored", surprisal: row.surprisal_bits, entropy: row.entropy_nats / LN2, varentropy: row.varentropy, rank: row.rank_low, q: NaN, truncated: NaN,
    top: NaN, zero: typeof row.zero === "string" ? row.zero : "", chance: row.event_probability, kl: typeof row.kl_nats === "number" ? row.kl_nats : NaN,
  };
}
