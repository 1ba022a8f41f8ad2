// A receipt: one line of a ledger, and the proof that it is in the tree whose head was signed: the twin of evidence/receipt.py.

import { LINE, encode } from "./canonical.js";
import { PublicKey } from "./keys.js";
import { HASH_BYTES, leafHash, verifyInclusion } from "./merkle.js";
import { readTreeHead } from "./note.js";
import { quoted } from "./quoted.js";
import { CanonicalRefusal, ProofRefusal, Refused } from "./refusals.js";
import { count, document, exactly, fields, fromBase64 } from "./strict.js";

export const FIRST_LINE = "c2sp.org/tlog-proof@v1";
const EXTRA = { sizeBytes: LINE.sizeBytes + 1024, depth: LINE.depth + 1 };
const LONGEST_PATH = 64;
const RECEIPT_BYTES = EXTRA.sizeBytes * 2; // base64 takes 4/3; the rest is small
const LINE_FIELDS = ["run_id", "position", "slot", "kind", "measured", "derived"];
export const NOT_PROVEN = "it does not prove that the line is true (only an audit with the weights does), nor that the rest of the ledger holds";

/** Strictly, everything verified: line, index, head, signer, and what it proves in words. */
export async function readReceipt(data) {
  const { extra, index, path, note } = parse(data);
  const line = fields("receipt", "receipt, line", extra.line, LINE_FIELDS);
  const signer = PublicKey.read(extra.public_key);
  const head = await readTreeHead(note, signer);
  try {
    verifyInclusion(leafHash(encode(line)), index, head.size, path, head.root);
  } catch (refusal) {
    if (!(refusal instanceof ProofRefusal || refusal instanceof CanonicalRefusal)) throw refusal;
    throw new Refused("inclusion", `receipt: ${refusal.message}`);
  }
  if (line.run_id !== head.runId) {
    throw new Refused("run-id", `receipt: expected a line of run ${head.runId}, got one of ${quoted(line.run_id)}`);
  }
  const where = `${line.slot} at position ${line.position}`;
  const proves = `key ${signer.fingerprint} signed a ledger of ${head.size} lines of run ${head.runId}; line ${index} is ${where}`;
  return { line, index, head, signer, proves };
}

function parse(data) {
  if (data.length > RECEIPT_BYTES) throw new Refused("receipt", `receipt: expected at most ${RECEIPT_BYTES} bytes, got ${data.length}`);
  const end = data.findIndex((byte, i) => byte === 10 && data[i + 1] === 10);
  const proof = end < 0 ? data : data.subarray(0, end);
  if (proof.some((byte) => byte > 127)) throw new Refused("receipt", "receipt: expected ASCII before the tree head, got something else");
  const lines = new TextDecoder().decode(proof).split("\n");
  if (end < 0 || !(3 <= lines.length && lines.length <= 3 + LONGEST_PATH)) {
    const due = `extra, index, at most ${LONGEST_PATH} hashes, an empty line and a tree head`;
    throw new Refused("receipt", `receipt: expected ${due}, got something else`);
  }
  exactly("receipt", "receipt, first line", lines[0], FIRST_LINE);
  const encoded = fromBase64("receipt", "extra", after("extra", lines[1]));
  const extra = document("receipt", "receipt, extra", encoded, ["line", "public_key"], EXTRA);
  const index = count("receipt", "receipt, index", after("index", lines[2]));
  const path = lines.slice(3).map((line) => fromBase64("receipt", "receipt, hash", line, HASH_BYTES));
  return { extra, index, path, note: data.subarray(end + 2) };
}

function after(word, line) {
  if (!line.startsWith(`${word} `)) {
    throw new Refused("receipt", `receipt: expected a line that begins with '${word} ', got ${quoted(line)}`);
  }
  return line.slice(word.length + 1);
}
