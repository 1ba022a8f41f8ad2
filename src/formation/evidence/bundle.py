"""A bundle as Python has it: what was recorded, as three tables of typed records. Reading is not verifying.

    bundle = Bundle("run.ofb")
    for token in bundle.tokens:
        print(token.text, token.surprisal_nats, token.arrival_layer)
    frames = bundle.to_pandas()      # tokens, cells, experts; needs the extra `parquet`, and pandas

A bundle whose run was cut off is read as far as it goes, and says that it is INCOMPLETE. Files of a bundle are not trusted: what is not as it
must be raises EnvironmentFault, wherever it is met.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from formation.errors import EnvironmentFault
from formation.ledger import anchor, canonical, reader, tables
from formation.ledger.files import read_whole
from formation.ledger.lines import Run
from formation.ledger.tables import Absent, CellRecord, ExpertRecord, Record, TokenRecord

NO_TOKEN = "no token yet"


@dataclass(frozen=True)
class AnchorToken:
    """The token that the anchor leads to first."""

    id: int
    position: int


class Bundle:
    """Opened from a folder `NAME.ofb`. Raises EnvironmentFault unless its anchor is readable and names the run of its ledger."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.complete = find_ledger(self.folder).name == reader.NAME
        self.run: Run = tables.read_first(self.folder)
        self.anchor = read_anchor(self.folder / "anchor.json", self.run.run_id)

    @property
    def run_id(self) -> str:
        return self.run.run_id

    @cached_property
    def anchor_token(self) -> AnchorToken | Absent:
        first = next(self.tokens, None)
        return AnchorToken(first.id, first.position) if first else Absent(NO_TOKEN)

    @property
    def records(self) -> Iterator[Record]:
        """Of all three tables, in the order of the ledger"""
        return tables.records(self.folder)

    @property
    def tokens(self) -> Iterator[TokenRecord]:
        return (record for record in self.records if isinstance(record, TokenRecord))

    @property
    def cells(self) -> Iterator[CellRecord]:
        return (record for record in self.records if isinstance(record, CellRecord))

    @property
    def experts(self) -> Iterator[ExpertRecord]:
        return (record for record in self.records if isinstance(record, ExpertRecord))

    def to_arrow(self) -> dict[str, Any]:
        """A pyarrow.Table for each of "tokens", "cells" and "experts", in memory; absent values are null, and `absent` says why."""
        from formation.evidence import arrow

        return arrow.tables(self)

    def to_pandas(self) -> dict[str, Any]:
        """The same as pandas.DataFrames; whole numbers are Int64, which knows missing values. `attrs` tells the run and whether it is complete."""
        from formation.evidence import arrow

        return arrow.frames(self)

    def __repr__(self) -> str:
        return f"Bundle({str(self.folder)!r}, run {self.run_id[:16]}…, {'complete' if self.complete else 'INCOMPLETE'})"

    def _repr_html_(self) -> str:
        from formation.evidence.html import page

        return page(self)

    def first_tokens(self, most: int) -> list[TokenRecord]:
        return list(islice(self.tokens, most))


def find_ledger(folder: Path) -> Path:
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        hint = "formation verify reads a bundle in one ZIP file; to look into it, unpack it" if folder.is_file() else None
        raise EnvironmentFault(f"{folder}: expected a bundle, a folder NAME.ofb, got {found}", hint=hint)
    return reader.find(folder)


def read_anchor(path: Path, run_id: str) -> anchor.Anchor:
    """Raises EnvironmentFault unless it is the anchor that gave the run its name."""
    if not path.is_file():
        raise EnvironmentFault(f"{path}: expected the anchor of the run, got no file")
    data = read_whole(path)
    if (found := hashlib.sha256(data).hexdigest()) != run_id:
        raise EnvironmentFault(f"{path}: expected the anchor of run {run_id}, got one with digest {found}")
    try:
        return anchor.decode(data)
    except (anchor.AnchorRefusal, canonical.CanonicalRefusal) as refusal:
        raise EnvironmentFault(f"{path}: {refusal}") from None
