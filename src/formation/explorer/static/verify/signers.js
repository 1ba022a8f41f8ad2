// Whose keys the reader knows, from the text they typed: lines of known_signers (NAME KEY), and keys or fingerprints alone.

import { PublicKey } from "./keys.js";
import { quoted } from "./quoted.js";
import { Refused } from "./refusals.js";

/** Fingerprint -> how the key is known. Throws Refused, checks `known-signers` and `key`. */
export function readSigners(text) {
  const signers = new Map();
  const names = new Set();
  for (const [n, line] of text.split("\n").map((each) => each.trim()).entries()) {
    if (!line || line.startsWith("#")) continue;
    const { name, fingerprint } = signerOf(line, `signers, line ${n + 1}`);
    if (signers.has(fingerprint) || (name && names.has(name))) {
      throw new Refused("known-signers", `signers, line ${n + 1}: expected each name and each key once, got one again`);
    }
    names.add(name);
    signers.set(fingerprint, name ? `known to you as ${name}` : "given by you");
  }
  return signers;
}

function signerOf(line, where) {
  const [key, name = "", ...more] = line.split(" ").reverse();
  if (more.length) throw new Refused("known-signers", `${where}: expected NAME KEY with one space, or KEY, got ${quoted(line)}`);
  return { name, fingerprint: /^sha256:[0-9a-f]{64}$/.test(key) ? key : PublicKey.read(key).fingerprint };
}
