// What was claimed in the dialogue, and what came of it: a quote, the procedure that settles it, its verdict, and the tokens that it is about.
//
// The document is what `formation claims … --json` prints: a list of claims, or an object with the list as `claims`. A claim has
//   message, span [begin, end] in characters of the message, quote, predicate, procedure, verdict; and, where there is one: inputs, value, unit,
//   interval [low, high], scope, caveat.
// That the quote stands where the claim says is checked here; a verdict is not: it is shown as the document has it.

import { bytesOfBlob } from "../verify/container.js";
import { textOf } from "../verify/bytes.js";
import { isObject } from "../verify/canonical.js";
import { element } from "../verify/elements.js";
import { ContainerRefusal } from "../verify/refusals.js";
import { Card } from "../explore/card.js";
import { part, shown } from "../explore/parts.js";
import { marked } from "./marks.js";
import { sliceOf } from "./talk.js";

const SENTENCE = "A claim is a quote with a predicate; a procedure settles it, verdict = procedure(inputs), for its scope and with its caveat. No model judges. What is measured here never refutes what another machine did.";
const VERDICTS = ["supported", "refuted", "undetermined", "not measurable here"];
const MARKS = { supported: "✓", refuted: "✗", undetermined: "?", "not measurable here": "–" };
const MOST_TOKENS = 60; // of a claim's table

/** { given, found, byToken, broken }: claims that have their form, and by token number those about it */
export async function readClaims(blob, talk) {
  const none = { given: Boolean(blob), found: [], byToken: new Map(), broken: [] };
  if (!blob) return none;
  try {
    const value = JSON.parse(textOf(await bytesOfBlob(blob)));
    const list = Array.isArray(value) ? value : value?.claims;
    if (!Array.isArray(list)) return { ...none, broken: ["expected a list of claims"] };
    return placed(list, talk, none);
  } catch (fault) {
    if (![SyntaxError, TypeError, ContainerRefusal].some((kind) => fault instanceof kind)) throw fault;
    return { ...none, broken: [fault.message] };
  }
}

function placed(list, talk, none) {
  for (const [n, given] of list.entries()) {
    if (!isClaim(given)) {
      none.broken.push(`claim ${n + 1} has not the form of one`);
      continue;
    }
    const message = talk.byNumber(given.message);
    const tokens = message ? talk.within(message, ...given.span) : [];
    const isThere = message ? sliceOf(message.text, ...given.span) === given.quote : null;
    const claim = { ...given, place: none.found.length, tokens, isThere };
    none.found.push(claim);
    for (const { n: token } of tokens) none.byToken.set(token, [...(none.byToken.get(token) ?? []), claim]);
  }
  return none;
}

function isClaim(value) {
  if (!isObject(value) || !Number.isSafeInteger(value.message) || !VERDICTS.includes(value.verdict)) return false;
  const isSpan = Array.isArray(value.span) && value.span.length === 2 && value.span.every((at) => Number.isSafeInteger(at) && at >= 0);
  return isSpan && ["quote", "predicate", "procedure"].every((name) => typeof value[name] === "string");
}

// ---- the panel

export function claims(view) {
  const card = new Card(view, "claims", "Claims", SENTENCE);
  const { found, broken } = view.claims;
  card.keep(null, () => tableOf(view));
  const list = part("ol.claim-list.scrolls-y", { "aria-label": "Claims", tabindex: "0" }, ...found.map((claim) => item(view, claim)));
  const detail = element("div.claim");
  card.put(element("div", counts(found), ...broken.map((sentence) => element("p.broken", sentence)), element("div.claims-and-one", list, detail)));
  let current = null;
  view.selection.follow(({ claim }) => {
    if (current !== null) list.children[current]?.firstChild.setAttribute("aria-pressed", "false");
    current = claim;
    list.children[claim]?.firstChild.setAttribute("aria-pressed", "true");
    detail.replaceChildren(...(found[claim] ? one(view, found[claim]) : [element("p.quiet", "Choose a claim, or a token that one is about; Shift with ← → goes through them.")]));
  });
  return card;
}

const classOf = (verdict) => verdict.replaceAll(" ", "-");

function counts(found) {
  const count = (verdict) => found.filter((each) => each.verdict === verdict).length;
  return element("p.verdict-counts", ...VERDICTS.map((verdict) => element(`span.verdict-word.${classOf(verdict)}`, `${MARKS[verdict]} ${count(verdict)} ${verdict}`)));
}

function item(view, { place, message, quote, verdict, isThere }) {
  return element("li", part("button.claim-line", { type: "button", "aria-pressed": "false", onclick: () => view.selection.chooseClaim(place) },
    part(`span.verdict-mark.${classOf(verdict)}`, { title: verdict }, MARKS[verdict]), element("q.value", quote),
    element("span.quiet", ` message ${message}`), ...(isThere === false ? [element("b.wrong", " not there")] : [])));
}

function one(view, claim) {
  const { quote, message, span, verdict, predicate, procedure, inputs, value, unit, interval, scope, caveat, tokens, isThere } = claim;
  const where = { true: "the quote stands there", false: "✗ the message has another text there", null: "this page has no such message" }[String(isThere)];
  const rows = { predicate, procedure, inputs: words(inputs), value: `${words(value)}${unit ? ` ${unit}` : ""}`, interval: words(interval), scope: words(scope), caveat: words(caveat) };
  return [
    element("p.claim-quote", element("q.value", quote)),
    element(`p${isThere === false ? ".wrong" : ""}`, element(`span.verdict-word.${classOf(verdict)}`, `${MARKS[verdict]} ${verdict}`),
      element("span.quiet", ` message ${message}[${span[0]}:${span[1]}], ${where}`)),
    element("dl.fields", ...Object.entries(rows).flatMap(([name, said]) => (said === "none" || said.startsWith("none ") ? [] : [element("dt", name), element("dd.value", said)]))),
    ...(tokens.length ? [element("h3", "Its tokens"), tokenTable(view, tokens)] : []),
  ];
}

function words(value) {
  if (value === undefined || value === null) return "none";
  if (isObject(value) && "absent" in value) return `absent: ${value.absent}`;
  if (Array.isArray(value)) return value.map(words).join(" to ");
  if (isObject(value)) return Object.entries(value).map(([name, each]) => `${name} = ${words(each)}`).join(", ");
  return typeof value === "number" ? shown(value) : String(value);
}

function tokenTable(view, tokens) {
  const more = tokens.length > MOST_TOKENS ? [element("caption", `The first ${MOST_TOKENS} of ${tokens.length}.`)] : [];
  const head = ["token", "surprisal", "rank", "where"].map((name) => part("th", { scope: "col" }, name));
  return element("table", ...more, element("thead", element("tr", ...head)), element("tbody", ...tokens.slice(0, MOST_TOKENS).map((token) => tokenRow(view, token))));
}

function tokenRow(view, token) {
  const link = part("button.link.value", { type: "button", onclick: () => view.selection.set({ token: token.n }) }, ...marked(token));
  const number = (x, unit) => (Number.isNaN(x) ? element("td", element("span.absent", "absent")) : part("td.numeric", { title: String(x) }, `${shown(x)}${unit}`));
  return element("tr", element("td", link), number(token.surprisal, " bits"), number(token.rank, ""), element("td.quiet", view.where(token)));
}

function tableOf({ claims: { found } }) {
  const head = ["message", "span", "quote", "verdict", "predicate", "procedure", "inputs", "value", "unit", "interval", "scope", "caveat", "tokens"];
  const cell = (value) => (typeof value === "number" ? value : words(value));
  const of = (each) => ({ ...each, span: each.span.join(":"), tokens: each.tokens.length });
  return { head, rows: found.map(of).map((each) => head.map((name) => cell(each[name]))) };
}
