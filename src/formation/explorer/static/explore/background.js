// Long work beside the page: a worker that runs this page's own script and gets the bundle's bytes from the page, so that a click never waits for it.
// Where a browser gives no worker, the page does the work itself, with pauses.

import { folderContents } from "../verify/container.js";
import { ContainerRefusal } from "../verify/refusals.js";
import { verify } from "../verify/verify.js";
import { readOverview } from "./overview.js";
import { Lazy, Unreachable } from "./stored.js";

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
  /** `blobs`: name -> Lazy; `pause` lets the page draw itself */
  constructor(blobs, pause) {
    Object.assign(this, { blobs, pause, running: new Map(), count: 0, worker: workerOf(SCRIPT) });
    if (!this.worker) return;
    this.worker.onmessage = ({ data }) => this.hear(data);
    this.worker.postMessage({ sizes: new Map([...blobs].map(([name, { size }]) => [name, size])) });
  }

  /** The result of a task; `tell` hears of it meanwhile */
  run(task, argument, tell) {
    if (!this.worker) return TASKS[task](this.blobs, argument, (told) => (tell(told), this.pause("")));
    const id = ++this.count;
    this.worker.postMessage({ id, task, argument });
    return new Promise((resolve, reject) => this.running.set(id, { resolve, reject, tell }));
  }

  hear({ id, read, ...said }) {
    if (read) return this.give(read);
    const { resolve, reject, tell } = this.running.get(id);
    if ("told" in said) return tell(said.told);
    this.running.delete(id);
    return "fault" in said ? reject(faultOf(said.fault)) : resolve(said.done);
  }

  async give([id, name, begin, end]) {
    try {
      this.worker.postMessage({ given: id, bytes: await this.blobs.get(name).slice(begin, end).arrayBuffer() });
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
  const ask = (name) => (begin, end) => new Promise((resolve, reject) => {
    asked.set(++count, { resolve, reject });
    postMessage({ read: [count, name, begin, end] });
  });
  const given = ({ given: id, bytes, fault }) => {
    const { resolve, reject } = asked.get(id);
    asked.delete(id);
    return fault ? reject(faultOf(fault)) : resolve(new Uint8Array(bytes));
  };
  const work = ({ id, task, argument }) => TASKS[task](blobs, argument, (told) => postMessage({ id, told }))
    .then((done) => postMessage({ id, done }), (fault) => postMessage({ id, fault: sayable(fault) }));
  globalThis.onmessage = ({ data }) => {
    if (data.sizes) blobs = new Map([...data.sizes].map(([name, size]) => [name, new Lazy(ask(name), 0, size)]));
    else if (data.given) given(data);
    else work(data);
  };
}
