// The page: takes what is dropped or chosen, verifies it, shows the verdict. It keeps nothing and sends nothing.

import { hex } from "./bytes.js";
import { folderContents, pieces, zipContents } from "./container.js";
import { fromDrop, fromFile, fromPicker, isReceipt } from "./dropped.js";
import { element } from "./elements.js";
import { readReceipt } from "./receipt.js";
import { Refused, UnableBrowser } from "./refusals.js";
import { Sha256 } from "./sha256.js";
import { readSigners } from "./signers.js";
import { SENTENCES } from "./tables.js";
import { bundleVerdict, receiptVerdict, refusalVerdict } from "./verdict.js";
import { verify } from "./verify.js";

const PAUSE_MS = 100; // between two moments in which the page may draw itself
const byId = (id) => document.getElementById(id);
let isBusy = false;
let drawn = 0;

/** Verifies { name, files } or { name, file } and shows what was found. */
async function examine(given) {
  if (isBusy) return;
  isBusy = true;
  byId("result").replaceChildren();
  say("Reading…");
  try {
    byId("result").replaceChildren(...(await verdictOf(await given)));
    byId("honesty").hidden = true; // the verdict says it
    say("");
    byId("result").focus();
  } catch (fault) {
    say(faultSentence(fault), true);
  } finally {
    isBusy = false;
  }
}

function say(sentence, isWrong = false) {
  byId("status").replaceChildren(element("span", sentence));
  byId("status").className = isWrong ? "wrong" : "";
}

/** Nothing was verified: the options are wrong, the browser cannot, a file could not be read, or this page is at fault. */
function faultSentence(fault) {
  if (fault instanceof Refused || fault instanceof UnableBrowser) return `Nothing was verified. ${fault.message}`;
  if (fault instanceof DOMException) return `Nothing was verified. A file could not be read: ${fault.message}`;
  return `Nothing was verified: this page failed. ${fault}`;
}

async function verdictOf({ name, files, file }) {
  const signers = readSigners(byId("signers").value);
  const allowUnknownSigner = byId("unknown").checked;
  if (file && (await isReceipt(file))) return ofReceipt(name, file, signers, allowUnknownSigner);
  const nonce = byId("nonce").value || null;
  const open = file ? () => zipContents(file) : () => folderContents(files);
  const report = await verify(open, { signers, allowUnknownSigner, nonce, progress });
  if (file) report.facts.file = `sha256:${await digestOf(file)}`;
  return bundleVerdict(name, report);
}

async function ofReceipt(name, file, signers, allowUnknownSigner) {
  try {
    const receipt = await readReceipt(new Uint8Array(await file.arrayBuffer()));
    return receiptVerdict(name, receipt, signers.get(receipt.signer.fingerprint), allowUnknownSigner);
  } catch (refusal) {
    if (!(refusal instanceof Refused)) throw refusal;
    return refusalVerdict(name, refusal);
  }
}

async function digestOf(file) {
  const state = new Sha256();
  for await (const piece of pieces(file)) state.update(piece);
  return hex(state.digest());
}

/** Says how far it is, and now and then lets the page draw itself */
function progress({ number, name, bytes, of }) {
  if (performance.now() - drawn < PAUSE_MS) return undefined;
  say(of ? `Reading ${name}: ${Math.floor((100 * bytes) / of)} %` : `Check V${number}, ${name}`);
  return new Promise((resolve) => setTimeout(resolve)).then(() => (drawn = performance.now()));
}

// ---- what the user does

function listen() {
  byId("honesty").textContent = `${SENTENCES.HONESTY[0].toUpperCase()}${SENTENCES.HONESTY.slice(1)}.`;
  byId("folder").addEventListener("change", ({ target }) => target.files.length && chosen(target, fromPicker(target.files)));
  byId("file").addEventListener("change", ({ target }) => target.files.length && chosen(target, fromFile(target.files[0])));
  addEventListener("dragover", (event) => over(event, true));
  addEventListener("dragleave", (event) => over(event, false));
  addEventListener("drop", (event) => {
    over(event, false);
    examine(fromDrop(event.dataTransfer));
  });
}

/** The same file can be chosen again. */
function chosen(input, given) {
  examine(given).then(() => (input.value = ""));
}

function over(event, isOver) {
  event.preventDefault();
  byId("drop").classList.toggle("over", isOver);
}

listen();
