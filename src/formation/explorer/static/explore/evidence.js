// The evidence bar: the verdict of the verifier's own modules on the bytes in this page, always visible, and red when anything fails.

import { folderContents } from "../verify/container.js";
import { element } from "../verify/elements.js";
import { Refused } from "../verify/refusals.js";
import { FAILED, PASSED } from "../verify/report.js";
import { readSigners } from "../verify/signers.js";
import { bundleVerdict } from "../verify/verdict.js";
import { verify } from "../verify/verify.js";
import { refuseDamage } from "./embedded.js";
import { button, capital, part } from "./parts.js";

const MARKS = { passed: "✓", failed: "✗" };
const WORST = /worst gap (\S+) of (\S+)$/;

export class Evidence {
  /** `embedded` as embeddedFiles gives it; `pause` lets the page draw itself */
  constructor(place, name, embedded, pause) {
    Object.assign(this, { place, name, embedded, pause });
    this.pills = part("ul.pills", { role: "list" });
    this.verdict = part("div.verdict-whole", { hidden: "", id: "verdict" });
    this.word = button("Checking…", () => this.toggle(), { class: "word", "aria-expanded": "false", "aria-controls": "verdict" });
    place.append(this.word, this.pills, this.verdict);
  }

  toggle(open = this.verdict.hidden) {
    this.verdict.hidden = !open;
    this.word.setAttribute("aria-expanded", String(open));
  }

  async check(signers = new Map()) {
    this.place.className = "checking";
    const { files, damage } = this.embedded;
    const open = async () => (damage ? refuseDamage(damage) : folderContents(files));
    this.report = await verify(open, { signers, allowUnknownSigner: !signers.size, progress: (at) => this.progress(at) });
    this.show();
  }

  progress({ name, bytes, of }) {
    this.word.replaceChildren(of ? `Checking ${name}: ${Math.floor((100 * bytes) / of)} %` : `Checking ${name}`);
    return this.pause("");
  }

  show() {
    const { verified, levels, outcomes } = this.report;
    this.place.className = verified ? PASSED : FAILED;
    this.word.replaceChildren(verified ? "✓ Verified in this page" : "✗ Failed");
    const worst = worstGap(outcomes);
    const by = (name) => outcomes.find(({ check }) => check.name === name);
    const facts = [["census", by("census")], ["contract", by("contract")], ["checkpoint", by("checkpoint")]];
    this.pills.replaceChildren(
      ...Object.entries(levels).map(([level, state]) => pill(level, state, state)),
      ...facts.map(([name, { state, checked }]) => pill(name, state, short(checked), checked)),
      ...(worst ? [pill("worst gap", worst.state, `${worst.gap} of ${worst.tolerance}`, `${worst.rule}: ${worst.checked}`)] : []));
    this.verdict.replaceChildren(...bundleVerdict(this.name, this.report), this.signerForm());
  }

  /** A key that came with the bundle is never trusted for being there: the reader may bring one. */
  signerForm() {
    const typed = part("input", { id: "signer", type: "text", spellcheck: "false", autocomplete: "off", size: "60" });
    const said = part("p.quiet", { role: "status" });
    const again = () => {
      try {
        this.check(readSigners(typed.value));
      } catch (refusal) {
        if (!(refusal instanceof Refused)) throw refusal;
        said.textContent = refusal.message;
      }
    };
    const label = part("label", { for: "signer" }, "The key of the signer you expect (formation key show prints one)");
    return element("div.signer", label, typed, button("Check again", again), said);
  }
}

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
