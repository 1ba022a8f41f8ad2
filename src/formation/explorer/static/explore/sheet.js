// What a page of cards is, whatever they show: places, one for each card, as wide as the window lets them be, in the colours of the reader's theme.

import { element } from "../verify/elements.js";
import { followTheme, palette } from "./palette.js";

const PADDING = 42; // of a card, both sides
const LEAST = 280; // pixels
export const byId = (id) => document.getElementById(id);

/** What all views of a page share; cards (card.js) ask it for their width and the one selection */
export class Sheet {
  constructor(selection, shown) {
    Object.assign(this, shown, { selection, redrawn: [], widths: new Map(), due: 0 });
    followTheme(() => this.redraw());
    addEventListener("resize", () => {
      cancelAnimationFrame(this.due);
      this.due = requestAnimationFrame(() => this.redraw());
    });
  }

  redraw() {
    this.widths.clear();
    for (const listener of this.redrawn) listener(true);
    this.selection.tell(true);
  }

  ink() {
    return palette();
  }

  /** `listener` hears when there is more to draw, and whether colours and sizes are others as well */
  onRedraw(listener) {
    this.redrawn.push(listener);
  }

  /** Pixels that a card's drawing may take */
  width(id) {
    if (!this.widths.has(id)) this.widths.set(id, Math.max(LEAST, Math.floor(byId(`place-${id}`).getBoundingClientRect().width) - PADDING));
    return this.widths.get(id);
  }
}

export const placesFor = (views) => byId("views").replaceChildren(...views.map(([id]) => Object.assign(element(`div.place.place-${id}`), { id: `place-${id}` })));

/** Says in the place of a verdict that there is none */
export function failed(fault, what) {
  byId("evidence").className = "failed";
  byId("evidence").replaceChildren(element("p", `✗ This page failed, and nothing was ${what}: ${fault}`));
  throw fault;
}
