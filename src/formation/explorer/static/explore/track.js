// What each step read and waited for: declared by the machine that ran, signed with the rest, and no part of the ledger.

import { bytesOfBlob } from "../verify/container.js";
import { textOf } from "../verify/bytes.js";
import { Card } from "./card.js";
import { element } from "../verify/elements.js";
import { checkAccount } from "../verify/documents.js";
import { Refused } from "../verify/refusals.js";
import { button, bytesShown, save, shown } from "./parts.js";
import { Scene } from "./scene.js";

const LEFT = 90;
const ROW = 20;
const SENTENCE = "Bytes that each part of the step read: from the disk (solid) and from the cache (light), and the seconds it waited. From io.jsonl: what the machine that ran declares, not what a verifier can repeat.";

export async function track(view) {
  const card = new Card(view, "track", "Reading and waiting", SENTENCE);
  const steps = await accounts(view);
  if (!steps.length || steps.every(({ parts }) => !parts.length)) {
    card.nothing("io.jsonl says nothing about parts");
    return card;
  }
  card.controls.append(button("Chrome trace", () => save("io-trace.json", JSON.stringify(traceOf(steps)), "application/json"), { title: "opens in Perfetto" }));
  const update = ({ position }) => {
    const step = steps.find((each) => each.position === position);
    if (!step) {
      card.nothing("the prompt's positions were read with the first step");
      return card.after.replaceChildren();
    }
    card.svg(draw(view, step), () => table(steps), () => {});
    card.read(`step at position ${position}: ${shown(step.seconds)} s, ${readShown(step)}`);
    return card.after.replaceChildren(overall(steps));
  };
  card.follow(update, ["position"], true);
  return card;
}

/** What was read from the disk, and how much of it from mirrors and on guesses, where there are any */
function readShown({ disk_bytes: disk, mirror_bytes: mirror, guessed_bytes: right, guessed_unused_bytes: wrong }) {
  const of = [...(mirror ? [`${bytesShown(mirror)} of it through mirrors`] : []), ...(right || wrong ? [`${bytesShown(right)} of it on right guesses, ${bytesShown(wrong)} on wrong ones`] : [])];
  return `${bytesShown(disk)} from the disk${of.length ? ` (${of.join(", ")})` : ""}`;
}

/** Lines of io.jsonl, as far as they are in their form */
async function accounts({ blobs, ledger }) {
  const lines = textOf(await bytesOfBlob(blobs.get("io.jsonl") ?? new Blob([]))).split("\n").slice(0, -1);
  const found = [];
  try {
    for (const line of lines) {
      checkAccount(new TextEncoder().encode(line), ledger.steps[found.length]?.position ?? found.length);
      found.push(JSON.parse(line));
    }
  } catch (refusal) {
    if (!(refusal instanceof Refused)) throw refusal;
  }
  return found;
}

const order = (name) => (name === "embedding" ? -1 : name.startsWith("layer ") ? Number(name.slice(6)) : 1e9);
const partsOf = ({ parts }) => [...parts].sort((a, b) => order(a.part) - order(b.part));

function draw(view, step) {
  const ink = view.ink();
  const parts = partsOf(step);
  const row = parts.length > 24 ? 11 : ROW;
  const width = view.width("track");
  const scene = new Scene(width, 26 + row * parts.length + 14);
  const half = (width - LEFT - 60) / 2;
  const most = Math.max(1, ...parts.map((part) => part.disk_bytes + part.cache_bytes));
  const longest = Math.max(1e-9, ...parts.map((part) => part.seconds_waited));
  scene.text({ x: LEFT, y: 14, text: `bytes, up to ${bytesShown(most)}`, fill: ink.soft });
  scene.text({ x: LEFT + half + 40, y: 14, text: `seconds waited, up to ${shown(longest)}`, fill: ink.soft });
  for (const [n, part] of parts.entries()) {
    const y = 24 + n * row;
    const label = `${part.part}: ${bytesShown(part.disk_bytes)} from the disk in ${part.disk_uses} uses, ${bytesShown(part.cache_bytes)} from the cache in ${part.cache_uses}; waited ${shown(part.seconds_waited)} s`;
    const [disk, cached] = [part.disk_bytes, part.cache_bytes].map((bytes) => (bytes / most) * half);
    if (row === ROW || n % 4 === 0) scene.text({ x: LEFT - 8, y: y + row / 2 + 3, text: part.part, anchor: "end", fill: ink.soft });
    scene.rect({ x: LEFT, y: y + 1, w: disk, h: row - 4, fill: ink.positive, label });
    scene.rect({ x: LEFT + disk, y: y + 1, w: cached, h: row - 4, fill: ink.positive, opacity: 0.3, label });
    scene.rect({ x: LEFT + half + 40, y: y + 1, w: (part.seconds_waited / longest) * half, h: row - 4, fill: ink.negative, label });
    scene.rect({ x: LEFT, y, w: width - LEFT, h: row, fill: ink.card, opacity: 0, label });
  }
  return scene;
}

function overall(steps) {
  const sum = (name) => steps.reduce((total, step) => total + step.parts.reduce((all, part) => all + part[name], 0), 0);
  const [cache, hits, misses, waited] = ["cache_bytes", "cache_uses", "disk_uses", "seconds_waited"].map(sum);
  const read = Object.fromEntries(["disk_bytes", "mirror_bytes", "guessed_bytes", "guessed_unused_bytes"].map((name) => [name, steps.reduce((total, step) => total + step[name], 0)]));
  const rate = hits + misses ? hits / (hits + misses) : 0;
  return element("p.quiet", `The whole run: ${readShown(read)}; ${bytesShown(cache)} from the cache, ${shown(100 * rate)} % of ${hits + misses} uses were hits, waited ${shown(waited)} s.`);
}

/** Trace Event Format, complete events: a step after another; inside a step, its waits in the order of the parts, for only their lengths are known */
function traceOf(steps) {
  const events = [];
  let begin = 0;
  for (const step of steps) {
    events.push({ name: `position ${step.position}`, cat: "step", ph: "X", pid: 1, tid: 1, ts: begin * 1e6, dur: step.seconds * 1e6, args: { disk_bytes: step.disk_bytes } });
    let at = begin;
    for (const { part, seconds_waited: waited, ...args } of partsOf(step)) {
      events.push({ name: part, cat: "wait", ph: "X", pid: 1, tid: 2, ts: at * 1e6, dur: waited * 1e6, args });
      at += waited;
    }
    begin += step.seconds;
  }
  return { traceEvents: events, displayTimeUnit: "ms", otherData: { note: "waits are in the order of parts; their starts are not known" } };
}

function table(steps) {
  const names = ["disk_bytes", "disk_uses", "cache_bytes", "cache_uses", "seconds_waited"];
  return { head: ["position", "part", ...names], rows: steps.flatMap((step) => partsOf(step).map((part) => [step.position, part.part, ...names.map((name) => part[name])])) };
}
