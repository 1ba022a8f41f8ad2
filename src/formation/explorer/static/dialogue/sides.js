// Who spoke: under which model, template and context, drawn how. What is measured of a token holds under these, and says nothing of others.

import { element, facts } from "../verify/elements.js";
import { Card } from "../explore/card.js";
import { shown } from "../explore/parts.js";
import { isAbsent } from "./form.js";

const SENTENCE = "Every number of this page is under model M, template F and context C: those of the side that said the token, as the first event has them.";

export function sides(view) {
  const { talk } = view;
  const card = new Card(view, "sides", "Who spoke", SENTENCE);
  const all = talk.sides.map(factsOf);
  card.keep(null, () => ({ head: ["fact", ...talk.names], rows: Object.keys(all[0] ?? {}).map((name) => [name, ...all.map((each) => each[name])]) }));
  const kickoff = talk.kickoff && element("p", `The first to speak was ${talk.names[talk.head.first]}, given `, ...(talk.kickoff.how === "text" ? ["the kick-off ", element("q.value", talk.kickoff.text)] : [talk.kickoff.how === "empty" ? "an empty message" : "its template alone"]), ".");
  card.put(element("div", ...(kickoff ? [kickoff] : []), element("div.two-sides", ...all.map((each, n) => element("div", element("h3", talk.names[n]), facts(each))))));
  return card;
}

const word = (value) => (isAbsent(value) ? `absent: ${value.absent}` : String(value));

function factsOf(side) {
  const { source, model, checkpoint_sha256: checkpoint, template_sha256: template, url, system, thinking, today, context, most_tokens: most, stop_ids: stop } = side;
  return {
    speaks: source, model, checkpoint: word(checkpoint), template: word(template), server: word(url), "system prompt": system || "none", thinking: word(thinking),
    "the day": word(today), context: context.policy === "full" ? "all of the dialogue" : `${context.policy}, ${context.limit}`, sampler: samplerOf(side.sampler), edits: editsOf(side.edits),
    "most tokens of a turn": most, "ids that end a turn": stop.join(", ") || "none",
    ...(isAbsent(side.capabilities) ? {} : { probed: side.capabilities.map(({ what, found }) => `${what}: ${found}`).join("; ") || "nothing" }),
  };
}

function samplerOf({ method, temperature, top_k: k, top_p: p, min_p: low, seed, branch }) {
  if (method === "greedy") return "greedy";
  const filters = [...(k ? [`top-k ${k}`] : []), ...(p < 1 ? [`top-p ${shown(p)}`] : []), ...(low ? [`min-p ${shown(low)}`] : [])];
  return [`temperature ${shown(temperature)}`, ...filters, `seed ${seed}`, ...(branch === "0" ? [] : [`branch ${branch}`])].join(", ");
}

function editsOf({ repetition, presence, frequency, bias, masks }) {
  const found = [...(repetition === 1 ? [] : [`repetition ${repetition}`]), ...(presence ? [`presence ${presence}`] : []), ...(frequency ? [`frequency ${frequency}`] : []),
    ...(bias.length ? [`bias of ${bias.length} ids`] : []), ...masks.map(({ rule, allow, ids }) => `mask “${rule}” ${allow ? "allows" : "puts out"} ${ids.length} ids`)];
  return found.join(", ") || "none";
}
