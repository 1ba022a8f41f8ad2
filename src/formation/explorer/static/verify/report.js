// What verifying found: an outcome for each numbered check, and from these a state for each level: the twin of evidence/report.py.

import { CHECKS, SENTENCES, VERDICT_LEVELS } from "./tables.js";

export const PASSED = "passed";
export const FAILED = "failed";
export const NOT_CLAIMED = "not claimed";
export const NOT_REACHED = "not reached";

export const passed = (checked) => ({ state: PASSED, checked });
export const notClaimed = (why) => ({ state: NOT_CLAIMED, checked: why });
export const finding = (state, checked, expected = "", found = "") => ({ state, checked, expected, found });
export const same = (checked, expected, found) => (found === expected ? passed(`${checked}: ${found}`) : finding(FAILED, checked, expected, found));

/** From a sentence "what: expected X, got Y", or one of another form */
export function failed(sentence) {
  const begin = sentence.indexOf("expected ");
  const end = sentence.lastIndexOf(", got ");
  if (begin < 0 || end < begin + 9) return finding(FAILED, sentence);
  const what = sentence.slice(0, begin).replace(/[: ]+$/, "");
  return finding(FAILED, what || "this", sentence.slice(begin + 9, end), sentence.slice(end + 6));
}

/** `outcomes` in the order of CHECKS, each {check, state, checked, expected, found} */
export function report(outcomes, facts = {}, notes = {}) {
  const verified = outcomes.every(({ state }) => state === PASSED || state === NOT_CLAIMED);
  const partial = !verified && !outcomes.some(({ state }) => state === FAILED); // files were left out (verify.js)
  const states = (level) => outcomes.filter(({ check }) => check.level === level).map(({ state }) => state);
  const levels = Object.fromEntries(Object.keys(VERDICT_LEVELS).map((level) => [level, levelState(states(level))]));
  const proves = verified ? SENTENCES.HONESTY : partial ? SENTENCES.PARTLY : SENTENCES.REFUSED;
  return { verified, partial, levels, outcomes, facts, notes, proves };
}

function levelState(states) {
  if (states.includes(FAILED)) return FAILED;
  return states.includes(PASSED) && !states.includes(NOT_REACHED) ? PASSED : NOT_CLAIMED;
}

/** Of what is no container: the first check failed, and nothing else was reached */
export function refusedReport(sentence) {
  const [first, ...rest] = CHECKS;
  const unreached = rest.map((check) => ({ check, ...finding(NOT_REACHED, `needs V${first.number} ${first.name}`) }));
  return report([{ check: first, ...failed(sentence) }, ...unreached]);
}

/** As `formation verify --json` has it */
export function documentOf({ verified, partial, levels, outcomes, facts, notes, proves }) {
  const checks = outcomes.map(({ check, state, checked, expected, found }) => {
    const shown = { id: `V${check.number}`, name: check.name, level: check.level, state, checked };
    return expected ? { ...shown, expected, found } : shown;
  });
  return { kind: SENTENCES.KIND, verdict: verified ? "verified" : partial ? "checked in part" : "failed", levels, notes, checks, facts, proves };
}
