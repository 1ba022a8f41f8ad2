// All that the ledger holds of one cell, in groups; every number opens its provenance.

import { Card } from "./card.js";
import { element } from "../verify/elements.js";
import { FIELDS } from "../verify/fields.js";
import { numbersOf } from "./provenance.js";
import { button, part } from "./parts.js";
import { isAbsent } from "./opened.js";

const OTHER = "Other";
const DIGESTS = "Digests";
const TITLES = [
  [DIGESTS, /sha256$/],
  ["Row and writes", /^(residual|attention_write_norm|after_attention|mlp_write_norm|attention_(relative|cosine|projection)|mlp_(relative|cosine|projection))/],
  ["Lens of x′", /^lens_/], ["Lens of u", /^mid_lens_/], ["Attribution to y", /^dla_(?!centred|runner)/], ["Attribution, centred", /^dla_centred_/],
  ["Attribution against the runner-up", /^dla_runner_up_/], ["Routing", /^(chosen|gate|runner|router)/], ["Experts", /^(expert_|shared_)/],
  ["Attention", /^attention_/], ["Delta rule", /^(delta|state)_/], [OTHER, /^/],
];
export const OPEN = ["Row and writes", "Lens of x′", "Attribution to y"];

/** [title, fields] of the fields of a layer's line that are in `values`, whatever the field table names; digests last */
export function groupsOf(values) {
  const groups = new Map(TITLES.map(([title]) => [title, []]));
  for (const field of FIELDS) {
    if (field.slot === "layer" && field.name in values) groups.get(TITLES.find(([, test]) => test.test(field.name))[0]).push(field);
  }
  const digests = groups.get(DIGESTS);
  groups.delete(DIGESTS);
  return [...groups, [DIGESTS, digests]].filter(([, fields]) => fields.length);
}

export function cell(view) {
  const card = new Card(view, "cell", "Cell", "Everything the ledger holds of the selected position and layer: filled numbers are measured, outlined ones derived, hatched is absent with its reason.");
  const pin = button("Pin", () => view.selection.pin(), { "aria-pressed": "false", title: "Shift and Enter: keeps these numbers beside those of other selections" });
  card.controls.append(pin);
  const open = new Set(OPEN);
  card.follow(({ position, layer, isPinned }) => {
    const values = view.ledger.cell(position, layer);
    pin.textContent = isPinned ? "Unpin" : "Pin";
    pin.setAttribute("aria-pressed", String(isPinned));
    card.keep(null, () => table(values, position, layer));
    card.put(element("div.groups", part("p.where", {}, `position ${position}, layer ${layer}`), ...groups(view, values, position, layer, open)));
  }, ["position", "layer", "isPinned"]);
  return card;
}

function groups(view, values, position, layer, open) {
  return groupsOf(values).map(([title, fields]) => {
    const group = element("details.group", element("summary", title, element("span.quiet", ` ${noneOf(values, fields) || fields.length}`)));
    const fill = () => group.children.length < 2 && group.append(fieldList(view, fields, position, layer));
    group.open = open.has(title);
    if (group.open) fill();
    group.addEventListener("toggle", () => {
      open[group.open ? "add" : "delete"](title);
      fill();
    });
    return group;
  });
}

/** Why all of these are absent, if they are, and for one reason */
function noneOf(values, fields) {
  const reasons = new Set(fields.map(({ name }) => (isAbsent(values[name]) ? values[name].absent : "")));
  const [reason] = reasons;
  return reasons.size === 1 && reason ? `absent: ${reason}` : "";
}

function fieldList(view, fields, position, layer) {
  const slot = `layer ${layer}`;
  return element("dl.fields", ...fields.flatMap(({ name, definition, unit }) =>
    [part("dt", { title: definition }, name), element("dd", ...numbersOf(view, { position, slot, name }), ...(unit && !unit.includes("sha") ? [element("span.unit", unit)] : []))]));
}

function table(values, position, layer) {
  const rows = FIELDS.filter((field) => field.slot === "layer" && field.name in values).map((field) => {
    const value = values[field.name];
    const shown = isAbsent(value) ? `absent: ${value.absent}` : typeof value === "object" ? JSON.stringify(value) : value;
    return [position, layer, field.name, field.tag, field.unit, shown];
  });
  return { head: ["position", "layer", "field", "tag", "unit", "value"], rows };
}
