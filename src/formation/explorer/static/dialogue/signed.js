// That the rows of a scored transcript are in signed ledgers. Of each bundle the page holds its attestation, its tree head, the hashes of all leaves of
// its ledger, and the lines that the rows were copied from: the hashes must have the root that was signed, each line must be the leaf at its place,
// and each row must say what its lines say. The other lines are not here, and nothing is said of them.

import { equal, hex } from "../verify/bytes.js";
import { LINE, decode } from "../verify/canonical.js";
import { bytesOfBlob, wholeLines } from "../verify/container.js";
import { RUN, readAttestation } from "../verify/envelope.js";
import { HASH_BYTES, Tree, leafHash } from "../verify/merkle.js";
import { readTreeHead } from "../verify/note.js";
import { ascii } from "../verify/quoted.js";
import { LineRefusal, Refusal } from "../verify/refusals.js";
import { sha256 } from "../verify/sha256.js";

const SIGNED_CHECKS = {
  signature: "attestation and tree head of each bundle are signed by the key that they name, and are those of the summary",
  root: "the leaves of each ledger have the root that was signed",
  copies: "every row says what its lines say, and each line is a leaf of its ledger",
};
const SLICE = 256; // leaves or lines between two moments in which the page may draw itself
/** Names of a row, and of its lines */
const COPIED = {
  lm_head: [["logprob_nats", "derived", "logprob"], ["surprisal_bits", "derived", "surprisal_bits"], ["entropy_nats", "derived", "entropy_nats"], ["varentropy", "derived", "varentropy"], ["rank_low", "measured", "rank_low"], ["rank_high", "measured", "rank_high"]],
  token: [["id", "measured", "id"], ["bytes", "measured", "bytes"]],
};

function refuse(check, expected, got) {
  throw Object.assign(new LineRefusal(`expected ${expected}, got ${got}`), { check });
}

const letters = (blobs, talk) => ["a", "b"].filter((letter) => blobs.has(`${letter}.head`) && sideOf(talk, letter));
const sideOf = ({ summary }, letter) => summary?.sides.find(({ bundle }) => bundle === `${letter}.ofb`);

/** { states, signers, found }: checks as chain.js tells them; keys; by row number, the place of its lm_head line. Null if a side's bundle is not here. */
export async function checkSigned(talk, blobs, rowOf, progress) {
  const here = letters(blobs, talk);
  if (!here.length || here.length < talk.summary.sides.length) return null;
  const told = { signers: new Map(), found: new Map(), fault: null };
  try {
    for (const letter of here) await checkOne(talk, blobs, letter, rowOf, told, progress);
  } catch (fault) {
    if (!(fault instanceof Refusal)) throw fault;
    told.fault = fault;
  }
  return { ...told, states: statesOf(told.fault) };
}

function statesOf(fault) {
  const failed = fault && (fault.check in SIGNED_CHECKS ? fault.check : "signature");
  const names = Object.keys(SIGNED_CHECKS);
  return names.map((name, n) => {
    const says = SIGNED_CHECKS[name];
    if (name === failed) return { name, says, state: "failed", said: fault.message };
    return failed && n > names.indexOf(failed) ? { name, says, state: "not reached", said: "the checking ended before" } : { name, says, state: "passed", said: says };
  });
}

async function checkOne(talk, blobs, letter, rowOf, told, progress) {
  const side = sideOf(talk, letter);
  const file = (name) => bytesOfBlob(blobs.get(`${letter}.${name}`));
  const attestation = await readAttestation(await file("attestation"), RUN);
  if (attestation.digest !== side.digest) refuse("signature", `the bundle ${side.digest} of the summary`, attestation.digest);
  const note = await file("head");
  if (attestation.statement.subjects.get("tree-head.txt") !== hex(sha256(note))) refuse("signature", "the tree head that was attested", hex(sha256(note)));
  const head = await readTreeHead(note, attestation.signer);
  if (head.runId !== side.run_id) refuse("signature", `run ${side.run_id} of the summary`, head.runId);
  told.signers.set(attestation.signer.fingerprint, attestation.signer.text);
  const leaves = await file("leaves");
  await checkRoot(leaves, head, progress);
  await checkLines({ talk, blobs, letter, side, leaves, head, rowOf, told }, progress);
}

async function checkRoot(leaves, head, progress) {
  if (leaves.length !== head.size * HASH_BYTES) refuse("root", `${head.size} leaves`, leaves.length / HASH_BYTES);
  const tree = new Tree();
  for (let at = 0; at < leaves.length; at += HASH_BYTES) {
    tree.append(leaves.subarray(at, at + HASH_BYTES));
    if (!(tree.size % SLICE)) await progress(0);
  }
  if (!equal(tree.root(), head.root)) refuse("root", `root ${hex(head.root)}`, hex(tree.root()));
}

async function checkLines({ talk, blobs, letter, side, leaves, head, rowOf, told }, progress) {
  const places = JSON.parse(new TextDecoder().decode(await bytesOfBlob(blobs.get(`${letter}.places`))));
  const own = talk.tokens.filter(({ name }) => name === side.name);
  const rows = new Map(own.map((token) => [token.position - 1, token])); // a token is formed by the step before its own position
  if (rows.size < own.length) refuse("copies", `rows of ${side.name} at different positions`, "two at one");
  const due = new Map([...rows.keys()].map((position) => [position, new Set(Object.keys(COPIED))]));
  let [n, at] = [0, 0];
  for await (const line of wholeLines(blobs.get(`${letter}.lines`), LINE.sizeBytes)) {
    const place = places[n++];
    if (!Number.isSafeInteger(place) || !equal(leafHash(line), leaves.subarray(place * HASH_BYTES, (place + 1) * HASH_BYTES))) refuse("copies", `line ${n} of ${letter}.ofb to be leaf ${place}`, "another");
    const value = decode(line, LINE);
    if (value.run_id !== head.runId) refuse("copies", `a line of run ${head.runId}`, ascii(value.run_id));
    const token = rows.get(value.position);
    if (token && value.slot in COPIED) await checkRow(value, await rowOf(token), side.name);
    if (token && value.slot === "lm_head") told.found.set(token.n, [letter, at, at + line.length]);
    due.get(value.position)?.delete(value.slot);
    at += line.length + 1;
    if (!(n % SLICE)) await progress(n);
  }
  const missing = [...due].find(([, slots]) => slots.size);
  if (missing) refuse("copies", `lines of the step at position ${missing[0]} of ${side.name}`, "none");
}

function checkRow(value, row, name) {
  for (const [own, part, theirs] of COPIED[value.slot]) {
    if (row[own] !== value[part][theirs]) refuse("copies", `${own} ${ascii(value[part][theirs])} at position ${value.position} of ${name}, as the ledger has it`, ascii(row[own]));
  }
}
