// binary64 functions of the contract: only + - * / and bit operations, one rounding each. The twin of exact64.py and csrc/math64.c: their bits.
// Math.exp, Math.log, Math.pow and the like differ from one browser to the next and are not used.

const view = new DataView(new ArrayBuffer(8));

/** A normal number from its hexadecimal text, as C and Python write it */
export function hexadecimal(text) {
  const [, sign, fraction, exponent] = /^(-?)0x1(?:\.([0-9a-f]{1,13}))?p([+-][0-9]+)$/.exec(text);
  const bits = BigInt("0x" + (fraction ?? "").padEnd(13, "0")) | (BigInt(Number(exponent) + 1023) << 52n);
  view.setBigUint64(0, bits);
  return sign ? -view.getFloat64(0) : view.getFloat64(0);
}

/** 2^n, n from -1022 to 1023 */
export function powerOfTwo(n) {
  view.setUint32(0, (n + 1023) << 20);
  view.setUint32(4, 0);
  return view.getFloat64(0);
}

const ROUND = hexadecimal("0x1.8p+52");
const LOG2E = hexadecimal("0x1.71547652b82fep+0");
const LN2_HIGH = hexadecimal("0x1.62e42fee00000p-1");
const LN2_LOW = hexadecimal("0x1.a39ef35793c76p-33");
const EXP_HIGHEST = hexadecimal("0x1.62e42fefa39efp+9");
const EXP_LOWEST = hexadecimal("-0x1.74910d52d3052p+9");
const TRIG_LIMIT = 2 ** 21;
const SQRT2_FRACTION = 0x6a09e667f3bcdn;
const FRACTION = (1n << 52n) - 1n;

// Highest power first.
const EXP = [
  "0x1.1f730349868cep-29", "0x1.af4de97ca4194p-26", "0x1.27e4db646b17ep-22", "0x1.71de0231960ebp-19", "0x1.a01a01a6d889cp-16",
  "0x1.a01a01abe7fe1p-13", "0x1.6c16c16c162d4p-10", "0x1.11111111100dcp-7", "0x1.5555555555556p-5", "0x1.5555555555557p-3", "0x1p-1",
].map(hexadecimal);
const LOG = [
  "0x1.2b5900de53b32p-3", "0x1.39fe51a7c18f9p-3", "0x1.7462b51cb66b1p-3", "0x1.c71c62e3f11e6p-3", "0x1.2492492df281ap-2",
  "0x1.99999999952d7p-2", "0x1.5555555555558p-1",
].map(hexadecimal);
const SINE = [
  "0x1.952c77030ad4ap-49", "-0x1.ae7f3e733b81fp-41", "0x1.6124613a86d09p-33", "-0x1.ae64567f544e4p-26", "0x1.71de3a556c734p-19",
  "-0x1.a01a01a01a01ap-13", "0x1.1111111111111p-7", "-0x1.5555555555555p-3",
].map(hexadecimal);
const COSINE = [
  "-0x1.6827863b97d97p-53", "0x1.ae7f3e733b81fp-45", "-0x1.93974a8c07c9dp-37", "0x1.1eed8eff8d898p-29", "-0x1.27e4fb7789f5cp-22",
  "0x1.a01a01a01a01ap-16", "-0x1.6c16c16c16c17p-10", "0x1.5555555555555p-5",
].map(hexadecimal);
const LN2_PARTS = ["0x1.62e42fee00000p-1", "0x1.a39ef35600000p-33", "0x1.93c7673007e5fp-65"].map(hexadecimal);
const HALF_PI_PARTS = ["0x1.921fb54400000p+0", "0x1.0b4611a600000p-34", "0x1.3198a2e000000p-69", "0x1.b839a252049c1p-104"].map(hexadecimal);
const TWO_OVER_PI = hexadecimal("0x1.45f306dc9c883p-1");

const horner = (coefficients, x) => coefficients.reduce((p, c) => p * x + c);
const roundInteger = (x) => x + ROUND - ROUND;

/** x * 2^n in two steps, of which at most the second rounds */
function scale(x, n) {
  const half = n >> 1;
  return x * powerOfTwo(half) * powerOfTwo(n - half);
}

export function exp64(x) {
  if (x !== x) return x;
  if (x > EXP_HIGHEST) return Infinity;
  if (x < EXP_LOWEST) return 0;
  const n = roundInteger(x * LOG2E);
  const high = x - n * LN2_HIGH;
  const low = n * LN2_LOW;
  const r = high - low;
  const rest = high - r - low;
  return scale(1 + (r + (rest + r * r * horner(EXP, r))), n);
}

/** x = 2^n (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); x > 0 and finite */
function splitExponent(x) {
  const shift = x < 2 ** -1022 ? 54 : 0;
  view.setFloat64(0, shift ? x * 2 ** 54 : x);
  const bits = view.getBigUint64(0);
  const fraction = bits & FRACTION;
  const up = fraction >= SQRT2_FRACTION ? 1 : 0;
  view.setBigUint64(0, fraction | (BigInt(1023 - up) << 52n));
  return [Number(bits >> 52n) - 1023 + up - shift, view.getFloat64(0) - 1];
}

export function log64(x) {
  if (x !== x || x === Infinity) return x;
  if (x <= 0) return x === 0 ? -Infinity : NaN;
  const [n, f] = splitExponent(x);
  const s = f / (2 + f);
  const z = s * s;
  const half = 0.5 * f * f;
  const correction = s * (half + z * horner(LOG, z)) + n * LN2_LOW;
  return n * LN2_HIGH - (half - correction - f);
}

// ---- unevaluated sums [high, low]: about 106 bits

function fastSum(a, b) {
  const s = a + b;
  return [s, b - (s - a)];
}

function exactSum(a, b) {
  const s = a + b;
  const t = s - a;
  return [s, a - (s - t) + (b - t)];
}

function split(a) {
  const c = 134217729 * a;
  const high = c - (c - a);
  return [high, a - high];
}

function exactProduct(a, b) {
  const [xHigh, xLow] = split(a);
  const [yHigh, yLow] = split(b);
  const p = a * b;
  return [p, xHigh * yHigh - p + xHigh * yLow + xLow * yHigh + xLow * yLow];
}

function pairAdd(a, b) {
  const [high, low] = exactSum(a[0], b[0]);
  return fastSum(high, low + (a[1] + b[1]));
}

function pairMultiply(a, b) {
  const [high, low] = exactProduct(a[0], b[0]);
  return fastSum(high, low + (a[0] * b[1] + a[1] * b[0]));
}

function pairDivide(a, b) {
  const q = a[0] / b[0];
  const back = pairMultiply(b, [q, 0]);
  const left = pairAdd(a, [-back[0], -back[1]]);
  return fastSum(q, left[0] / b[0]);
}

function timesLn2(n) {
  const [first, second, third] = LN2_PARTS;
  return pairAdd(exactSum(n * first, n * second), [n * third, 0]);
}

/** n ln 2 + 2 s (1 + s^2/3 + s^4/5 + ...), s = f / (2 + f) */
function pairLog(x) {
  const [n, f] = splitExponent(x);
  const s = pairDivide([f, 0], exactSum(2, f));
  const z = pairMultiply(s, s);
  let total = [0, 0];
  for (let k = 21; k >= 0; k--) total = pairAdd(pairMultiply(total, z), pairDivide([1, 0], [2 * k + 1, 0]));
  return pairAdd(timesLn2(n), pairMultiply([2 * s[0], 2 * s[1]], total));
}

/** 2^n e^r, e^r = 1 + r (1 + r/2 (1 + r/3 (...))) */
function expOfPair(y) {
  if (y[0] > 710) return Infinity;
  if (y[0] < -746) return 0;
  const n = roundInteger(y[0] * LOG2E);
  const r = pairAdd(y, timesLn2(-n));
  let total = [1, 0];
  for (let k = 26; k > 0; k--) total = pairAdd([1, 0], pairDivide(pairMultiply(total, r), [k, 0]));
  return scale(total[0], n);
}

export function pow64(x, e) {
  if (!(0 < x && x < Infinity && -Infinity < e && e < Infinity)) throw new RangeError(`pow64: expected x > 0 and both finite, got ${x} and ${e}`);
  if (x === 1 || e === 0) return 1;
  return expOfPair(pairMultiply(pairLog(x), [Math.max(Math.min(e, 2 ** 64), -(2 ** 64)), 0]));
}

/** x = n pi/2 + r, |r| <= pi/4 */
function quarterTurns(x) {
  if (!(-TRIG_LIMIT <= x && x <= TRIG_LIMIT)) throw new RangeError(`sin64, cos64: expected at most 2^21, got ${x}`);
  const k = roundInteger(x * TWO_OVER_PI);
  const [a, b, c, d] = HALF_PI_PARTS;
  const second = exactSum(x - k * a, -(k * b));
  const third = exactSum(second[0], -(k * c));
  return [k, fastSum(third[0], third[1] + (second[1] - k * d))];
}

function sine([high, low]) {
  const z = high * high;
  return high + (z * high * horner(SINE, z) + low * (1 - 0.5 * z));
}

function cosine([high, low]) {
  const z = high * high;
  const half = 0.5 * z;
  const top = 1 - half;
  return top + (1 - top - half + (z * z * horner(COSINE, z) - high * low));
}

export function sin64(x) {
  const [n, r] = quarterTurns(x);
  const y = n & 1 ? cosine(r) : sine(r);
  return n & 2 ? -y : y;
}

export function cos64(x) {
  const [n, r] = quarterTurns(x);
  const y = n & 1 ? sine(r) : cosine(r);
  return (n + 1) & 2 ? -y : y;
}
