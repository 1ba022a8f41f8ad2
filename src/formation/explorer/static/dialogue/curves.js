// How surprising it was, as it went on: a bar for each token, and the mean of each message. Where there are more tokens than pixels, a bar goes from the
// least to the most of those that share it.

import { element } from "../verify/elements.js";
import { Card } from "../explore/card.js";
import { shown, tick } from "../explore/parts.js";
import { Scene } from "../explore/scene.js";
import { VALUES, valueOf } from "./values.js";

const LEFT = 54;
const RIGHT = 10;
const TOP = 20;
const HIGH = 96; // of a lane
const GAP = 30;
const BOTTOM = 24;
const WIDEST = 28; // of a token
const LANES = { surprisal: "surprisal of what was said, bits", entropy: "entropy of what could have been said, bits", kl: "KL, nats", chance: "chance of the event" };
const SHOWN = { both: ["surprisal", "entropy", "kl"], surprisal: ["surprisal"], entropy: ["entropy"], kl: ["kl"], chance: ["chance"] };

export function curves(view) {
  const card = new Card(view, "curves", "Curves over the dialogue", "");
  const has = (name) => view.talk.tokens.some((token) => !Number.isNaN(valueOf(name, VALUES).of(token)));
  const known = Object.keys(LANES).filter(has);
  const choose = card.choice("lanes", "Curves", [["both", "All curves"], ...known.map((name) => [name, valueOf(name, VALUES).title])]);
  const frame = element("div.frame.cursor");
  let drawn = "";
  view.onRedraw(() => (drawn = ""));
  view.selection.follow((selection) => {
    const lanes = (SHOWN[selection.lanes] ?? SHOWN.both).filter((name) => known.includes(name));
    if (!lanes.length) return card.nothing("no token has a number");
    if (drawn !== lanes.join()) {
      choose.value = selection.lanes in SHOWN ? selection.lanes : "both";
      draw(view, card, lanes).append(frame);
    }
    drawn = lanes.join();
    place(view, card, frame, lanes);
    return card.read(told(view, lanes, selection.row));
  });
  return card;
}

function draw(view, card, lanes) {
  const { talk } = view;
  card.say(`Surprisal −log₂ p(y) of each token y, and H = −Σ p log₂ p before it was chosen. Full bars are ${talk.names[0]}'s tokens, pale ones ${talk.names[1]}'s; the line is the mean of each message. A gap has no number.`);
  const high = TOP + lanes.length * (HIGH + GAP) - GAP + BOTTOM;
  const step = Math.min(WIDEST, (card.room - LEFT - RIGHT) / talk.tokens.length);
  card.sizes = { step, high };
  const scene = () => sceneOf(view, lanes, step, card.room, high);
  const sheet = card.canvas({ width: card.room, height: high }, scene, scene, () => tableOf(view, lanes));
  const at = (event) => talk.tokens[Math.floor((event.clientX - sheet.getBoundingClientRect().left - LEFT) / step)];
  sheet.addEventListener("click", (event) => at(event) && view.selection.set({ token: at(event).n }));
  sheet.addEventListener("pointermove", (event) => at(event) && card.read(told(view, lanes, at(event))));
  return sheet;
}

function sceneOf(view, lanes, step, width, high) {
  const scene = new Scene(width, high);
  const ink = view.ink();
  for (const [n, name] of lanes.entries()) lane(scene, view, valueOf(name, VALUES), TOP + n * (HIGH + GAP), step, width, ink);
  numbers(scene, view, high - 8, step, ink);
  return scene;
}

function lane(scene, view, value, top, step, width, ink) {
  const { tokens, messages } = view.talk;
  const most = nice(tokens.reduce((found, token) => (value.of(token) > found ? value.of(token) : found), 0));
  const y = (x) => top + HIGH * (1 - Math.min(x / most, 1));
  scene.text({ x: LEFT, y: top - 7, text: LANES[value.name], fill: ink.soft });
  for (const mark of [0, most / 2, most]) {
    scene.line({ points: [[LEFT, y(mark)], [width - RIGHT, y(mark)]], stroke: ink.line });
    scene.text({ x: LEFT - 6, y: y(mark) + 4, text: tick(mark), anchor: "end", fill: ink.soft });
  }
  bars(scene, tokens, value, y, step, ink);
  for (const { mean, tokens: [first, behind] } of meansOf(messages, tokens, value)) {
    if (behind > first && !Number.isNaN(mean)) scene.line({ points: [[LEFT + first * step, y(mean)], [LEFT + behind * step, y(mean)]], stroke: ink.text, width: 2 });
  }
}

function bars(scene, tokens, value, y, step, ink) {
  const every = Math.max(1, Math.ceil(1 / step));
  for (let n = 0; n < tokens.length; n += every) {
    const here = tokens.slice(n, n + every).map((token) => value.of(token)).filter((x) => !Number.isNaN(x));
    if (!here.length) continue;
    const [low, most] = every > 1 ? [Math.min(...here), Math.max(...here)] : [0, here[0]];
    const w = Math.max(step * every - (step > 4 ? 1 : 0), 0.6);
    scene.rect({ x: LEFT + n * step, y: y(most), w, h: Math.max(y(low) - y(most), 1), fill: tokens[n].side ? ink.idle : ink.positive });
  }
}

/** 1, 2, 3, 4, 5, 6 or 8 times a power of ten, above or equal */
function nice(x) {
  const power = 10 ** Math.floor(Math.log10(x || 1));
  return [1, 2, 3, 4, 5, 6, 8, 10].find((each) => each * power >= x) * power;
}

function meansOf(messages, tokens, value) {
  return messages.map((message) => {
    const here = tokens.slice(...message.tokens).map((token) => value.of(token)).filter((x) => !Number.isNaN(x));
    return { ...message, mean: here.length ? here.reduce((sum, x) => sum + x, 0) / here.length : NaN };
  });
}

function numbers(scene, { talk }, y, step, ink) {
  let free = 0;
  for (const { number, tokens: [first, behind] } of talk.messages) {
    const x = LEFT + first * step;
    if (behind === first || x < free) continue;
    scene.line({ points: [[x, TOP - 4], [x, y - 12]], stroke: ink.line }).text({ x: x + 2, y, text: String(number), size: 10, fill: ink.soft });
    free = x + 24;
  }
  scene.text({ x: LEFT - 6, y, text: "message", size: 10, anchor: "end", fill: ink.soft });
}

/** The selected token over the drawing: moving it redraws nothing */
function place({ selection }, card, frame) {
  const { step, high } = card.sizes;
  const x = LEFT + selection.token * step;
  Object.assign(frame.style, { left: `${x - 2}px`, top: `${TOP - 6}px`, width: `${Math.max(step, 1) + 4}px`, height: `${high - TOP - BOTTOM + 12}px` });
}

function told(view, lanes, token) {
  if (!token) return "";
  const of = lanes.map((name) => valueOf(name, VALUES)).map((value) => (Number.isNaN(value.of(token)) ? `${value.name} absent: ${value.why(token)}` : `${value.name} ${shown(value.of(token))} ${value.unit}`));
  return `${view.where(token)}: ${of.join(", ")}`;
}

function tableOf({ talk }, lanes) {
  const values = lanes.map((name) => valueOf(name, VALUES));
  const means = values.map((value) => meansOf(talk.messages, talk.tokens, value));
  const rows = talk.messages.map(({ number, side, tokens: [first, behind] }, place) => [number, talk.names[side], behind - first, ...means.map((each) => (Number.isNaN(each[place].mean) ? "absent" : each[place].mean))]);
  return { head: ["message", "side", "tokens", ...values.map(({ name, unit }) => `mean ${name}, ${unit}`)], rows };
}
