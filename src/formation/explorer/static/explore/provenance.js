// Where a number comes from: its field of the table, its inputs, its line and leaf; and the derived ones redone here from the same line.

import { hex } from "../verify/bytes.js";
import { element, facts } from "../verify/elements.js";
import { FIELDS } from "../verify/fields.js";
import { WHOLE_POSITION, positionInputs, recompute } from "../verify/formulas.js";
import { sha256 } from "../verify/sha256.js";
import { isAbsent } from "./opened.js";
import { button, part, shown } from "./parts.js";
import { rowOf } from "./rows.js";

const slotOf = (slot) => (slot.startsWith("layer ") ? "layer" : slot);
export const fieldOf = ({ slot, name }) => FIELDS.find((field) => field.slot === slotOf(slot) && field.name === name);

/** Buttons for the numbers of one value; `at` is { position, slot, name } */
export function numbersOf(view, at, most = 24) {
  const value = view.ledger.values(at.position, at.slot)[at.name];
  const { tag, dtype } = fieldOf(at);
  if (isAbsent(value)) return [part("span.absent", { title: `absent: ${value.absent}` }, value.absent)];
  const items = Array.isArray(value) ? value : [value];
  const made = items.slice(0, most).map((item, index) => number(view, { ...at, index: Array.isArray(value) ? index : -1 }, item, tag, dtype));
  return items.length > most ? [...made, element("span.quiet", ` and ${items.length - most} more`)] : made;
}

function number(view, at, item, tag, dtype) {
  const text = typeof item === "number" ? shown(item) : dtype === "sha256" ? `${item.slice(0, 12)}…` : typeof item === "object" ? recordText(item) : String(item);
  const where = `${at.name}${at.index >= 0 ? ` ${at.index}` : ""}, ${tag}`;
  return button(text, () => view.drawer.open(at), { class: `number ${tag}`, title: where, "data-field": at.name });
}

const recordText = (record) => Object.entries(record).map(([name, v]) => `${name} ${shown(v)}`).join(" ");

const ROWS = { residual_sha256: ["rows", "residual"], attention_write_sha256: ["rows", "attention_write"], mlp_write_sha256: ["rows", "mlp_write"],
  router_logits_sha256: ["router", "logits"], router_selection_sha256: ["router", "selection"] }; // digests of rows that the bundle may keep

let opened = null; // the drawer of one of two ledgers, which share its place

export class Drawer {
  /** `bundle` is { blobs, ledger }, and of the second of two ledgers its name */
  constructor(node, bundle) {
    Object.assign(this, { node, bundle, ledger: bundle.ledger, from: null });
    addEventListener("keydown", (event) => event.key === "Escape" && !this.node.hidden && opened === this && this.close(event));
  }

  open(at) {
    if (!this.node.contains(document.activeElement)) this.from = document.activeElement;
    opened = this;
    const field = fieldOf(at);
    const value = this.ledger.values(at.position, at.slot)[at.name];
    const one = at.index >= 0 && Array.isArray(value) ? value[at.index] : value;
    this.node.replaceChildren(
      element("div.head", part("h2", { id: "drawer-title" }, field.name + (at.index >= 0 ? ` [${at.index}]` : "")), button("Close", () => this.close(), { class: "close" })),
      element("p.big.value", isAbsent(one) ? `absent: ${one.absent}` : text(one)),
      element("p", element(`span.tag.${field.tag}`, field.tag), ` ${field.definition}`),
      ...(field.formula ? [element("p.formula.value", field.formula)] : []),
      facts({ unit: field.unit || "none", dtype: field.dtype, level: field.level, place: `${at.slot}, position ${at.position}${this.bundle.name ? ` of ${this.bundle.name}` : ""}`, "recomputed from": field.recompute || "nothing: measured" }),
      ...this.inputs(field, at), ...this.again(field, at), ...this.line(at));
    this.node.style.top = `${document.getElementById("top").offsetHeight}px`; // the evidence stays visible
    const { left } = this.from.getBoundingClientRect();
    this.node.className = this.from !== document.body && left > innerWidth / 2 ? "left" : ""; // where it does not hide the number
    this.node.hidden = false;
    this.node.focus();
  }

  close(event) {
    event?.stopImmediatePropagation(); // an Escape that closes does nothing else
    this.node.hidden = true;
    if (this.from?.isConnected) this.from.focus();
  }

  inputs(field, at) {
    if (!field.inputs.length) return [];
    const here = this.ledger.values(at.position, at.slot);
    const items = field.inputs.map((name) => {
      if (!(name in here)) return element("li", element("span.value", name), element("span.quiet", WHOLE_POSITION.includes(field.name) ? " of all layers" : " of rows or weights"));
      return element("li", button(name, () => this.open({ ...at, name, index: -1 }), { class: "link" }), " = ", element("span.value", text(here[name])));
    });
    return [element("h3", "Inputs"), element("ul.inputs", ...items)];
  }

  again(field, at) {
    if (field.name in ROWS) return this.hashed(at);
    if (field.recompute === "weights") return [element("p.quiet", "Recomputing it needs rows and the checkpoint: formation audit does.")];
    if (field.recompute !== "ledger") return [element("p.quiet", "Measured: a copy taken at the tap. Nothing else in the ledger determines it.")];
    const said = part("p.recomputed.value", { role: "status" });
    const redo = () => said.replaceChildren(element("span", this.recomputed(field, at)));
    return [element("p", button("Recompute here", redo, { class: "recompute" })), said];
  }

  /** The digest again, of the row that the bundle keeps */
  hashed({ position, slot, name }) {
    const said = part("p.recomputed.value", { role: "status" });
    const [folder, tensor] = ROWS[name];
    const layer = slot === "embed" ? -1 : Number(slot.slice(6));
    const index = folder === "router" ? layer - this.ledger.run.shape.dense_layers : layer + (tensor === "residual" ? 1 : 0);
    const redo = async () => {
      const row = await rowOf(this.bundle, folder, tensor, position, index);
      const found = row && hex(sha256(row));
      const stored = this.ledger.values(position, slot)[name];
      said.textContent = row ? `${folder}/ has a row of ${row.length} bytes, sha256 ${found}: ${found === stored ? "the same" : "another"}` : this.bundle.leftOut.some((file) => file.startsWith(`${folder}/`)) ? `${folder}/ is not in this page` : `the bundle keeps no such row in ${folder}/`;
    };
    return [element("p.quiet", "Measured: the digest of a row at the tap."), element("p", button("Recompute here", redo, { class: "recompute" })), said];
  }

  /** The value again, from its inputs, with the verifier's own formula; and how far the two are apart */
  recomputed({ name }, { position, slot }) {
    const layers = () => Array.from({ length: this.ledger.layers }, (_, layer) => this.ledger.cell(position, layer));
    const whole = WHOLE_POSITION.includes(name);
    const here = this.ledger.values(position, slot);
    const found = recompute(name, whole ? positionInputs(this.ledger.values(position, "embed"), layers()) : here);
    const stored = here[name];
    if (isAbsent(found) || isAbsent(stored)) {
      return `recomputed: ${text(found)}; stored: ${text(stored)}; ${text(found) === text(stored) ? "the same" : "they differ"}`;
    }
    return `recomputed: ${found}; stored: ${stored}; gap ${Math.abs(found - stored)}${found === stored ? ", bit-equal" : ""}`;
  }

  line({ position, slot }) {
    const line = this.ledger.lineNumber(position, slot);
    const leaf = hex(this.ledger.leaf(line));
    const digest = hex(sha256(this.ledger.bytesOf(line)));
    return [element("h3", "Its line in the ledger"), facts({ line: `${line + 1} of ${this.ledger.lines}`, "sha256 of the line": digest, "leaf of the tree": leaf })];
  }
}

function text(value) {
  if (isAbsent(value)) return `absent: ${value.absent}`;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
