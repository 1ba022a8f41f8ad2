// What the small documents of a bundle must say, to the last field: the twin of evidence/documents.py and payloads.py.

import { decodeAnchor } from "./anchor.js";
import { hex, utf8 } from "./bytes.js";
import { DOCUMENT, LINE, encode, has, isObject } from "./canonical.js";
import { leafHash, rootOf } from "./merkle.js";
import { quoted, typeName } from "./quoted.js";
import { AnchorRefusal, CanonicalRefusal, Refused } from "./refusals.js";
import { sha256 } from "./sha256.js";
import { digest, document, exactly, fields, text, valueOf } from "./strict.js";
import { CONTRACT } from "./tables.js";

const isText = (value) => typeof value === "string";
const isFlag = (value) => typeof value === "boolean";
export const isCount = (value) => Number.isInteger(value) && value >= 0;
const isAmount = (value) => typeof value === "number" && value >= 0;
export const textOf = (value) => new TextDecoder().decode(encode(value, DOCUMENT));

// ---- anchor.json

/** Beyond anchor.js: settings that a sampler can have, and stop ids in the one order; the run_id is the digest of the bytes. */
export function readAnchor(data) {
  const found = anchorOf(data);
  const { stopIds, tokens, sampler } = found;
  if (stopIds.some((id, n) => n && stopIds[n - 1] >= id) || tokens < 1) {
    throw new Refused("anchor", "anchor.json, stop: expected ascending ids and at least one token, got others");
  }
  const wrong = sampler.method === "sample" && Object.keys(SETTINGS).find((name) => !SETTINGS[name](sampler[name]));
  if (wrong) throw new Refused("anchor", `anchor.json, sampler: expected a setting in the range of ${wrong}, got ${quoted(sampler[wrong])}`);
  return { ...found, runId: hex(sha256(data)) };
}

function anchorOf(data) {
  try {
    return decodeAnchor(data);
  } catch (refusal) {
    if (!(refusal instanceof AnchorRefusal || refusal instanceof CanonicalRefusal)) throw refusal;
    throw new Refused("anchor", `anchor.json: ${refusal.message}`);
  }
}

/** 64 bits as a decimal without leading zeroes */
const isSeed = (value) => /^(0|[1-9][0-9]{0,19})$/.test(value) && BigInt(value) < 1n << 64n;
const SETTINGS = {
  temperature: (v) => 0 < v && v <= 1e6, top_k: (v) => v >= 0, top_p: (v) => 0 < v && v <= 1, min_p: (v) => 0 <= v && v <= 1,
  seed: isSeed, branch: isSeed,
};

// ---- contract.json

/** The document is of the anchor's contract, that one is known, and the digest is that of the vectors listed. */
export function checkContract(data, anchor) {
  const value = document("contract", "contract.json", data, ["name", "digest", "cases"]);
  exactly("contract", "contract.json, name", value.name, anchor.contract);
  exactly("contract", "contract.json, digest", value.digest, anchor.contractDigest);
  if (anchor.contract !== CONTRACT.name || anchor.contractDigest !== CONTRACT.digest) {
    const due = `${CONTRACT.name} with digest ${CONTRACT.digest}, which this version knows`;
    throw new Refused("contract", `numerics contract: expected ${due}, got ${quoted(anchor.contract)}`);
  }
  exactly("contract", "digest of the cases", casesDigest(anchor.contract, value.cases), anchor.contractDigest);
}

/** SHA-256 over the contract's name and every case's digests, one a line, sorted by name */
function casesDigest(name, cases) {
  if (!isObject(cases)) throw new Refused("contract", `contract.json, cases: expected an object, got ${typeName(cases)}`);
  const lines = Object.keys(cases).sort().map((each) => {
    const found = fields("contract", `case ${each}`, cases[each], ["inputs", "outputs"]);
    return `${each} ${digest("contract", each, found.inputs)} ${digest("contract", each, found.outputs)}`;
  });
  return hex(sha256(utf8([name, ...lines].map((line) => `${line}\n`).join(""))));
}

// ---- checkpoint.json

/** The names of its tensors; the root of the tensor table is recomputed; it and the digest of the list of files are the anchor's. */
export function readCheckpoint(data, anchor) {
  const value = document("checkpoint", "checkpoint.json", data, ["files", "tensor_table", "tensor_table_root"]);
  const files = rows(value.files, "files");
  const table = rows(value.tensor_table, "tensor_table");
  const paths = new Set(ascending(files.map(checkFile), "files"));
  const tensors = ascending(table.map((row) => checkTensor(row, paths)), "tensor_table");
  const root = hex(rootOf(table.map((row) => leafHash(utf8(JSON.stringify(row)))))); // each as it stands in the document, which is canonical
  exactly("checkpoint", "checkpoint.json, tensor_table_root", value.tensor_table_root, root);
  exactly("checkpoint", "anchor.json, tensor_table_root", anchor.tensorTableRoot, root);
  exactly("checkpoint", "anchor.json, checkpoint sha256", anchor.checkpointSha256, hex(sha256(encode(files, DOCUMENT))));
  return { files: paths.size, tensors };
}

function rows(value, what) {
  if (Array.isArray(value) && value.length) return value;
  throw new Refused("checkpoint", `checkpoint.json, ${what}: expected a list, got ${Array.isArray(value) ? "an empty one" : typeName(value)}`);
}

/** By the bytes of the names, so each stands once */
function ascending(names, what) {
  const late = names.findIndex((name, n) => n && !precedes(names[n - 1], name));
  if (late > 0) throw new Refused("checkpoint", `checkpoint.json, ${what}: expected names in ascending order, got ${quoted(names[late])}`);
  return names;
}

/** By the bytes of UTF-8, whose order is that of code points: in UTF-16 it is that of the first units that differ, surrogates after all others */
export function precedes(a, b) {
  let at = 0;
  while (at < a.length && a[at] === b[at]) at++;
  if (at === a.length || at === b.length) return a.length < b.length;
  return rank(a.charCodeAt(at)) < rank(b.charCodeAt(at));
}

const rank = (unit) => (unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit);

/** Its path */
function checkFile(row) {
  const found = fields("checkpoint", "checkpoint.json, file", row, ["path", "size", "sha256", "covers"]);
  const path = text("checkpoint", "checkpoint.json, path", found.path);
  digest("checkpoint", `checkpoint.json, ${quoted(path)}`, found.sha256);
  if (!["file", "header"].includes(found.covers) || !isCount(found.size) || !isPlain(path)) {
    throw new Refused("checkpoint", `checkpoint.json: expected a plain path, a size and file or header, got ${quoted(row)}`);
  }
  return path;
}

/** One part, of no special meaning, in printable ASCII */
const isPlain = (path) => !["", ".", ".."].includes(path) && /^[^/\\]*$/.test(path) && /^[ -~]*$/.test(path);

/** Its name */
function checkTensor(row, paths) {
  const found = fields("checkpoint", "checkpoint.json, tensor", row, ["file", "name", "dtype", "shape", "begin", "end"]);
  const [name, file] = ["name", "file"].map((field) => text("checkpoint", `checkpoint.json, tensor's ${field}`, found[field]));
  const { shape, begin, end } = found;
  const good = Array.isArray(shape) && shape.every(isCount) && isCount(begin) && isCount(end) && begin <= end;
  if (!good || !isText(found.dtype) || !paths.has(file)) {
    throw new Refused("checkpoint", `checkpoint.json: expected a tensor's file, dtype, shape and range, got ${quoted(row)}`);
  }
  return name;
}

// ---- tensor-digests.json

const DIGESTS = "tensor-digests";
export const HEADERS = "headers"; // the WEIGHTS level of a bundle without this file

/** What is known of the payloads: `all`, or `tensors n of N` */
export function weightsLevel(data, tensorTableRoot, tensors) {
  const value = document(DIGESTS, `${DIGESTS}.json`, data, ["kind", "tensor_table_root", "tensors"]);
  const kind = "formation-tensor-digests/1";
  if (value.kind !== kind || value.tensor_table_root !== tensorTableRoot || !Array.isArray(value.tensors)) {
    throw new Refused(DIGESTS, `${DIGESTS}.json: expected ${kind} of tensor table ${tensorTableRoot}, got another`);
  }
  const names = value.tensors.map((row, n) => digestedTensor(row, n ? value.tensors[n - 1].name : null));
  const own = new Set(tensors);
  const stranger = names.find((name) => !own.has(name));
  if (stranger !== undefined || !names.length) {
    throw new Refused(DIGESTS, `${DIGESTS}.json: expected tensors of the checkpoint, got ${names.length ? quoted(stranger) : "none"}`);
  }
  return names.length === tensors.length ? "all" : `tensors ${names.length} of ${tensors.length}`;
}

function digestedTensor(row, before) {
  const name = text(DIGESTS, "tensor, name", fields(DIGESTS, "tensor", row, ["name", "sha256"]).name);
  if (before !== null && !precedes(before, name)) {
    throw new Refused(DIGESTS, `${DIGESTS}.json: expected tensors in ascending order, got ${quoted(name)}`);
  }
  digest(DIGESTS, `tensor ${quoted(name)}`, row.sha256);
  return name;
}

// ---- parity.json

/** The outcome, `passed` or `not claimed`; everything that was compared is everything there is. `census`: steps, cells, lines, root. */
export function readParity(data, census) {
  const value = valueOf("parity", "parity.json", data);
  if (textOf(value) === textOf({ parity: "not claimed" })) return "not claimed";
  const compared = { cache_entries_compared: census.cells, logits_compared: census.steps };
  let expected = { parity: "passed", method: "replay", ...compared };
  if (isObject(value) && has(value, "method") && value.method === "full") {
    const off = { capture: "off", ...compared, tokens_compared: census.steps };
    const on = { capture: "on", lines_compared: census.lines, root: census.root };
    expected = { parity: "passed", method: "full", runs: [off, on, off, on] };
  }
  if (textOf(value) !== textOf(expected)) throw new Refused("parity", `parity.json: expected ${textOf(expected)}, got ${quoted(value)}`);
  return "passed";
}

// ---- host.json and io.jsonl

const typed = (value, shape) =>
  isObject(value) && Object.keys(value).length === Object.keys(shape).length
  && Object.entries(shape).every(([name, test]) => has(value, name) && test(value[name]));
const isFileSystem = (value) => typed(value, { kind: isText, source: isText });
const MACHINE = {
  formation: isText, python: isText, system: isText, kernels: isText, cores: isCount, threads: isCount, memory_bytes: isCount,
  memory_budget_bytes: isCount, kv_cache: isFlag, guess: isFlag, file_system: isFileSystem,
  mirrors: (value) => Array.isArray(value) && value.every(isFileSystem),
};
const RESUMED = { ...MACHINE, from_line: isCount };
const HOST = { ...MACHINE, resumed: (value) => Array.isArray(value) && value.every((each) => typed(each, RESUMED)) };
const PART = { part: isText, seconds_waited: isAmount, disk_bytes: isCount, disk_uses: isCount, cache_bytes: isCount, cache_uses: isCount };
const ACCOUNT = {
  position: isCount, seconds: isAmount, shared_by: (value) => isCount(value) && value > 0, disk_bytes: isCount, mirror_bytes: isCount,
  unused_bytes: isCount, guessed_bytes: isCount, guessed_unused_bytes: isCount,
  parts: (value) => Array.isArray(value) && value.every((part) => typed(part, PART)),
  shards: (value) => Array.isArray(value) && value.every(isText),
};

const SHARES = { mirror_bytes: "disk_bytes", guessed_bytes: "parts", guessed_unused_bytes: "unused_bytes" }; // bytes that are among others

/** The machines, declared, of a ledger that has so many lines: each that went on did so at a line, behind the one before */
export function readHost(data, lines) {
  const value = document("declarations", "host.json", data, Object.keys(HOST));
  checkTypes(value, HOST, "host.json");
  const begins = [0, ...value.resumed.map((each) => each.from_line)];
  if (begins.some((line, n) => n && begins[n - 1] >= line) || begins.at(-1) > lines) {
    const got = quoted(begins.slice(1));
    throw new Refused("declarations", `host.json, resumed: expected ascending lines from 1 to ${lines}, got ${got}`);
  }
  return value;
}

/** One line of io.jsonl, of the step at `position` */
export function checkAccount(line, position) {
  const value = document("declarations", "io.jsonl", line, Object.keys(ACCOUNT), LINE);
  checkTypes(value, ACCOUNT, "io.jsonl");
  exactly("declarations", `io.jsonl, position of the step at ${position}`, String(value.position), String(position));
  const { disk_bytes, unused_bytes } = value;
  const sums = { disk_bytes, unused_bytes, parts: value.parts.reduce((total, part) => total + part.disk_bytes, 0) };
  for (const [name, whole] of Object.entries(SHARES)) {
    if (value[name] <= sums[whole]) continue;
    const due = `at most the ${sums[whole]} bytes of ${whole}`;
    throw new Refused("declarations", `io.jsonl, ${name} of the step at ${position}: expected ${due}, got ${value[name]}`);
  }
}

function checkTypes(value, shape, file) {
  for (const [name, test] of Object.entries(shape)) {
    if (!test(value[name])) throw new Refused("declarations", `${file}, ${name}: expected another type, got ${quoted(value[name])}`);
  }
}

// ---- predicates of audit.json and certification.json

/** `outcome` of a later verdict, which is about this tree head and this attestation and no other */
export function readLater({ predicate, subjects }, treeHead, attestation, what) {
  const found = fields(what, `${what}.json, predicate`, predicate, ["formation", "outcome", "result", "tree_head"]);
  if (textOf(found.tree_head) !== textOf(treeHead)) {
    throw new Refused(what, `${what}.json: expected tree head ${textOf(treeHead)}, got ${quoted(found.tree_head)}`);
  }
  if (subjects.size !== 1 || subjects.get("attestation.json") !== attestation) {
    throw new Refused(what, `${what}.json: expected this bundle's attestation.json, sha256 ${attestation}, as its one subject, got another`);
  }
  text(what, `${what}.json, formation`, found.formation);
  if (!["passed", "failed"].includes(found.outcome) || !isObject(found.result)) {
    throw new Refused(what, `${what}.json: expected an outcome of passed, failed and a result, got ${quoted(found.outcome)}`);
  }
  return found.outcome;
}
