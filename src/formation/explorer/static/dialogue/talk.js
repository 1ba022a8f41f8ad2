// A dialogue as the page has it: its messages, and one row for each token, whichever file they came from.
//
//   messages  { number, side, text, reason, tokens: [first, behind], begin }: rows `first` to `behind` are its own; reason is why its turn ended
//   tokens    { n, message, index, side, method, id, bytes, text, begin, end, ends, line, … }: `message` is a place in messages, begin and end are
//             characters (code points) of the message's text, `ends` is whether it ends the turn and spells nothing of the text; the numbers that
//             views draw are beside them, NaN where there is none (values.js says why)

import { fromBase64 } from "../verify/bytes.js";

/** The characters that are complete with each of these tokens, so that one in three tokens stands once; what is no UTF-8 is U+FFFD, as in the log. */
export function spelled(tokens) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let at = 0;
  for (const token of tokens) {
    token.text = decoder.decode(fromBase64(token.bytes), { stream: true });
    token.begin = at;
    token.end = at += lengthOf(token.text);
  }
  const rest = decoder.decode();
  const last = tokens.at(-1);
  if (last && rest) Object.assign(last, { text: last.text + rest, end: last.end + lengthOf(rest) });
  return tokens.map(({ text }) => text).join("");
}

/** In code points, which is how files count characters */
export const lengthOf = (text) => {
  let length = 0;
  for (const _ of text) length++;
  return length;
};

export const sliceOf = (text, begin, end) => [...text].slice(begin, end).join("");

export class Talk {
  constructor(kind) {
    Object.assign(this, { kind, names: ["A", "B"], sides: [], messages: [], tokens: [], faults: [], end: null, stops: [], kickoff: null, summary: null, broken: "", lines: 0 });
  }

  /** A message with its rows, which get their places */
  add({ number, side, reason, said }, isEnd) {
    const first = this.tokens.length;
    const last = said.at(-1);
    const ends = Boolean(last && isEnd(last));
    if (ends) last.ends = true;
    const text = spelled(ends ? said.slice(0, -1) : said);
    if (ends) Object.assign(last, { text: new TextDecoder("utf-8", { ignoreBOM: true }).decode(fromBase64(last.bytes)), begin: lengthOf(text) });
    if (ends) last.end = last.begin;
    for (const [index, token] of said.entries()) {
      Object.assign(token, { n: first + index, message: this.messages.length, side });
      this.tokens.push(token);
    }
    this.messages.push({ number, side, reason, text, tokens: [first, this.tokens.length] });
  }

  tokensOf(message) {
    return this.tokens.slice(...message.tokens);
  }

  /** The message of this number; undefined if there is none */
  byNumber(number) {
    return this.messages.find((message) => message.number === number);
  }

  /** Rows that spell characters begin to end of a message */
  within(message, begin, end) {
    return this.tokensOf(message).filter((token) => !token.ends && token.begin < end && token.end > begin);
  }
}
