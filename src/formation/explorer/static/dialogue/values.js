// What a token can be coloured by: each a number of its row, or the reason why there is none.

import { colourAt, palette } from "../explore/palette.js";
import { zeroOf, zeroWords } from "./zeros.js";

const FROM_SERVER = "a server said this token: it gives no such number";
const FROM_TRANSCRIPT = "scored from a transcript: nothing was sampled here";

const NO_VALUE = ["BELOW_REPORT", "SENTINEL", "NONFINITE"]; // kinds from which nothing about a probability follows

const noNumber = ({ source, method }) => (source === "reported" ? FROM_SERVER : method === "scored" ? FROM_TRANSCRIPT : "the token has no probability there");
const noSurprisal = ({ source, zero }) => (source !== "reported" ? "the token has no probability there" : zero ? `the server's number is none: ${zeroOf(zero).words}` : "the server gave no number");

const kindOf = ({ zero }) => (!zero || NO_VALUE.includes(zeroOf(zero).kind) ? NaN : zero === "POSITIVE" ? 0 : 1);

function noKind({ zero, source }) {
  if (zero) return zeroWords(zero);
  return source === "reported" ? "the server gave no number" : "scored: only the model's distribution was there, and a softmax over finite logits is never zero";
}

/** scale: of the colours; most: its end, if that is fixed; least: its end is there or higher, so that few tokens are beyond it; of: the number of a row;
 * why: the reason where there is none */
export const VALUES = [
  {
    name: "surprisal", title: "Surprisal, bits", unit: "bits", scale: "heat", least: 12,
    formula: "−log₂ p(y), p the softmax of the model's raw logits",
    tag: "measured", of: (t) => t.surprisal, why: noSurprisal,
  },
  {
    name: "entropy", title: "Entropy, bits", unit: "bits", scale: "size", most: null,
    formula: "H(p) = −Σ p log₂ p of the model's distribution, before the token was chosen",
    tag: "measured in nats, over ln 2 here", of: (t) => t.entropy, why: noNumber,
  },
  {
    name: "excess", title: "Surprisal less entropy", unit: "bits", scale: "signed", most: 8,
    formula: "−log₂ p(y) − H(p): above 0, more surprising than the model expected of itself",
    tag: "derived here", of: (t) => t.surprisal - t.entropy, why: noNumber,
  },
  {
    name: "rank", title: "Rank", unit: "", scale: "rank", most: null,
    formula: "1 + #{v : p(v) > p(y)}; 1 is the likeliest token",
    tag: "measured", of: (t) => t.rank, why: noNumber,
  },
  {
    name: "lift", title: "Sampler over model", unit: "bits", scale: "signed", most: 4,
    formula: "log₂ q(y) − log₂ p(y): how far temperature and filters lifted the token (above 0) or lowered it",
    tag: "derived here", of: (t) => t.surprisal - t.q, why: noNumber,
  },
  {
    name: "truncated", title: "Truncated mass", unit: "of 1", scale: "size", most: 1,
    formula: "tempered probability of the tokens that top-k, top-p and min-p cut off",
    tag: "measured", of: (t) => t.truncated, why: noNumber,
  },
  {
    name: "zero", title: "Zero kind", unit: "", scale: "kinds", most: null,
    formula: "whether the token's probability is called zero under any of the distributions, and in which sense",
    tag: "measured", of: kindOf, why: noKind,
  },
  {
    name: "kl", title: "KL, nats", unit: "nats", scale: "size", most: null,
    formula: "KL(p ‖ r) = Σ p (ln p − ln r), r as the file names it",
    tag: "measured", of: (t) => t.kl ?? NaN, why: () => "this file has none",
  },
  {
    name: "chance", title: "Chance of the event", unit: "of 1", scale: "size", most: 1,
    formula: "probability that the next token is one of the event's",
    tag: "measured", of: (t) => t.chance, why: (t) => (t.method === "scored" ? "not scored" : "an event is asked for when a transcript is scored"),
  },
];

/** Those of which this dialogue has a number */
export const valuesOf = (talk) => VALUES.filter(({ name, of }) => name === "surprisal" || talk.tokens.some((token) => !Number.isNaN(of(token))));

export const valueOf = (name, known = VALUES) => known.find((each) => each.name === name) ?? known[0];

/** { colour(x), ends, note, scale } for a value over these tokens */
export function scaleOf(value, tokens) {
  const most = value.most ?? (value.least ? Math.max(value.least, most98(tokens, value)) : largest(tokens, value));
  const logs = Math.log(Math.max(most, 2));
  const end = Number(most.toPrecision(3));
  if (value.scale === "rank") return { scale: "heat", ends: ["1", String(end)], note: "logarithmic", colour: (x) => colourAt("heat", Math.log(x) / logs) };
  if (value.scale === "signed") return { scale: "signed", ends: [`−${end}`, `+${end}`], note: "and more", colour: (x) => colourAt("signed", 0.5 + x / most / 2) };
  if (value.scale === "kinds") return { scale: "kinds", ends: ["positive", "called zero"], note: "", colour: (x) => (x ? palette().negative : colourAt("heat", 0)) };
  return { scale: value.scale, ends: ["0", String(end)], note: value.most > 1 || value.least ? "and more" : "", colour: (x) => colourAt(value.scale, x / most) };
}

/** What all but two of a hundred tokens are below, a multiple of 4 */
function most98(tokens, { of }) {
  const sorted = Float64Array.from(tokens.map(of).filter((x) => !Number.isNaN(x))).sort();
  return sorted.length ? 4 * Math.ceil(sorted[Math.floor(0.98 * (sorted.length - 1))] / 4) : 0;
}

function largest(tokens, { of }) {
  let found = 0;
  for (const token of tokens) if (of(token) > found) found = of(token);
  return found || 1;
}
