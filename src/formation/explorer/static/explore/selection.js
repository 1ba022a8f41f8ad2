// The one selection that all views share: a position, a layer, an expert; what is pinned; and what each view shows of them. It lives in the address.

import { Turns } from "./turns.js";

const WHOLE = ["position", "layer", "expert"];
const CHOICES = ["metric", "grid", "share", "boundary", "lane"]; // words of the views: each knows its own, and takes its first for any other
const FIRST = { metric: "lens_rank", grid: "use", share: "raw", boundary: "x", lane: "both" };
const PINS = /^[0-9]{1,9}\.[0-9]{1,9}\.-?[0-9]{1,9}(?:,[0-9]{1,9}\.[0-9]{1,9}\.-?[0-9]{1,9})*$/;
const ALL = [...WHOLE, ...CHOICES, "pins"];
export const MOST_PINS = 4;

export class Selection {
  constructor(ledger) {
    const first = ledger.steps[0]?.position ?? 0;
    Object.assign(this, { ledger, turns: new Turns(), last: null, position: first, layer: ledger.layers - 1, expert: -1, pins: [], ...FIRST });
    this.read();
    addEventListener("hashchange", () => this.read() && this.tell());
  }

  /** Takes what the address says, as far as it is possible; whether anything changed */
  read() {
    const said = new URLSearchParams(location.hash.slice(1));
    const wanted = {};
    for (const name of WHOLE) if (/^-?[0-9]{1,9}$/.test(said.get(name) ?? "")) wanted[name] = Number(said.get(name));
    for (const name of CHOICES) if (/^[a-z_]{1,40}$/.test(said.get(name) ?? "")) wanted[name] = said.get(name);
    if (PINS.test(said.get("pins") ?? "")) wanted.pins = said.get("pins").split(",").map(pinOf);
    return this.take(wanted);
  }

  /** Settled when all views have drawn it */
  set(wanted) {
    if (!this.take(wanted)) return this.settled();
    const said = new URLSearchParams([...WHOLE, ...CHOICES].map((name) => [name, this[name]]));
    if (this.pins.length) said.set("pins", this.pins.map(pinText).join(","));
    history.replaceState(null, "", `#${said}`);
    return this.tell();
  }

  take({ pins, ...wanted }) {
    let changed = false;
    for (const [name, value] of Object.entries(wanted)) {
      const kept = WHOLE.includes(name) ? this.within(name, value) : value;
      changed ||= this[name] !== kept;
      this[name] = kept;
    }
    return pins ? this.takePins(pins) || changed : changed;
  }

  takePins(pins) {
    const before = this.pins.map(pinText).join();
    const found = pins.map((pin) => Object.fromEntries(WHOLE.map((name) => [name, this.within(name, pin[name])])));
    this.pins = [...new Map(found.map((pin) => [pinText(pin), pin])).values()].slice(0, MOST_PINS);
    return this.pins.map(pinText).join() !== before;
  }

  within(name, value) {
    const { positions, layers, run } = this.ledger;
    const [low, high] = { position: [0, positions.length - 1], layer: [0, layers - 1], expert: [-1, (run?.shape.experts ?? 0) - 1] }[name];
    return Math.min(Math.max(value, low), high);
  }

  move(name, by) {
    return this.set({ [name]: this[name] + by });
  }

  // ---- pins

  get isPinned() {
    return this.pins.some((pin) => pinText(pin) === pinText(this));
  }

  /** Pins what is selected, or lets it go; of more than fit, the oldest goes */
  pin() {
    if (this.isPinned) return this.unpin(this);
    return this.set({ pins: [...this.pins, this].slice(-MOST_PINS) });
  }

  unpin(pin) {
    this.set({ pins: this.pins.filter((each) => pinText(each) !== pinText(pin)) });
  }

  /** The next of the experts that the cell chose, by `by` places, from the selected one or from where it would stand */
  moveExpert(by) {
    const chosen = this.ledger.positions[this.position]?.experts?.[this.layer]?.chosen ?? [];
    const after = chosen.filter((expert) => (by > 0 ? expert > this.expert : expert < this.expert));
    const next = by > 0 ? after[0] ?? chosen[0] : after.at(-1) ?? chosen.at(-1);
    if (next !== undefined) this.set({ expert: next });
  }

  /** `listener` is called now, and after every change of one of `names`; more in turns.js */
  follow(listener, { names = ALL, id = "", isQuick = false } = {}) {
    this.turns.follow(this, listener, { names, id, isQuick });
  }

  /** Tells the views; `isForced` those too for which nothing has changed. Settled when all have drawn this, or what came after it. */
  tell(isForced = false) {
    this.last = this.telling(this.turns.next(isForced));
    return this.settled();
  }

  /** At once, or when the lines of the position have come; views that need no lines at once in any case */
  async telling(turn) {
    const { ledger, position } = this;
    if (!ledger.has(position)) await Promise.all([ledger.want(position), this.turns.draw(this, turn, true)]);
    await this.turns.draw(this, turn);
  }

  async settled() {
    for (let last = null; last !== this.last; await last) last = this.last;
  }

  get isStep() {
    return this.ledger.positions[this.position]?.kind !== "prompt";
  }
}

const pinText = (pin) => WHOLE.map((name) => pin[name]).join(".");
const pinOf = (text) => Object.fromEntries(text.split(".").map((value, n) => [WHOLE[n], Number(value)]));

const MOVES = { ArrowRight: ["position", 1], ArrowLeft: ["position", -1], ArrowUp: ["layer", 1], ArrowDown: ["layer", -1] };
const EXPERTS = { ArrowRight: 1, ArrowLeft: -1 };

/** Keys that write nothing, wherever no control wants them for itself: arrows move, with Shift to an expert that was chosen; Home and End go to
 * the first and last position, Shift and Enter pins, Escape lets go of the expert. */
export function listenForKeys(selection) {
  addEventListener("keydown", (event) => {
    const act = action(selection, event);
    if (!act || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea, .scrolls, #drawer")) return;
    if (event.key !== "Escape") event.preventDefault();
    act();
  });
}

function action(selection, { key, shiftKey }) {
  if (key === "Escape") return () => selection.set({ expert: -1 });
  if (shiftKey) return key === "Enter" ? () => selection.pin() : key in EXPERTS ? () => selection.moveExpert(EXPERTS[key]) : null;
  if (key === "Home" || key === "End") return () => selection.set({ position: key === "Home" ? 0 : selection.ledger.positions.length - 1 });
  return key in MOVES ? () => selection.move(...MOVES[key]) : null;
}
