// The page: shows what the ledger of its bundle says, and verifies the bundle meanwhile. It keeps nothing, and asks nobody but the server that gave
// it, if one did.

import { bytesOfBlob } from "../verify/container.js";
import { readAnchor } from "../verify/documents.js";
import { element } from "../verify/elements.js";
import { ContainerRefusal, Refused } from "../verify/refusals.js";
import { attention } from "./heads.js";
import { isWorker, listen } from "./background.js";
import { cell } from "./cell.js";
import { compare } from "./compare.js";
import { Evidence } from "./evidence.js";
import { experts } from "./experts.js";
import { lanes } from "./lanes.js";
import { matrix } from "./matrix.js";
import { OtherRun } from "./other.js";
import { pins } from "./pins.js";
import { Drawer } from "./provenance.js";
import { ribbon } from "./ribbon.js";
import { router } from "./router.js";
import { openRun } from "./run.js";
import { Selection, listenForKeys } from "./selection.js";
import { Sheet, byId, failed, placesFor } from "./sheet.js";
import { Unreachable } from "./stored.js";
import { track } from "./track.js";
import { frame, moment } from "./turns.js";
import { waterfall } from "./waterfall.js";

const PAUSE_MS = 40; // between two moments in which the page may draw itself and hear the reader
const FIRST_MS = 150; // for which the first view waits for the lines of all positions
const REST = 8; // times as long as drawing everything takes, before it is done again
const SERVED = "The bundle's bytes are with the server that gave this page. They are read from there as they are needed, and all of them are verified here. It asks nobody else, and may not.";
let paused = 0;

async function start() {
  const run = await openRun(pause, showBroken);
  byId("name").append(element("span.value", run.name));
  document.title = `${run.name} – Formation`;
  if (run.isServed) byId("holds").textContent = SERVED;
  const evidence = new Evidence(byId("evidence"), run);
  const other = await OtherRun.open(pause);
  await showRuns(run, other, evidence);
  await evidence.check();
  await other?.evidence.check();
  globalThis.formation.ready = true;
}

async function showRuns(run, other, evidence) {
  const { ledger } = run;
  if (!ledger.positions.length) return say(`No position of the ledger could be read. ${ledger.broken}`);
  let [view, isRead] = [null, false];
  const arrived = (bar) => (share) => {
    bar.say(`Reading the ledger: ${Math.floor(100 * share)} %`);
    view?.arrived();
  };
  const all = [ledger.readAll(run.background, arrived(evidence)), ...(other ? [other.ledger.readAll(other.background, arrived(other.evidence))] : [])];
  const reading = Promise.all(all).then(() => (isRead = true));
  await Promise.race([reading, new Promise((resolve) => setTimeout(resolve, FIRST_MS))]);
  const isEarly = !isRead;
  const anchor = await anchorOf(run.blobs);
  if (ledger.positions.length) await show((view = new View({ ...run, other, anchor })));
  await reading;
  if (!ledger.positions.length) byId("views").replaceChildren(element("p.broken", `No position of the ledger could be read. ${ledger.broken}`));
  else if (isEarly) await view?.end();
}

class View extends Sheet {
  /** A run (run.js), its anchor, and `other`, the run that it is compared with, or null */
  constructor({ name, blobs, ledger, leftOut, anchor, other }) {
    super(new Selection(ledger), { name, blobs, ledger, leftOut, anchor, other, isShown: false, nextDrawing: 0 });
    this.drawer = new Drawer(byId("drawer"), { blobs, ledger, leftOut });
  }

  /** Some positions have come; or it was found that there are fewer than there seemed */
  arrived() {
    if (!this.ledger.positions.length) return;
    this.selection.take({ position: this.selection.position });
    if (this.isShown) this.redrawSoon();
  }

  /** All is drawn again, but not so often that the reader would wait for it, and with a moment between two views for a click */
  async redrawSoon() {
    if (performance.now() < this.nextDrawing) return;
    this.nextDrawing = Infinity;
    const begin = performance.now();
    try {
      for (const listener of this.redrawn) {
        listener(false);
        await moment();
      }
      await this.selection.tell(true);
    } finally {
      this.nextDrawing = performance.now() + REST * (performance.now() - begin);
    }
  }

  /** Everything was read */
  async end() {
    while (this.nextDrawing === Infinity) await moment();
    this.selection.take({ position: this.selection.position });
    await this.ledger.want(this.selection.position);
    this.nextDrawing = 0;
    await this.redrawSoon();
  }
}

const VIEWS = [["compare", compare], ["tokens", ribbon], ["matrix", matrix], ["cell", cell], ["lanes", lanes], ["pins", pins], ["waterfall", waterfall], ["attention", attention], ["router", router], ["experts", experts], ["track", track]];

async function show(view) {
  const { ledger, selection } = view;
  await ledger.want(selection.position);
  const { shape } = ledger.run;
  const model = `${shape.layers} layers, ${shape.experts ? `${shape.experts} experts, ${shape.chosen} chosen` : "dense"}, width ${shape.hidden}, vocabulary ${shape.vocabulary}`;
  byId("run").replaceChildren(element("span", `${ledger.steps.length} tokens · ${model} · run `), element("span.value", ledger.run.runId.slice(0, 16)));
  const views = VIEWS.filter(([id]) => id !== "compare" || view.other);
  placesFor(views);
  selection.turns.watch(document.querySelectorAll(".place"));
  if (ledger.broken) showBroken(ledger.broken);
  for (const [id, make] of views) {
    if (id === "lanes") selection.follow(({ position }) => frame().then(() => ledger.decodeAll(position, moment)), { names: ["position"] }); // for the views after it
    const card = await make(view);
    byId(`place-${id}`).replaceChildren(card.node);
    await pause("");
  }
  view.isShown = true;
  listenForKeys(selection);
  globalThis.formation.view = view; // for a console or a test
}

async function anchorOf(blobs) {
  try {
    return blobs.has("anchor.json") ? readAnchor(await bytesOfBlob(blobs.get("anchor.json"))) : null;
  } catch (refusal) {
    if (![Refused, ContainerRefusal, Unreachable].some((kind) => refusal instanceof kind)) throw refusal;
    return null; // the evidence bar says why
  }
}

function showBroken(sentence) {
  if (!document.querySelector(".place")) return; // said with the first view
  byId("views").prepend(element("p.broken", `The ledger is shown as far as it can be read: ${sentence}`));
}

function say(sentence) {
  if (byId("status")) byId("status").textContent = sentence;
}

function pause(sentence) {
  if (performance.now() - paused < PAUSE_MS) return undefined;
  if (sentence) say(sentence);
  return moment().then(() => (paused = performance.now()));
}

if (isWorker) listen();
else start().catch((fault) => failed(fault, "verified"));
