// The rules of the choice of a token: the twin of ledger/sampling.py.

import { exp64, log64 } from "./exact64.js";
import { masses } from "./formulas.js";
import { TOLERANCE, fact, same, within } from "./gaps.js";

export const DRAW = "draw";
const ROUNDING = 2 ** -53;
const SUMS = 2 ** -50; // times the vocabulary: what sums of all of it, below 1, may differ by when they run in other orders
const NUMBERS = ["log_sum_exp", "mean", "mean_square"];
const OF_MODEL = {
  tempered_score: "chosen_logit", tempered_log_sum_exp: "log_sum_exp", tempered_mean: "mean_logit", tempered_mean_square: "mean_square_logit",
  tempered_rank_low: "rank_low", tempered_rank_high: "rank_high",
};

export function* ofStep(sampler, head, token, place) {
  if (sampler.method === "greedy") yield fact(DRAW, token === head.top[0], `greedy token in ${place}`);
  if (sampler.method !== "sample") return;
  yield* interval(sampler, place);
  yield* chances(sampler, place);
  yield* bounds(sampler, head, place);
}

/** The draw lies in y's interval; low and high are quotients, so four roundings are allowed */
function* interval({ low, high, draw: u, kept, kept_mass: mass }, place) {
  yield within(DRAW, low, u, high, 4 * ROUNDING, `draw in ${place}`);
  yield fact(DRAW, 0 <= u && u < 1 && 0 <= low && low < high && high <= 1, `interval in ${place}`);
  yield fact(DRAW, 1 <= kept && kept <= place.run.shape.vocabulary && 0 < mass && mass <= 1, `kept in ${place}`);
}

/** The interval is as wide as q is large; q of what is kept is the tempered probability; what is kept and what is cut off are all */
function* chances(sampler, place) {
  const [q, p] = ["sampler", "tempered"].map((name) => exp64(Math.min(sampler[`${name}_logprob`], 1)));
  const { low, high, kept_mass: kept, truncated_mass: cut } = sampler;
  const slack = place.run.shape.vocabulary * SUMS;
  yield within(DRAW, q, high - low, q, slack, `interval and sampler_logprob in ${place}`);
  yield within(DRAW, p, q * kept, p, slack, `sampler_logprob and tempered_logprob in ${place}`);
  yield within(DRAW, 1, kept + cut, 1, slack, `truncated_mass in ${place}`);
  yield fact(DRAW, cut >= 0, `truncated_mass in ${place}`);
}

/** Ranks are the model's, but that a temperature may make two scores one; entropies are those of so many tokens */
function* bounds(sampler, head, place) {
  const { tempered_rank_low: low, tempered_rank_high: high, kept } = sampler;
  const { vocabulary } = place.run.shape;
  const holds = 1 <= low && low <= head.rank_low && head.rank_high <= high && high <= vocabulary && low <= kept;
  yield fact(DRAW, holds, `tempered_rank in ${place}`);
  for (const [prefix, count] of [["tempered", vocabulary], ["sampler", kept]]) {
    const [total, mean, square] = NUMBERS.map((name) => sampler[`${prefix}_${name}`]);
    const tolerance = TOLERANCE * (Math.abs(total) + Math.abs(mean)) + vocabulary * SUMS;
    yield within(DRAW, 0, sampler[`${prefix}_entropy_nats`], log64(Math.max(count, 1)), tolerance, `${prefix}_entropy_nats in ${place}`);
    const spread = sampler[`${prefix}_varentropy`];
    yield within(DRAW, 0, spread, Infinity, TOLERANCE * (square + mean * mean), `${prefix}_varentropy in ${place}`);
  }
}

/** Scores, ranks and masses follow from the largest logits and the temperature, bit for bit, as far as these tell */
export function* ofSettings(rule, { temperature }, sampler, head, vocabulary, where) {
  const plain = [head.chosen_logit, ...head.top_logits];
  const centred = over(plain, head.top_logits[0], temperature);
  const tempered = temperature === 1 ? plain : centred;
  const left = sampler.kept === vocabulary ? tempered : centred;
  for (const [prefix, [own, ...others]] of [["tempered", tempered], ["sampler", left]]) {
    yield same(rule, [own], [sampler[`${prefix}_score`]], `${where}: ${prefix}_score`);
    const shown = prefix === "sampler" ? others.slice(0, sampler.kept) : others;
    yield same(rule, masses(shown, sampler[`${prefix}_log_sum_exp`]), sampler[`${prefix}_top_masses`], `${where}: ${prefix}_top_masses`);
  }
  yield ranks(rule, tempered, sampler, vocabulary, where);
  if (temperature === 1) {
    const [model, found] = [Object.values(OF_MODEL).map((name) => head[name]), Object.keys(OF_MODEL).map((name) => sampler[name])];
    yield same(rule, model, found, `${where}: tempered at temperature 1`);
  }
  if (sampler.kept === vocabulary) {
    const [all, kept] = ["tempered", "sampler"].map((prefix) => NUMBERS.map((name) => sampler[`${prefix}_${name}`]));
    yield same(rule, [...all, 0], [...kept, sampler.truncated_mass], `${where}: sampler, with nothing cut off`);
  }
}

/** The scores are y's and the largest ones */
function ranks(rule, [own, ...largest], { tempered_rank_low: low, tempered_rank_high: high }, vocabulary, where) {
  const larger = largest.filter((x) => x > own).length;
  const least = largest.filter((x) => x >= own).length;
  const told = own > largest.at(-1) || largest.length === vocabulary;
  return fact(rule, told ? low === 1 + larger && high === least : low > larger && high >= least, `${where}: tempered_rank`);
}

/** z / T less the largest: 0 where they are equal, as both may be infinite */
function over(logits, largest, temperature) {
  const top = largest / temperature;
  return logits.map((z) => (z / temperature === top ? 0 : z / temperature - top));
}
