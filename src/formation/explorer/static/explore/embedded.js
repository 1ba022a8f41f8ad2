// The bundle that this page holds, or both: each file cut in pieces, each piece as gzip in base64, in an element that runs nothing (view.py makes
// them). They follow the script, so that the first view need not wait until all of a big page is there. A worker, which has no elements, gets the
// text of a piece and unpacks it itself.

import { fromBase64, looseText } from "../verify/bytes.js";
import { ContainerRefusal } from "../verify/refusals.js";

const side = (isOther) => (isOther ? '[data-side="b"]' : ":not([data-side])");
const NAME = (isOther) => `script[type="text/plain"][data-name]${side(isOther)}`;
const ABOUT = (isOther) => `script[type="application/json"][data-about]${side(isOther)}`;
const PIECES = (isOther) => `script[type="application/gzip"]${side(isOther)}`;
const AGAIN_MS = 20; // until a piece is looked for again, while the page is still coming

export const hasOther = () => document.querySelector(NAME(true)) !== null;
export const bundleName = (isOther = false) => looseText(fromBase64(document.querySelector(NAME(isOther))?.dataset.name ?? "") ?? new Uint8Array());

/** { sizes, most, begins, leftOut, isServed }: sizes of the files that are here, in pieces of `most` bytes; where positions begin in the ledger; names
 * of files that are not here; whether a server has them and not this page. `isOther`: of the bundle to compare with */
export const about = (isOther = false) => ({
  sizes: {}, most: 1, begins: [], leftOut: [], isServed: false, ...JSON.parse(document.querySelector(ABOUT(isOther))?.textContent ?? "{}"),
});

/** Gives piece number `n` of a file as it stands in this page */
export const embedded = (isOther) => async (name, begin, end, n) => (await elementOf(`${PIECES(isOther)}[data-file="${name}"]`, n))?.textContent ?? "";

/** As bytes, `size` of them */
export async function unpacked(name, text, size) {
  const bytes = await inflated(name, text);
  return bytes.length === size ? bytes : damaged(name);
}

const damaged = (name) => {
  throw new ContainerRefusal(`${name}: expected whole gzip data in this page, got damaged`);
};

const whole = new Map(); // selector -> elements, once all of the page is there

async function elementOf(selector, n) {
  while (!whole.has(selector)) {
    const isWhole = document.readyState !== "loading";
    const found = document.querySelectorAll(selector);
    if (isWhole) whole.set(selector, found);
    else if (found[n]?.nextSibling) return found[n]; // what nothing follows may still be growing
    else await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
  return whole.get(selector)[n];
}

async function inflated(name, text) {
  try {
    const packed = Uint8Array.fromBase64?.(text) ?? fromBase64(text); // a browser's own is faster
    const stream = new Response(packed).body.pipeThrough(new DecompressionStream("gzip")); // a Blob's own stream takes a way through another process
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    return damaged(name);
  }
}
