// A verdict as elements: what was found, what each level says, and what it does not.

import { element, facts } from "./elements.js";
import { NOT_PROVEN } from "./receipt.js";
import { FAILED, PASSED, documentOf } from "./report.js";
import { SENTENCES, VERDICT_LEVELS } from "./tables.js";

const MARKS = { passed: "✓", failed: "✗" };
const state = (found) => element(`span.state.${found in MARKS ? found : "open"}`, `${MARKS[found] ?? "–"} ${found}`);

/** Of a bundle */
export function bundleVerdict(name, report) {
  const word = report.verified ? "Verified" : report.partial ? "Checked in part" : "Failed";
  const kind = report.verified ? PASSED : report.partial ? "partial" : FAILED;
  const failures = report.outcomes.filter((outcome) => outcome.state === FAILED);
  const head = element(`div.verdict.${kind}`,
    element("h2", `${MARKS[kind] ?? "–"} ${word}: `, element("span.value", name)),
    ...failures.slice(0, 1).map((outcome) => element("p", "First failure: ", element("span.value", sentenceOf(outcome)))),
    ...failures.slice(0, 1).map(hintOf),
    element("p.proves", `${capital(report.proves)}.`), facts(report.facts));
  const levels = element("ul.levels", ...Object.keys(VERDICT_LEVELS).map((level) => levelItem(level, report)));
  return [head, levels, asJson(documentOf(report))];
}

const capital = (sentence) => sentence[0].toUpperCase() + sentence.slice(1);

function sentenceOf({ check, checked, expected, found }) {
  return `V${check.number} ${check.name}: ${expected ? `${checked}: expected ${expected}, got ${found}` : checked}`;
}

function hintOf({ check }) {
  const isSigner = check.name === "signer";
  return element("p.quiet", isSigner ? "If you know whose key it is, add it under “Signers you know” and drop the bundle again." : "");
}

function levelItem(level, report) {
  const found = report.levels[level];
  const outcomes = report.outcomes.filter(({ check }) => check.level === level);
  const note = report.notes[level] ? [element("span.note", report.notes[level])] : [];
  const details = element("details",
    element("summary", element("span.name", level), state(found), element(`span.meaning.${found === PASSED ? "said" : "unsaid"}`, meaningOf(level, found), ...note)),
    element("ol.checks", ...outcomes.map(checkItem)));
  details.open = found === FAILED;
  return element("li.level", details);
}

/** A level that did not pass says nothing. */
const meaningOf = (level, found) => (found === PASSED ? capital(VERDICT_LEVELS[level]) : `Not said: ${VERDICT_LEVELS[level]}`);

function checkItem(outcome) {
  const { check, checked, expected, found } = outcome;
  const said = expected
    ? [element("p.value", checked), element("p.value", `expected ${expected}`), element("p.value", `got ${found}`)]
    : [element("p.value", checked)];
  return element("li",
    element("span.which", element("span.number", `V${check.number} `), check.name), element("span", state(outcome.state)),
    element("div.said", ...said, element("p.quiet", `Says: ${check.says}.`), element("p.quiet", `Does not say: ${check.says_not}.`)));
}

/** Of a receipt that holds; `how` its signer is known, empty if not */
export function receiptVerdict(name, receipt, how, allowUnknownSigner) {
  const { line, index, head, signer } = receipt;
  const verified = Boolean(how) || allowUnknownSigner;
  const known = how || (allowUnknownSigner ? "an unknown key, which was allowed" : "a key you do not know");
  const signerState = how ? PASSED : allowUnknownSigner ? "not claimed" : FAILED;
  const levels = [["INTEGRITY", PASSED, "The line is in the ledger whose head was signed"], ["SIGNER", signerState, capital(known)]];
  return [
    element(`div.verdict.${verified ? PASSED : FAILED}`,
      element("h2", `${MARKS[verified ? PASSED : FAILED]} ${verified ? "Verified" : "Failed"}: `, element("span.value", name)),
      element("p.proves", `${capital(receipt.proves)}; ${NOT_PROVEN}; ${SENTENCES.NEITHER}.`),
      facts({ line: `${index} of ${head.size}: ${line.slot} at position ${line.position}`, run_id: head.runId, signer: signer.fingerprint, key: signer.text })),
    element("ul.levels", ...levels.map(([level, found, meaning]) =>
      element("li.level", element("div.bare", element("span.name", level), element("span", state(found)), element("span.meaning", meaning))))),
    element("details.more", element("summary", "The line"), element("pre.value", JSON.stringify(line, null, 1))),
  ];
}

/** Of what is not even a receipt, though it begins as one */
export function refusalVerdict(name, refusal) {
  return [element("div.verdict.failed", element("h2", "✗ Failed: ", element("span.value", name)),
    element("p", element("span.value", `${refusal.check}: ${refusal.message}`)), element("p.proves", `${capital(SENTENCES.REFUSED)}.`))];
}

const asJson = (document) => element("details.more", element("summary", "Report as JSON"), element("pre.value", JSON.stringify(document, null, 1)));
