"""A bundle to a verdict: the numbered checks of checks.py, in their order, without weights and without a network.

Pure: bytes in, report out. Every check has one method here, named after it; what its bytes refuse by raising becomes its finding, and nothing
else is caught. A check that needs one which failed is not reached, and says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from itertools import chain
from itertools import count as naturals
from typing import Any

from formation.evidence import audited, certification, checkpoint_json, documents, envelope, ledger_parts, note, payloads, seal
from formation.evidence import container as containers
from formation.evidence.audited import Audited
from formation.evidence.certification import Certified
from formation.evidence.checks import CHECKS, Check
from formation.evidence.container import Container, ContainerRefusal, Contents
from formation.evidence.ledger_pass import Found
from formation.evidence.report import FAILED, NOT_CLAIMED, NOT_REACHED, PASSED, Finding, Outcome, Report, failed, not_claimed, passed
from formation.evidence.strict import Refused
from formation.ledger.anchor import Anchor
from formation.ledger.reader import whole_lines

AT_SIGNING = ("key", "signature")  # what envelope.read may refuse beyond the form of the file
HEADERS_NOTE = "headers: the headers of the shards are named by digest, their tensors are not"


def verify(container: Container, *, signers: Mapping[str, str], allow_unknown_signer: bool = False, nonce: str | None = None) -> Report:
    """The verdict on the bundle in `container`. `signers` says of which keys the reader knows whose they are: fingerprint -> how it is known.
    `nonce` is one that the reader chose before the run. Raises EnvironmentFault if the disk fails or a process is killed, and nothing that the
    bytes can cause."""
    return Examination(container, signers, allow_unknown_signer, nonce).report()


def refused(sentence: str) -> Report:
    """Of what is no container: V1 failed, and nothing else was reached"""
    first, *rest = CHECKS
    return Report((Outcome(first, failed(sentence)), *(Outcome(check, Finding(NOT_REACHED, f"needs {first.id} {first.name}")) for check in rest)))


class Examination:
    """One bundle under examination. Attributes are set by the check that reads them, and used by checks that need it."""

    contents: Contents
    anchor: Anchor
    checkpoint: checkpoint_json.Checkpoint
    attestation: envelope.Attestation
    head: note.TreeHead
    parity: str

    def __init__(self, container: Container, signers: Mapping[str, str], allow_unknown_signer: bool, nonce: str | None) -> None:
        self.container, self.signers, self.allow_unknown_signer, self.nonce = container, signers, allow_unknown_signer, nonce
        self.outcomes: dict[int, Outcome] = {}
        self.notes: dict[str, str] = {}
        self.weights = payloads.HEADERS
        self.digests: dict[str, str] = {}  # of the files that were read or digested, as they were the first time
        self.helpers = ExitStack()

    def report(self) -> Report:
        with self.helpers:
            for check in CHECKS:
                self.outcomes[check.number] = Outcome(check, self.finding(check))
        return Report(tuple(self.outcomes.values()), self.facts(), self.notes)

    def finding(self, check: Check) -> Finding:
        unmet = next((self.outcomes[n].check for n in check.needs if self.outcomes[n].state not in (PASSED, NOT_CLAIMED)), None)
        if unmet:
            return Finding(NOT_REACHED, f"needs {unmet.id} {unmet.name}")
        try:
            return METHODS.get(check.name, Examination.rule)(self, check)
        except (ContainerRefusal, Refused) as refusal:
            return failed(str(refusal))

    def read(self, name: str) -> bytes:
        data = containers.read(self.container, self.contents, name)
        self.unchanged(name, hashlib.sha256(data).hexdigest())
        return data

    def unchanged(self, name: str, sha256: str) -> None:
        """What is read for a check is what is digested, whichever comes first: a folder can change in between. Raises ContainerRefusal."""
        if self.digests.setdefault(name, sha256) != sha256:
            raise ContainerRefusal(f"{name}: expected the bytes that were digested, got a file that changes")

    def begin(self) -> None:
        """The one pass over the ledger, beside the checks before V9"""
        self.joined = self.helpers.enter_context(ledger_parts.reading(self.container, self.contents.sizes, self.anchor))

    @cached_property
    def found(self) -> Found:
        """What the pass found; needs the anchor"""
        return self.joined()

    # ---- INTEGRITY

    def container_(self, check: Check) -> Finding:
        self.contents = self.container.contents()
        if self.contents.untrusted:
            self.notes["INTEGRITY"] = f"never trusted, not looked at: {containers.UNTRUSTED}/"
        return passed(f"{len(self.contents.sizes)} files, {sum(self.contents.sizes.values())} bytes")

    def complete(self, check: Check) -> Finding:
        if self.contents.incomplete:
            return Finding(FAILED, "ledger", "a ledger that was closed", "an INCOMPLETE one: it can be shown and resumed")
        return passed("nothing is left that grows")

    def anchor_(self, check: Check) -> Finding:
        self.anchor = documents.read_anchor(self.read("anchor.json"))
        self.begin()
        return passed(f"run {self.anchor.run_id}")

    def contract(self, check: Check) -> Finding:
        documents.check_contract(self.read("contract.json"), self.anchor)
        return passed(f"{self.anchor.contract}, digest {self.anchor.contract_digest}")

    def checkpoint_(self, check: Check) -> Finding:
        self.checkpoint = checkpoint_json.read(self.read("checkpoint.json"), self.anchor)
        return passed(f"{self.checkpoint.files} files, {len(self.checkpoint.tensors)} tensors, table root {self.anchor.tensor_table_root}")

    def envelope_(self, check: Check) -> Finding:
        data = self.read("attestation.json")
        self.attestation_sha256 = self.digests["attestation.json"]
        self.refused_at_signing: Refused | None = None
        try:
            self.attestation = envelope.read(data, envelope.RUN)
        except Refused as refusal:
            if refusal.check not in AT_SIGNING:
                raise
            self.refused_at_signing = refusal
        return passed("one envelope, one signature, a statement about a run")

    def signature(self, check: Check) -> Finding:
        if self.refused_at_signing:
            raise self.refused_at_signing
        return passed(f"by key {self.attestation.signer.fingerprint}")

    def tree_head(self, check: Check) -> Finding:
        self.head = note.read_tree_head(self.read("tree-head.txt"), self.attestation.signer)
        return self.same("run in the origin of tree-head.txt", self.anchor.run_id, self.head.run_id)

    def lines(self, check: Check) -> Finding:
        return failed(f"ledger.jsonl, {self.found.broken}") if self.found.broken else passed(f"{self.found.lines} lines")

    def root(self, check: Check) -> Finding:
        found = f"{self.found.lines} lines, root {self.found.root.hex()}"
        return self.same("ledger.jsonl", f"{self.head.size} lines, root {self.head.root.hex()}", found)

    def subjects(self, check: Check) -> Finding:
        due = [name for name in self.contents.sizes if name not in UNSIGNED]
        stated = self.attestation.statement.subjects
        if list(stated) != due:
            strange = min(set(stated) ^ set(due))
            return self.same(strange, *(("a subject" if strange in due else "no subject"), "none" if strange in due else "one"))
        for name in due:
            found = self.digest(name)
            if found != stated[name]:
                return Finding(FAILED, name, f"sha256 {stated[name]}, as was signed", found)
        return passed(f"{len(due)} files, by name and SHA-256")

    def digest(self, name: str) -> str:
        """Of what was checked, if it was read for that; remembered for what is read later"""
        if name not in self.digests:
            self.digests[name] = self.found.sha256 if name == "ledger.jsonl" else containers.digest(self.container, name)
        return self.digests[name]

    def declarations(self, check: Check) -> Finding:
        machines = 1 + len(documents.read_host(self.read("host.json"), self.found.lines)["resumed"])
        steps, count, size, whole = self.anchor.steps(self.found.steps), 0, 0, hashlib.sha256()
        with self.container.open("io.jsonl") as file:
            for position, line in zip(chain(steps, naturals(steps.positions)), whole_lines(file), strict=False):
                documents.check_account(line, position)
                whole.update(line + b"\n")
                count, size = count + 1, size + len(line) + 1
        if size != self.contents.sizes["io.jsonl"]:
            return Finding(FAILED, "io.jsonl", "lines that end in LF", f"something else after line {count}")
        self.unchanged("io.jsonl", whole.hexdigest())
        told = f"machines of host.json: {machines}; lines of io.jsonl, one for each step"
        return self.same(told, str(self.found.steps), str(count))

    def predicate(self, check: Check) -> Finding:
        stated = dict(self.attestation.statement.predicate)
        expected = seal.run_predicate(self.anchor, self.head, self.parity, self.weights)
        if not isinstance(stated.pop("formation", None), str):
            return Finding(FAILED, "predicate", "the version of formation that sealed it", "none")
        if stated != expected:
            name = next(name for name in sorted({*stated, *expected}) if stated.get(name) != expected.get(name))
            return Finding(FAILED, f"predicate, {name}", documents.text_of(expected.get(name)), documents.text_of(stated.get(name))[:200])
        return passed("run, tree head, contract, checkpoint, parity and weights are as the files say")

    # ---- SIGNER

    def signer(self, check: Check) -> Finding:
        key = self.attestation.signer
        if how := self.signers.get(key.fingerprint):
            self.notes["SIGNER"] = how
            return passed(f"{key.fingerprint}: {how}")
        if self.allow_unknown_signer:
            self.notes["SIGNER"] = "an unknown key, which was allowed"
            return not_claimed(f"{key.fingerprint} is unknown, which was allowed")
        return Finding(FAILED, "signer", "a key the reader knows", f"{key.fingerprint}, public key {key.text}")

    # ---- LEDGER

    def rule(self, check: Check) -> Finding:
        """Every check named as a rule of the ledger"""
        result = self.found.results[check.name]
        if result.violated:
            gap = "" if result.worst_gap == float("inf") else f", a gap of {result.worst_gap:.3g}"
            return failed(result.where) if "expected " in result.where else Finding(FAILED, check.name, "the rule to hold", f"{result.where}{gap}")
        if not result.checked:
            return not_claimed("there is nothing to hold it against")
        worst = f", worst gap {result.worst_gap:.2g} of {result.tolerance:.2g}" if result.tolerance else ""
        return passed(f"{result.checked} checked{worst}")

    # ---- PARITY, WEIGHTS, REPLAY, CERTIFIED, TIME

    def parity_(self, check: Check) -> Finding:
        found = self.found
        census = documents.Census(found.steps, found.cells, found.lines, found.root.hex())
        self.parity = documents.read_parity(self.read("parity.json"), census)
        if self.parity != PASSED:
            return not_claimed("no run without capture was made")
        return passed(f"{found.steps} logits and {found.cells} cache entries, as the signer attests")

    def tensor_digests(self, check: Check) -> Finding:
        if containers.TENSOR_DIGESTS not in self.contents.sizes:
            self.notes["WEIGHTS"] = HEADERS_NOTE
            return not_claimed(HEADERS_NOTE)
        digests = payloads.read(self.read(containers.TENSOR_DIGESTS), self.anchor.tensor_table_root)
        self.weights = self.notes["WEIGHTS"] = payloads.level(digests, self.checkpoint.tensors)
        return passed(self.weights)

    def later(self, check: Check) -> Finding:
        """audit.json and certification.json: signed, by a known key, about this bundle, and with counts that say what the outcome does"""
        name, kind = LATER[check.name]
        if name not in self.contents.sizes:
            return not_claimed(f"no {name}")
        made = envelope.read(self.read(name), kind)
        head = seal.run_predicate(self.anchor, self.head, "", "")["tree_head"]
        outcome = documents.read_later(
            made.statement.predicate, made.statement.subjects, tree_head=head, attestation=self.attestation_sha256, what=check.name
        )
        content = self.content(check.name, made.statement.predicate["result"], outcome)
        if outcome != PASSED:
            return Finding(FAILED, name, "an outcome of passed", outcome)
        if made.signer.fingerprint not in self.signers:
            self.notes[check.level] = f"{name} is signed by an unknown key"
            return not_claimed(f"signed by {made.signer.fingerprint}, which is unknown")
        self.notes[check.level] = str(content)
        return passed(f"signed by {made.signer.fingerprint}, {self.signers[made.signer.fingerprint]}")

    def content(self, check: str, result: Any, outcome: str) -> Audited | Certified:
        if check == "certification":
            return certification.read(result, outcome)
        return audited.read(result, outcome).of_run(self.found.positions, self.found.layers, self.found.steps)

    def nonce_(self, check: Check) -> Finding:
        if self.nonce is None:
            return not_claimed("no nonce was asked for")
        return self.same("nonce", ascii(self.nonce), ascii(self.anchor.nonce))

    @staticmethod
    def same(checked: str, expected: str, found: str) -> Finding:
        return passed(f"{checked}: {found}") if found == expected else Finding(FAILED, checked, expected, found)

    def facts(self) -> dict[str, Any]:
        """For people; what was not reached is not there"""
        facts: dict[str, Any] = {}
        if hasattr(self, "anchor"):
            facts |= {"run_id": self.anchor.run_id, "contract": self.anchor.contract}
        if hasattr(self, "attestation"):
            facts |= {"bundle": self.attestation.digest, "signer": self.attestation.signer.fingerprint}
        if "found" in self.__dict__:
            facts |= {"lines": self.found.lines, "root": self.found.root.hex(), "tokens": self.found.steps}
        return facts


UNSIGNED = ("attestation.json", containers.AUDIT, containers.CERTIFICATION)
LATER = {"audit": (containers.AUDIT, envelope.AUDIT), "certification": (containers.CERTIFICATION, envelope.CERTIFICATION)}
METHODS: Mapping[str, Callable[[Examination, Check], Finding]] = {
    "container": Examination.container_, "complete": Examination.complete, "anchor": Examination.anchor_, "contract": Examination.contract,
    "checkpoint": Examination.checkpoint_, "envelope": Examination.envelope_, "signature": Examination.signature,
    "tree head": Examination.tree_head, "lines": Examination.lines, "root": Examination.root, "subjects": Examination.subjects,
    "signer": Examination.signer, "parity": Examination.parity_, "tensor digests": Examination.tensor_digests,
    "declarations": Examination.declarations, "predicate": Examination.predicate, "audit": Examination.later,
    "certification": Examination.later, "nonce": Examination.nonce_,
}  # fmt: skip
