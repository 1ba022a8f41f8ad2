"""Write a recorded run as a page to look into: how each token formed, layer by layer and expert by expert, with every number's provenance.

The page is one file that opens from disk and asks no network for anything. The bundle's bytes are in it, and it verifies them itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from formation.cli.options import add_json

HELP = "a recorded run as one page to look into"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="NAME.ofb", type=Path, help="a recorded bundle, a folder or a ZIP")
    parser.add_argument("--out", type=Path, metavar="FILE", default=Path("explorer.html"), help="where to write it (default: explorer.html)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.explorer.view import explorer
    from formation.ledger.files import write_whole

    data = explorer(args.bundle)
    write_whole(args.out, data)
    written = {"page": str(args.out), "bytes": len(data)}
    print(json.dumps(written) if args.json else f"{args.out}: {len(data) / 1e6:.1f} MB; open it in a browser")
    return 0
