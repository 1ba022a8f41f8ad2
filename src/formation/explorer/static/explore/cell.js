// All that the ledger holds of one cell, in groups; every number opens its provenance.

import { Card } from "./card.js";
import { element } from "../verify/elements.js";
import { FIELDS } from "../verify/fields.js";
import { fieldOf, numbersOf } from "./provenance.js";
import { part } from "./parts.js";
import { isAbsent } from "./opened.js";

const GROUPS = [
  ["Row and writes", /^(residual|attention_write_norm|after_attention|mlp_write_norm|attention_(relative|cosine|projection)|mlp_(relative|cosine|projection))/],
  ["Lens of x′", /^lens_/], ["Lens of u", /^mid_lens_/], ["Attribution to y", /^dla_(?!centred|runner)/], ["Attribution, centred", /^dla_centred_/],
  ["Attribution against the runner-up", /^dla_runner_up_/], ["Routing", /^(chosen|gate|runner|router)/], ["Experts", /^(expert_|shared_)/],
  ["Attention", /^attention_(entrop|strongest)/], ["Digests", /sha256$/],
];

export function cell(view) {
  const card = new Card("cell", "Cell", "Everything the ledger holds of the selected position and layer; filled marks are measured, outlined ones derived.");
  const open = new Set(["Row and writes", "Lens of x′", "Attribution to y"]);
  view.selection.follow(({ position, layer }) => {
    const values = view.ledger.cell(position, layer);
    card.keep(null, () => table(values, position, layer));
    card.put(element("div.groups", part("p.where", {}, `position ${position}, layer ${layer}`), ...groups(view, values, position, layer, open)));
  });
  return card;
}

function groups(view, values, position, layer, open) {
  const left = new Set(FIELDS.filter((field) => field.slot === "layer" && field.name in values).map((field) => field.name));
  const take = (test) => [...left].filter((name) => test.test(name)).filter((name) => left.delete(name));
  const digests = take(GROUPS.at(-1)[1]);
  return GROUPS.map(([title, test]) => [title, title === "Digests" ? digests : take(test)]).filter(([, names]) => names.length).map(([title, names]) => {
    const group = element("details.group", element("summary", title, element("span.quiet", ` ${names.length}`)));
    const fill = () => group.children.length < 2 && group.append(fieldList(view, names, position, layer));
    group.open = open.has(title);
    if (group.open) fill();
    group.addEventListener("toggle", () => {
      open[group.open ? "add" : "delete"](title);
      fill();
    });
    return group;
  });
}

function fieldList(view, names, position, layer) {
  const slot = `layer ${layer}`;
  return element("dl.fields", ...names.flatMap((name) => {
    const field = fieldOf({ slot, name });
    return [part("dt", { title: field.definition }, name), element("dd", ...numbersOf(view, { position, slot, name }), ...(field.unit && !field.unit.includes("sha") ? [element("span.unit", field.unit)] : []))];
  }));
}

function table(values, position, layer) {
  const rows = FIELDS.filter((field) => field.slot === "layer" && field.name in values).map((field) => {
    const value = values[field.name];
    const shown = isAbsent(value) ? `absent: ${value.absent}` : typeof value === "object" ? JSON.stringify(value) : value;
    return [position, layer, field.name, field.tag, field.unit, shown];
  });
  return { head: ["position", "layer", "field", "tag", "unit", "value"], rows };
}
