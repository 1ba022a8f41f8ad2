// One bundle of this page, opened: its name, its files, its ledger, and the worker that reads and verifies it.

import { Background } from "./background.js";
import { about, bundleName, embedded } from "./embedded.js";
import { openLedger } from "./opened.js";
import { served } from "./served.js";
import { inTwo, lazyFiles } from "./stored.js";

const LEDGERS = ["ledger.jsonl", "ledger.jsonl.part"];

/** `pause` lets the page draw itself; `brokenTold` hears why the ledger ends before its file does; `isOther`: of two bundles, the one to compare with */
export async function openRun(pause, brokenTold, isOther = false) {
  const { begins, leftOut, isServed, ...files } = about(isOther);
  const { first, patient } = inTwo(isServed ? served : embedded(isOther));
  const blobs = lazyFiles(files, first);
  const file = LEDGERS.find((each) => blobs.has(each)) ?? LEDGERS[0];
  const ledger = await openLedger(file, blobs.get(file) ?? new Blob([]), begins, brokenTold);
  return { name: bundleName(isOther), blobs, leftOut, isServed, ledger, background: new Background({ ...files, source: patient, blobs }, pause) };
}
