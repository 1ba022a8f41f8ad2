// The tokens of the run, in order: the prompt's ids, then what was formed, coloured by its surprisal.

import { Card } from "./card.js";
import { element, inert } from "../verify/elements.js";
import { colourAt, inkOn } from "./palette.js";
import { numbersOf } from "./provenance.js";
import { nameOf, part, shown, tokenText } from "./parts.js";
import { Scene } from "./scene.js";

const MOST_BITS = 12;
const SENTENCE = "Surprisal of each token y: −log₂ p(y) = (log Σ exp z − z_y) / ln 2 bits, z the engine's logits. The stronger the colour, the more surprising; ids in dashes are the prompt, which was not formed here.";
const FACTS = [
  ["lm_head", "surprisal_bits"], ["lm_head", "logprob"], ["lm_head", "chosen_logit"], ["lm_head", "rank_low"], ["lm_head", "top_margin"],
  ["lm_head", "entropy_nats"], ["lm_head", "arrival_layer"], ["token", "id"], ["sampler", "method"],
];

export function ribbon(view) {
  const card = new Card("tokens", "Tokens", SENTENCE);
  const chips = view.ledger.positions.map((found) => chip(view, found));
  const prompt = view.anchor?.promptText ? [element("p.prompt", element("span.quiet", "Prompt "), element("q.value", view.anchor.promptText))] : [];
  const isPrompt = ({ kind }) => kind === "prompt";
  const before = view.ledger.positions.filter(isPrompt).length;
  const nodes = [...chips.slice(0, before), ...promptTail(view), ...chips.slice(before)];
  const list = part("div.ribbon.scrolls-y", { role: "group", "aria-label": "Tokens" }, ...nodes);
  card.keep(strip(view), () => table(view));
  card.put(element("div", ...prompt, list));
  let current = null;
  view.selection.follow(({ position, isStep }) => {
    current?.setAttribute("aria-pressed", "false");
    current = chips[position];
    current?.setAttribute("aria-pressed", "true");
    requestAnimationFrame(() => showIn(list, current));
    card.after.replaceChildren(...(isStep ? [about(view, position)] : [element("p.quiet", `Position ${position} is of the prompt: no token was formed here.`)]));
  });
  return card;
}

/** Scrolls the list, never the page */
function showIn(list, chip) {
  if (!chip || !list.isConnected) return;
  const above = chip.offsetTop - list.offsetTop;
  if (above < list.scrollTop || above + chip.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = above - list.clientHeight / 2;
}

function chip(view, found) {
  const select = () => view.selection.set({ position: found.position });
  const isPrompt = found.kind === "prompt";
  const title = isPrompt ? `position ${found.position}, prompt` : `position ${found.position}: token ${tokenNumber(view, found)}, ${shown(found.surprisal_bits)} bits`;
  const attributes = { type: "button", "aria-pressed": "false", title, onclick: select };
  if (isPrompt) return part("button.chip.prompt-id", attributes, `${view.anchor?.promptIds[found.position] ?? "?"}`);
  const node = part("button.chip", attributes, ...marked(tokenText(found.bytes)));
  const paint = () => {
    const colour = colourAt("heat", found.surprisal_bits / MOST_BITS);
    Object.assign(node.style, { backgroundColor: colour, color: inkOn(colour) });
  };
  paint();
  view.onRedraw(paint);
  return node;
}

/** The last id of the prompt is the input of the first step */
function promptTail(view) {
  const [first] = view.ledger.steps;
  const id = view.anchor?.promptIds[first?.position];
  if (id === undefined) return [];
  const title = `position ${first.position}: the prompt's last id, input of the first step`;
  return [part("button.chip.prompt-id", { type: "button", title, onclick: () => view.selection.set({ position: first.position }) }, `${id}`)];
}

/** Line feeds and what else is invisible stand out as what they are; a token of spaces alone shows them */
function marked(text) {
  if (/^ +$/.test(text)) return [part("span.control", { title: "spaces" }, "␣".repeat(text.length))];
  return text.split(/(\n|[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}])/u).filter(Boolean).map((piece) => {
    if (piece === "\n") return part("span.control", { title: "line feed" }, "↵");
    const safe = inert(piece);
    return element(safe === piece ? "span" : "span.control", piece);
  });
}

const tokenNumber = (view, found) => view.ledger.steps.indexOf(found) + 1;

function about(view, position) {
  const found = view.ledger.positions[position];
  const name = element("p.token-name", element("span.quiet", `Token ${tokenNumber(view, found)}, position ${position} → ${position + 1}: `),
    element("b.value", ...marked(tokenText(found.bytes))));
  return element("div.facts", name, element("dl.facts-row", ...FACTS.filter(([slot, field]) => field in view.ledger.values(position, slot)).flatMap(([slot, field]) =>
    [element("div", element("dt", field), element("dd", ...numbersOf(view, { position, slot, name: field })))])));
}

function table(view) {
  const rows = view.ledger.positions.map((found) => [found.position, found.kind, nameOf(found, view.anchor?.promptIds ?? []), cell(found.id), cell(found.surprisal_bits), cell(found.logprob), cell(found.rank_low)]);
  return { head: ["position", "kind", "text", "id", "surprisal_bits", "logprob", "rank_low"], rows };
}

const cell = (value) => value ?? "not a step";

/** The ribbon as one drawing, for export: a bar for each token */
function strip(view) {
  const steps = view.ledger.steps;
  const scene = new Scene(Math.max(steps.length * 56, 240), 150);
  for (const [n, found] of steps.entries()) {
    const h = Math.max(2, (Math.min(found.surprisal_bits, MOST_BITS) / MOST_BITS) * 90);
    scene.rect({ x: n * 56 + 8, y: 110 - h, w: 40, h, fill: colourAt("heat", found.surprisal_bits / MOST_BITS), stroke: view.ink().text });
    scene.text({ x: n * 56 + 28, y: 126, text: nameOf(found, []).slice(0, 7), anchor: "middle", fill: view.ink().text });
    scene.text({ x: n * 56 + 28, y: 142, text: shown(found.surprisal_bits), anchor: "middle", size: 10, fill: view.ink().soft });
  }
  return scene;
}
