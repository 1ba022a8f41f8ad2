// Views drawn in turn after a change: those in the window first, each only if what it shows has changed, and never so many at once that the next
// click would wait for them. Of two changes that come one upon the other, what is not drawn yet is drawn once, for the later.

const SLICE_MS = 10; // of drawing, between two moments in which the page hears its reader
const HIDDEN_MS = 100; // until a window that shows no frames is taken for hidden

export class Turns {
  constructor() {
    Object.assign(this, { followers: [], turn: 0, seen: new Set(), observer: null });
  }

  /** `draw` is called now, and again when one of `names` of the selection has changed; `id` is of the card that it draws; `isQuick`: it needs no lines
   * of the position */
  follow(selection, draw, { names, id, isQuick }) {
    const follower = { draw, names, id, isQuick, drawn: keyOf(selection, names) };
    this.followers.push(follower);
    draw(selection);
  }

  /** Notes from now on which of the places (place-ID) are in the window */
  watch(places) {
    this.observer?.disconnect();
    this.observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) this.seen[isIntersecting ? "add" : "delete"](target.id.replace("place-", ""));
    });
    for (const place of places) this.observer.observe(place);
  }

  /** Ends what is being drawn, for it is no longer what should be seen; the number of the turn that begins */
  next(isForced) {
    if (isForced) for (const follower of this.followers) follower.drawn = "";
    return ++this.turn;
  }

  /** All that is due, in slices, as long as the turn is `mine`; while the lines of the position are not here (`isEarly`), what needs none */
  async draw(selection, mine, isEarly = false) {
    let [begin, rest] = [performance.now(), frame];
    for (const follower of this.inOrder()) {
      const key = keyOf(selection, follower.names);
      if (mine !== this.turn) return;
      if (key === follower.drawn || (isEarly && !follower.isQuick)) continue;
      follower.drawn = key;
      await follower.draw(selection);
      if (performance.now() - begin > SLICE_MS) {
        await rest(); // first until what is drawn can be seen
        [begin, rest] = [performance.now(), moment];
      }
    }
  }

  /** What belongs to no card is for all of them */
  inOrder() {
    const isSeen = ({ id }) => !id || this.seen.has(id);
    return [...this.followers.filter(isSeen), ...this.followers.filter((follower) => !isSeen(follower))];
  }
}

const keyOf = (selection, names) => names.map((name) => JSON.stringify(selection[name])).join(" ");

/** Lets the page hear its reader, and draw itself */
export const moment = () => new Promise((resolve) => setTimeout(resolve));

/** Until a frame was drawn */
export const frame = () => new Promise((resolve) => {
  requestAnimationFrame(() => setTimeout(resolve));
  setTimeout(resolve, HIDDEN_MS);
});
