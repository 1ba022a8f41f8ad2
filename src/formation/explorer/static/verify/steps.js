// Which positions of a run are steps: the twin of ledger/steps.py.

/** `spans` of positions are ascending [begin, end) and apart; the run ends with its last step. */
export class Steps {
  constructor(spans) {
    Object.assign(this, { spans, first: spans[0][0], positions: spans.at(-1)[1] });
  }

  has(position) {
    return this.spans.some(([begin, end]) => begin <= position && position < end);
  }

  /** Of the steps one after the other; behind the last, of positions that are none */
  *all() {
    for (const [begin, end] of this.spans) for (let position = begin; position < end; position++) yield position;
    for (let position = this.positions; ; position++) yield position;
  }
}

/** Of a run that scores these spans of its ids */
export const scoredSteps = (spans) => new Steps(spans.map(([begin, end]) => [begin - 1, end - 1]));

/** After a prompt of so many ids */
export const generatedSteps = (prompt, tokens) => new Steps([[prompt - 1, prompt - 1 + tokens]]);

/** Why these are no spans of so many ids, each whole, the last at their end; empty if they are */
export function spansProblem(spans, ids) {
  if (!spans.length) return "expected at least one span of scored ids, got none";
  let after = 0;
  for (const [begin, end] of spans) {
    if (!(after < begin && begin < end && end <= ids)) {
      return `expected ascending spans of ids from 1 to ${ids}, apart from each other, got ${begin} to ${end}`;
    }
    after = end;
  }
  return after === ids ? "" : `expected the last span to end with the last of ${ids} ids, got an end at ${after}`;
}
