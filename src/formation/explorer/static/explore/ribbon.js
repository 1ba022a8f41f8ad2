// The tokens of the run, in order: the prompt's ids, then what was formed, coloured by its surprisal.

import { strongestBySource } from "./heads.js";
import { Card } from "./card.js";
import { element, inert } from "../verify/elements.js";
import { colourAt, inkOn, palette } from "./palette.js";
import { numbersOf } from "./provenance.js";
import { nameOf, part, shown, spelled, tokenText } from "./parts.js";
import { Scene, svgOf } from "./scene.js";

const MOST_BITS = 12;
const NO_TEXT = "a token without text, as those are that end a turn";
const SENTENCE = "Surprisal of each token y: −log₂ p(y) = (log Σ exp z − z_y) / ln 2 bits, z the engine's logits. The stronger the colour, the more surprising; ids in dashes are the prompt, which was not formed here; a double border is a token that was given, scored or forced. Underlined: what the selected cell attends to most.";
const FACTS = [
  ["lm_head", "surprisal_bits"], ["lm_head", "logprob"], ["lm_head", "chosen_logit"], ["lm_head", "rank_low"], ["lm_head", "top_margin"],
  ["lm_head", "entropy_nats"], ["lm_head", "arrival_layer"], ["token", "id"], ["sampler", "method"],
];

export function ribbon(view) {
  const card = new Card(view, "tokens", "Tokens", SENTENCE);
  const prompt = view.anchor?.promptText ? [element("p.prompt", element("span.quiet", "Prompt "), element("q.value", view.anchor.promptText))] : [];
  const list = part("div.ribbon.scrolls-y", { role: "group", "aria-label": "Tokens" });
  card.keep(() => strip(view), () => table(view));
  card.put(element("div", ...prompt, list, heatLegend(view)));
  let made = new WeakMap();
  let chips = fill(view, list, made);
  let current = null;
  let underlined = [];
  view.onRedraw((isAll) => {
    if (isAll) made = new WeakMap();
    chips = fill(view, list, made);
    if (isAll) card.put(element("div", ...prompt, list, heatLegend(view)));
  });
  card.follow(({ position, layer, isStep }) => {
    current?.setAttribute("aria-pressed", "false");
    current = chips.formed[position];
    current?.setAttribute("aria-pressed", "true");
    underlined = underline(chips.read, underlined, strongestBySource(view.ledger.cell(position, layer)));
    requestAnimationFrame(() => showIn(list, current));
    card.after.replaceChildren(...(isStep ? [about(view, position)] : [element("p.quiet", `Position ${position} is of the prompt: no token was formed here.`)]));
  }, ["position", "layer"]);
  return card;
}

/** { formed, read }: by position, the chip of what was formed there and of what was read there. A step after prompt positions reads an id that no
 * step formed. `made` keeps the chips of each entry of the ledger, so that only those of what has come are new. */
function fill(view, list, made) {
  const { positions } = view.ledger;
  const isPrompt = (n) => positions[n]?.kind === "prompt";
  for (const [n, found] of positions.entries()) {
    if (made.has(found)) continue;
    const given = !isPrompt(n) && (!n || isPrompt(n - 1)) ? givenChip(view, found) : undefined;
    made.set(found, given ? [given, chip(view, found)] : [chip(view, found)]);
  }
  const chips = positions.map((found) => made.get(found));
  put(list, chips.flat());
  const formed = chips.map((own) => own.at(-1));
  return { formed, read: [...formed.map((own, n) => (isPrompt(n) ? own : chips[n].length > 1 ? chips[n][0] : formed[n - 1])), formed.at(-1)] };
}

function put(list, nodes) {
  const before = [...list.children];
  if (before.length !== nodes.length) return list.replaceChildren(...nodes);
  for (const [n, node] of nodes.entries()) if (node !== before[n]) before[n].replaceWith(node);
  return undefined;
}

/** The thicker the line under a token, the larger the largest recorded weight with which the selected cell reads it */
function underline(read, before, weights) {
  for (const node of before) node.style.boxShadow = "";
  return [...weights].flatMap(([position, weight]) => {
    const node = read[position];
    if (!node) return [];
    node.style.boxShadow = `inset 0 -${(1 + 4 * weight).toFixed(1)}px 0 ${palette().chosen}`;
    return [node];
  });
}

function heatLegend(view) {
  const scene = new Scene(360, 22);
  const ink = view.ink();
  scene.text({ x: 3, y: 15, text: "0 bits", fill: ink.soft });
  for (let i = 0; i < 24; i++) scene.rect({ x: 44 + i * 5, y: 5, w: 5.5, h: 11, fill: colourAt("heat", i / 23) });
  scene.text({ x: 170, y: 15, text: `${MOST_BITS} bits and more`, fill: ink.soft });
  const drawing = svgOf(scene, "Colours of surprisal");
  drawing.classList.add("heat-legend");
  return drawing;
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
  const title = isPrompt ? `position ${found.position}, prompt` : `position ${found.position}: ${titleOf(view, found)}`;
  const attributes = { type: "button", "aria-pressed": "false", title, onclick: select };
  if (isPrompt) return part("button.chip.prompt-id", attributes, `${view.anchor?.promptIds[found.position] ?? "?"}`);
  if (found.pending) return part("button.chip.pending", attributes, "…");
  const node = part(`button.chip${found.kind === "generated" ? "" : ".given"}`, attributes, ...tokenParts(found));
  const colour = colourAt("heat", found.surprisal_bits / MOST_BITS);
  Object.assign(node.style, { backgroundColor: colour, color: inkOn(colour) });
  return node;
}

function titleOf(view, found) {
  if (found.pending) return "not read yet";
  const kind = found.kind === "generated" ? "" : `, ${found.kind}: not chosen by the sampler`;
  return `token ${tokenNumber(view, found)}, ${shown(found.surprisal_bits)} bits${found.bytes ? "" : `, ${NO_TEXT}`}${kind}`;
}

/** The last id of the prompt, or of what is not scored before a stretch that is: the input of the first step after it */
function givenChip(view, { position }) {
  const id = view.anchor?.promptIds[position];
  if (id === undefined) return undefined;
  const title = `position ${position}: the prompt's last id, input of the first step`;
  return part("button.chip.prompt-id", { type: "button", title, onclick: () => view.selection.set({ position }) }, `${id}`);
}

/** As `spelled`; what is no text of the token stands out */
const tokenParts = (found) => (found.bytes ? marked(tokenText(found.bytes)) : [part("span.control", { title: NO_TEXT }, spelled(found))]);

/** Line feeds and what else is invisible stand out as what they are; a token of spaces alone shows them */
function marked(text) {
  if (/^ +$/.test(text)) return [part("span.control", { title: "spaces" }, "␣".repeat(text.length))];
  return text.split(/(\n|[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}])/u).filter(Boolean).map((piece) => {
    if (piece === "\n") return part("span.control", { title: "line feed" }, "↵");
    const safe = inert(piece);
    return element(safe === piece ? "span" : "span.control", piece);
  });
}

const tokenNumber = ({ ledger }, { position }) => position - ledger.positions.findIndex(({ kind }) => kind !== "prompt") + 1; // a run's steps are its last positions

function about(view, position) {
  const found = view.ledger.positions[position];
  const name = element("p.token-name", element("span.quiet", `Token ${tokenNumber(view, found)}, position ${position} → ${position + 1}: `),
    element("b.value", ...tokenParts(found)), ...(found.pending || found.bytes ? [] : [element("span.quiet", ` ${NO_TEXT}`)]));
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
