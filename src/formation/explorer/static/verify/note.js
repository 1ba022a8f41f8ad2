// Signed notes (C2SP signed-note v1) and the signed tree head of a ledger: the twin of evidence/note.py.

import { equal, textOf, utf8 } from "./bytes.js";

import { SIGNATURE_BYTES } from "./keys.js";
import { HASH_BYTES } from "./merkle.js";
import { quoted } from "./quoted.js";
import { BadSignature, Refused } from "./refusals.js";
import { sha256 } from "./sha256.js";
import { count, fromBase64 } from "./strict.js";

export const ORIGIN = "formation-ledger.dev/run/";
const NOTE_BYTES = 1 << 16;
const MOST_SIGNATURES = 16;
const ED25519 = Uint8Array.of(1);
const ID_BYTES = 4;
const NAME = /^[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000+]+$/; // neither white space nor plus

/** A text that ends in LF, and who says they signed it: nothing is verified yet. */
export function readNote(data, check = "note") {
  const refuse = (sentence) => {
    throw new Refused(check, `note: ${sentence}`);
  };
  if (data.length > NOTE_BYTES) refuse(`expected at most ${NOTE_BYTES} bytes, got ${data.length}`);
  let whole;
  try {
    whole = textOf(data);
  } catch {
    refuse("expected UTF-8, got something else");
  }
  if (/[\0-\x09\x0b-\x1f]/.test(whole)) refuse("expected no control characters but LF, got one");
  const end = whole.lastIndexOf("\n\n");
  const lines = whole.slice(end + 2).split("\n");
  if (end < 1 || lines.pop() !== "" || !(1 <= lines.length && lines.length <= MOST_SIGNATURES)) {
    refuse(`expected a text, an empty line and 1 to ${MOST_SIGNATURES} lines of signatures, got something else`);
  }
  return { text: whole.slice(0, end) + "\n", signatures: lines.map((line) => signature(line, check)) };
}

function signature(line, check) {
  const [dash, name = "", encoded = "", ...more] = line.split(" ");
  if (dash !== "—" || !NAME.test(name) || more.some((part) => part)) {
    throw new Refused(check, `note: expected a signature as '— NAME BASE64', got ${quoted(line)}`);
  }
  const data = fromBase64(check, "note, signature", encoded);
  if (data.length <= ID_BYTES) {
    throw new Refused(check, `note, signature: expected a key id of ${ID_BYTES} bytes and a signature, got ${data.length} bytes`);
  }
  return { name, data };
}

const keyId = (name, key) => sha256(utf8(name), utf8("\n"), ED25519, key.data).subarray(0, ID_BYTES);

/** Returns if `key` under `name` signed the text. Signatures of others are not looked at. */
export async function verifyNote(note, name, key) {
  const id = keyId(name, key);
  const own = note.signatures.filter((s) => s.name === name && equal(s.data.subarray(0, ID_BYTES), id));
  if (!own.length) throw new BadSignature(`note: expected a signature by ${name} with key ${key.fingerprint}, got none`);
  for (const each of own) await key.verify(each.data.subarray(ID_BYTES), utf8(note.text));
}

// ---- tree heads

/** The head of a ledger's tree, signed by `key` alone: origin, size, root, runId. */
export async function readTreeHead(data, key) {
  const note = readNote(data, "tree-head");
  const head = parseHead(note.text);
  if (!head.origin.startsWith(ORIGIN) || !/^[0-9a-f]{64}$/.test(head.runId)) {
    throw new Refused("tree-head", `tree head: expected origin ${ORIGIN} and a run_id, got ${quoted(head.origin)}`);
  }
  if (note.signatures.length !== 1 || note.signatures[0].data.length !== ID_BYTES + SIGNATURE_BYTES) {
    throw new Refused("tree-head", `tree head: expected one Ed25519 signature, got ${note.signatures.length} signatures`);
  }
  await verifyNote(note, head.origin, key);
  return head;
}

/** Of any log, not only of ledgers */
export function parseHead(text) {
  const lines = text.split("\n");
  if (lines.length !== 4 || !lines[0] || lines[3]) {
    throw new Refused("tree-head", "tree head: expected three lines, origin, size and root, got something else");
  }
  const size = count("tree-head", "tree head, size", lines[1]);
  const root = fromBase64("tree-head", "tree head, root", lines[2], HASH_BYTES);
  return { origin: lines[0], size, root, runId: lines[0].slice(lines[0].startsWith(ORIGIN) ? ORIGIN.length : 0) };
}
