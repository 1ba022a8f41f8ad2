// Attestations: an in-toto Statement v1 in a DSSE envelope with one Ed25519 signature: the twin of evidence/envelope.py.

import { hex, joined, utf8 } from "./bytes.js";
import { has, isObject } from "./canonical.js";
import { PublicKey, SIGNATURE_BYTES } from "./keys.js";
import { quoted, typeName } from "./quoted.js";
import { Refused } from "./refusals.js";
import { sha256 } from "./sha256.js";
import { digest, document, exactly, fields, fromBase64, text } from "./strict.js";

const MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const STATEMENT_TYPE = "https://in-toto.io/Statement/v1";
export const RUN = "https://formation-ledger.dev/run/v1";
export const AUDIT = "https://formation-ledger.dev/audit/v1";
export const CERTIFICATION = "https://formation-ledger.dev/certification/v1";
const SUBJECT = /^[A-Za-z0-9][A-Za-z0-9._-]*(?:\/[A-Za-z0-9][A-Za-z0-9._-]*)*$/;

/** What a DSSE signature is over (Pre-Authentication Encoding, DSSE v1) */
export function pae(payloadType, payload) {
  const kind = utf8(payloadType);
  return joined(utf8(`DSSEv1 ${kind.length} `), kind, utf8(` ${payload.length} `), payload);
}

/** What can be told without verifying: envelope, payload, statement, signer. */
export function readUnverified(data, predicateType) {
  const file = document("envelope", "attestation", data, ["dsseEnvelope", "mediaType", "verificationMaterial"]);
  exactly("envelope", "attestation, mediaType", file.mediaType, MEDIA_TYPE);
  const envelope = fields("envelope", "dsseEnvelope", file.dsseEnvelope, ["payload", "payloadType", "signatures"]);
  exactly("envelope", "payloadType", envelope.payloadType, PAYLOAD_TYPE);
  const signature = oneSignature(envelope.signatures);
  const hint = hintOf(file.verificationMaterial);
  const payload = fromBase64("envelope", "payload", envelope.payload);
  const { statement, signer } = readStatement(payload, predicateType);
  for (const name of [hint, signature.keyid]) exactly("envelope", "fingerprint of the signer's key", name, signer.fingerprint);
  return { statement, signer, payload, signature: fromBase64("envelope", "signature", signature.sig, SIGNATURE_BYTES) };
}

/** A statement of that type, its signature verified by the key it carries; whether the signer is to be trusted is another question. */
export async function readAttestation(data, predicateType) {
  const { statement, signer, payload, signature } = readUnverified(data, predicateType);
  await signer.verify(signature, pae(PAYLOAD_TYPE, payload));
  return { statement, signer, payload, digest: "sha256:" + hex(sha256(payload)) };
}

function oneSignature(value) {
  if (!Array.isArray(value) || value.length !== 1) {
    throw new Refused("envelope", `signatures: expected exactly one, got ${Array.isArray(value) ? value.length : typeName(value)}`);
  }
  return fields("envelope", "signature", value[0], ["keyid", "sig"]);
}

function hintOf(material) {
  const key = fields("envelope", "verificationMaterial", material, ["publicKey"]).publicKey;
  return fields("envelope", "publicKey", key, ["hint"]).hint;
}

/** The statement and the key it names as its signer; nothing is verified. */
export function readStatement(payload, predicateType) {
  const value = document("statement", "statement", payload, ["_type", "subject", "predicateType", "predicate"]);
  exactly("statement", "statement, _type", value._type, STATEMENT_TYPE);
  exactly("statement", "statement, predicateType", value.predicateType, predicateType);
  if (!isObject(value.predicate) || !has(value.predicate, "signer")) {
    throw new Refused("statement", "predicate: expected an object with a signer, got none");
  }
  const { signer, ...predicate } = value.predicate;
  return { statement: { predicateType, subjects: subjectsOf(value.subject), predicate }, signer: PublicKey.read(signer) };
}

/** Name -> SHA-256 in hexadecimal */
function subjectsOf(value) {
  if (!Array.isArray(value) || !value.length) throw new Refused("statement", "subject: expected a list of files, got none");
  const subjects = new Map();
  let last = "";
  for (const item of value) {
    const subject = fields("statement", "subject", item, ["digest", "name"]);
    const name = text("statement", "subject, name", subject.name);
    if (!SUBJECT.test(name) || name <= last) {
      throw new Refused("statement", `subject: expected plain names in ascending order, got ${quoted(name)} after '${last}'`);
    }
    const found = fields("statement", `subject ${name}, digest`, subject.digest, ["sha256"]);
    subjects.set(name, digest("statement", `subject ${name}`, found.sha256));
    last = name;
  }
  return subjects;
}
