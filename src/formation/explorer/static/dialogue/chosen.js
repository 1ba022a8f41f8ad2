// What is looked at, shared by all views: a token, a claim, a place in the tree, and by which value tokens are coloured. It lives in the address.

const CHOICES = { value: "surprisal", lanes: "both" };

export class Chosen {
  constructor(talk) {
    Object.assign(this, { talk, listeners: [], drawing: [], token: 0, claim: -1, node: -1, claims: [], ...CHOICES });
    addEventListener("hashchange", () => this.read() && this.tell());
  }

  /** Takes what the address says, as far as it is possible; whether anything changed */
  read() {
    const said = new URLSearchParams(location.hash.slice(1));
    const number = (name) => (/^[0-9]{1,9}$/.test(said.get(name) ?? "") ? Number(said.get(name)) : undefined);
    const wanted = { claim: number("claim"), node: number("node") };
    for (const name of Object.keys(CHOICES)) if (/^[a-z]{1,20}$/.test(said.get(name) ?? "")) wanted[name] = said.get(name);
    const message = this.talk.byNumber(number("message"));
    if (message) wanted.token = Math.min(message.tokens[0] + (number("token") ?? 0), Math.max(message.tokens[1] - 1, message.tokens[0]));
    return this.take(wanted);
  }

  set(wanted) {
    if (!this.take(wanted)) return;
    const said = new URLSearchParams(this.place());
    for (const [name, first] of Object.entries(CHOICES)) if (this[name] !== first) said.set(name, this[name]);
    for (const name of ["claim", "node"]) if (this[name] >= 0) said.set(name, this[name]);
    history.replaceState(null, "", `#${said}`);
    this.tell();
  }

  place() {
    const token = this.row;
    return token ? { message: this.talk.messages[token.message].number, token: token.n - this.talk.messages[token.message].tokens[0] } : {};
  }

  take(wanted) {
    let changed = false;
    for (const [name, value] of Object.entries(wanted)) {
      if (value === undefined) continue;
      const kept = name in CHOICES ? value : this.within(name, value);
      changed ||= this[name] !== kept;
      this[name] = kept;
    }
    return changed;
  }

  within(name, value) {
    if (name === "token") return Math.min(Math.max(value, 0), Math.max(this.talk.tokens.length - 1, 0));
    return Math.max(name === "claim" ? Math.min(value, this.claims.length - 1) : value, -1);
  }

  /** The selected token, undefined where there is none */
  get row() {
    return this.talk.tokens[this.token];
  }

  /** The first token of the next message that has one, `by` 1 or -1; of this one first, when going back from its middle */
  moveMessage(by) {
    const { messages, tokens } = this.talk;
    let at = this.row?.message ?? 0;
    if (by < 0 && this.row && this.token > messages[at].tokens[0]) return this.set({ token: messages[at].tokens[0] });
    while (messages[(at += by)]) {
      const [first, behind] = messages[at].tokens;
      if (behind > first) return this.set({ token: first });
    }
    return this.set({ token: by > 0 ? tokens.length - 1 : 0 });
  }

  moveClaim(by) {
    if (this.claims.length) this.chooseClaim(Math.min(Math.max(this.claim + by, 0), this.claims.length - 1));
  }

  /** And the first token that it is about, where there is one */
  chooseClaim(claim) {
    this.set({ claim, token: this.claims[claim].tokens[0]?.n });
  }

  /** `listener` is called now and after every change; it may answer with a promise */
  follow(listener) {
    this.listeners.push(listener);
    this.drawing.push(listener(this));
  }

  tell() {
    this.drawing = this.listeners.map((listener) => listener(this));
  }

  /** When all views show it */
  settled() {
    return Promise.all(this.drawing);
  }
}

/** Keys that write nothing, wherever no control wants them for itself */
export function listenForKeys(chosen) {
  addEventListener("keydown", (event) => {
    const act = action(chosen, event);
    if (!act || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea, .scrolls")) return;
    if (event.key !== "Escape") event.preventDefault();
    act();
  });
}

function action(chosen, { key, shiftKey }) {
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[key];
  if (key === "Escape") return () => chosen.set({ claim: -1, node: -1 });
  if (key === "Home" || key === "End") return () => chosen.set({ token: key === "Home" ? 0 : chosen.talk.tokens.length - 1 });
  if (!by) return null;
  if (key === "ArrowDown" || key === "ArrowUp") return () => chosen.moveMessage(by);
  return shiftKey ? () => chosen.moveClaim(by) : () => chosen.set({ token: chosen.token + by });
}
