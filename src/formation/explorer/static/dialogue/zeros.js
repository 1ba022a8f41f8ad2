// What it means that a probability is called zero, in words: the kinds of ledger/zero.py.

const WORDS = {
  POSITIVE: "it is not zero",
  UNDERFLOW: "positive, but this dtype prints it as 0 while its logarithm is finite",
  MASKED: "an edit of the logits put the token out",
  TRUNCATED: "a filter of the sampler cut the token off; the model's own probability is positive",
  NO_SUCH_TOKEN: "the vocabulary has no such id, or the tokenizer no such single token",
  UNREACHABLE_BY_TOKENIZER: "its own text is not encoded to it: the model can say it, nobody can type it",
  UNSELECTABLE_BY_RNG: "its interval is so small that none of the 2^53 draws falls into it",
  BELOW_REPORT: "the server reported the most likely tokens only: a bound, not a value",
  SENTINEL: "the server's way to say that it has no value; no probability at all",
  NONFINITE: "not a number, or an infinity",
};

/** "KIND(detail)" as { kind, detail, words } */
export function zeroOf(text) {
  const [, kind, , detail = ""] = /^([A-Z_0-9]+)(\((.*)\))?$/s.exec(text) ?? [null, text, "", ""];
  return { kind, detail, words: WORDS[kind] ?? "a kind that this page does not know" };
}

export const zeroWords = (text) => {
  const { kind, detail, words } = zeroOf(text);
  return kind === "POSITIVE" ? "POSITIVE: it is not zero" : `${kind}${detail ? ` (${detail})` : ""}: ${words}`;
};
