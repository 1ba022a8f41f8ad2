// Merkle trees of RFC 9162, section 2.1: the twin of ledger/merkle.py, without the making of proofs.

import { equal, hex } from "./bytes.js";
import { ProofRefusal } from "./refusals.js";
import { sha256 } from "./sha256.js";

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);
export const HASH_BYTES = 32;

export const leafHash = (data) => sha256(LEAF, data);
export const nodeHash = (left, right) => sha256(NODE, left, right);

/** A growing tree: its size, and the roots of its whole subtrees, one for each set bit of the size, largest first. */
export class Tree {
  constructor() {
    this.size = 0;
    this.roots = [];
  }

  append(leaf) {
    for (let ones = this.size; ones % 2; ones = Math.floor(ones / 2)) leaf = nodeHash(this.roots.pop(), leaf);
    this.roots.push(leaf);
    this.size++;
  }

  root() {
    if (!this.roots.length) return sha256();
    return this.roots.reduceRight((total, left) => nodeHash(left, total));
  }
}

export function rootOf(leaves) {
  const tree = new Tree();
  for (const leaf of leaves) tree.append(leaf);
  return tree.root();
}

/** That `leaf`, a leaf hash, is number `index` of the `size` leaves under `root` (RFC 9162, 2.1.3.2). Sizes lie below 2^53. */
export function verifyInclusion(leaf, index, size, path, root) {
  checkHashes(leaf, root, ...path);
  if (!(0 <= index && index < size)) throw new ProofRefusal(`expected a leaf below ${size}, got ${index}`);
  let place = { at: BigInt(index), last: BigInt(size) - 1n, total: leaf };
  for (const sibling of path) {
    if (!place.last) throw new ProofRefusal(`expected a shorter path for ${size} leaves, got ${path.length} hashes`);
    place = climb(place, sibling);
  }
  if (place.last) throw new ProofRefusal(`expected a longer path for ${size} leaves, got ${path.length} hashes`);
  if (!equal(place.total, root)) throw new ProofRefusal(`expected root ${hex(root)}, got ${hex(place.total)}`);
}

/** One hash of a path: the node's number and the last one's on the level above, the hash there, whether the sibling was on the left */
function climb({ at, last, total }, sibling) {
  const onLeft = at % 2n === 1n || at === last;
  if (!onLeft) return { at: at / 2n, last: last / 2n, total: nodeHash(total, sibling), onLeft };
  while (at && at % 2n === 0n) [at, last] = [at / 2n, last / 2n]; // a right edge without sibling rises unchanged
  return { at: at / 2n, last: last / 2n, total: nodeHash(sibling, total), onLeft };
}

/** That the `old` leaves under `oldRoot` are the first of the `size` under `root` (RFC 9162, 2.1.4.2). */
export function verifyConsistency(old, size, oldRoot, root, path) {
  checkHashes(oldRoot, root, ...path);
  if (!(0 < old && old <= size)) throw new ProofRefusal(`expected an older size from 1 to ${size}, got ${old}`);
  if (old === size) return verifySame(oldRoot, root, path);
  const isPower = (BigInt(old) & (BigInt(old) - 1n)) === 0n;
  const [first, ...hashes] = isPower ? [oldRoot, ...path] : path;
  if (!hashes.length) throw new ProofRefusal(`expected a path from ${old} to ${size} leaves, got ${path.length} hashes`);
  let place = { at: BigInt(old) - 1n, last: BigInt(size) - 1n, total: first };
  while (place.at % 2n) place = { ...place, at: place.at / 2n, last: place.last / 2n };
  let older = first;
  for (const sibling of hashes) {
    if (!place.last) throw new ProofRefusal(`expected a shorter path from ${old} to ${size} leaves, got ${path.length} hashes`);
    place = climb(place, sibling);
    older = place.onLeft ? nodeHash(sibling, older) : older;
  }
  if (place.last || !equal(older, oldRoot) || !equal(place.total, root)) {
    throw new ProofRefusal(`expected roots ${hex(oldRoot)} and ${hex(root)}, got ${hex(older)} and ${hex(place.total)}`);
  }
}

function verifySame(oldRoot, root, path) {
  if (path.length || !equal(oldRoot, root)) {
    throw new ProofRefusal(`expected an empty path and root ${hex(oldRoot)}, got ${path.length} hashes and root ${hex(root)}`);
  }
}

function checkHashes(...hashes) {
  for (const found of hashes) {
    if (found.length !== HASH_BYTES) throw new ProofRefusal(`expected hashes of ${HASH_BYTES} bytes, got ${found.length}`);
  }
}
