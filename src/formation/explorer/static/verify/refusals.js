// What the modules throw on purpose: a sentence, lowercase, "expected X, got Y". Anything else that is thrown is a fault of this page.

export class Refusal extends Error {}

/** Bytes or a value that have no place in canonical JSON. */
export class CanonicalRefusal extends Refusal {}

/** A line that is no line of its ledger. */
export class LineRefusal extends Refusal {}

/** A proof that does not prove what it claims. */
export class ProofRefusal extends Refusal {}

/** Bytes that are no anchor. */
export class AnchorRefusal extends Refusal {}

/** Bytes that are not the evidence they claim to be; `check` is the stable short name of what they failed. */
export class Refused extends Refusal {
  constructor(check, sentence) {
    super(sentence);
    this.check = check;
  }
}

/** These bytes were not signed by this key. */
export class BadSignature extends Refused {
  constructor(sentence) {
    super("signature", sentence);
  }
}

/** Why files are no container of a bundle. */
export class ContainerRefusal extends Refusal {}

/** Not the evidence but this browser is at fault. */
export class UnableBrowser extends Error {}
