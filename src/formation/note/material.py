"""What a note is made from: the verdict on the bundle, its documents, and of its ledger the tokens that are shown and what formed one of them.

Everything is read from the bundle and nothing else, so that the same bundle gives the same note: no key that the reader happens to know, no
clock, no machine but the one that the bundle declares. A bundle that fails a check gives no note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from formation.errors import EvidenceError, UsageError
from formation.evidence import audited, certification, container, envelope
from formation.evidence.audited import Audited
from formation.evidence.bundle import Bundle
from formation.evidence.certification import Certified
from formation.evidence.report import Report
from formation.evidence.verify import Examination
from formation.ledger import files
from formation.ledger.gaps import RuleResult
from formation.ledger.tables import Absent, CellRecord, ExpertRecord, TokenRecord

T = TypeVar("T")
SHOWN = 24  # tokens in the table and in the figure of all tokens


@dataclass(frozen=True)
class Formation:
    """A token with the cells and experts that formed it."""

    token: TokenRecord
    cells: tuple[CellRecord, ...]
    experts: tuple[ExpertRecord, ...]


@dataclass(frozen=True)
class Later(Generic[T]):
    """A verdict made after sealing: whose it is, what it counts. `result` is as its signer wrote it."""

    outcome: str
    signer: str
    said: T
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Head:
    """What is signed: the ledger's root and size, the bundle's digest, by which key."""

    root: str
    lines: int
    bundle: str
    signer: str
    public_key: str
    weights: str


@dataclass
class Told:
    """What one pass over the ledger gives. `tokens` and `ranks` (of the lens, by layer) are of the first SHOWN tokens, `gates` is, by layer
    and expert, the sum of its gates over all steps, `formation` is of the token that was asked for."""

    tokens: list[TokenRecord] = field(default_factory=list)
    ranks: list[list[int | Absent]] = field(default_factory=list)
    gates: dict[int, dict[int, float]] = field(default_factory=dict)
    count: int = 0
    formation: Formation | None = None


@dataclass(frozen=True)
class Material:
    bundle: Bundle
    report: Report
    rules: Mapping[str, RuleResult]
    head: Head
    told: Told
    formation: Formation
    audit: Later[Audited] | None
    certification: Later[Certified] | None

    def document(self, name: str) -> Any:
        return files.read_document(self.bundle.folder / name)


def gather(folder: Path, number: int = 1) -> Material:
    """Raises EnvironmentFault if there is no bundle, EvidenceError if it fails a check, UsageError if it has no token `number`."""
    bundle = Bundle(folder)  # before verifying: says what is wrong with a path
    try:
        with container.open_container(folder) as opened:
            found = Examination(opened, {}, True, None)
            report = found.report()
    except container.ContainerRefusal as refusal:
        raise EvidenceError(f"{folder}: {refusal}", hint=HINT) from None
    if not report.verified:
        raise EvidenceError(f"{folder}: expected a bundle that verifies, got {report.failed[0]}", hint=HINT)
    signer = found.attestation.signer
    head = Head(found.found.root.hex(), found.found.lines, found.attestation.digest, signer.fingerprint, signer.text, found.weights)
    told = read_told(bundle, number)
    if told.formation is None:
        raise UsageError(f"{folder}: expected token 1 to {told.count}, got {number}")
    audit = read_later(folder / container.AUDIT, envelope.AUDIT, audited.read)
    certified = read_later(folder / container.CERTIFICATION, envelope.CERTIFICATION, certification.read)
    return Material(bundle, report, found.found.results, head, told, told.formation, audit, certified)


HINT = "a note is made of evidence that holds: formation verify says more"


def read_later(path: Path, kind: str, read: Callable[[Any, str], T]) -> Later[T] | None:
    """The verdict in this file, whose signature and counts were verified; None without one"""
    if not path.exists():
        return None
    made = envelope.read(files.read_whole(path), kind)
    outcome, result = made.statement.predicate["outcome"], made.statement.predicate["result"]
    return Later(outcome, made.signer.fingerprint, read(result, outcome), result)


def read_told(bundle: Bundle, number: int) -> Told:
    told = Told()
    cells: list[CellRecord] = []
    experts: list[ExpertRecord] = []
    for record in bundle.records:
        if isinstance(record, TokenRecord):
            take(told, record, cells)
            if record.token == number:
                told.formation = Formation(record, tuple(cells), tuple(experts))
        elif isinstance(record, CellRecord):
            if record.layer == 0:
                cells, experts = [], []
            cells.append(record)
        elif isinstance(record, ExpertRecord):
            experts.append(record)
    return told


def take(told: Told, token: TokenRecord, cells: Iterable[CellRecord]) -> None:
    told.count += 1
    if told.count <= SHOWN:
        told.tokens.append(token)
        told.ranks.append([cell.lens_rank for cell in cells])
    for cell in cells:
        if cell.chosen:
            row = told.gates.setdefault(cell.layer, {})
            for expert, gate in zip(cell.chosen, cell.gates, strict=True):
                row[expert] = row.get(expert, 0.0) + gate
