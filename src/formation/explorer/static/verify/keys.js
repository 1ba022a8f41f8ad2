// Ed25519 keys (RFC 8032) with a strict check before WebCrypto sees them: the twin of evidence/keys.py.

import { fromHex, hex, toBase64 } from "./bytes.js";
import { BadSignature, Refused, UnableBrowser } from "./refusals.js";
import { sha256 } from "./sha256.js";
import { fromBase64 } from "./strict.js";

export const KEY_BYTES = 32;
export const SIGNATURE_BYTES = 64;
const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const D = mod(-121665n * power(121666n, P - 2n)); // of the curve -x^2 + y^2 = 1 + D x^2 y^2
const ORDER_8 = 0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n; // y of four of the eight points of small order
const SMALL_ORDER = [0n, 1n, P - 1n, ORDER_8, P - ORDER_8];
const SPKI = fromHex("302a300506032b6570032100"); // SubjectPublicKeyInfo of an Ed25519 key, before its 32 bytes (RFC 8410)

function mod(n) {
  return ((n % P) + P) % P;
}

function power(base, exponent) {
  let result = 1n;
  for (let square = mod(base); exponent; exponent >>= 1n, square = mod(square * square)) if (exponent & 1n) result = mod(result * square);
  return result;
}

const numberOf = (bytes) => BigInt("0x" + hex(bytes.toReversed()));
const yOf = (bytes) => numberOf(bytes) & ((1n << 255n) - 1n);

/** A point that may sign. Making one from anything else throws Refused, check `key`. */
export class PublicKey {
  constructor(data) {
    if (data.length !== KEY_BYTES) throw new Refused("key", `public key: expected ${KEY_BYTES} bytes, got ${data.length}`);
    const fault = pointFault(data) || curveFault(data);
    if (fault) throw new Refused("key", `public key: ${fault}`);
    this.data = data;
  }

  /** From the base64 of its 32 bytes */
  static read(text) {
    return new PublicKey(fromBase64("key", "public key", text, KEY_BYTES));
  }

  get text() {
    return toBase64(this.data);
  }

  get fingerprint() {
    return "sha256:" + hex(sha256(SPKI, this.data));
  }

  /** Returns if this key signed `message`; throws BadSignature, and UnableBrowser where the browser cannot tell. */
  async verify(signature, message) {
    checkSignature(signature);
    const key = await imported(this.data);
    if (!(await crypto.subtle.verify("Ed25519", key, signature, message))) {
      throw new BadSignature(`signature: expected one by key ${this.fingerprint}, got another`);
    }
  }
}

async function imported(data) {
  try {
    return await crypto.subtle.importKey("raw", data, "Ed25519", false, ["verify"]);
  } catch {
    throw new UnableBrowser("expected a browser that checks Ed25519 signatures (Chromium 137, Firefox 129, Safari 17 or later), got one that does not");
  }
}

/** That it can be a signature, whoever made it */
function checkSignature(signature) {
  if (signature.length !== SIGNATURE_BYTES) throw new BadSignature(`signature: expected ${SIGNATURE_BYTES} bytes, got ${signature.length}`);
  const fault = pointFault(signature.subarray(0, 32));
  if (fault) throw new BadSignature(`signature, R: ${fault}`);
  if (numberOf(signature.subarray(32)) >= L) throw new BadSignature("signature, S: expected a number below the group's order, got a larger one");
}

/** What makes 32 bytes an encoding that nobody honest sends; the top bit is the sign of x. Points with x = 0 are of small order. */
function pointFault(data) {
  const y = yOf(data);
  if (y >= P) return "expected a canonical point, got y of 2^255 - 19 or more";
  return SMALL_ORDER.includes(y) ? "expected a point of large order, got one of small order" : "";
}

/** x^2 = (y^2 - 1) / (D y^2 + 1) must be a square (Euler's criterion). */
function curveFault(data) {
  const y = yOf(data);
  const square = mod((y * y - 1n) * power(D * y * y + 1n, P - 2n));
  return power(square, (P - 1n) / 2n) === 1n ? "" : "expected a point on the curve, got none";
}
