// The one selection that all views share: a position, a layer, an expert, and what the matrix and the grid show. It lives in the address.

const WHOLE = ["position", "layer", "expert"];

export class Selection {
  constructor(ledger) {
    const first = ledger.steps[0]?.position ?? 0;
    Object.assign(this, { ledger, listeners: [], position: first, layer: ledger.layers - 1, expert: -1, metric: "lens_rank", grid: "use" });
    this.read();
    addEventListener("hashchange", () => this.read() && this.tell());
  }

  /** Takes what the address says, as far as it is possible; whether anything changed */
  read() {
    const said = new URLSearchParams(location.hash.slice(1));
    const wanted = {};
    for (const name of WHOLE) if (/^-?[0-9]{1,9}$/.test(said.get(name) ?? "")) wanted[name] = Number(said.get(name));
    for (const name of ["metric", "grid"]) if (/^[a-z_]{1,40}$/.test(said.get(name) ?? "")) wanted[name] = said.get(name);
    return this.take(wanted);
  }

  set(wanted) {
    if (!this.take(wanted)) return;
    const said = new URLSearchParams([...WHOLE, "metric", "grid"].map((name) => [name, this[name]]));
    history.replaceState(null, "", `#${said}`);
    this.tell();
  }

  take(wanted) {
    const { positions, layers, run } = this.ledger;
    const limits = { position: [0, positions.length - 1], layer: [0, layers - 1], expert: [-1, (run?.shape.experts ?? 0) - 1] };
    let changed = false;
    for (const [name, value] of Object.entries(wanted)) {
      const [low, high] = limits[name] ?? [0, 0];
      const kept = name in limits ? Math.min(Math.max(value, low), high) : value;
      changed ||= this[name] !== kept;
      this[name] = kept;
    }
    return changed;
  }

  move(name, by) {
    this.set({ [name]: this[name] + by });
  }

  /** `listener` is called now and after every change */
  follow(listener) {
    this.listeners.push(listener);
    listener(this);
  }

  tell() {
    for (const listener of this.listeners) listener(this);
  }

  get isStep() {
    return this.ledger.positions[this.position]?.kind !== "prompt";
  }
}

const MOVES = { ArrowRight: ["position", 1], ArrowLeft: ["position", -1], ArrowUp: ["layer", 1], ArrowDown: ["layer", -1] };

/** Arrow keys, wherever no control wants them for itself; Escape lets go of the expert */
export function listenForKeys(selection) {
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") return selection.set({ expert: -1 });
    const move = MOVES[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea, .scrolls")) return undefined;
    event.preventDefault();
    return selection.move(...move);
  });
}
