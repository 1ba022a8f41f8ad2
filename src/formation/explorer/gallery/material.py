"""What a gallery's first page is made from: a bundle, the verdict on it, and the files that lie beside the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from formation.evidence.bundle import Bundle
from formation.evidence.keys import PublicKey
from formation.evidence.report import PASSED, Report
from formation.explorer.gallery import lens
from formation.explorer.gallery.lens import Column
from formation.ledger import files
from formation.ledger.tables import CellRecord, TokenRecord

SHOWN = 400  # tokens that are spelled out
EXPLORER, VERIFY, NOTE, LEDGER, BUNDLE, RECEIPTS = FILES = "explorer.html", "verify.html", "note.pdf", "ledger.json", "run.ofb.zip", "receipts/"


@dataclass(frozen=True)
class File:
    """A file of the gallery, or of a folder all files together, which then have no one digest"""

    size_bytes: int
    sha256: str = ""
    count: int = 1


@dataclass
class Told:
    """What the ledger gives: `tokens` are the first SHOWN, `columns` of the figure the first lens.MOST, `count` and `cells` are of all"""

    count: int
    cells: int
    tokens: list[TokenRecord] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)


@dataclass(frozen=True)
class Material:
    """`name` is the bundle's name on a disk, which nobody signed. `files` by their names in FILES, `missing` says why one is not there,
    `left_out` are files of the bundle that the explorer does not hold."""

    name: str
    bundle: Bundle
    report: Report
    key: PublicKey | None
    sizes: Mapping[str, int]
    told: Told
    files: Mapping[str, File]
    missing: Mapping[str, str]
    left_out: tuple[str, ...] = ()

    def holds(self, check: str) -> bool:
        """Whether this check, by its name, passed: only then is what it read what a bundle must have"""
        return check in names_passed(self.report)

    def document(self, name: str) -> Any:
        return files.read_document(self.bundle.folder / name)

    def size_of(self, folder: str) -> int:
        return sum(size for name, size in self.sizes.items() if name.startswith(folder))


def names_passed(report: Report) -> frozenset[str]:
    return frozenset(outcome.check.name for outcome in report.outcomes if outcome.state == PASSED)


def tell(bundle: Bundle, count: int, cells: int) -> Told:
    """Reads no further than what is shown"""
    told, before = Told(count, cells), list[CellRecord]()
    for record in bundle.records:
        if isinstance(record, CellRecord):
            before = [record] if record.layer == 0 else [*before, record]
        elif isinstance(record, TokenRecord):
            told.tokens.append(record)
            if len(told.columns) < lens.MOST:
                told.columns.append(lens.column(record, before))
            if len(told.tokens) == SHOWN:
                break
    return told
