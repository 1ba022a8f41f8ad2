// The whole dialogue at a glance: one row for each message, which goes on below where it is long, and one cell for each token.

import { element, inert } from "../verify/elements.js";
import { Card } from "../explore/card.js";
import { inkOn, palette } from "../explore/palette.js";
import { clipped, part, shown } from "../explore/parts.js";
import { legend } from "../explore/scales.js";
import { Scene } from "../explore/scene.js";
import { plain } from "./marks.js";
import { scaleOf, valueOf, valuesOf } from "./values.js";

const WIDEST = 58; // of a cell: there its token's text can stand in it
const TEXT = 34; // pixels that a cell with text needs
const CELLS = [[30, 17], [22, 15], [15, 13], [11, 12], [8, 11], [6, 9], [5, 8], [4, 7], [3, 6], [2, 5]]; // width and height, the largest that fits is taken
const MOST_HEIGHT = 400;
const MOST_COLUMNS = 4;
const LABEL = 40; // left of each row
const GAP = 14; // between columns
const LABEL_HIGH = 10; // between two numbers of messages
const LEGEND = 30;

export function glance(view) {
  const card = new Card(view, "glance", "The dialogue at a glance", "");
  const known = valuesOf(view.talk);
  const choose = card.choice("value", "What tokens are coloured by", known.map(({ name, title }) => [name, title]));
  const frames = part("div.frames");
  let drawn = null;
  view.onRedraw(() => (drawn = null));
  view.selection.follow((selection) => {
    const value = valueOf(selection.value, known);
    if (drawn !== value) {
      choose.value = value.name;
      draw(view, card, value).append(frames);
    }
    drawn = value;
    place(view, card, frames);
    card.read(told(view, value, selection.row));
  });
  return card;
}

/** The largest cells with which all rows fit, in as few columns as will do; else the smallest, and the page is longer */
function layout({ messages }, room) {
  const longest = Math.max(1, ...messages.map(({ tokens: [first, behind] }) => behind - first));
  const wide = Math.min(WIDEST, Math.floor((room - LABEL) / longest));
  for (const [w, h] of [...(wide > CELLS[1][0] ? [[wide, 18]] : []), ...CELLS]) {
    for (let columns = 1; columns <= MOST_COLUMNS; columns++) {
      const found = rowsOf(messages, Math.floor((room - GAP * (columns - 1)) / columns), w, h, columns);
      const isNarrow = found.perRow < 24 && longest > found.perRow;
      if (found.height <= MOST_HEIGHT && !isNarrow) return found;
    }
  }
  const [w, h] = CELLS.at(-2);
  return rowsOf(messages, Math.floor((room - GAP * (MOST_COLUMNS - 1)) / MOST_COLUMNS), w, h, MOST_COLUMNS);
}

function rowsOf(messages, columnWidth, w, h, columns) {
  const perRow = Math.max(1, Math.floor((columnWidth - LABEL) / w));
  const counts = messages.map(({ tokens: [first, behind] }) => Math.max(1, Math.ceil((behind - first) / perRow)));
  const rows = counts.reduce((all, count) => all + count, 0);
  const perColumn = Math.ceil(rows / columns);
  let at = 0;
  const firstRows = counts.map((count) => (at += count) - count);
  return { w, h, perRow, perColumn, columnWidth, firstRows, height: perColumn * (h + 1) };
}

/** Where cell `index` of message `number` (a place) is */
function boxOf({ w, h, perRow, perColumn, columnWidth, firstRows }, message, index) {
  const row = firstRows[message] + Math.floor(index / perRow);
  const column = Math.floor(row / perColumn);
  return { x: column * (columnWidth + GAP) + LABEL + (index % perRow) * w, y: (row % perColumn) * (h + 1), w: w > 4 ? w - 1 : w, h };
}

function draw(view, card, value) {
  const { talk, selection } = view;
  card.say(`${value.title}: ${value.formula} (${value.tag}). A row is a message, a cell a token; ▌is ${talk.names[0]}, ▯ is ${talk.names[1]}. ${isOfServer(talk) ? "Outlined: of a server, as it reports it. " : ""}Hatched is absent; the readout says why.`);
  const sizes = (card.sizes = layout(talk, card.room));
  const scale = scaleOf(value, talk.tokens);
  const scene = () => sceneOf(view, value, scale, sizes, card.room);
  const sheet = card.canvas({ width: card.room, height: sizes.height + LEGEND }, scene, scene, () => tableOf(view, value));
  const at = (event) => tokenAt(event, sheet, talk, sizes);
  sheet.addEventListener("click", (event) => at(event) && selection.set({ token: at(event).n }));
  sheet.addEventListener("pointermove", (event) => at(event) && card.read(told(view, value, at(event))));
  return sheet;
}

const isOfServer = ({ tokens }) => tokens.some(({ source }) => source === "reported");

function sceneOf(view, value, scale, sizes, room) {
  const ink = view.ink();
  const scene = new Scene(room, sizes.height + LEGEND);
  const said = [-1, -LABEL_HIGH]; // column and height of the last number
  for (const [place, { number, side, tokens }] of view.talk.messages.entries()) {
    label(scene, sizes, place, number, side, said, ink);
    for (let n = tokens[0]; n < tokens[1]; n++) {
      const token = view.talk.tokens[n];
      const box = boxOf(sizes, place, n - tokens[0]);
      const x = value.of(token);
      if (Number.isNaN(x)) scene.hatch(box);
      else scene.rect({ ...box, fill: scale.colour(x) });
      if (token.source === "reported" && !Number.isNaN(x) && box.w > 4) scene.rect({ x: box.x + 0.5, y: box.y + 0.5, w: box.w - 1, h: box.h - 1, stroke: ink.soft, width: 1 });
      if (box.w >= TEXT - 1) cellText(scene, token, box, Number.isNaN(x) ? ink.soft : inkOn(scale.colour(x)));
    }
  }
  if (scale.scale !== "kinds") legend(scene, scale, sizes.height + 6, ink);
  else kinds(scene, scale, sizes.height + 6, ink);
  return scene;
}

function cellText(scene, token, { x, y, w, h }, fill) {
  const text = token.text || !token.bytes ? clipped(inert(plain(token)), Math.floor(w / 7)) : "·";
  scene.text({ x: x + 3, y: y + h / 2 + 4, text, size: 10.5, fill });
}

/** Its side, full or empty, and its number where there is room for one */
function label(scene, sizes, place, number, side, said, ink) {
  const { x, y, h } = boxOf(sizes, place, 0);
  scene.rect(side ? { x: x - 7.5, y: y + 0.5, w: 3, h: h - 1, stroke: ink.soft, width: 1 } : { x: x - 8, y, w: 4, h, fill: ink.soft });
  if (x === said[0] && y < said[1] + LABEL_HIGH) return;
  scene.text({ x: x - 11, y: y + Math.min(h, 12) - (h < 9 ? 0 : 2), text: String(number), size: h < 9 ? 8.5 : 10, anchor: "end", fill: ink.soft });
  said.splice(0, 2, x, y);
}

function kinds(scene, scale, y, ink) {
  scene.rect({ x: LABEL, y: y + 4, w: 16, h: 11, fill: scale.colour(0), stroke: palette().line }).text({ x: LABEL + 21, y: y + 14, text: "positive in all", fill: ink.soft });
  scene.rect({ x: LABEL + 120, y: y + 4, w: 16, h: 11, fill: scale.colour(1) }).text({ x: LABEL + 141, y: y + 14, text: "called zero in one", fill: ink.soft });
  scene.hatch({ x: LABEL + 270, y: y + 4, w: 16, h: 11 }).text({ x: LABEL + 291, y: y + 14, text: "absent", fill: ink.soft });
}

function tokenAt(event, sheet, { messages, tokens }, { w, h, perRow, perColumn, columnWidth, firstRows }) {
  const { left, top } = sheet.getBoundingClientRect();
  const column = Math.floor((event.clientX - left) / (columnWidth + GAP));
  const cell = Math.floor((event.clientX - left - column * (columnWidth + GAP) - LABEL) / w);
  const line = Math.floor((event.clientY - top) / (h + 1));
  const row = column * perColumn + line;
  if (cell >= perRow || line >= perColumn || line < 0) return undefined;
  const message = firstRows.findLastIndex((first) => first <= row);
  const [first, behind] = messages[message]?.tokens ?? [0, 0];
  const n = first + (row - firstRows[message]) * perRow + Math.max(cell, 0);
  return n < behind ? tokens[n] : undefined;
}

/** The selection and the tokens of the selected claim, over the drawing */
function place(view, card, frames) {
  const { row, claim } = view.selection;
  const frame = (kind, token) => {
    const { x, y, w, h } = boxOf(card.sizes, token.message, token.n - view.talk.messages[token.message].tokens[0]);
    const made = element(kind);
    Object.assign(made.style, { left: `${x - 2}px`, top: `${y - 2}px`, width: `${w + 4}px`, height: `${h + 4}px` });
    return made;
  };
  const claimed = view.claims.found[claim]?.tokens ?? [];
  frames.replaceChildren(...claimed.map((token) => frame("div.frame.claimed-cell", token)), ...(row ? [frame("div.frame", row)] : []));
}

function told(view, value, token) {
  if (!token) return "";
  const x = value.of(token);
  const text = clipped(plain(token), 32);
  const number = value.name === "zero" ? token.zero : `${shown(x)} ${value.unit}`.trim();
  const found = Number.isNaN(x) ? `${value.title} absent: ${value.why(token)}` : `${value.title.toLowerCase().replace(", bits", "")} ${number}`;
  return `${view.where(token)}, ${view.talk.names[token.side]}: “${text}”, ${found}`;
}

function tableOf(view, value) {
  const rows = view.talk.tokens.map((token) => {
    const x = value.of(token);
    return [view.talk.messages[token.message].number, view.talk.names[token.side], token.n - view.talk.messages[token.message].tokens[0], plain(token), Number.isNaN(x) ? `absent: ${value.why(token)}` : value.name === "zero" ? token.zero : x];
  });
  return { head: ["message", "side", "token", "text", value.name], rows };
}
