// A drawing as a list of marks, drawn as SVG or, where there are many, on a canvas. Exports are always SVG.

import { inert } from "../verify/elements.js";
import { channels, colourAt, levelOf, palette, rampOf } from "./palette.js";

const SVG = "http://www.w3.org/2000/svg";
const FONT = 'system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif';
const HATCH = 5; // pixels between two lines
export const BLANK = Infinity; // in a grid: the page's colour
let patterns = 0;

export class Scene {
  constructor(width, height) {
    Object.assign(this, { width, height, marks: [] });
  }

  add(kind, mark) {
    this.marks.push({ kind, ...mark });
    return this;
  }

  /** x y w h fill stroke; `label` is read out, `pick` is what a click on it selects */
  rect(mark) {
    return this.add("rect", mark);
  }

  /** A rectangle in which a value is absent */
  hatch(mark) {
    return this.add("hatch", mark);
  }

  /** x y; `columns` × `rows` cells of w × h, one for each of `shares` of a scale, from the top row on: NaN where absent, BLANK where there is nothing to
   * say; `isOutlined` if they are derived */
  grid(mark) {
    return this.add("grid", mark);
  }

  /** points [[x, y], …], stroke, dash */
  line(mark) {
    return this.add("line", { width: 1, ...mark });
  }

  circle(mark) {
    return this.add("circle", mark);
  }

  /** x y text; anchor start middle end; `turned` upwards */
  text(mark) {
    return this.add("text", { anchor: "start", size: 11, ...mark, text: inert(mark.text) });
  }
}

// ---- SVG

function node(kind, attributes) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined && value !== "") made.setAttribute(name, value);
  return made;
}

/** `pick` gets a mark's `pick` and the event; `read` its `label` */
export function svgOf(scene, title, { pick = null, read = null } = {}) {
  const { width, height } = scene;
  const made = node("svg", { xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "font-family": FONT });
  const name = node("title", {});
  name.textContent = title;
  const id = `hatch-${++patterns}`;
  made.append(name, hatchPattern(id));
  for (const mark of scene.marks) made.append(drawn(mark, `url(#${id})`));
  const marked = (event) => scene.marks[event.target.dataset?.n];
  for (const [n, mark] of scene.marks.entries()) if (mark.pick !== undefined || mark.label) made.children[n + 2].dataset.n = n;
  if (pick) made.addEventListener("click", (event) => marked(event)?.pick !== undefined && pick(marked(event).pick));
  if (read) made.addEventListener("pointermove", (event) => read(marked(event)?.label ?? ""));
  return made;
}

function hatchPattern(id) {
  const { card, idle } = palette();
  const pattern = node("pattern", { id, width: HATCH, height: HATCH, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  pattern.append(node("rect", { width: HATCH, height: HATCH, fill: card }), node("rect", { width: 1, height: HATCH, fill: idle }));
  const definitions = node("defs", {});
  definitions.append(pattern);
  return definitions;
}

function drawn(mark, hatch) {
  const { kind, x, y, w, h, r, fill, stroke, dash, opacity } = mark;
  const pointer = mark.pick === undefined ? undefined : "pick";
  const common = { fill: fill ?? "none", stroke, "stroke-width": mark.width, "stroke-dasharray": dash, "fill-opacity": opacity, class: pointer };
  if (kind === "rect") return node("rect", { ...common, x, y, width: w, height: h });
  if (kind === "hatch") return node("rect", { ...common, x, y, width: w, height: h, fill: hatch });
  if (kind === "grid") return gridNode(mark, hatch);
  if (kind === "circle") return node("circle", { ...common, cx: x, cy: y, r });
  if (kind === "line") return node("polyline", { ...common, points: mark.points.map((point) => point.join(",")).join(" ") });
  const turn = mark.turned ? `rotate(-${mark.turned === true ? 90 : mark.turned} ${x} ${y})` : undefined;
  const made = node("text", { x, y, fill, "font-size": mark.size, "font-weight": mark.weight, "text-anchor": mark.anchor, transform: turn, class: pointer });
  made.textContent = mark.text;
  return made;
}

function gridNode(mark, hatch) {
  const made = node("g", {});
  for (const [n, share] of mark.shares.entries()) {
    const box = boxOf(mark, n);
    made.append(drawn({ kind: "rect", ...box, fill: Number.isNaN(share) ? hatch : share === BLANK ? palette().page : colourAt(mark.scale, share) }, hatch));
    if (isOutlined(mark, share)) made.append(drawn({ kind: "rect", ...inner(box), stroke: palette().card, width: 1 }, hatch));
  }
  return made;
}

/** Of cell `n` of a grid, with a gap to the next where there is room for one */
function boxOf({ x, y, w, h, columns }, n) {
  return { x: x + (n % columns) * w, y: y + Math.floor(n / columns) * h, w: w - gapOf(w), h: h - gapOf(h) };
}

const gapOf = (size) => (size > 4 ? 1 : 0);
const inner = ({ x, y, w, h }) => ({ x: x + 1.5, y: y + 1.5, w: w - 3, h: h - 3 });
const isOutlined = (mark, share) => mark.isOutlined && share < BLANK && mark.w > 16 && mark.h > 16; // of a small cell little colour would be left

export const svgText = (scene, title) => new XMLSerializer().serializeToString(svgOf(scene, title));

// ---- canvas

export function paint(scene, canvas) {
  const ratio = Math.min(devicePixelRatio || 1, 16000 / scene.width);
  canvas.width = Math.round(scene.width * ratio);
  canvas.height = Math.round(scene.height * ratio);
  canvas.style.width = `${scene.width}px`;
  canvas.style.height = `${scene.height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const hatch = context.createPattern(hatchTile(), "repeat");
  for (const mark of scene.marks) PAINTERS[mark.kind](context, mark, hatch);
}

function hatchTile() {
  const tile = document.createElement("canvas");
  tile.width = tile.height = HATCH;
  const context = tile.getContext("2d");
  context.fillStyle = palette().card;
  context.fillRect(0, 0, HATCH, HATCH);
  context.fillStyle = palette().idle;
  for (let i = 0; i < HATCH; i++) context.fillRect(i, HATCH - 1 - i, 1, 1);
  return tile;
}

const PAINTERS = {
  rect(context, { x, y, w, h, fill, stroke, width = 1 }) {
    if (fill) {
      context.fillStyle = fill;
      context.fillRect(x, y, w, h);
    }
    if (stroke) {
      context.strokeStyle = stroke;
      context.lineWidth = width;
      context.strokeRect(x, y, w, h);
    }
  },
  hatch(context, { x, y, w, h }, hatch) {
    context.fillStyle = hatch;
    context.fillRect(x, y, w, h);
  },
  grid(context, mark, hatch) {
    const { x, y, w, h, columns, rows, shares } = mark;
    if (!shares.length) return;
    context.fillStyle = hatch;
    context.fillRect(x, y, columns * w, rows * h);
    context.imageSmoothingEnabled = false;
    context.drawImage(pixelsOf(mark), x, y, columns * w, rows * h);
    context.fillStyle = palette().card;
    if (gapOf(w)) for (let n = 1; n <= columns; n++) context.fillRect(x + n * w - 1, y, 1, rows * h);
    if (gapOf(h)) for (let n = 1; n <= rows; n++) context.fillRect(x, y + n * h - 1, columns * w, 1);
    context.beginPath();
    for (const [n, share] of shares.entries()) if (isOutlined(mark, share)) context.rect(...Object.values(inner(boxOf(mark, n))));
    Object.assign(context, { strokeStyle: palette().card, lineWidth: 1 });
    context.stroke();
  },
  line(context, { points, stroke, width }) {
    context.strokeStyle = stroke;
    context.lineWidth = width;
    context.beginPath();
    points.forEach(([x, y], n) => (n ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
  },
  circle(context, { x, y, r, fill }) {
    context.fillStyle = fill;
    context.beginPath();
    context.arc(x, y, r, 0, 7);
    context.fill();
  },
  text(context, { x, y, text, fill, size, anchor, turned, weight = 400 }) {
    context.save();
    context.translate(x, y);
    if (turned) context.rotate((-(turned === true ? 90 : turned) * Math.PI) / 180);
    context.fillStyle = fill;
    context.font = `${weight} ${size}px ${FONT}`;
    context.textAlign = anchor === "middle" ? "center" : anchor;
    context.fillText(text, 0, 0);
    context.restore();
  },
};

/** A grid with a pixel for each cell, transparent where nothing is known */
function pixelsOf({ columns, rows, shares, scale }) {
  const image = new ImageData(columns, rows);
  const [ramp, page] = [rampOf(scale).map(channels), channels(palette().page)];
  for (const [n, share] of shares.entries()) {
    if (Number.isNaN(share)) continue;
    const [red, green, blue] = share === BLANK ? page : ramp[levelOf(share)];
    const at = 4 * n;
    image.data[at] = red;
    image.data[at + 1] = green;
    image.data[at + 2] = blue;
    image.data[at + 3] = 255;
  }
  const tile = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
  tile.getContext("2d").putImageData(image, 0, 0);
  return tile;
}
