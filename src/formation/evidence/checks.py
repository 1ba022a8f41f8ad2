"""The checks of `formation verify`, each listed once: its number, its level, what it says and what it does not say.

docs/spec/bundle.md prints this list (tools/check_list.py); reports, sentences and the tests' names cite the numbers. A check is made only if those
it needs have passed; else it is "not reached". Which levels there are, and what they mean, is in LEVELS. A number is never given again: what
RETIRED lists was a check once, and old reports cite it.
"""

from __future__ import annotations

from dataclasses import dataclass

INTEGRITY, SIGNER, LEDGER, PARITY = "INTEGRITY", "SIGNER", "LEDGER", "PARITY"
WEIGHTS, REPLAY, CERTIFIED, TIME = "WEIGHTS", "REPLAY", "CERTIFIED", "TIME"
LEVELS = {
    INTEGRITY: "these are the bytes that the key in the attestation signed, and they name one run",
    SIGNER: "that key is one the reader knows",
    LEDGER: "the ledger is whole and keeps its rules: every value that follows from others was recomputed, every committed row has its digest",
    PARITY: "the signer attests that a run without capture gave the same bits",
    WEIGHTS: "how much of the checkpoint is named by digest: headers, some tensors, or all",
    REPLAY: "an audit of this very ledger is attached, its signature holds",
    CERTIFIED: "a certification of this very ledger is attached, its signature holds",
    TIME: "the run began after the reader chose the nonce",
}


@dataclass(frozen=True)
class Check:
    """One check. `needs` are the numbers of checks without which it cannot be made."""

    number: int
    level: str
    name: str
    says: str
    says_not: str
    needs: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        return f"V{self.number}"


NOT_TRUE = "that it is what a model computed: an audit says that"
CLOSURE = "that the parts are right: closure of a sum proves the book-keeping"

CHECKS: tuple[Check, ...] = (
    Check(1, INTEGRITY, "container", "a folder or a ZIP of stored members holds the files of a bundle, regular, within their limits, and no others",
          "anything of views/, which is never trusted"),
    Check(2, INTEGRITY, "complete", "the recording was finished: nothing is left that grows", "that the run was not stopped on purpose", (1,)),
    Check(3, INTEGRITY, "anchor", "anchor.json is canonical, with exactly its fields; its SHA-256 is the run_id",
          "that its text is what its prompt ids spell: only the tokenizer tells", (2,)),
    Check(4, INTEGRITY, "contract", "the anchor's numerics contract is one this version knows by name and digest; contract.json has its vectors",
          "that the run obeyed it: an audit says that", (3,)),
    Check(5, INTEGRITY, "checkpoint",
          "checkpoint.json has exactly its fields; the tensor table's root is recomputed, and it and the digest of the files are the anchor's",
          "that such a checkpoint exists, or which weights it holds: see WEIGHTS", (3,)),
    Check(6, INTEGRITY, "envelope",
          "attestation.json is one DSSE envelope with one signature, over an in-toto Statement about a run", "who signed", (2,)),
    Check(7, INTEGRITY, "signature",
          "the Ed25519 signature is by the key the statement names; key and signature are points that only one key can make",
          "whose key it is: see SIGNER", (6,)),
    Check(8, INTEGRITY, "tree head",
          "tree-head.txt is a signed note of this run by the same key, and by no other", "that a log published it", (3, 7)),
    Check(9, INTEGRITY, "lines", "every line of the ledger is canonical JSON that ends in LF, within its limits", "what is in it", (3,)),
    Check(10, INTEGRITY, "root", "the lines of the ledger are as many as the signed tree head says, and have its root", NOT_TRUE, (8, 9)),
    Check(11, INTEGRITY, "subjects", "the statement's subjects are exactly the files, by name and SHA-256",
          "anything of audit.json and certification.json, which are signed by themselves", (7, 9)),
    Check(12, SIGNER, "signer", "the key is given by --signer, in the known_signers file, or the reader's own",
          "that its owner is honest; a key found in a bundle is never trusted for being there", (7,)),
    Check(13, LEDGER, "run", "every line names the anchor's run, and the first has the field table and a possible shape", NOT_TRUE, (9,)),
    Check(14, LEDGER, "census",
          "exactly the lines of the anchor's prompt and of its tokens, to a stop id or the full count, each with exactly its fields",
          NOT_TRUE, (13,)),
    Check(15, LEDGER, "formulas", "every derived value that follows from the ledger is recomputed, bit for bit", NOT_TRUE, (14,)),
    Check(16, LEDGER, "attribution", "the direct contributions add up to the chosen token's logit", CLOSURE, (14,)),
    Check(17, LEDGER, "experts", "the contributions of experts, shared expert and rounding add up to their layer's", CLOSURE, (14,)),
    Check(19, LEDGER, "lens", "the lens at the last layer is the engine's head", NOT_TRUE, (14,)),
    Check(20, LEDGER, "choice", "chosen experts come before every runner-up, none is listed twice", NOT_TRUE, (14,)),
    Check(21, LEDGER, "scores", "scores and selection follow from the router's logits and biases in binary32",
          "every softmax score, without router/", (14,)),
    Check(22, LEDGER, "gates",
          "gates follow from the scores in binary32, bit for bit; the shared expert's gate and those of delta layers lie between 0 and 1 and fit",
          NOT_TRUE, (14,)),
    Check(23, LEDGER, "ranks", "ranks agree with the largest logits", "anything about logits that are not listed", (14,)),
    Check(24, LEDGER, "entropy", "entropies and sums lie within what a distribution over the vocabulary can have", "that they are exact", (14,)),
    Check(25, LEDGER, "draw",
          "the draw lies in the chosen token's interval, which is as wide as its probability; a greedy token has the largest logit", NOT_TRUE, (14,)),
    Check(26, LEDGER, "inputs", "ids lie in the vocabulary; equal ids have equal embedding rows, and tokens of equal id spell the same bytes",
          "that a row is the embedding of its id: an audit says that", (14,)),
    Check(27, LEDGER, "sampler",
          "tokens were chosen as the anchor says; each draw is Philox of its seed, branch and position; scores and masses are of its temperature",
          "that filters were applied: an audit says that", (14,)),
    Check(28, LEDGER, "rows", "files of rows/ and router/ have the one form they can have, and every row in them has the digest its line gives",
          NOT_TRUE + "; without the folders, nothing", (14,)),
    Check(29, LEDGER, "addition", "x + attention write + MLP write = x' in binary32, of every cell whose writes were kept",
          "anything, unless all rows were kept", (28,)),
    Check(30, LEDGER, "all experts", "scores, selection and choice of every layer follow from the router's row of all experts",
          "that the router gave that row: an audit says that", (28,)),
    Check(31, PARITY, "parity", "parity.json has exactly its fields, and compared as many logits and cache entries as the ledger holds",
          "that the comparison was made: its result is the signer's word", (14,)),
    Check(32, WEIGHTS, "tensor digests",
          "tensor-digests.json, if there, names tensors of the table once each, by SHA-256", "that the run read them", (5,)),
    Check(33, INTEGRITY, "declarations",
          "host.json and the lines of io.jsonl have exactly their fields, io.jsonl one line for each step; bytes that are said to be among others "
          "are no more than these; every machine of host.json went on at a line of the ledger",
          "that they are true: they are what the operator declares", (14,)),
    Check(34, INTEGRITY, "predicate", "what the statement says of run, tree head, contract, checkpoint, parity and weights is what the files say",
          "more than the files say", (4, 5, 8, 31, 32)),
    Check(35, REPLAY, "audit",
          "audit.json, if there, is signed and about this tree head; its counts fit each other and the ledger, and its outcome is theirs",
          "that the audit was done as it says", (10,)),
    Check(36, CERTIFIED, "certification",
          "certification.json, if there, is signed and about this tree head; its counts add up, and its outcome is theirs",
          "that the attacks were run as it says", (10,)),
    Check(37, TIME, "nonce", "the anchor holds the nonce asked for", "when the run ended, or that it was the only one", (3,)),
    Check(38, LEDGER, "norms",
          "norms, cosines and projections of a cell are such as x + a = u, u + m = x' and the sum of its experts' writes can have, within binary32",
          "that the rows are right: an audit says that", (14,)),
    Check(39, LEDGER, "attention", "listed attention weights are in order, a softmax's, and agree; entropies lie within what they leave possible",
          "anything about weights that are not listed", (14,)),
)  # fmt: skip

RETIRED = {
    18: "head rounding: lm_head's own rounding is the rest to the engine's logit; V15 recomputes it from the same two numbers, bit for bit",
}
BY_NUMBER = {check.number: check for check in CHECKS}
