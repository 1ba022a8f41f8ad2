// What was said, as text: every token coloured by the chosen value, those of claims underlined. Messages are filled with their tokens as they are looked
// at and, where there are not too many, all of them, so that the browser's own search finds what was said.

import { bytesOfBlob } from "../verify/container.js";
import { element } from "../verify/elements.js";
import { textOf } from "../verify/bytes.js";
import { Card } from "../explore/card.js";
import { inkOn } from "../explore/palette.js";
import { button, part, save } from "../explore/parts.js";
import { marked, plain } from "./marks.js";
import { scaleOf, valueOf, valuesOf } from "./values.js";

const SENTENCE = "Every token with the colours of the map above. A dotted line under a token: said by a server, its number as reported. A double line: forced or replayed, not chosen by the sampler. Hatched: no number, and no zero either. Underlined: a claim is about it, which is supported (one line), refuted (two) or neither (dots). · is part of a character that ends with a later token.";
const MOST_FILLED = 30000; // tokens that stand in the page at once
const AT_ONCE = 600; // before the page is shown
const SLICE_MS = 12; // of filling and colouring beside the reader
const LINE_CHARACTERS = 78;
const LINE_PIXELS = 25;
const moment = () => new Promise((resolve) => setTimeout(resolve));

export function reading(view) {
  const card = new Card(view, "said", "What was said", SENTENCE);
  const known = valuesOf(view.talk);
  const choose = card.choice("value", "What tokens are coloured by, too", known.map(({ name, title }) => [name, title]));
  const pane = new Pane(view, known);
  card.controls.append(button("JSON", () => saveJson(view), { title: "every token with all its numbers, as the file has them" }));
  card.keep(null, () => table(view));
  card.put(pane.node);
  view.onRedraw(() => pane.recolour());
  view.selection.follow(({ value }) => {
    choose.value = valueOf(value, known).name;
    pane.select();
  });
  pane.fillSlowly();
  return card;
}

class Pane {
  constructor(view, known) {
    Object.assign(this, { view, known, filled: new Map(), count: 0, seen: new Set(), value: null, current: null, claimed: [], turn: 0 });
    this.node = part("div.said", { tabindex: "0", role: "region", "aria-label": "Messages" });
    this.bodies = view.talk.messages.map((message, place) => this.frameOf(message, place));
    this.node.append(...this.bodies.map(({ parentNode }) => parentNode));
    this.node.addEventListener("click", ({ target }) => {
      const token = target.closest("[data-n]");
      if (token) view.selection.set({ token: Number(token.dataset.n) });
    });
    this.watcher = new IntersectionObserver((entries) => this.scrolled(entries), { root: this.node, rootMargin: "400px" });
    for (const body of this.bodies) this.watcher.observe(body.parentNode);
    this.colours();
    this.fillFirst();
  }

  /** A message without its tokens, about as high as it will be */
  frameOf({ number, side, text, tokens: [first, behind] }, place) {
    const name = this.view.talk.names[side];
    const body = part("p.words", { "data-place": String(place) });
    const lines = Math.max(1, Math.ceil(text.length / LINE_CHARACTERS));
    const head = element("h3.speaker", element("span.number-of", `${number}`), element("span.value", name), element("span.quiet", behind > first ? `${behind - first} tokens` : "no token"));
    const frame = part(`article.message.side-${side}`, {}, head, body);
    frame.style.containIntrinsicSize = `auto ${lines * LINE_PIXELS + 34}px`;
    body.style.minHeight = `${lines * LINE_PIXELS}px`;
    return body;
  }

  colours() {
    this.value = valueOf(this.view.selection.value, this.known);
    this.scale = scaleOf(this.value, this.view.talk.tokens);
  }

  // ---- filling

  fillFirst() {
    for (let place = 0; place < this.bodies.length && this.count < AT_ONCE; place++) this.fill(place);
  }

  async fillSlowly() {
    let begin = performance.now();
    for (let place = 0; place < this.bodies.length && this.count < MOST_FILLED; place++) {
      this.fill(place);
      if (performance.now() - begin < SLICE_MS) continue;
      await moment();
      begin = performance.now();
    }
  }

  /** Puts a message's tokens in; where there are too many, those of the message that was wanted longest ago go */
  fill(place) {
    if (this.filled.has(place)) return;
    const spans = this.view.talk.tokensOf(this.view.talk.messages[place]).map((token) => this.spanOf(token));
    this.bodies[place].replaceChildren(...spans);
    this.bodies[place].style.minHeight = "";
    this.filled.set(place, spans);
    this.count += spans.length;
    for (const other of this.filled.keys()) {
      if (this.count <= MOST_FILLED) break;
      if (other !== place && !this.seen.has(other)) this.empty(other);
    }
  }

  empty(place) {
    this.bodies[place].style.minHeight = `${this.bodies[place].offsetHeight}px`;
    this.count -= this.filled.get(place).length;
    this.filled.delete(place);
    this.bodies[place].replaceChildren();
  }

  scrolled(entries) {
    for (const { target, isIntersecting } of entries) {
      const place = Number(target.lastChild.dataset.place);
      if (!isIntersecting) this.seen.delete(place);
      else this.seen.add(place) && this.fill(place);
    }
  }

  spanOf(token) {
    const made = element("span.t", ...marked(token, true));
    made.dataset.n = token.n;
    if (token.source === "reported") made.classList.add("reported");
    if (token.method === "forced" || token.method === "replayed") made.classList.add("given-token");
    const verdict = this.view.claims.byToken.get(token.n)?.[0]?.verdict;
    if (verdict) made.classList.add("claimed", `claimed-${verdict.replaceAll(" ", "-")}`);
    this.colour(made, token);
    return made;
  }

  // ---- colours

  colour(node, token) {
    const x = this.value.of(token);
    node.classList.toggle("none", Number.isNaN(x));
    const colour = Number.isNaN(x) ? "" : this.scale.colour(x);
    Object.assign(node.style, { backgroundColor: colour, color: colour && inkOn(colour) });
  }

  /** Those that are seen at once, the others beside the reader; of two that are going on, the later counts */
  async recolour() {
    const mine = ++this.turn;
    this.colours();
    const all = [...this.filled.keys()];
    for (const place of all.filter((each) => this.seen.has(each))) this.colourMessage(place);
    let begin = performance.now();
    for (const place of all.filter((each) => !this.seen.has(each))) {
      if (this.filled.has(place)) this.colourMessage(place);
      if (performance.now() - begin < SLICE_MS) continue;
      await moment();
      if (mine !== this.turn) return;
      begin = performance.now();
    }
  }

  colourMessage(place) {
    const { talk } = this.view;
    for (const [n, node] of this.filled.get(place).entries()) this.colour(node, talk.tokens[talk.messages[place].tokens[0] + n]);
  }

  // ---- the selection

  select() {
    const { selection, claims } = this.view;
    if (valueOf(selection.value, this.known) !== this.value) this.recolour();
    this.current?.classList.remove("current");
    for (const node of this.claimed) node.classList.remove("of-claim");
    this.claimed = (claims.found[selection.claim]?.tokens ?? []).map((token) => this.nodeOf(token));
    for (const node of this.claimed) node.classList.add("of-claim");
    this.current = selection.row ? this.nodeOf(selection.row) : null;
    this.current?.classList.add("current");
    requestAnimationFrame(() => this.showCurrent());
  }

  nodeOf(token) {
    this.fill(token.message);
    return this.filled.get(token.message)[token.n - this.view.talk.messages[token.message].tokens[0]];
  }

  /** Scrolls the pane, never the page */
  showCurrent() {
    if (!this.current?.isConnected) return;
    const [own, pane] = [this.current.getBoundingClientRect(), this.node.getBoundingClientRect()];
    if (own.top < pane.top + 8 || own.bottom > pane.bottom - 8) this.node.scrollTop += own.top - pane.top - this.node.clientHeight / 3;
  }
}

// ---- other forms

const COLUMNS = [["id", "id"], ["position", "position"], ["method", "method"], ["surprisal_bits", "surprisal"], ["entropy_bits", "entropy"], ["varentropy", "varentropy"],
  ["rank_low", "rank"], ["sampler_surprisal_bits", "q"], ["truncated_mass", "truncated"], ["zero", "zero"], ["event_probability", "chance"]];

function table({ talk }) {
  const rows = talk.tokens.map((token) => {
    const { number, tokens } = talk.messages[token.message];
    return [number, talk.names[token.side], token.n - tokens[0], plain(token), token.bytes, ...COLUMNS.map(([, name]) => cell(token[name]))];
  });
  return { head: ["message", "side", "token", "text", "bytes", ...COLUMNS.map(([title]) => title)], rows };
}

const cell = (value) => (typeof value === "number" && !Number.isNaN(value) ? value : typeof value === "string" && value ? value : "absent");

/** The bodies of the tokens' events, or the rows, as the file has them */
async function saveJson({ talk, blobs, name }) {
  const isLog = talk.kind === "dialogue";
  const blob = blobs.get(isLog ? "events.jsonl" : "tokens.jsonl");
  const found = [];
  for (const { line } of talk.tokens) {
    const value = JSON.parse(textOf(await bytesOfBlob(blob.slice(line[0], line[1]))));
    found.push(isLog ? { event: value.event, ...value.body } : value);
  }
  save("tokens.json", `${JSON.stringify({ of: name, names: talk.names, tokens: found })}\n`, "application/json");
}
