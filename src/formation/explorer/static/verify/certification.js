// What certification.json says: which attacks were made, which check refused each, and how many mutations: the twin of
// evidence/certification.py.

import { isObject } from "./canonical.js";
import { isCount } from "./documents.js";
import { quoted } from "./quoted.js";
import { Refused } from "./refusals.js";
import { fields, text } from "./strict.js";

const CHECK = "certification";
const [REFUSED, THROUGH, NOT_APPLICABLE, NOT_RUN] = ["refused", "got through", "not applicable", "not run"];
const STATES = [REFUSED, THROUGH, NOT_APPLICABLE, NOT_RUN];
const ATTACK = ["group", "name", "adversary", "mutation", "expected", "observed", "state"];
const MUTATIONS = ["count", "signed", "refused", "checks", "untold", "failures"];

const refuse = (sentence) => {
  throw new Refused(CHECK, sentence);
};

/** The result of a certification whose outcome is the one that its attacks and mutations have; in words. */
export function readCertification(result, outcome) {
  const found = fields(CHECK, "certification, result", result, ["seed", "checkpoint", "attacks", "mutations"]);
  if (!isCount(found.seed) || typeof found.checkpoint !== "boolean" || !Array.isArray(found.attacks)) {
    refuse("certification: expected a seed, whether there was a checkpoint, and a list of attacks, got others");
  }
  const states = found.attacks.map(readAttack);
  const { count, failures } = readMutations(found.mutations);
  const of = (state) => states.filter((each) => each === state).length;
  const due = of(THROUGH) + failures === 0 && of(REFUSED) > 0 ? "passed" : "failed";
  if (outcome !== due) refuse(`certification: expected outcome ${due}, as its attacks have it, got ${quoted(outcome)}`);
  const left = of(NOT_RUN) ? `; ${of(NOT_RUN)} attacks not run, which need the weights` : "";
  return `${of(REFUSED)}/${of(REFUSED) + of(THROUGH)} attacks refused by the check expected, ${count} mutations${left}`;
}

/** Its state */
function readAttack(row) {
  const found = fields(CHECK, "certification, attack", row, ATTACK);
  for (const name of ATTACK) text(CHECK, `certification, attack, ${name}`, found[name]);
  if (!STATES.includes(found.state)) refuse(`certification: expected a state of ${STATES.join(", ")}, got ${quoted(found.state)}`);
  if (found.state === REFUSED && !found.observed.split(", ").includes(found.expected)) {
    refuse(`certification: expected a refusal by ${quoted(found.expected)}, got ${quoted(found.observed)}`);
  }
  return found.state;
}

/** How many, and how many of them were not refused and should have been. A sum beyond 2^53 - 1 is inexact, and larger than any count. */
function readMutations(value) {
  const found = fields(CHECK, "certification, mutations", value, MUTATIONS);
  const { count, signed, refused, checks, untold, failures } = found;
  if (![count, signed, refused].every(isCount) || !isCounts(checks) || !isCounts(untold) || !isTexts(failures)) {
    refuse("certification, mutations: expected counts, counts by check and by field, and a list of failures, got others");
  }
  const rest = count - refused - failures.length;
  if (sum(checks) !== refused || rest < 0 || rest > sum(untold) || signed > count) {
    refuse("certification, mutations: expected counts that add up, got others");
  }
  return { count, failures: failures.length };
}

const sum = (counts) => Object.values(counts).reduce((total, n) => total + n, 0);
const isCounts = (value) => isObject(value) && Object.values(value).every(isCount);
const isTexts = (value) => Array.isArray(value) && value.every((item) => typeof item === "string");
