"""A bundle written in a form that other programs read: one JSON document, or three files of comma-separated values or Parquet.

Each is written whole or not at all, and nothing is overwritten. Of an INCOMPLETE ledger the document says so in `complete`, and the files in
their names: `tokens.INCOMPLETE.csv`, so that no analysis takes them for a whole run.
"""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from formation.errors import EnvironmentFault, UsageError
from formation.evidence import arrow
from formation.evidence.bundle import AnchorToken, Bundle
from formation.evidence.plain import absences, cell_text, json_text, plain, plain_record
from formation.ledger import canonical, fields, tables
from formation.ledger.export_schema import KIND
from formation.ledger.store import sync_folder
from formation.ledger.tables import TABLES, Record

INCOMPLETE = "INCOMPLETE"
Counts = Mapping[str, int]


# ---- JSON


def write_json(bundle: Bundle, out: IO[bytes]) -> Counts:
    """The document of export.schema.json: a record a line, the tables one after the other. Memory does not depend on their size."""
    with ExitStack() as stack:
        held = {record: stack.enter_context(tempfile.TemporaryFile()) for record in TABLES.values()}
        counts = dict.fromkeys(TABLES, 0)
        names = {record: name for name, record in TABLES.items()}
        for record in bundle.records:
            name = names[type(record)]
            held[type(record)].write(b"%s\n%s" % (b"," if counts[name] else b"", json_record(record)))
            counts[name] += 1
        out.write(b"{" + b",\n".join(member(name, value) for name, value in head(bundle).items()))
        for record_type, file in held.items():
            out.write(b',\n"%s":[' % names[record_type].encode())
            file.seek(0)
            shutil.copyfileobj(file, out)
            out.write(b"]")
        out.write(b"}\n")
    return counts


def head(bundle: Bundle) -> dict[str, Any]:
    """Everything but the tables"""
    first = bundle.anchor_token
    return {
        "kind": KIND,
        "run_id": bundle.run_id,
        "complete": bundle.complete,
        "anchor": bundle.anchor.document(),
        "anchor_token": {"id": first.id, "position": first.position} if isinstance(first, AnchorToken) else plain(first),
        "run": run_values(bundle),
    }


def run_values(bundle: Bundle) -> dict[str, Any]:
    """The first line, its vectors as arrays"""
    _, line = next(tables.decoded(bundle.folder))
    values = {field.name: line["measured"][field.name] for field in fields.fields_of("run", "full")}
    if bundle.run.biases:
        values["router_biases"] = [{"layer": layer, "biases": list(biases)} for layer, biases in bundle.run.biases.items()]
    return values


def member(name: str, value: Any) -> bytes:
    return f'"{name}":{json_text(value)}'.encode()


def json_record(record: Record) -> bytes:
    return canonical.encode(plain_record(record), limits=canonical.DOCUMENT)


# ---- comma-separated values


def write_csv(bundle: Bundle, paths: Mapping[str, Path]) -> Counts:
    """RFC 4180, UTF-8, with a header. Absent values are empty, and the last column says why: JSON, reason -> columns."""
    counts = dict.fromkeys(paths, 0)
    with ExitStack() as stack:
        writers = {}
        for name, record_type in TABLES.items():
            file = stack.enter_context(paths[name].open("x", encoding="utf-8", newline=""))
            writers[record_type] = name, csv.writer(file, lineterminator="\r\n")
            writers[record_type][1].writerow([*(column.name for column in record_type.columns), arrow.ABSENT])
        for record in bundle.records:
            name, writer = writers[type(record)]
            writer.writerow([*(cell_text(c, getattr(record, c.name)) for c in record.columns), json_text(absences(record))])
            counts[name] += 1
    return counts


# ---- files


TABLE_WRITERS: Mapping[str, Callable[[Bundle, Mapping[str, Path]], Counts]] = {"csv": write_csv, "parquet": arrow.write_parquet}
FORMATS = ("json", *TABLE_WRITERS)


def file_names(form: str, complete: bool) -> dict[str, str]:
    """By table"""
    return {name: f"{name}.{form}" if complete else f"{name}.{INCOMPLETE}.{form}" for name in TABLES}


def export(bundle: Bundle, form: str, out: Path) -> Counts:
    """Writes the file `out` (json) or the folder `out` (csv, parquet); returns rows by table. Raises UsageError if `out` is there or lies in
    the bundle, and EnvironmentFault."""
    if out.resolve().is_relative_to(bundle.folder.resolve()):
        raise UsageError(f"{out}: expected a place outside the bundle, whose files are sealed, got one inside")
    with written_whole(out) as draft:
        if form == "json":
            with draft.open("xb") as file:
                return write_json(bundle, file)
        draft.mkdir()
        return TABLE_WRITERS[form](bundle, {name: draft / file for name, file in file_names(form, bundle.complete).items()})


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A path beside `out` for a file or folder, which gets its name when all of it is on disk; whatever fails, nothing stays.
    Raises UsageError if `out` is there, and EnvironmentFault."""
    check_free(out)
    draft = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        yield draft
        for path in (draft, *draft.glob("*")):
            sync_folder(path) if path.is_dir() else sync_file(path)
        check_free(out)
        draft.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise EnvironmentFault(f"{out}: expected to write it, got {error.strerror or error}") from error
    finally:
        remove(draft)


def check_free(out: Path) -> None:
    if os.path.lexists(out):
        raise UsageError(f"{out}: expected a name that is free, got one that is there", hint="give another --out; nothing is overwritten")


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def remove(draft: Path) -> None:
    if draft.is_dir():
        shutil.rmtree(draft)
    else:
        draft.unlink(missing_ok=True)
