// One pass over ledger.jsonl, and beside it over rows/ and router/: the twin of evidence/ledger_pass.py.

import { utf8 } from "./bytes.js";
import { LINE, decode, has, isObject } from "./canonical.js";
import { wholeLines } from "./container.js";
import { INPUTS, RunFacts, SAMPLER } from "./facts.js";
import { Tally, fact } from "./gaps.js";
import { Tree, leafHash } from "./merkle.js";
import { CanonicalRefusal } from "./refusals.js";
import { ALL_EXPERTS } from "./routing.js";
import { ADDITION, CENSUS, RULES, Reader, firstLine, ofLines, positions } from "./rules.js";
import { Sha256 } from "./sha256.js";
import { ROWS } from "./sidecars.js";

const RUN = "run";
const ALL_RULES = [RUN, ...RULES, INPUTS, SAMPLER, ROWS, ADDITION, ALL_EXPERTS];
const LF = utf8("\n");

/** What the pass found. `broken` says why the lines end before the file does; then the rules speak of the lines before. `progress` is told the
 * bytes read so far, and waited for. */
export async function readLedger(blob, anchor, sidecars, progress = () => {}) {
  const found = { positions: 0, steps: 0, layers: 0 };
  const tally = new Tally(ALL_RULES);
  const whole = [];
  let hasRefused = false;
  const reader = new Reader(reading(anchor, tally, found, whole), (refusal) => {
    hasRefused = true;
    tally.take([fact(found.layers ? CENSUS : RUN, false, refusal.message)]);
  });
  const settle = async () => {
    while (whole.length) tally.take(await sidecars.ofPosition(whole.shift()));
  };
  const lines = new Lines(anchor.runId);
  for await (const data of wholeLines(blob, LINE.sizeBytes)) {
    const line = lines.take(data);
    if (line === undefined) break;
    reader.push(line);
    await settle();
    await progress(lines.bytes);
  }
  reader.end();
  if (!hasRefused) tally.take(await sidecars.atEnd(found.positions));
  lines.finish(found, blob.size);
  tally.take([fact(RUN, !lines.foreign, lines.foreign || `${found.lines} lines of run ${anchor.runId}`)]);
  found.results = new Map(tally.results().map((result) => [result.rule, result]));
  found.cells = found.positions * found.layers;
  return found;
}

/** Takes a line at each yield; whole positions go to `whole`, for the sidecars */
function* reading(anchor, tally, found, whole) {
  const run = firstLine(yield, tally);
  found.layers = run.shape.layers;
  const facts = new RunFacts(anchor, run);
  tally.take(facts.ofAnchor());
  yield* positions(run, facts.kinds(), tally, (group) => {
    found.positions++;
    tally.take(ofLines(group));
    tally.take(facts.ofPosition(group));
    found.steps = facts.steps;
    whole.push(group);
  });
}

/** The lines of a file, decoded and digested. */
class Lines {
  constructor(runId) {
    Object.assign(this, { runId, whole: new Sha256(), tree: new Tree(), bytes: 0, broken: "", foreign: "" });
  }

  /** The value of one line, undefined if it is none */
  take(data) {
    this.whole.update(data).update(LF);
    this.bytes += data.length + 1;
    this.tree.append(leafHash(data));
    try {
      const line = decode(data, LINE);
      if (!this.foreign && !(isObject(line) && has(line, "run_id") && line.run_id === this.runId)) {
        this.foreign = `line ${this.tree.size}: expected run_id ${this.runId}, got another`;
      }
      return line;
    } catch (refusal) {
      if (!(refusal instanceof CanonicalRefusal)) throw refusal;
      this.broken = `line ${this.tree.size}: ${refusal.message}`;
      return undefined;
    }
  }

  /** After the last line: nothing lies behind it */
  finish(found, sizeBytes) {
    if (!this.broken && (this.bytes !== sizeBytes || !sizeBytes)) {
      this.broken = `expected lines of at most ${LINE.sizeBytes} bytes that end in LF, got another after line ${this.tree.size}`;
    }
    Object.assign(found, { sha256: this.whole.digest(), lines: this.tree.size, root: this.tree.root(), broken: this.broken });
  }
}
