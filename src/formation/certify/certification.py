"""Certifying one bundle: the untouched control, every attack, random mutations, and with a checkpoint what only weights can tell; then the file.

    from formation.certify import certify

    found = certify("run.ofb", mutations=300)
    print(found.counts, found.passed)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formation import __version__
from formation.certify import crew, suite
from formation.certify.forgery import ATTESTATION, Files, Scene
from formation.certify.judge import Judge, Memory
from formation.certify.mutations import Tally
from formation.certify.on_weights import EVERY, Auditor
from formation.certify.suite import Outcome
from formation.errors import EvidenceError, UsageError
from formation.evidence import container, envelope, note, seal
from formation.evidence.certification import NOT_RUN, REFUSED, THROUGH, Certified, read
from formation.evidence.keys import PrivateKey
from formation.evidence.verify import verify
from formation.ledger import anchor
from formation.ledger.files import write_whole
from formation.weights.checkpoint import Checkpoint, open_checkpoint

NO_CHECKPOINT = "no checkpoint"
LARGEST = 1 << 28  # bytes of a bundle, which is held in memory and forged hundreds of times
Progress = Callable[[str, int, int], None]  # what is being made, how many are done, of how many


@dataclass(frozen=True)
class Certification:
    """What came of it. `files` are the bundle's, as they were certified."""

    files: Files
    seed: int
    checkpoint: bool
    outcomes: tuple[Outcome, ...]
    tally: Tally

    @property
    def counts(self) -> Certified:
        return read(self.result(), "passed" if self._met() else "failed")

    @property
    def passed(self) -> bool:
        return self.counts.passed

    def _met(self) -> bool:
        states = [outcome.state for outcome in self.outcomes]
        return THROUGH not in states and REFUSED in states and not self.tally.failures

    def result(self) -> dict[str, Any]:
        rows = [outcome.row() for outcome in self.outcomes]
        return {"seed": self.seed, "checkpoint": self.checkpoint, "attacks": rows, "mutations": self.tally.row()}

    def statement(self) -> envelope.Statement:
        """Bound to the bundle's attestation and tree head, and to this version"""
        head = note.parse_head(note.read_note(self.files[seal.TREE_HEAD]).text)
        frozen = anchor.decode(self.files["anchor.json"])
        predicate = {
            "formation": __version__, "outcome": self.counts.outcome, "result": self.result(),
            "tree_head": seal.run_predicate(frozen, head, "", "")["tree_head"],
        }  # fmt: skip
        digest = hashlib.sha256(self.files[ATTESTATION]).hexdigest()
        return envelope.Statement(envelope.CERTIFICATION, {ATTESTATION: digest}, predicate)

    def write(self, path: Path, key: PrivateKey) -> None:
        """A failed one too. Raises EnvironmentFault."""
        write_whole(path, envelope.make(self.statement(), key))


def certify(
    bundle: str | Path, *, checkpoint: Checkpoint | str | Path | None = None, seed: int = 0, mutations: int = 300, every_bit: bool = False,
    memory: str | int | None = None, threads: int | None = None, processes: int = 0, progress: Progress | None = None,
) -> Certification:  # fmt: skip
    """Attack `bundle`, a folder or a ZIP that `verify` passes, and its verifier. It is not changed: copies are, in memory and in temporary folders.

    `every_bit` flips each bit of each file of at most 4 KiB beside the random mutations. `processes` make mutations beside this one, which makes
    them itself with 0. Raises EvidenceError if the bundle does not verify (of its signer nothing is asked), UsageError for one too large,
    EnvironmentFault, and what opening a checkpoint raises. Whatever gets through is in the result; nothing is raised for it.
    """
    if mutations < 0 or seed < 0:
        raise UsageError(f"certify: expected a seed and a number of mutations from 0, got {min(seed, mutations)}")
    files = read_bundle(Path(bundle))
    judge = Judge(Scene(files, seed))
    if not (control := judge.verdict(judge.scene.forgery())).verified:
        raise EvidenceError(f"{bundle}: expected a copy under another key that verifies, got {control}")
    show = progress or (lambda *_: None)
    with crew.Crew(judge, seed, mutations, processes, every_bit=every_bit) as at_work:
        outcomes = list(suite.make_all(judge, lambda done, of: show("attacks", done, of)))
        tally = at_work.tally(lambda done, of: show("mutations", done, of))
    outcomes += of_weights(judge, tally, checkpoint, memory, threads, show)
    return Certification(files, seed, checkpoint is not None, tuple(outcomes), tally)


def of_weights(
    judge: Judge, tally: Tally, checkpoint: Checkpoint | str | Path | None, memory: str | int | None, threads: int | None, show: Progress
) -> list[Outcome]:  # fmt: skip
    if checkpoint is None:
        return [Outcome(attack, NOT_RUN, NO_CHECKPOINT) for attack in EVERY]
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    return list(Auditor(judge, opened, memory, threads).make_all(tally.lines, lambda done, of: show("audits", done, of)))


def read_bundle(path: Path) -> Files:
    """All files but an earlier certification. Raises EvidenceError unless the bundle verifies, whoever signed it."""
    try:
        with container.open_container(path) as opened:
            contents = opened.contents()
            if (size := sum(contents.sizes.values())) > LARGEST:
                hint = "the suite is about the format and the verifier: certify a shorter run of the same checkpoint"
                raise UsageError(f"{path}: expected a bundle of at most {LARGEST} bytes, got {size}", hint=hint)
            files = {name: container.read(opened, contents, name) for name in contents.sizes if name != container.CERTIFICATION}
    except container.ContainerRefusal as refusal:
        raise EvidenceError(f"{path}: expected a bundle that verifies, got none: {refusal}", hint="formation verify says more") from None
    report = verify(Memory(files), signers={}, allow_unknown_signer=True)
    if not report.verified:
        raise EvidenceError(f"{path}: expected a bundle that verifies, got {report.failed[0]}", hint="formation verify says more")
    return files
