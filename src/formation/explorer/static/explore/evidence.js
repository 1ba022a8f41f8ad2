// The evidence bar: the verdict of the verifier's own modules on the bytes of this bundle, computed in this browser, always visible, and red when
// anything fails. What this page does not hold was not checked, and the bar says so by name.

import { element } from "../verify/elements.js";
import { Refused } from "../verify/refusals.js";
import { FAILED, PASSED } from "../verify/report.js";
import { readSigners } from "../verify/signers.js";
import { bundleVerdict } from "../verify/verdict.js";
import { button, capital, part } from "./parts.js";
import { Unreachable } from "./stored.js";

const MARKS = { passed: "✓", failed: "✗" };
const WORDS = { passed: "✓ Verified in this page", failed: "✗ Failed", partial: "– Checked in part" };
const WORST = /worst gap (\S+) of (\S+)$/;

export class Evidence {
  /** Of a run (run.js); `suffix` tells the ids of a second bar apart */
  constructor(place, { name, background, leftOut }, suffix = "") {
    Object.assign(this, { place, name, background, leftOut, suffix, turn: 0 });
    this.pills = part("ul.pills", { role: "list" });
    this.verdict = part("div.verdict-whole", { hidden: "", id: `verdict${suffix}` });
    this.word = button("Reading…", () => this.toggle(), { class: "word", "aria-expanded": "false", "aria-controls": `verdict${suffix}` });
    place.className = "checking";
    place.append(this.word, this.pills, this.verdict);
  }

  toggle(open = this.verdict.hidden) {
    this.verdict.hidden = !open;
    this.word.setAttribute("aria-expanded", String(open));
  }

  say(sentence) {
    this.word.replaceChildren(sentence);
  }

  /** Again with every key that the reader brings; of two that run at once, the later counts */
  async check(signers = new Map()) {
    const mine = ++this.turn;
    this.place.className = "checking";
    try {
      const found = await this.background.run("check", { signers, leftOut: this.leftOut }, (at) => mine === this.turn && this.progress(at));
      if (mine === this.turn) this.show(found);
    } catch (fault) {
      if (!(fault instanceof Unreachable)) throw fault;
      if (mine === this.turn) this.stopped(fault);
    }
  }

  progress({ name, bytes, of }) {
    this.say(of ? `Checking ${name}: ${Math.floor((100 * bytes) / of)} %` : `Checking ${name}`);
  }

  /** Nothing was found out: neither good nor bad is said */
  stopped(fault) {
    this.place.className = "stopped";
    this.say(`– Not checked: ${fault.message}`);
    this.pills.replaceChildren();
  }

  show(report) {
    this.report = report;
    const { levels, outcomes } = report;
    this.place.className = stateOf(report);
    this.say(WORDS[stateOf(report)]);
    const worst = worstGap(outcomes);
    const by = (name) => outcomes.find(({ check }) => check.name === name);
    const facts = [["census", by("census")], ["contract", by("contract")], ["checkpoint", by("checkpoint")]];
    this.pills.replaceChildren(
      ...Object.entries(levels).map(([level, state]) => pill(level, state, state)),
      ...facts.map(([name, { state, checked }]) => pill(name, state, short(checked), checked)),
      ...(this.leftOut.length ? [pill("not checked", "open", `${foldersOf(this.leftOut)} (${this.leftOut.length} files)`, `not in this page: ${this.leftOut.join(", ")}`)] : []),
      ...(worst ? [pill("worst gap", worst.state, `${worst.gap} of ${worst.tolerance}`, `${worst.rule}: ${worst.checked}`)] : []));
    this.verdict.replaceChildren(...bundleVerdict(this.name, report), this.signerForm());
  }

  /** A key that came with the bundle is never trusted for being there: the reader may bring one. */
  signerForm() {
    const typed = part("input", { id: `signer${this.suffix}`, type: "text", spellcheck: "false", autocomplete: "off", size: "60" });
    const said = part("p.quiet", { role: "status" });
    const again = () => {
      try {
        this.check(readSigners(typed.value));
      } catch (refusal) {
        if (!(refusal instanceof Refused)) throw refusal;
        said.textContent = refusal.message;
      }
    };
    const label = part("label", { for: `signer${this.suffix}` }, "The key of the signer you expect (formation key show prints one)");
    return element("div.signer", label, typed, button("Check again", again), said);
  }
}

const stateOf = ({ verified, partial }) => (verified ? PASSED : partial ? "partial" : FAILED);
const foldersOf = (names) => [...new Set(names.map((name) => name.replace(/[^/]*$/, "")))].join(", ");

function pill(name, state, text, title = "") {
  const kind = state in MARKS ? state : "open";
  return part(`li.pill.${kind}`, { title: title || `${name}: ${text}` },
    element("span.pill-name", name), element("span.pill-text", state in MARKS && text === state ? MARKS[state] : `${MARKS[state] ?? "–"} ${text}`));
}

const short = (text) => (text.length > 28 ? `${text.split(",")[0].slice(0, 27)}` : text);

/** The rule that comes nearest to its tolerance, of those that have one */
function worstGap(outcomes) {
  const found = outcomes.flatMap(({ check, state, checked }) => {
    const [, gap, tolerance] = WORST.exec(checked) ?? [];
    return gap ? [{ rule: capital(check.name), state, checked, gap, tolerance, share: Number(gap) / Number(tolerance) }] : [];
  });
  return found.sort((a, b) => b.share - a.share)[0];
}
