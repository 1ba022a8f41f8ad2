// A bundle to a verdict: the numbered checks in their order, without weights and without a network: the twin of evidence/verify.py.

import { readAudit } from "./audited.js";
import { hex } from "./bytes.js";
import { LINE, has } from "./canonical.js";
import { readCertification } from "./certification.js";
import { bytesOfBlob, pieces, wholeLines } from "./container.js";
import * as documents from "./documents.js";
import { AUDIT, CERTIFICATION, RUN, readAttestation } from "./envelope.js";
import { readLedger } from "./ledger.js";
import { readTreeHead } from "./note.js";
import { ascii } from "./quoted.js";
import { ContainerRefusal, Refused } from "./refusals.js";
import { FAILED, NOT_CLAIMED, NOT_REACHED, PASSED, failed, finding, notClaimed, passed, report, same } from "./report.js";
import { Sha256, sha256 } from "./sha256.js";
import { ROWS, Sidecars } from "./sidecars.js";
import { CHECKS } from "./tables.js";

const AT_SIGNING = ["key", "signature"]; // what readAttestation may refuse beyond the form of the file
const UNSIGNED = ["attestation.json", "audit.json", "certification.json"];
const TENSOR_DIGESTS = "tensor-digests.json";
const HEADERS_NOTE = "headers: the headers of the shards are named by digest, their tensors are not";

/** The verdict on a bundle. `open` gives its contents or throws ContainerRefusal; `signers` says of which keys the reader knows whose they are,
 * fingerprint -> how it is known; `nonce` is one that the reader chose before the run, or null. `leftOut` names files of the bundle that are not here:
 * what they are needed for is not reached. */
export async function verify(open, { signers = new Map(), allowUnknownSigner = false, nonce = null, leftOut = [], progress = () => {} } = {}) {
  return new Examination(open, { signers, allowUnknownSigner, nonce, leftOut, progress }).report();
}

/** One bundle under examination. Attributes are set by the check that reads them, and used by checks that need it. */
class Examination {
  constructor(open, options) {
    Object.assign(this, { open, ...options, outcomes: new Map(), notes: {}, weights: documents.HEADERS });
  }

  async report() {
    for (const check of CHECKS) {
      await this.progress(check);
      this.outcomes.set(check.number, { check, ...(await this.finding(check)) });
    }
    return report([...this.outcomes.values()], this.facts(), this.notes);
  }

  async finding(check) {
    const unmet = check.needs.map((n) => this.outcomes.get(n)).find(({ state }) => state !== PASSED && state !== NOT_CLAIMED);
    if (unmet) return finding(NOT_REACHED, `needs V${unmet.check.number} ${unmet.check.name}`);
    try {
      return await (has(METHODS, check.name) ? METHODS[check.name] : rule)(this, check);
    } catch (refusal) {
      if (!(refusal instanceof ContainerRefusal || refusal instanceof Refused)) throw refusal;
      return failed(refusal.message);
    }
  }

  blob(name) {
    return this.contents.blobs.get(name);
  }

  async read(name) {
    return bytesOfBlob(this.blob(name));
  }

  has(name) {
    return this.contents.blobs.has(name);
  }

  /** The one pass over the ledger; needs the anchor */
  async found() {
    const told = (bytes) => this.progress({ name: "ledger.jsonl", bytes, of: this.blob("ledger.jsonl").size });
    return (this.ledger ??= await readLedger(this.blob("ledger.jsonl"), this.anchor, new Sidecars(this.contents.blobs), told));
  }

  /** For people; what was not reached is not there */
  facts() {
    const facts = {};
    if (this.anchor) Object.assign(facts, { run_id: this.anchor.runId, contract: this.anchor.contract });
    if (this.attestation) Object.assign(facts, { bundle: this.attestation.digest, signer: this.attestation.signer.fingerprint });
    if (this.ledger) Object.assign(facts, { lines: this.ledger.lines, root: hex(this.ledger.root), tokens: this.ledger.steps });
    return facts;
  }
}

// ---- INTEGRITY

async function container(exam) {
  exam.contents = await exam.open();
  if (exam.contents.untrusted.length) exam.notes.INTEGRITY = "never trusted, not looked at: views/";
  const bytes = [...exam.contents.blobs.values()].reduce((total, blob) => total + blob.size, 0);
  return passed(`${exam.contents.blobs.size} files, ${bytes} bytes`);
}

function complete(exam) {
  if (exam.contents.incomplete) return finding(FAILED, "ledger", "a ledger that was closed", "an INCOMPLETE one: it can be shown and resumed");
  return passed("nothing is left that grows");
}

async function anchor(exam) {
  exam.anchor = documents.readAnchor(await exam.read("anchor.json"));
  return passed(`run ${exam.anchor.runId}`);
}

async function contract(exam) {
  documents.checkContract(await exam.read("contract.json"), exam.anchor);
  return passed(`${exam.anchor.contract}, digest ${exam.anchor.contractDigest}`);
}

async function checkpoint(exam) {
  exam.checkpoint = documents.readCheckpoint(await exam.read("checkpoint.json"), exam.anchor);
  const { files, tensors } = exam.checkpoint;
  return passed(`${files} files, ${tensors.length} tensors, table root ${exam.anchor.tensorTableRoot}`);
}

async function envelope(exam) {
  const data = await exam.read("attestation.json");
  exam.attestationSha256 = hex(sha256(data));
  try {
    exam.attestation = await readAttestation(data, RUN);
  } catch (refusal) {
    if (!(refusal instanceof Refused && AT_SIGNING.includes(refusal.check))) throw refusal;
    exam.refusedAtSigning = refusal;
  }
  return passed("one envelope, one signature, a statement about a run");
}

function signature(exam) {
  if (exam.refusedAtSigning) throw exam.refusedAtSigning;
  return passed(`by key ${exam.attestation.signer.fingerprint}`);
}

async function treeHead(exam) {
  exam.head = await readTreeHead(await exam.read("tree-head.txt"), exam.attestation.signer);
  return same("run in the origin of tree-head.txt", exam.anchor.runId, exam.head.runId);
}

async function lines(exam) {
  const found = await exam.found();
  return found.broken ? failed(`ledger.jsonl, ${found.broken}`) : passed(`${found.lines} lines`);
}

async function root(exam) {
  const found = await exam.found();
  return same("ledger.jsonl", `${exam.head.size} lines, root ${hex(exam.head.root)}`, `${found.lines} lines, root ${hex(found.root)}`);
}

async function subjects(exam) {
  const due = [...exam.contents.blobs.keys(), ...exam.leftOut].filter((name) => !UNSIGNED.includes(name));
  const stated = exam.attestation.statement.subjects;
  const strange = [...new Set([...stated.keys(), ...due])].sort().find((name) => stated.has(name) !== due.includes(name));
  if (strange !== undefined) {
    return due.includes(strange) ? same(strange, "a subject", "none") : same(strange, "no subject", "one");
  }
  for (const name of due.filter((each) => exam.has(each))) {
    const found = await digestOf(exam, name);
    if (found !== stated.get(name)) return finding(FAILED, name, `sha256 ${stated.get(name)}, as was signed`, found);
  }
  if (exam.leftOut.length) return notHere(exam);
  return passed(`${due.length} files, by name and SHA-256`);
}

async function digestOf(exam, name) {
  if (name === "ledger.jsonl") return hex((await exam.found()).sha256);
  const state = new Sha256();
  for await (const piece of pieces(exam.blob(name))) {
    state.update(piece);
    await exam.progress({ name, bytes: state.size, of: exam.blob(name).size });
  }
  return hex(state.digest());
}

/** Of the files that are left out nothing was read, so of what was signed about them nothing is said */
function notHere(exam) {
  const why = `not here, so not checked: ${exam.leftOut.join(", ")}`;
  exam.notes.INTEGRITY = exam.notes.LEDGER = why;
  return finding(NOT_REACHED, why);
}

async function declarations(exam) {
  const { steps, lines } = await exam.found();
  const machines = 1 + documents.readHost(await exam.read("host.json"), lines).resumed.length;
  const positions = exam.anchor.steps.all();
  const blob = exam.blob("io.jsonl");
  let count = 0;
  let size = 0;
  for await (const line of wholeLines(blob, LINE.sizeBytes)) {
    documents.checkAccount(line, positions.next().value);
    count++;
    size += line.length + 1;
  }
  if (size !== blob.size) return finding(FAILED, "io.jsonl", "lines that end in LF", `something else after line ${count}`);
  return same(`machines of host.json: ${machines}; lines of io.jsonl, one for each step`, String(steps), String(count));
}

function predicate(exam) {
  const { formation, ...stated } = exam.attestation.statement.predicate;
  const expected = runPredicate(exam);
  if (typeof formation !== "string") return finding(FAILED, "predicate", "the version of formation that sealed it", "none");
  const names = [...new Set([...Object.keys(stated), ...Object.keys(expected)])].sort();
  const written = (table, name) => (has(table, name) ? documents.textOf(table[name]) : "null");
  const wrong = names.find((name) => has(stated, name) !== has(expected, name) || written(stated, name) !== written(expected, name));
  if (wrong) return finding(FAILED, `predicate, ${wrong}`, written(expected, wrong), written(stated, wrong).slice(0, 200));
  return passed("run, tree head, contract, checkpoint, parity and weights are as the files say");
}

/** What the attestation of a run says beside `formation`, the version that sealed it: all of it follows from the files. */
function runPredicate({ anchor, head, parity, weights }) {
  return {
    run_id: anchor.runId,
    tree_head: treeHeadOf(head),
    contract: { name: anchor.contract, digest: anchor.contractDigest },
    checkpoint: { sha256: anchor.checkpointSha256, tensor_table_root: anchor.tensorTableRoot },
    parity,
    weights,
  };
}

const treeHeadOf = ({ origin, size, root }) => ({ origin, size, root: hex(root) });

// ---- SIGNER

function signer(exam) {
  const key = exam.attestation.signer;
  const how = exam.signers.get(key.fingerprint);
  if (how) {
    exam.notes.SIGNER = how;
    return passed(`${key.fingerprint}: ${how}`);
  }
  if (!exam.allowUnknownSigner) return finding(FAILED, "signer", "a key the reader knows", `${key.fingerprint}, public key ${key.text}`);
  exam.notes.SIGNER = "an unknown key, which was allowed";
  return notClaimed(`${key.fingerprint} is unknown, which was allowed`);
}

// ---- LEDGER

/** Every check named as a rule of the ledger */
async function rule(exam, check) {
  const result = (await exam.found()).results.get(check.name);
  if (check.name === ROWS && exam.leftOut.length) return notHere(exam);
  if (result.violated) {
    if (result.where.includes("expected ")) return failed(result.where);
    const gap = result.worstGap === Infinity ? "" : `, a gap of ${general(result.worstGap, 3)}`;
    return finding(FAILED, check.name, "the rule to hold", `${result.where}${gap}`);
  }
  if (!result.checked) return notClaimed("there is nothing to hold it against");
  const worst = result.tolerance ? `, worst gap ${general(result.worstGap, 2)} of ${general(result.tolerance, 2)}` : "";
  return passed(`${result.checked} checked${worst}`);
}

/** A number with as many digits as are worth reading, as Python's format "g" has it */
function general(x, digits) {
  const [mantissa, exponent] = x.toExponential(digits - 1).split("e");
  const bare = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (Number(exponent) >= -4 && Number(exponent) < digits) return bare(x.toFixed(digits - 1 - Number(exponent)));
  return `${bare(mantissa)}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
}

// ---- PARITY, WEIGHTS, REPLAY, CERTIFIED, TIME

async function parity(exam) {
  const { steps, cells, lines, root } = await exam.found();
  exam.parity = documents.readParity(await exam.read("parity.json"), { steps, cells, lines, root: hex(root) });
  if (exam.parity !== PASSED) return notClaimed("no run without capture was made");
  return passed(`${steps} logits and ${cells} cache entries, as the signer attests`);
}

async function tensorDigests(exam) {
  if (!exam.has(TENSOR_DIGESTS)) {
    exam.notes.WEIGHTS = HEADERS_NOTE;
    return notClaimed(HEADERS_NOTE);
  }
  exam.weights = documents.weightsLevel(await exam.read(TENSOR_DIGESTS), exam.anchor.tensorTableRoot, exam.checkpoint.tensors);
  exam.notes.WEIGHTS = exam.weights;
  return passed(exam.weights);
}

/** audit.json and certification.json: signed, by a known key, about this bundle, and with counts that say what the outcome does */
async function later(exam, check) {
  const name = `${check.name}.json`;
  if (!exam.has(name)) return notClaimed(`no ${name}`);
  const made = await readAttestation(await exam.read(name), check.name === "audit" ? AUDIT : CERTIFICATION);
  const outcome = documents.readLater(made.statement, treeHeadOf(exam.head), exam.attestationSha256, check.name);
  const { result } = made.statement.predicate;
  const content = check.name === "audit" ? readAudit(result, outcome, await exam.found()) : readCertification(result, outcome);
  if (outcome !== PASSED) return finding(FAILED, name, "an outcome of passed", outcome);
  const how = exam.signers.get(made.signer.fingerprint);
  exam.notes[check.level] = how ? content : `${name} is signed by an unknown key`;
  if (how) return passed(`signed by ${made.signer.fingerprint}, ${how}`);
  return notClaimed(`signed by ${made.signer.fingerprint}, which is unknown`);
}

function nonce(exam) {
  if (exam.nonce === null) return notClaimed("no nonce was asked for");
  return same("nonce", ascii(exam.nonce), ascii(exam.anchor.nonce));
}

const METHODS = {
  container, complete, anchor, contract, checkpoint, envelope, signature, "tree head": treeHead, lines, root, subjects, signer, parity,
  "tensor digests": tensorDigests, declarations, predicate, audit: later, certification: later, nonce,
};
