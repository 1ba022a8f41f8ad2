"""Write what a bundle holds for other programs: one JSON document, or three tables (tokens, cells, experts) as CSV or Parquet."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from formation.cli.options import add_json
from formation.cli.speech import say

if TYPE_CHECKING:
    from formation.evidence.bundle import Bundle

HELP = "a recorded run as JSON, CSV or Parquet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="NAME.ofb", nargs="?", help="a recorded bundle")
    parser.add_argument("--format", choices=("json", "csv", "parquet"), help="json: one document; csv, parquet: a folder of three files")
    parser.add_argument("--out", metavar="PATH", help="must not exist (default: json to stdout, else the folder NAME-csv or NAME-parquet here)")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the JSON document")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.errors import UsageError
    from formation.evidence.bundle import Bundle

    if args.schema:
        from formation.ledger.export_schema import schema

        print(json.dumps(schema(), indent=1))
        return 0
    if args.bundle is None or args.format is None:
        raise UsageError("export: expected a bundle and a format, got less", hint="formation export NAME.ofb --format parquet")
    bundle = Bundle(args.bundle)
    if not bundle.complete:
        say("INCOMPLETE: the run was cut off or did not hold; what is exported is marked as such")
    if args.format == "json" and args.out is None:
        if args.json:
            raise UsageError("export: expected --out with --json, which tells what was written, got a document for stdout")
        print_document(bundle)
    else:
        write_files(bundle, args)
    return 0


def print_document(bundle: Bundle) -> None:
    """Not before all of it could be made"""
    import tempfile

    from formation.evidence.export import write_json

    with tempfile.TemporaryFile() as file:
        write_json(bundle, file)
        file.seek(0)
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()


def write_files(bundle: Bundle, args: argparse.Namespace) -> None:
    from formation.evidence.export import export, file_names

    out = Path(args.out or f"{bundle.folder.resolve().stem}-{args.format}")
    counts = export(bundle, args.format, out)
    if args.json:
        print(json.dumps({"run_id": bundle.run_id, "complete": bundle.complete, "format": args.format, "out": str(out), "rows": dict(counts)}))
        return
    names = file_names(args.format, bundle.complete)
    print("\n".join(f"{count:>8} {table:8} {out if args.format == 'json' else out / names[table]}" for table, count in counts.items()))
