// The bar that says what this page found out about its own bytes: always visible, red when anything fails. It never says that anybody signed them.

import { hex } from "../verify/bytes.js";
import { bytesOfBlob } from "../verify/container.js";
import { element } from "../verify/elements.js";
import { ContainerRefusal, Refusal } from "../verify/refusals.js";
import { sha256 } from "../verify/sha256.js";
import { button, part } from "../explore/parts.js";
import { readSigners } from "../verify/signers.js";
import { checkLog, checkScoredTable } from "./chain.js";
import { rowOfFile } from "./scoredrows.js";
import { checkSigned } from "./signed.js";

const MARKS = { passed: "✓", failed: "✗" };
const UNSIGNED = {
  dialogue: "Nobody signed this log: whoever wrote it could have written another, with a chain as whole. Compare the SHA-256 of the last event with one that you had before, or that its writer published.",
  scored: "Nobody signed this table, and the bundles that its values were copied from are not in this page: formation verify and formation explore look into a.ofb and b.ofb.",
};
const SIGNED = "Ids, bytes, log probabilities, ranks, entropies and varentropies of all rows are those of the signed ledgers. Message, index, end of turn, masses, kind of zero and the chance of the event were not held against a ledger; of the ledgers' other lines, files and rows nothing was checked here: formation verify does that.";
const GOOD = { dialogue: ["passed", "✓ Chain checked in this page"], scored: ["partial", "– Sums agree, nobody signed them here"], signed: ["passed", "✓ Rows are those of signed ledgers"] };

export class Proof {
  constructor(place, talk) {
    Object.assign(this, { place, talk });
    this.pills = part("ul.pills", { role: "list" });
    this.whole = part("div.verdict-whole", { hidden: "", id: "verdict" });
    this.word = button("Reading…", () => this.toggle(), { class: "word", "aria-expanded": "false", "aria-controls": "verdict" });
    place.className = "checking";
    place.append(this.word, this.pills, this.whole);
  }

  toggle() {
    this.whole.hidden = !this.whole.hidden;
    this.word.setAttribute("aria-expanded", String(!this.whole.hidden));
  }

  async check({ blobs, digests, dropped }, pause) {
    const progress = async (count) => {
      this.word.replaceChildren(count ? `Checking: ${count} ${this.talk.kind === "dialogue" ? "events" : "rows"}` : "Checking…");
      await pause();
    };
    const isLog = this.talk.kind === "dialogue";
    const found = isLog ? await checkLog(blobs.get("events.jsonl"), digests["events.jsonl"], dropped, progress) : await checkScoredTable(this.talk, blobs, digests, progress);
    for (const name of ["claims.json", "forks.json", "branches.json"]) if (blobs.has(name)) found.checks.push(await sameBytes(name, blobs.get(name), digests[name]));
    const isGood = found.checks.every(({ state }) => state === "passed");
    const signed = isLog || !isGood ? null : await checkSigned(this.talk, blobs, rowOfFile(blobs), progress);
    found.checks.push(...(signed?.states ?? []));
    this.talk.ledgerLines = signed?.found ?? new Map();
    this.show(found, dropped, signed);
  }

  show({ checks, isWhole, facts }, dropped, signed) {
    const failed = checks.find(({ state }) => state === "failed");
    const { kind } = this.talk;
    const [state, word] = failed ? ["failed", "✗ Failed"] : GOOD[signed ? "signed" : kind];
    const isSigned = signed && !failed;
    this.place.className = state;
    this.word.replaceChildren(word);
    this.pills.replaceChildren(...checks.map(pill),
      ...(kind === "dialogue" ? [complete(isWhole, dropped)] : []),
      isSigned ? open("signed", `by ${[...signed.signers.keys()].map((key) => key.slice(0, 23)).join(", ")}, who is unknown to this page`, SIGNED) : open("signed", "nobody", UNSIGNED[kind]),
      ...(facts.last ? [open("last event", facts.last.slice(0, 16), facts.head)] : []));
    this.whole.replaceChildren(
      ...(failed ? [element("p.broken", `First failure: ${failed.name}: ${failed.said}`)] : []),
      element("ol.said-checks", ...checks.map(item)),
      element("p", failed ? "What failed says nothing of who wrote it." : isSigned ? SIGNED : UNSIGNED[kind]), ...(kind === "dialogue" ? [lastOf(facts)] : []), ...(isSigned ? [signersOf(signed.signers)] : []));
  }
}

const pill = ({ name, state, said }) => part(`li.pill.${state in MARKS ? state : "open"}`, { title: `${name}: ${said}` }, element("span.pill-name", name), element("span.pill-text", MARKS[state] ?? `– ${state}`));
function complete(isWhole, dropped) {
  const torn = dropped ? `, and ${dropped} bytes of a torn line were left out` : "";
  return isWhole ? open("complete", "to its end", "the last event ends the dialogue") : open("complete", "cut off", `the log has no dialogue_end${torn}`);
}

const item = ({ name, state, said, says }) => element("li",
  element(`span.state.${state in MARKS ? state : "open"}`, `${MARKS[state] ?? "–"} ${state}`), element("b", name), element("span.value", said === says ? `${says}.` : said));

const open = (name, text, title) => part("li.pill.open", { title }, element("span.pill-name", name), element("span.pill-text", text));

async function sameBytes(name, blob, digest) {
  const says = `${name} has the SHA-256 that it had when the page was made`;
  try {
    const found = hex(sha256(await bytesOfBlob(blob)));
    return found === digest ? { name, says, state: "passed", said: says } : { name, says, state: "failed", said: `expected sha256 ${digest}, got ${found}` };
  } catch (fault) {
    if (!(fault instanceof ContainerRefusal)) throw fault;
    return { name, says, state: "failed", said: fault.message };
  }
}

/** Who signed, and a place for the key that the reader knows: one that came with the page is never trusted for being there */
function signersOf(signers) {
  const typed = part("input", { id: "signer", type: "text", spellcheck: "false", autocomplete: "off", size: "64" });
  const said = part("p.quiet", { role: "status" });
  const compare = () => {
    try {
      const known = readSigners(typed.value);
      const isKnown = [...signers.keys()].every((fingerprint) => known.has(fingerprint));
      said.className = isKnown ? "quiet same" : "quiet other";
      said.textContent = !known.size ? "expected a key" : isKnown ? "✓ The key that you know signed them." : "✗ Another key signed them.";
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      said.textContent = refusal.message;
    }
  };
  return element("div.signer", ...[...signers].map(([fingerprint, text]) => element("p.value", `${fingerprint}, public key ${text}`)),
    part("label", { for: "signer" }, "The key of the signer you expect (formation key show prints one)"), typed, button("Compare", compare), said);
}

/** The digest of the last event, and a place for the one that the reader knows */
function lastOf({ head, last }) {
  const typed = part("input", { id: "known", type: "text", spellcheck: "false", autocomplete: "off", size: "64" });
  const said = part("p.quiet", { role: "status" });
  const compare = () => {
    const known = typed.value.trim().toLowerCase();
    said.className = known === last ? "quiet same" : "quiet other";
    said.textContent = !/^[0-9a-f]{64}$/.test(known) ? "expected 64 hexadecimal digits" : known === last ? "✓ The same: this is the log that you know." : "✗ Another: this is not the log that you know.";
  };
  return element("div.signer", element("p.value", head), part("label", { for: "known" }, "The SHA-256 of the last event that you know"), typed, button("Compare", compare), said);
}
