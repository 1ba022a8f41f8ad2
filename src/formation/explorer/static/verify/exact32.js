// binary32 arithmetic of the contract: each operation in binary64 and rounded once more by Math.fround. The twin of exact32.py: its bits.

import { hexadecimal, powerOfTwo } from "./exact64.js";

const LANES = 16;
const MAGIC = hexadecimal("0x1.8p+23"); // x + MAGIC - MAGIC is x rounded to an integer
const LOG2E = hexadecimal("0x1.715476p+0");
const LN2_HIGH = hexadecimal("0x1.62e4p-1");
const LN2_LOW = hexadecimal("0x1.7f7d1cp-20");
// Highest power first.
const EXP = ["0x1.a1256cp-13", "0x1.6d43b0p-10", "0x1.1110e0p-7", "0x1.5554e8p-5", "0x1.555556p-3", "0x1p-1"].map(hexadecimal);
const LOG = [
  "0x1.1d8ea6p-4", "-0x1.d635bcp-4", "0x1.dea282p-4", "-0x1.fcf4c6p-4", "0x1.23d21ap-3", "-0x1.555b4ap-3", "0x1.999d5ap-3",
  "-0x1.fffffcp-3", "0x1.555554p-2",
].map(hexadecimal);
const SQRT2_FRACTION = 0x3504f3;

export const f32 = Math.fround;
export const add = (a, b) => f32(a + b);
export const subtract = (a, b) => f32(a - b);
export const multiply = (a, b) => f32(a * b);
export const divide = (a, b) => f32(a / b);
export const sqrt = (x) => f32(Math.sqrt(x));

/** Rule 2: lane j adds elements j, j+16, ... in order from +0; then j += j+8, j += j+4, j += j+2, j += j+1 */
export function laneSum(values) {
  let lanes = new Array(LANES).fill(0);
  values.forEach((value, i) => (lanes[i % LANES] = add(lanes[i % LANES], value)));
  for (const half of [8, 4, 2, 1]) lanes = lanes.slice(0, half).map((lane, j) => add(lane, lanes[j + half]));
  return lanes[0];
}

export const dot = (a, b) => laneSum(a.map((x, i) => multiply(x, b[i])));

const horner = (coefficients, x) => coefficients.reduce((p, c) => add(multiply(p, x), c));

export function exp(x) {
  if (x !== x) return x;
  if (x < -80) return 0;
  const y = Math.min(x, 89);
  const n = subtract(add(multiply(y, LOG2E), MAGIC), MAGIC);
  const high = subtract(y, multiply(n, LN2_HIGH));
  const low = multiply(n, LN2_LOW);
  const r = subtract(high, low);
  const rest = subtract(subtract(high, r), low);
  const curve = add(rest, multiply(multiply(r, r), horner(EXP, r)));
  const e = add(add(r, curve), 1);
  const half = n >> 1;
  return multiply(multiply(e, powerOfTwo(half)), powerOfTwo(n - half));
}

export function log(x) {
  if (!(0 < x && x < Infinity)) return x === 0 ? -Infinity : x < 0 ? NaN : x;
  const [n, f] = splitExponent(x);
  const z = multiply(f, f);
  const small = add(multiply(multiply(z, f), horner(LOG, f)), multiply(n, LN2_LOW));
  return add(add(f, subtract(small, multiply(0.5, z))), multiply(n, LN2_HIGH));
}

const view = new DataView(new ArrayBuffer(8));

/** x = 2^n (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); x > 0 and finite; every step is exact, as any binary32 is normal in binary64 */
function splitExponent(x) {
  view.setFloat64(0, x);
  const exponent = (view.getUint32(0) >>> 20) - 1023;
  const mantissa = x * powerOfTwo(-exponent); // in [1, 2)
  return (mantissa - 1) * 2 ** 23 >= SQRT2_FRACTION ? [exponent + 1, mantissa * 0.5 - 1] : [exponent, mantissa - 1];
}

export function sigmoid(x) {
  const z = exp(-Math.abs(x));
  return divide(x >= 0 ? 1 : z, add(z, 1));
}

export const silu = (x) => multiply(x, sigmoid(x));

export function softplus(x) {
  const z = exp(-Math.abs(x));
  const u = add(z, 1);
  return add(Math.max(x, 0), add(log(u), divide(subtract(z, subtract(u, 1)), u)));
}
