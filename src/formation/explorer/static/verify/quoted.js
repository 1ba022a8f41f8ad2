// Hostile values in sentences: as ASCII, without control characters, cut short, and as Python's `ascii` has them, so that both verifiers say
// the same words.

const SHORT = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" };

export const quoted = (value) => ascii(value).slice(0, 60);

export function ascii(value) {
  if (typeof value === "string") return asciiText(value);
  if (typeof value === "number") return asciiNumber(value);
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(ascii).join(", ")}]`;
  return `{${Object.keys(value).sort().map((name) => `${asciiText(name)}: ${ascii(value[name])}`).join(", ")}}`;
}

function asciiText(text) {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let shown = "";
  for (const character of text) shown += character === quote ? `\\${quote}` : (SHORT[character] ?? asciiCharacter(character));
  return quote + shown + quote;
}

function asciiCharacter(character) {
  const code = character.codePointAt(0);
  if (code >= 32 && code < 127) return character;
  const digits = code.toString(16);
  return code < 256 ? `\\x${digits.padStart(2, "0")}` : code < 65536 ? `\\u${digits.padStart(4, "0")}` : `\\U${digits.padStart(8, "0")}`;
}

/** Python writes numbers below 0.0001 with an exponent of two digits. */
function asciiNumber(x) {
  if (!x || Math.abs(x) >= 1e-4) return String(x);
  const [mantissa, exponent] = x.toExponential().split("e-");
  return `${mantissa}e-${exponent.padStart(2, "0")}`;
}

/** As Python names types of JSON values */
export function typeName(value) {
  if (value === null || value === undefined) return "NoneType";
  if (Array.isArray(value)) return "list";
  if (typeof value === "number") return Number.isInteger(value) ? "int" : "float";
  return { string: "str", boolean: "bool", object: "dict" }[typeof value];
}
