// What a ledger must share with its anchor: the twin of evidence/run_facts.py.

import { fact } from "./gaps.js";
import { uniform } from "./philox.js";
import { ofSettings } from "./sampling.js";

export const INPUTS = "inputs";
export const SAMPLER = "sampler";

/** Follows a run position by position. Holds one digest and one spelling for each id that occurred. */
export class RunFacts {
  constructor(anchor, run) {
    Object.assign(this, { anchor, run, steps: 0, ended: anchor.tokens === 0 });
    this.rows = new Map(); // id -> digest of its embedding's row
    this.spellings = new Map();
    this.input = anchor.promptIds[0];
  }

  /** Of each position, as far as the tokens so far say: the run ends with a stop id, or with as many tokens as the anchor allows */
  *kinds() {
    const { steps, stepKind } = this.anchor;
    for (let position = 0; position < steps.first || !this.ended; position++) yield steps.has(position) ? stepKind(position) : "prompt";
  }

  *ofAnchor() {
    const size = this.run.shape.vocabulary;
    const strange = this.anchor.promptIds.find((id) => id >= size);
    yield fact(INPUTS, strange === undefined, strange === undefined ? "prompt ids" : `prompt id ${strange} of a vocabulary of ${size}`);
  }

  *ofPosition(lines) {
    const bySlot = Object.fromEntries(lines.map(({ place, values }) => [place.slot, values]));
    const { position } = lines[0].place;
    const input = this.anchor.promptIds[position] ?? this.input;
    yield same(this.rows, input, bySlot.embed.residual_sha256, `embedding's row at position ${position}`);
    if (!bySlot.token) return;
    const { id, bytes } = bySlot.token;
    yield same(this.spellings, id, bytes, `spelling of the token at position ${position}`);
    yield* this.choice(bySlot.sampler, bySlot.lm_head, id, position);
    this.input = id;
    this.steps++;
    this.ended = this.steps === this.anchor.tokens || this.anchor.stopIds.includes(id);
  }

  *choice(sampler, head, token, position) {
    const wanted = this.anchor.sampler;
    const where = `sampler at position ${position}`;
    const due = this.anchor.given(position);
    const method = due === undefined || this.anchor.scores ? wanted.method : "forced";
    yield fact(SAMPLER, sampler.method === method, `${where}: expected ${method}, got ${sampler.method}`);
    if (due !== undefined) {
      yield fact(SAMPLER, token === due, `token at position ${position}: expected id ${due}, which is given, got ${token}`);
    }
    if (sampler.method !== "sample" || wanted.method !== "sample") return;
    const draw = uniform(BigInt(wanted.seed), BigInt(wanted.branch), position + 1);
    yield fact(SAMPLER, sampler.draw === draw, `${where}: expected the draw ${draw}, got ${sampler.draw}`);
    yield fact(SAMPLER, !wanted.top_k || sampler.kept <= wanted.top_k, `${where}: more kept than top_k ${wanted.top_k}`);
    const unfiltered = wanted.top_k === 0 && wanted.top_p === 1 && wanted.min_p === 0;
    yield fact(SAMPLER, !unfiltered || sampler.kept_mass === 1, `${where}: less than everything kept, without a filter`);
    yield* ofSettings(SAMPLER, wanted, sampler, head, this.run.shape.vocabulary, where);
  }
}

/** The same id has the same value wherever it occurs */
function same(known, token, value, where) {
  if (!known.has(token)) known.set(token, value);
  return fact(INPUTS, known.get(token) === value, `${where}: id ${token} had another before`);
}
