// A drawing as a list of marks, drawn as SVG or, where there are many, on a canvas. Exports are always SVG.

import { inert } from "../verify/elements.js";
import { palette } from "./palette.js";

const SVG = "http://www.w3.org/2000/svg";
const FONT = 'system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif';
const HATCH = 5; // pixels between two lines
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
  const { card, neutral } = palette();
  const pattern = node("pattern", { id, width: HATCH, height: HATCH, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  pattern.append(node("rect", { width: HATCH, height: HATCH, fill: card }), node("rect", { width: 1, height: HATCH, fill: neutral }));
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
  if (kind === "circle") return node("circle", { ...common, cx: x, cy: y, r });
  if (kind === "line") return node("polyline", { ...common, points: mark.points.map((point) => point.join(",")).join(" ") });
  const turn = mark.turned ? `rotate(-${mark.turned === true ? 90 : mark.turned} ${x} ${y})` : undefined;
  const made = node("text", { x, y, fill, "font-size": mark.size, "font-weight": mark.weight, "text-anchor": mark.anchor, transform: turn, class: pointer });
  made.textContent = mark.text;
  return made;
}

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
  context.fillStyle = palette().neutral;
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
