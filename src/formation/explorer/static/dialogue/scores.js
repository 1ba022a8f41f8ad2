// What the scores come to: the summary of each side, and the most surprising tokens of all.

import { element } from "../verify/elements.js";
import { Card } from "../explore/card.js";
import { button, part, shown } from "../explore/parts.js";
import { marked, plain } from "./marks.js";

const SENTENCE = "Nats per token: −(1/T) Σ ln p(y); perplexity is its exponential; bits per byte: −Σ log₂ p(y) over the bytes that the tokens spell, without those that end turns. Tails of the event are Poisson-binomial: every step on its own with its chance. All of it is about this model, under this template, in this context.";
const MOST = 12;
const ROWS = [
  ["tokens", ({ tokens }) => tokens], ["messages", ({ messages }) => messages], ["nats per token", (side) => side.nats_per_token], ["perplexity", ({ perplexity }) => perplexity],
  ["bits per byte", (side) => side.bits_per_byte], ["event", ({ count }) => count?.event], ["observed", ({ count }) => count?.observed], ["expected", ({ count }) => count?.expected],
  ["as many or more", ({ count }) => count?.at_least], ["as many or fewer", ({ count }) => count?.at_most], ["parity", ({ parity }) => parity], ["bundle", ({ bundle }) => bundle],
  ["digest of the bundle", ({ digest }) => digest], ["signer", ({ signer }) => signer], ["run", (side) => side.run_id],
];

export function scores(view) {
  const card = new Card(view, "scores", "What it comes to", SENTENCE);
  const found = view.talk.summary?.sides ?? [];
  const cells = ROWS.map(([name, get]) => [name, ...found.map((side) => wordOf(get(side)))]);
  card.keep(null, () => ({ head: ["", ...found.map(({ name }) => name)], rows: cells }));
  const head = found.map(({ name }) => part("th", { scope: "col" }, name));
  const body = cells.map(([name, ...values]) => element("tr", part("th", { scope: "row" }, name), ...values.map(cell)));
  card.put(element("div", element("table.summary", element("thead", element("tr", element("td"), ...head)), element("tbody", ...body)), ...leaders(view)));
  return card;
}

const wordOf = (value) => (typeof value === "number" || typeof value === "string" ? value : "absent");
const cell = (value) => (typeof value === "number" ? part("td.numeric", { title: String(value) }, shown(value)) : element("td.value", value));

function leaders(view) {
  const all = [...view.talk.tokens].sort((a, b) => b.surprisal - a.surprisal).slice(0, MOST);
  const items = all.map((token) => element("li", part("button.link.value", { type: "button", title: plain(token), onclick: () => view.selection.set({ token: token.n }) }, ...marked(token)),
    element("span.quiet", ` ${shown(token.surprisal)} bits, rank ${token.rank}, ${view.where(token)}`)));
  return [element("h3", "The most surprising"), element("ol.most", ...items)];
}
