// A token's text as marks that can do nothing: what is invisible stands out, and what is part of a character says so.

import { fromBase64, hex } from "../verify/bytes.js";
import { element, inert } from "../verify/elements.js";
import { part } from "../explore/parts.js";

const PIECES = /(\n|[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}])/u;

/** `isLong`: where line feeds may break the line */
export function marked(token, isLong = false) {
  if (token.ends) return [element("span.ends-turn", token.text || "∅")];
  if (!token.text) return [part("span.control", {}, token.bytes ? "·" : "∅")];
  return token.text.split(PIECES).filter(Boolean).flatMap((piece) => {
    if (piece === "\n") return [part("span.control", {}, "↵"), ...(isLong ? [document.createTextNode("\n")] : [])];
    const safe = inert(piece);
    return [safe === piece ? document.createTextNode(piece) : element("span.control", piece)];
  });
}

/** One line of text for labels and tables */
export function plain({ text, bytes, ends }) {
  if (ends) return `${text || "∅"} (ends the turn)`;
  if (!text) return bytes ? `part of a character, bytes ${hexOf(bytes)}` : "∅";
  return text;
}

export const hexOf = (bytes) => hex(fromBase64(bytes)).replace(/..(?=.)/g, "$& ");
