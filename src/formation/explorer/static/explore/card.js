// A view: its title, one sentence with its formula, the drawing, and the same as a table; saved as SVG and CSV.

import { element } from "../verify/elements.js";
import { button, part, save, shown } from "./parts.js";
import { paint, svgOf, svgText } from "./scene.js";

const MOST_ROWS = 500; // of a table in the page; the CSV has all

export class Card {
  constructor(view, id, title, sentence) {
    Object.assign(this, { view, id, title, left: 0, repaint: null }); // left: how far the drawing is scrolled; to ask it would make the page lay itself out
    this.sentence = element("p.sentence");
    this.controls = element("div.controls");
    this.body = element("div.body");
    this.readout = part("p.readout", { "aria-live": "off" });
    this.after = element("div.after");
    this.tableButton = button("Table", () => this.toggle(), { "aria-pressed": "false" });
    this.svgButton = button("SVG", () => save(`${id}.svg`, svgText(this.scene(), title), "image/svg+xml"));
    const csv = button("CSV", () => save(`${id}.csv`, csvOf(this.table()), "text/csv"));
    const heading = part("h2", { id: `${id}-title` }, title);
    const head = element("div.head", heading, this.controls, part("div.tools", { role: "group", "aria-label": `${title}: other forms` }, this.tableButton, this.svgButton, csv));
    this.node = part("section.card", { id, "aria-labelledby": `${id}-title` }, head, this.sentence, this.body, this.readout, this.after);
    this.say(sentence);
  }

  /** Selection.follow for what this card draws */
  follow(draw, names, isQuick = false) {
    this.view.selection.follow(draw, { names, id: this.id, isQuick });
  }

  /** Pixels that the drawing may take */
  get room() {
    return this.view.width(this.id);
  }

  say(sentence) {
    this.sentence.replaceChildren(element("span", sentence));
  }

  read(text) {
    this.readout.replaceChildren(element("span", text));
  }

  /** A choice among the controls: `options` as [word, title, why it cannot be chosen]; the word goes into the selection as `name` */
  choice(name, label, options) {
    const select = part("select", { "aria-label": label, onchange: ({ target }) => this.view.selection.set({ [name]: target.value }) },
      ...options.map(([value, title, why]) => part("option", { value, disabled: why ? "" : null, title: why }, why ? `${title} (${why})` : title)));
    this.controls.append(select);
    return select;
  }

  /** `table` gives { head, rows } when it is asked for */
  svg(scene, table, pick) {
    this.keep(() => scene, table);
    const drawing = svgOf(scene, this.title, { pick, read: (text) => this.read(text) });
    this.repaint = null;
    this.put(this.scroller(scene.width, drawing));
  }

  /** Of a drawing of { width, height } only what is seen is painted, `window(left, width)`, and again as it is scrolled; `scene` gives all of it */
  canvas({ width, height }, window, scene, table) {
    this.keep(scene, table);
    const canvas = part("canvas", { role: "img", "aria-label": this.title });
    const sheet = element("div.sheet", canvas);
    Object.assign(sheet.style, { width: `${width}px`, height: `${height}px` });
    this.left = Math.min(this.left, Math.max(0, width - this.room));
    this.repaint = () => paint(window(this.left, Math.min(width, this.room)), canvas);
    this.put(this.scroller(width, sheet));
    this.repaint();
    return sheet;
  }

  /** What is wider than the card scrolls, by keyboard too */
  scroller(width, drawing) {
    const reachable = { tabindex: "0", role: "region", "aria-label": `${this.title}, wider than the page` };
    return part("div.scrolls-x", width > this.room ? reachable : {}, drawing);
  }

  /** Nothing to draw here, and why */
  nothing(reason) {
    this.keep(null, () => ({ head: ["absent"], rows: [[reason]] }));
    this.repaint = null;
    this.put(element("p.nothing", element("span", reason)));
    this.read("");
  }

  keep(scene, table) {
    Object.assign(this, { scene, table });
    this.svgButton.disabled = !scene;
  }

  put(drawing) {
    this.drawing = drawing;
    if (this.isTable) return this.showTable();
    this.body.replaceChildren(drawing);
    if (this.left) drawing.scrollLeft = this.left;
    return drawing.addEventListener("scroll", () => this.scrolled(drawing), { passive: true });
  }

  scrolled(drawing) {
    this.left = drawing.scrollLeft;
    cancelAnimationFrame(this.due);
    this.due = requestAnimationFrame(() => drawing === this.drawing && this.repaint?.());
  }

  scrollTo(left) {
    this.left = this.drawing.scrollLeft = Math.max(0, left);
    this.repaint?.();
  }

  get isTable() {
    return this.tableButton.getAttribute("aria-pressed") === "true";
  }

  toggle() {
    this.tableButton.setAttribute("aria-pressed", String(!this.isTable));
    if (this.isTable) this.showTable();
    else this.body.replaceChildren(this.drawing);
  }

  showTable() {
    this.body.replaceChildren(part("div.scrolls", { tabindex: "0", role: "region", "aria-label": `${this.title}, as a table` }, tableOf(this.table())));
  }
}

export function tableOf({ head, rows }) {
  const body = rows.slice(0, MOST_ROWS).map((row) => element("tr", ...row.map(cellOf)));
  const more = rows.length > MOST_ROWS ? [element("caption", `The first ${MOST_ROWS} of ${rows.length} rows; the CSV has all.`)] : [];
  const names = head.map((name) => part("th", { scope: "col" }, name));
  return element("table", ...more, element("thead", element("tr", ...names)), element("tbody", ...body));
}

function cellOf(value) {
  return typeof value === "number" ? part("td.numeric", { title: String(value) }, shown(value)) : element("td", value);
}

/** RFC 4180 in UTF-8, numbers with all their digits, texts as JSON strings: no cell begins like a formula */
function csvOf({ head, rows }) {
  const quoted = (value) => (typeof value === "number" ? String(value) : `"${JSON.stringify(String(value)).replaceAll('"', '""')}"`);
  return [head.join(","), ...rows.map((row) => row.map(quoted).join(","))].map((line) => `${line}\r\n`).join("");
}
