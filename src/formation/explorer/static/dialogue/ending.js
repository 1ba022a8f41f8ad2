// Where and why the dialogue ended: the rule, what it saw, and what went wrong before.

import { element } from "../verify/elements.js";
import { Card } from "../explore/card.js";
import { button, part, shown } from "../explore/parts.js";
import { sliceOf } from "./talk.js";

const SENTENCE = "A dialogue ends at the first message (or token) at which one of its rules holds. A rule sees the characters of messages, message[begin:end], and amounts that it compares; what it saw is its evidence, kept in the last event.";

export function ending(view) {
  const card = new Card(view, "ending", "How it ended", SENTENCE);
  card.keep(null, () => tableOf(view.talk));
  card.put(element("div", ...verdictOf(view), ...turnsOf(view), ...faultsOf(view)));
  return card;
}

function verdictOf(view) {
  const { end, stops } = view.talk;
  const rules = element("p.quiet", `Its rules: ${stops.map((rule) => `“${rule}”`).join(", ") || "none"}.`);
  if (!end) return [element("p", element("b", "The log does not say: "), "it has no last event, so the dialogue was cut off, or goes on."), rules];
  const { rule, after, within, spans, amounts } = end.evidence;
  return [
    element("p", element("b", "Ended by "), element("b.value", rule), ` ${within ? `within message ${after + 1}` : `after message ${after}`}.`),
    ...(amounts.length ? [element("p", "It compared: ", ...amounts.map(({ what, amount }) => element("span.value.amount", `${shown(amount)} ${what}`)))] : []),
    ...(spans.length ? [element("h3", "What it saw"), part("ul.spans", { role: "list" }, ...spans.map((span) => spanOf(view, span)))] : []), rules,
  ];
}

/** The characters of a message, and the way to them */
function spanOf(view, { message: number, start, end }) {
  const message = view.talk.byNumber(number);
  const first = message && view.talk.within(message, start, Math.max(end, start + 1))[0];
  const text = message ? sliceOf(message.text, start, end) : "";
  const where = `message ${number}[${start}:${end}]`;
  const link = first ? button(where, () => view.selection.set({ token: first.n }), { class: "link" }) : element("span", where);
  return element("li", link, element("q.value", text.length > 120 ? `${sliceOf(text, 0, 120)}…` : text));
}

function turnsOf({ talk }) {
  const counts = new Map();
  for (const { reason, side } of talk.messages) counts.set(reason, (counts.get(reason) ?? [0, 0]).map((count, n) => count + (n === side ? 1 : 0)));
  const rows = [...counts].map(([reason, [a, b]]) => element("tr", part("th", { scope: "row" }, reason), part("td.numeric", {}, String(a)), part("td.numeric", {}, String(b))));
  const head = ["why turns ended", ...talk.names].map((name) => part("th", { scope: "col" }, name));
  return rows.length ? [element("table.turns", element("thead", element("tr", ...head)), element("tbody", ...rows))] : [];
}

function faultsOf({ talk }) {
  if (!talk.faults.length) return [];
  const items = talk.faults.map(({ number, side, attempt, then, sentence, lost }) => element("li", `turn ${number}, ${talk.names[side]}, attempt ${attempt}: ${lost} tokens void, ${then}: `, element("span.value", sentence)));
  return [element("h3", "What went wrong"), element("ul.faults", ...items)];
}

function tableOf({ messages, names, end }) {
  const rows = messages.map(({ number, side, reason, tokens: [first, behind] }) => [number, names[side], behind - first, reason]);
  return { head: ["message", "side", "tokens", "turn ended by"], rows: end ? [...rows, ["end", "", end.messages, end.evidence.rule]] : rows };
}
