// Long work beside the page: a worker that runs this page's own script and gets the bundle's pieces from the page, so that a click never waits for it.
// Where a browser gives no worker, the page does the work itself, with pauses.

import { folderContents } from "../verify/container.js";
import { ContainerRefusal } from "../verify/refusals.js";
import { verify } from "../verify/verify.js";
import { readOverview } from "./overview.js";
import { Unreachable, lazyFiles } from "./stored.js";

const TOLD_MS = 100; // between two sentences about progress
const SCRIPT = globalThis.document?.currentScript?.textContent ?? "";
export const isWorker = !globalThis.document;

const TASKS = {
  overview: (blobs, { name, ...more }, tell) => readOverview(blobs.get(name), more, tell),
  check: (blobs, { signers, leftOut }, tell) => {
    let told = 0;
    const progress = (at) => (performance.now() - told < TOLD_MS ? undefined : ((told = performance.now()), tell(at)));
    return verify(() => folderContents(blobs), { signers, allowUnknownSigner: !signers.size, leftOut, progress });
  },
};

// ---- in the page

export class Background {
  /** Of { sizes, most, source, blobs }, as in stored.js; `pause` lets the page draw itself */
  constructor({ sizes, most, source, blobs }, pause) {
    Object.assign(this, { blobs, source, pause, running: new Map(), count: 0, worker: workerOf(SCRIPT) });
    if (!this.worker) return;
    this.worker.onmessage = ({ data }) => this.hear(data);
    this.worker.postMessage({ files: { sizes, most } });
  }

  /** The result of a task; `tell` hears of it meanwhile */
  run(task, argument, tell) {
    if (!this.worker) return TASKS[task](this.blobs, argument, (told) => (tell(told), this.pause("")));
    const id = ++this.count;
    this.worker.postMessage({ id, task, argument });
    return new Promise((resolve, reject) => this.running.set(id, { resolve, reject, tell }));
  }

  hear({ id, wanted, ...said }) {
    if (wanted) return this.give(id, wanted);
    const { resolve, reject, tell } = this.running.get(id);
    if ("told" in said) return tell(said.told);
    this.running.delete(id);
    return "fault" in said ? reject(faultOf(said.fault)) : resolve(said.done);
  }

  async give(id, wanted) {
    try {
      this.worker.postMessage({ given: id, piece: await this.source(...wanted) });
    } catch (fault) {
      this.worker.postMessage({ given: id, fault: sayable(fault) });
    }
  }
}

function workerOf(script) {
  try {
    const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    return new Worker(address);
  } catch {
    return null;
  }
}

/** A fault as a message, and back: those that say something about the bytes keep their kind */
const KINDS = { ContainerRefusal, Unreachable, Error };
const sayable = (fault) => [Object.keys(KINDS).find((name) => fault instanceof KINDS[name]) ?? "Error", fault.message ?? String(fault)];
const faultOf = ([kind, message]) => new KINDS[kind](message);

// ---- in the worker

export function listen() {
  const asked = new Map();
  let [blobs, count] = [new Map(), 0];
  const ask = (...wanted) => new Promise((resolve, reject) => {
    asked.set(++count, { resolve, reject });
    postMessage({ id: count, wanted });
  });
  const given = ({ given: id, piece, fault }) => {
    const { resolve, reject } = asked.get(id);
    asked.delete(id);
    return fault ? reject(faultOf(fault)) : resolve(piece);
  };
  const work = ({ id, task, argument }) => TASKS[task](blobs, argument, (told) => postMessage({ id, told }))
    .then((done) => postMessage({ id, done }), (fault) => postMessage({ id, fault: sayable(fault) }));
  globalThis.onmessage = ({ data }) => {
    if (data.files) blobs = lazyFiles(data.files, ask);
    else if (data.given) given(data);
    else work(data);
  };
}
