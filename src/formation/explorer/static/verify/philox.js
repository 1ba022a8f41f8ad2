// The draws of the contract's rule 8: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011), keyed by seed, branch and position.

const MASK = 0xffffffffn;

export function philox(counter, key) {
  let [c0, c1, c2, c3] = counter.map(BigInt);
  let [k0, k1] = key.map(BigInt);
  for (let round = 0; round < 10; round++) {
    const a = 0xd2511f53n * c0;
    const b = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(b >> 32n) ^ c1 ^ k0, b & MASK, (a >> 32n) ^ c3 ^ k1, a & MASK];
    [k0, k1] = [(k0 + 0x9e3779b9n) & MASK, (k1 + 0xbb67ae85n) & MASK];
  }
  return [c0, c1, c2, c3].map(Number);
}

/** The draw in [0, 1) of a seed and a branch of 64 bits, as BigInt, at a position */
export function uniform(seed, branch, position) {
  const at = BigInt(position);
  const [high, low] = philox([at & MASK, at >> 32n, branch & MASK, branch >> 32n], [seed & MASK, seed >> 32n]);
  return Number(((BigInt(high) << 32n) | BigInt(low)) >> 11n) * 2 ** -53;
}
