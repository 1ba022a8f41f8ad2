// The page of a whole dialogue: shows every token of it, and checks its bytes meanwhile. It keeps nothing, and asks nobody for anything.

import { element } from "../verify/elements.js";
import { about, bundleName, embedded } from "../explore/embedded.js";
import { Sheet, byId, failed, placesFor } from "../explore/sheet.js";
import { lazyFiles } from "../explore/stored.js";
import { branchesOf, readBranches } from "./branches.js";
import { Chosen, listenForKeys } from "./chosen.js";
import { claims, readClaims } from "./claims.js";
import { curves } from "./curves.js";
import { ending } from "./ending.js";
import { forks, readForks } from "./forks.js";
import { glance } from "./glance.js";
import { readLog } from "./log.js";
import { oneToken } from "./onetoken.js";
import { Proof } from "./proof.js";
import { reading } from "./reading.js";
import { readScored } from "./scoredrows.js";
import { scores } from "./scores.js";
import { sides } from "./sides.js";

const PAUSE_MS = 16; // between two moments in which the page may draw itself and hear the reader
const NOTHING = "No token of it could be read.";
let paused = 0;

async function start() {
  const said = about();
  const blobs = lazyFiles(said, embedded(false));
  const name = bundleName();
  byId("name").append(element("span.value", name));
  document.title = `${name} – Formation`;
  const talk = said.kind === "scored" ? await readScored(blobs.get("tokens.jsonl"), blobs.get("summary.json"), pause) : await readLog(blobs.get("events.jsonl"), pause);
  const proof = new Proof(byId("evidence"), talk);
  const view = new View(name, talk, blobs);
  view.claims = await readClaims(blobs.get("claims.json"), talk);
  view.forks = await readForks(blobs.get("forks.json"));
  view.branches = await readBranches(blobs.get("branches.json"), view.forks.nodes);
  view.selection.claims = view.claims.found;
  view.selection.read();
  await show(view);
  await proof.check({ ...said, blobs }, pause);
  view.selection.tell(); // of what the check found, the views show some
  globalThis.formation.ready = true;
}

class View extends Sheet {
  constructor(name, talk, blobs) {
    super(new Chosen(talk), { name, talk, blobs });
  }

  /** "message 7, token 12 of 40" */
  where({ n, message }) {
    const { number, tokens } = this.talk.messages[message];
    return `message ${number}, token ${n - tokens[0] + 1} of ${tokens[1] - tokens[0]}`;
  }
}

async function show(view) {
  const { talk } = view;
  const tokens = `${talk.tokens.length} tokens`;
  byId("run").replaceChildren(element("span.value", talk.names.join(" ↔ ")), element("span", ` · ${talk.messages.length} messages, ${tokens}`));
  const isLog = talk.kind === "dialogue";
  const views = [["glance", glance], ["said", reading], ["token", oneToken], ["curves", curves], ...(view.claims.given ? [["claims", claims]] : []),
    ...(view.forks.given ? [["forks", forks]] : []), ...(view.branches.given ? [["branches", branchesOf]] : []), ...(isLog ? [["ending", ending], ["sides", sides]] : [["scores", scores]])];
  placesFor(views);
  if (talk.broken || !talk.tokens.length) byId("views").prepend(element("p.broken", talk.broken ? `Shown as far as it can be read: ${talk.broken}` : NOTHING));
  for (const [id, make] of views) {
    byId(`place-${id}`).replaceChildren((await make(view)).node);
    if (id === "token") await pause();
  }
  listenForKeys(view.selection);
  globalThis.formation.view = view; // for a console or a test
}

const moment = () => new Promise((resolve) => setTimeout(resolve));

function pause() {
  if (performance.now() - paused < PAUSE_MS) return undefined;
  return moment().then(() => (paused = performance.now()));
}

start().catch((fault) => failed(fault, "checked"));
