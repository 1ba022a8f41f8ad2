// The second bundle of a page that compares two: its ledger, its anchor, its drawer, and an evidence bar of its own.

import { DOCUMENT, decode } from "../verify/canonical.js";
import { bytesOfBlob } from "../verify/container.js";
import { readAnchor } from "../verify/documents.js";
import { element } from "../verify/elements.js";
import { ContainerRefusal, Refused } from "../verify/refusals.js";
import { hasOther } from "./embedded.js";
import { Evidence } from "./evidence.js";
import { part } from "./parts.js";
import { Drawer } from "./provenance.js";
import { openRun } from "./run.js";
import { Unreachable } from "./stored.js";

export class OtherRun {
  /** Null in a page that holds one bundle; `pause` lets the page draw itself. Its positions are still to be read (Ledger.readAll). */
  static async open(pause) {
    if (!hasOther()) return null;
    const run = await openRun(pause, () => {}, true);
    const drawer = new Drawer(document.getElementById("drawer"), run);
    return Object.assign(new OtherRun(), run, { evidence: secondBar(run), drawer }, await frozen(run.blobs));
  }
}

function secondBar(run) {
  const first = document.getElementById("evidence");
  const place = part("div", { id: "evidence-b", role: "region", "aria-label": "Evidence of B" });
  first.after(place);
  document.getElementById("name").append(" and ", element("span.value", run.name));
  const bar = new Evidence(place, run, "-b");
  for (const [each, side] of [[first, "A"], [place, "B"]]) each.prepend(element("b", side));
  return bar;
}

/** { anchor, document }: as the verifier reads it, and as it is written */
export async function frozen(blobs) {
  try {
    const data = await bytesOfBlob(blobs.get("anchor.json") ?? new Blob([]));
    return { anchor: readAnchor(data), document: decode(data, DOCUMENT) };
  } catch (refusal) {
    if (![Refused, ContainerRefusal, Unreachable].some((kind) => refusal instanceof kind)) throw refusal;
    return { anchor: null, document: null }; // the evidence bar says why
  }
}
