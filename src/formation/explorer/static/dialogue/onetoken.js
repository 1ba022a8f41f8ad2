// One token: all its numbers, read again from its line, with what they mean; the distributions stay apart.

import { hex, textOf } from "../verify/bytes.js";
import { decodeF32 } from "../verify/canonical.js";
import { bytesOfBlob } from "../verify/container.js";
import { element } from "../verify/elements.js";
import { sha256 } from "../verify/sha256.js";
import { Card } from "../explore/card.js";
import { palette } from "../explore/palette.js";
import { button, part, shown, tokenText } from "../explore/parts.js";
import { Scene, svgOf } from "../explore/scene.js";
import { RECORDS, VIEWS } from "./eventtable.js";
import { isAbsent } from "./form.js";
import { viewOf } from "./log.js";
import { hexOf, marked } from "./marks.js";
import { zeroWords } from "./zeros.js";

const SENTENCE = "A token is chosen in steps, each with its own distribution: p = softmax(z) of the raw logits z, then after edits, at the temperature, and after the filters, q. Their numbers are never mixed; the fifth step is the choice itself.";
const METHODS = {
  sample: "sampled: a uniform draw u fell into its interval", greedy: "greedy: the likeliest after edits was taken", forced: "forced: it was put there, not chosen",
  replayed: "replayed: taken over from an earlier run", server: "said by a server: what it does inside is not seen", scored: "scored: it was said elsewhere; these numbers are of this model, not of who said it",
};
const MOST_LEADERS = 10;
const UNITS = { logprob_nats: "nats", logprob_bits: "bits", entropy_nats: "nats" };

export function oneToken(view) {
  const card = new Card(view, "token", "One token", SENTENCE);
  card.keep(null, () => ({ head: ["token"], rows: [["none is selected"]] }));
  let turn = 0;
  view.selection.follow(async ({ row }) => {
    const mine = ++turn;
    if (!row) return card.put(element("p.nothing", "There is no token."));
    const { value, bytes } = await lineOf(view, row);
    if (mine !== turn) return undefined; // the selection has moved on
    const body = view.talk.kind === "dialogue" ? value.body : value;
    card.keep(null, () => ({ head: ["name", "value"], rows: flat(body) }));
    const leaders = await leadersOf(view, row);
    if (mine !== turn) return undefined;
    return card.put(element("div.one", ...headOf(view, row, body), ...numbersOf(row, body), ...leaders, ...claimsOf(view, row), ...originOf(view, row, bytes)));
  });
  return card;
}

async function lineOf({ talk, blobs }, { line }) {
  const blob = blobs.get(talk.kind === "dialogue" ? "events.jsonl" : "tokens.jsonl");
  const bytes = await bytesOfBlob(blob.slice(line[0], line[1]));
  return { bytes, value: JSON.parse(textOf(bytes)) };
}

function headOf(view, row, body) {
  const fact = (name, value) => element("div", element("dt", name), element("dd.value", value));
  const id = isAbsent(body.id) ? `absent: ${body.id.absent}` : String(body.id);
  const position = isAbsent(body.position) ? `absent: ${body.position.absent}` : String(body.position);
  return [
    element("p.token-name", element("span.quiet", `${view.talk.names[row.side]}, ${view.where(row)}: `), element("b.value", ...marked(row))),
    element("dl.facts-row", fact("id", id), fact("bytes", body.bytes ? hexOf(body.bytes) : "none"), fact("position", position), ...(row.ends ? [] : [fact("characters", `${row.begin} to ${row.end}`)])),
    element("p.quiet", `${METHODS[row.method] ?? row.method}${row.ends ? "; it ends the turn" : ""}.`),
  ];
}

function numbersOf(row, body) {
  if (row.method === "scored") return scoredNumbers(body);
  return row.source === "reported" ? reportedNumbers(body) : [distributions(body.measured), ...choiceOf(body.measured), definitions()];
}

// ---- the five distributions

const definitionOf = (record, name) => RECORDS[record].find((field) => field.name === name)?.definition ?? "";
const ROWS = [
  ["p", "exp(ln p), derived here", ({ logprob_nats: v }) => (isAbsent(v) ? v : Math.exp(v))],
  ...["logprob_nats", "logprob_bits"].map((name) => [name, definitionOf("view", name), (found) => found[name]]),
  ["rank", "1 + tokens that are more likely, to those not less likely", ({ rank_low: low, rank_high: high }) => (isAbsent(low) || low === high ? low : `${low} to ${high}`)],
  ...["score", "entropy_nats", "varentropy"].map((name) => [name, definitionOf("view", name), (found) => found[name]]),
  ...[1, 5, 20].map((most, n) => [`mass of ${most}`, `probability of the ${most} most likely`, ({ top_masses: masses }) => masses[n] ?? { absent: "not measured" }]),
  ["support", definitionOf("view", "support"), ({ support }) => support],
  ["zero", definitionOf("view", "zero"), ({ zero }) => zero],
];

function distributions(measured) {
  const of = VIEWS.map((name) => ({ name, same: typeof measured[name] === "string" ? measured[name] : "", found: viewOf(measured, name) }));
  const head = VIEWS.map((name) => part("th", { scope: "col", title: definitionOf("measured", name) }, name));
  const body = ROWS.map(([name, says, get]) => element("tr", part("th", { scope: "row", title: says }, name), ...of.map(({ found, same }) => cell(get(found), same))));
  const table = element("table.distributions", element("thead", element("tr", element("td"), ...head)), element("tbody", ...body));
  return part("div.scrolls-x", { tabindex: "0", role: "region", "aria-label": "The token under the distributions" }, table);
}

function cell(value, same) {
  if (same) return part("td.same", { title: `the same distribution as ${same}` }, `= ${same}`);
  if (isAbsent(value)) return element("td", part("span.absent", { title: `absent: ${value.absent}` }, value.absent));
  return typeof value === "number" ? part("td.numeric", { title: String(value) }, shown(value)) : element("td", value);
}

/** The fifth step: what is left for the draw, and where it fell */
function choiceOf(measured) {
  const { kept_mass: kept, truncated_mass: cut, draw, low, high, method } = measured;
  const zeros = VIEWS.map((name) => [name, viewOf(measured, name).zero]).filter(([, zero]) => zero !== "POSITIVE");
  const mass = (name, value) => `${name} ${isAbsent(value) ? `absent: ${value.absent}` : shown(value)}`;
  return [
    element("h3", "selection"),
    element("p.quiet", `${mass("kept mass", kept)}, ${mass("truncated mass", cut)}${method === "sample" ? `; draw u = ${shown(draw)} in [${shown(low)}, ${shown(high)})` : `; ${method}: no draw`}`),
    ...(method === "sample" ? [drawing(draw, low, high)] : []),
    ...zeros.map(([name, zero]) => element("p.zero-words", element("b", `${name}: `), element("span.value", zeroWords(zero)))),
    ...(zeros.length ? [] : [element("p.quiet", "Its probability is zero under none of them.")]),
    element("p.quiet", "The log keeps how much probability the 1, 5 and 20 likeliest have together, not which they are."),
  ];
}

/** All draws as a line from 0 to 1: those that give this token, and the one that was drawn */
function drawing(draw, low, high) {
  const [ink, scene] = [palette(), new Scene(300, 34)];
  const x = (u) => 8 + 284 * u;
  scene.rect({ x: x(0), y: 10, w: 284, h: 9, fill: ink.line }).rect({ x: x(low), y: 10, w: Math.max(1.5, x(high) - x(low)), h: 9, fill: ink.positive });
  scene.line({ points: [[x(draw), 5], [x(draw), 23]], stroke: ink.text, width: 2 });
  for (const [text, at] of [["0", 8], ["1", 292]]) scene.text({ x: at, y: 33, text, size: 10, anchor: "middle", fill: ink.soft });
  scene.text({ x: Math.min(Math.max(x(draw), 18), 282), y: 33, text: "u", size: 10, anchor: "middle", fill: ink.text });
  return svgOf(scene, `Draws from 0 to 1: ${shown(low)} to ${shown(high)} give this token, ${shown(draw)} was drawn`);
}

function definitions() {
  const rows = [...RECORDS.view, ...RECORDS.measured].filter(({ definition }) => definition);
  return element("details.group", element("summary", "What these numbers are"),
    element("dl.fields", ...rows.flatMap(({ name, definition }) => [element("dt", name), element("dd", `${definition}${UNITS[name] ? `, in ${UNITS[name]}` : ""} (measured)`)])));
}

// ---- of a server, of a transcript

function reportedNumbers({ reported }) {
  if (isAbsent(reported)) return [element("p.nothing", `No number: ${reported.absent}.`)];
  const nats = reported.logprob_nats;
  const value = isAbsent(nats) ? part("span.absent", {}, nats.absent) : part("b.value", { title: String(nats) }, `${shown(nats)} nats`);
  const top = reported.top.map(namedBy);
  return [
    element("p", "The server says ln p = ", value, " (reported: nobody measured it here)."), element("p.zero-words.value", zeroWords(reported.zero)),
    element("h3", "The likeliest that it names"), top.length ? element("ol.leaders", ...top) : element("p.quiet", "None."),
    element("p.quiet", `${VIEWS.join(", ")}, selection: `, part("span.absent", {}, "absent: a server does not show them")),
  ];
}

function namedBy({ bytes, logprob_nats: nats }) {
  const number = isAbsent(nats) ? ` ${nats.absent}` : ` ${shown(nats)} nats, p ${shown(Math.exp(nats))}`;
  return element("li", element("b.value", tokenText(bytes)), element("span.quiet", number));
}

const SCORED_WORDS = {
  logprob_nats: "ln p under the model", surprisal_bits: "−log₂ p", rank_low: "1 + tokens that are more likely", rank_high: "tokens that are not less likely",
  entropy_nats: "of the distribution, nats", varentropy: "variance of ln p", event_probability: "that the next token is the event's",
};

function scoredNumbers(body) {
  const row = (name, found, words) => element("tr", part("th", { scope: "row" }, name), found, element("td.quiet", words));
  const number = (x) => part("td.numeric", { title: String(x) }, shown(x));
  const p = row("p", number(Math.exp(body.logprob_nats)), "exp(ln p) of the model, derived here");
  const measured = Object.entries(SCORED_WORDS).map(([name, words]) => row(name, number(body[name]), words));
  const absent = ["edited", "tempered", "sampler", "selection"].map((name) => row(name, element("td", part("span.absent", {}, "not sampled")), "nothing was sampled here"));
  const masses = Array.isArray(body.top_masses) ? body.top_masses.map((mass, n) => row(`mass of ${[1, 5, 20][n]}`, number(mass), "probability of the most likely")) : [];
  const zero = typeof body.zero === "string" ? [element("p.zero-words.value", zeroWords(body.zero))] : [];
  return [element("table.distributions", element("tbody", p, ...measured, ...masses, ...absent)), ...zero];
}

/** What the model thought likelier, from the line of the ledger that the row was copied from, once that was checked */
async function leadersOf({ talk, blobs }, row) {
  const place = talk.ledgerLines?.get(row.n);
  if (!place) return [];
  const [letter, begin, end] = place;
  const { measured } = JSON.parse(textOf(await bytesOfBlob(blobs.get(`${letter}.lines`).slice(begin, end))));
  const logits = decodeF32(measured.top_logits);
  const items = measured.top.slice(0, MOST_LEADERS).map((id, n) => {
    const known = talk.tokens.find((token) => token.id === id && token.side === row.side && token.text);
    return element("li", ...(known ? [element("b.value", ...marked(known)), " "] : []), element("span.quiet", `id ${id}, p ${shown(Math.exp(logits[n] - measured.log_sum_exp))}${id === row.id ? ", this one" : ""}`));
  });
  return [element("h3", "The likeliest there"), element("ol.leaders", ...items)];
}

// ---- where it is spoken of, and where it comes from

function claimsOf(view, row) {
  const found = view.claims.byToken.get(row.n) ?? [];
  if (!found.length) return [];
  const link = ({ place, quote }) => button(quote, () => view.selection.set({ claim: place }), { class: "link" });
  return [element("h3", "Claims about it"), element("ul.claims-here", ...found.map((claim) => element("li", link(claim), element("span.quiet", ` ${claim.verdict}`))))];
}

function originOf({ talk }, { line: [, , number] }, bytes) {
  const file = talk.kind === "dialogue" ? `event ${number} of events.jsonl` : `row ${number + 1} of tokens.jsonl`;
  return [element("p.quiet.origin", `${file}, ${bytes.length} bytes, SHA-256 `, element("span.value", hex(sha256(bytes))))];
}

/** Every number of the line by its path */
function flat(value, path = "") {
  if (value === null || typeof value !== "object") return [[path, value]];
  return Object.entries(value).flatMap(([name, each]) => flat(each, path ? `${path}.${name}` : name));
}
