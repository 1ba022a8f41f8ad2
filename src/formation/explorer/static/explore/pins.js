// Selections that were pinned: their numbers beside those of what is selected now.

import { OPEN } from "./cell.js";
import { Card } from "./card.js";
import { element } from "../verify/elements.js";
import { sideBySide, tableOfBeside } from "./beside.js";
import { button, nameOf, part } from "./parts.js";
import { MOST_PINS } from "./selection.js";

const SENTENCE = `Numbers of the selected token, layer and expert beside pinned ones; Δ = selected − pinned, derived here. Pin with the button or with Shift and Enter, up to ${MOST_PINS}; pins stand in the address.`;

export function pins(view) {
  const card = new Card(view, "pins", "Side by side", SENTENCE);
  const pin = button("Pin the selection", () => view.selection.pin(), {});
  card.controls.append(pin);
  const open = new Set(["Token", "Expert", ...OPEN]);
  let turn = 0;
  card.follow(async (selection) => {
    const mine = ++turn;
    pin.textContent = selection.isPinned ? "Unpin the selection" : "Pin the selection";
    const missing = selection.pins.filter(({ position }) => !view.ledger.has(position));
    if (missing.length) card.put(element("p.quiet", "Loading the pinned lines…"));
    for (const { position } of missing) await view.ledger.want(position);
    if (mine === turn) draw(view, card, selection, open); // else the selection has moved on
  }, ["position", "layer", "expert", "pins"]);
  return card;
}

function draw(view, card, selection, open) {
  const columns = columnsOf(view, selection);
  card.keep(null, () => (columns.length > 1 ? tableOfBeside(columns) : { head: ["pins"], rows: [["nothing is pinned"]] }));
  if (columns.length === 1) return card.put(element("p.quiet", "Nothing is pinned."));
  return card.put(element("div", part("ul.pin-list", { role: "list" }, ...selection.pins.map((each, n) => item(view, each, n))), element(`div.beside-groups${columns.length > 3 ? "" : ".two"}`, ...sideBySide(columns, open, "selected and pinned"))));
}

function columnsOf(view, { position, layer, expert, pins: pinned }) {
  const column = (title, at) => ({ title, ledger: view.ledger, drawer: view.drawer, ...at });
  return [column("selected", { position, layer, expert }), ...pinned.map((at, n) => column(`pin ${n + 1}`, at))];
}

function item(view, at, n) {
  const { position, layer, expert } = at;
  const found = view.ledger.positions[position];
  const where = `position ${position}, layer ${layer}${expert < 0 ? "" : `, expert ${expert}`}`;
  return element("li", element("b", String(n + 1)), button(where, () => view.selection.set({ position, layer, expert }), { class: "link" }),
    element("span.value.quiet", nameOf(found, view.anchor?.promptIds ?? [])), button("Unpin", () => view.selection.unpin(at), { "aria-label": `Unpin ${where}` }));
}
