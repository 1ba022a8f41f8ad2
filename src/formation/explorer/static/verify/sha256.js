// SHA-256 (FIPS 180-4), synchronous and in pieces: WebCrypto's is asynchronous and wants all bytes at once, which neither a million
// short leaves nor a file of gigabytes can give.

const K = new Uint32Array(64);
const START = new Uint32Array(8);
const W = new Int32Array(64);

/** The first 32 bits of the fractional parts of roots of the first primes, exact in integers. */
function fill() {
  const primes = [];
  for (let n = 2n; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  primes.forEach((p, i) => (K[i] = Number(root(p << 96n, 3n) & 0xffffffffn)));
  primes.slice(0, 8).forEach((p, i) => (START[i] = Number(root(p << 64n, 2n) & 0xffffffffn)));
}

/** The largest r with r^degree <= n */
function root(n, degree) {
  let r = 0n;
  for (let bit = 1n << 40n; bit; bit >>= 1n) if ((r + bit) ** degree <= n) r += bit;
  return r;
}

fill();

function block(h, data, at) {
  for (let t = 0; t < 16; t++, at += 4) W[t] = (data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3];
  for (let t = 16; t < 64; t++) {
    const x = W[t - 15], y = W[t - 2];
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    W[t] = (W[t - 16] + s0 + W[t - 7] + s1) | 0;
  }
  let a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], i = h[7];
  for (let t = 0; t < 64; t++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const t1 = (i + s1 + ((e & f) ^ (~e & g)) + K[t] + W[t]) | 0;
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    i = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
  }
  h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e; h[5] += f; h[6] += g; h[7] += i;
}

export class Sha256 {
  constructor() {
    this.h = Int32Array.from(START);
    this.rest = new Uint8Array(64);
    this.held = 0;
    this.size = 0;
  }

  update(data) {
    this.size += data.length;
    let at = 0;
    if (this.held) {
      at = Math.min(64 - this.held, data.length);
      this.rest.set(data.subarray(0, at), this.held);
      this.held += at;
      if (this.held < 64) return this;
      block(this.h, this.rest, 0);
    }
    for (; at + 64 <= data.length; at += 64) block(this.h, data, at);
    this.rest.set(data.subarray(at));
    this.held = data.length - at;
    return this;
  }

  digest() {
    const bits = this.size * 8;
    const tail = new Uint8Array(this.held < 56 ? 64 : 128);
    tail.set(this.rest.subarray(0, this.held));
    tail[this.held] = 0x80;
    const view = new DataView(tail.buffer);
    view.setUint32(tail.length - 8, Math.floor(bits / 2 ** 32));
    view.setUint32(tail.length - 4, bits >>> 0);
    for (let at = 0; at < tail.length; at += 64) block(this.h, tail, at);
    const out = new DataView(new ArrayBuffer(32));
    this.h.forEach((word, n) => out.setInt32(4 * n, word));
    return new Uint8Array(out.buffer);
  }
}

const SHORT = 55 + 64 * 15; // bytes, which fit into the scratch with what is added to them
const SCRATCH = new Uint8Array(64 * 16);
const H = new Int32Array(8);

export function sha256(...parts) {
  const size = parts.reduce((total, part) => total + part.length, 0);
  return size > SHORT ? parts.reduce((state, part) => state.update(part), new Sha256()).digest() : ofShort(parts, size);
}

/** The same without a state of its own: trees have hundreds of thousands of short leaves. */
function ofShort(parts, size) {
  const end = 64 * Math.ceil((size + 9) / 64);
  SCRATCH.fill(0, size & ~63, end);
  let at = 0;
  for (const part of parts) {
    SCRATCH.set(part, at);
    at += part.length;
  }
  SCRATCH[size] = 0x80;
  for (let n = 1, bits = 8 * size; bits; n++, bits >>>= 8) SCRATCH[end - n] = bits & 255;
  H.set(START);
  for (at = 0; at < end; at += 64) block(H, SCRATCH, at);
  const out = new Uint8Array(32);
  for (let n = 0; n < 32; n++) out[n] = H[n >> 2] >>> (24 - 8 * (n & 3));
  return out;
}
