// Elements whose content is text and nothing else: whatever a bundle says is shown, never read as markup.

const INVISIBLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Text in which everything invisible is spelled out, so that it can neither hide nor turn round; line feeds stay if `lines`. */
export function inert(text, lines = false) {
  return String(text).replace(INVISIBLE, (c) => (lines && c === "\n" ? c : `\\u{${c.codePointAt(0).toString(16)}}`));
}

/** `kind` as "tag.class.class"; children are elements, or anything else as inert text */
export function element(kind, ...children) {
  const [tag, ...classes] = kind.split(".");
  const made = document.createElement(tag);
  if (classes.length) made.className = classes.join(" ");
  made.append(...children.map((child) => (child instanceof Node ? child : inert(child, tag === "pre"))));
  return made;
}

/** A list of names and values; values as they are in files */
export function facts(table) {
  const rows = Object.entries(table).flatMap(([name, value]) => [element("dt", name), element("dd.value", value)]);
  return element("dl", ...rows);
}
