// The frozen starting state of a run: the twin of ledger/anchor.py.

import { DOCUMENT, decode, has, isObject } from "./canonical.js";
import { quoted, typeName } from "./quoted.js";
import { AnchorRefusal } from "./refusals.js";
import { generatedSteps, scoredSteps, spansProblem } from "./steps.js";

const SCORED = "scored"; // ids of the anchor itself, which are given: forced needs it, the others may have it
const FORCED = "forced";
const KIND = "formation-anchor/1";
const isCount = (value) => Number.isInteger(value) && value >= 0;
const isText = (value) => typeof value === "string";
const isNumber = (value) => typeof value === "number";
const TYPES = { float: isNumber, int: Number.isInteger, str: isText, list: Array.isArray };
const SAMPLERS = {
  greedy: {},
  forced: { scored: "list" },
  sample: { temperature: "float", top_k: "int", top_p: "float", min_p: "float", seed: "str", branch: "str" },
};

/** The anchor in these bytes. Throws AnchorRefusal, or CanonicalRefusal for bytes that are not canonical. */
export function decodeAnchor(data) {
  const value = decode(data, DOCUMENT);
  const forks = isObject(value) && has(value, "fork");
  const names = ["kind", "prompt", "checkpoint", "contract", "sampler", "stop", "nonce", ...(forks ? ["fork"] : [])];
  const top = fieldsOf(value, "anchor", names);
  if (top.kind !== KIND) refuse(`anchor.kind: expected '${KIND}', got ${quoted(top.kind)}`);
  const prompt = fieldsOf(top.prompt, "anchor.prompt", ["ids", "text"]);
  const checkpoint = fieldsOf(top.checkpoint, "anchor.checkpoint", ["sha256", "tensor_table_root"]);
  const contract = fieldsOf(top.contract, "anchor.contract", ["name", "digest"]);
  const stop = fieldsOf(top.stop, "anchor.stop", ["tokens", "ids"]);
  const found = {
    promptIds: ids(prompt.ids, "anchor.prompt.ids", 1),
    promptText: prompt.text === null ? null : text(prompt.text, "anchor.prompt.text"),
    checkpointSha256: digest(checkpoint.sha256, "anchor.checkpoint.sha256"),
    tensorTableRoot: digest(checkpoint.tensor_table_root, "anchor.checkpoint.tensor_table_root"),
    contract: text(contract.name, "anchor.contract.name"),
    contractDigest: digest(contract.digest, "anchor.contract.digest"),
    sampler: sampler(top.sampler),
    tokens: count(stop.tokens, "anchor.stop.tokens"),
    stopIds: ids(stop.ids, "anchor.stop.ids", 0),
    nonce: top.nonce === null ? null : text(top.nonce, "anchor.nonce"),
    fork: forks ? fork(top.fork) : null,
  };
  const scores = has(found.sampler, SCORED);
  if (scores) checkScored(found);
  if (found.fork) checkFork(found, scores);
  const steps = scores ? scoredSteps(found.sampler.scored) : generatedSteps(found.promptIds.length, found.tokens);
  const given = (position) => (scores ? found.promptIds[position + 1] : found.fork?.forced[position + 1 - found.promptIds.length]);
  const stepKind = (position) => (scores ? "scored" : given(position) === undefined ? "generated" : FORCED);
  return { ...found, scores, steps, given, stepKind };
}

function fork(value) {
  const { parent, token, forced } = fieldsOf(value, "anchor.fork", ["parent", "token", "forced"]);
  const given = ids(forced, "anchor.fork.forced", 0);
  return { parent: digest(parent, "anchor.fork.parent"), token: count(token, "anchor.fork.token"), forced: given };
}

/** The tokens before it are in the prompt, behind at least one id; those that are given are within the run, and only the last may end it */
function checkFork({ promptIds, tokens, stopIds, fork: { token, forced } }, scores) {
  if (scores) refuse("anchor.fork: expected none in a run that scores, got one");
  if (token < 1 || token > promptIds.length) refuse(`anchor.fork.token: expected a number from 1 to ${promptIds.length}, got ${token}`);
  if (forced.length > tokens || forced.slice(0, -1).some((id) => stopIds.includes(id))) {
    refuse(`anchor.fork.forced: expected at most ${tokens} ids, of which only the last may end the run, got others`);
  }
}

/** Spans of its ids, as many tokens as they hold, and nothing that ends the run sooner */
function checkScored({ promptIds, sampler: { scored }, tokens, stopIds }) {
  if (!scored.every((span) => Array.isArray(span) && span.length === 2 && span.every(Number.isInteger))) {
    refuse(`anchor.sampler.scored: expected pairs of integers, got ${quoted(scored)}`);
  }
  const problem = spansProblem(scored, promptIds.length);
  if (problem) refuse(`anchor.sampler.scored: ${problem}`);
  const due = scored.reduce((sum, [begin, end]) => sum + end - begin, 0);
  if (tokens !== due || stopIds.length) {
    refuse(`anchor.stop: expected the ${due} scored tokens and no ids, got ${tokens} and ${stopIds.length} ids`);
  }
}

const refuse = (sentence) => {
  throw new AnchorRefusal(sentence);
};

function sampler(value) {
  const method = isObject(value) && has(value, "method") ? value.method : undefined;
  if (!isText(method) || !has(SAMPLERS, method)) {
    refuse(`anchor.sampler.method: expected ${Object.keys(SAMPLERS).join(", ")}, got ${quoted(method ?? null)}`);
  }
  const types = { ...SAMPLERS[method], ...(has(value, SCORED) ? SAMPLERS.forced : {}) };
  const settings = fieldsOf(value, "anchor.sampler", ["method", ...Object.keys(types)]);
  for (const [name, type] of Object.entries(types)) {
    if (!TYPES[type](settings[name])) refuse(`anchor.sampler.${name}: expected ${type}, got ${quoted(settings[name])}`);
  }
  return settings;
}

function fieldsOf(value, where, names) {
  if (!isObject(value) || Object.keys(value).length !== names.length || !names.every((name) => has(value, name))) {
    const got = isObject(value) ? quoted(Object.keys(value).sort()) : typeName(value);
    refuse(`${where}: expected the fields ${[...names].sort().join(", ")}, got ${got}`);
  }
  return value;
}

function ids(value, where, least) {
  if (!Array.isArray(value) || value.length < least || !value.every(isCount)) {
    refuse(`${where}: expected at least ${least} token ids, got ${quoted(value)}`);
  }
  return value;
}

function count(value, where) {
  return isCount(value) ? value : refuse(`${where}: expected a count, got ${quoted(value)}`);
}

function text(value, where) {
  return isText(value) ? value : refuse(`${where}: expected text, got ${quoted(value)}`);
}

function digest(value, where) {
  return isText(value) && /^[0-9a-f]{64}$/.test(value) ? value : refuse(`${where}: expected a SHA-256 in lowercase hexadecimal, got ${quoted(value)}`);
}
