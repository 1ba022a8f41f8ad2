// The page: unpacks the bundle in it, shows what its ledger says, and verifies it meanwhile. It keeps nothing and sends nothing.

import { bytesOfBlob } from "../verify/container.js";
import { readAnchor } from "../verify/documents.js";
import { element } from "../verify/elements.js";
import { Refused } from "../verify/refusals.js";
import { cell } from "./cell.js";
import { bundleName, embeddedFiles } from "./embedded.js";
import { Evidence } from "./evidence.js";
import { experts } from "./experts.js";
import { lanes } from "./lanes.js";
import { matrix } from "./matrix.js";
import { openLedger } from "./opened.js";
import { followTheme, palette } from "./palette.js";
import { Drawer } from "./provenance.js";
import { ribbon } from "./ribbon.js";
import { router } from "./router.js";
import { Selection, listenForKeys } from "./selection.js";
import { track } from "./track.js";
import { waterfall } from "./waterfall.js";

const PAUSE_MS = 40; // between two moments in which the page may draw itself and hear the reader
const PADDING = 42; // of a card, both sides
const byId = (id) => document.getElementById(id);
let paused = 0;

async function start() {
  const name = bundleName();
  byId("name").append(element("span.value", name));
  document.title = `${name} – Formation`;
  const embedded = await embeddedFiles();
  const evidence = new Evidence(byId("evidence"), name, embedded, pause);
  const blobs = new Map(embedded.files);
  const ledger = await openLedger(blobs.get("ledger.jsonl") ?? blobs.get("ledger.jsonl.part") ?? new Blob([]), (share) => pause(`Reading the ledger: ${Math.floor(100 * share)} %`));
  if (ledger.positions.length) await show(new View(blobs, ledger, await anchorOf(blobs)));
  else say(`No position of the ledger could be read. ${ledger.broken}`);
  if (ledger.broken && ledger.positions.length) byId("views").prepend(element("p.broken", `The ledger is shown as far as it can be read: ${ledger.broken}`));
  await pause("");
  await evidence.check();
  globalThis.formation.ready = true;
}

/** What all views share */
class View {
  constructor(blobs, ledger, anchor) {
    Object.assign(this, { blobs, ledger, anchor, redrawn: [], widths: new Map() });
    this.selection = new Selection(ledger);
    this.drawer = new Drawer(byId("drawer"), { blobs, ledger });
    followTheme(() => this.redraw());
    let due = 0;
    addEventListener("resize", () => {
      cancelAnimationFrame(due);
      due = requestAnimationFrame(() => this.redraw());
    });
  }

  redraw() {
    this.widths.clear();
    for (const listener of this.redrawn) listener();
    this.selection.tell();
  }

  ink() {
    return palette();
  }

  onRedraw(listener) {
    this.redrawn.push(listener);
  }

  /** Pixels that a card's drawing may take */
  width(id) {
    if (!this.widths.has(id)) this.widths.set(id, Math.max(320, Math.floor(byId(`place-${id}`).getBoundingClientRect().width) - PADDING));
    return this.widths.get(id);
  }
}

const VIEWS = [["tokens", ribbon], ["matrix", matrix], ["cell", cell], ["lanes", lanes], ["waterfall", waterfall], ["router", router], ["experts", experts], ["track", track]];

async function show(view) {
  const { shape } = view.ledger.run;
  const model = `${shape.layers} layers, ${shape.experts ? `${shape.experts} experts, ${shape.chosen} chosen` : "dense"}, width ${shape.hidden}, vocabulary ${shape.vocabulary}`;
  byId("run").replaceChildren(element("span", `${view.ledger.steps.length} tokens · ${model} · run `), element("span.value", view.ledger.run.runId.slice(0, 16)));
  byId("views").replaceChildren(...VIEWS.map(([id]) => Object.assign(element(`div.place.place-${id}`), { id: `place-${id}` })));
  for (const [id, make] of VIEWS) {
    const card = await make(view);
    byId(`place-${id}`).replaceChildren(card.node);
    await pause("");
  }
  listenForKeys(view.selection);
  globalThis.formation.view = view; // for a console or a test
}

async function anchorOf(blobs) {
  try {
    return blobs.has("anchor.json") ? readAnchor(await bytesOfBlob(blobs.get("anchor.json"))) : null;
  } catch (refusal) {
    if (!(refusal instanceof Refused)) throw refusal;
    return null; // the evidence bar says why
  }
}

function say(sentence) {
  if (byId("status")) byId("status").textContent = sentence;
}

function pause(sentence) {
  if (performance.now() - paused < PAUSE_MS) return undefined;
  if (sentence) say(sentence);
  return new Promise((resolve) => setTimeout(resolve)).then(() => (paused = performance.now()));
}

start().catch((fault) => {
  byId("evidence").className = "failed";
  byId("evidence").replaceChildren(element("p", `✗ This page failed, and nothing was verified: ${fault}`));
  throw fault;
});
