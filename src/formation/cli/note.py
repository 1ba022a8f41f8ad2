"""Write the technical note on a recorded and sealed run: what ran, how its tokens formed, what was verified, as a PDF of a few pages.

Made from the bundle alone: the same bundle gives the same bytes. A bundle that fails a check gives no note. Needs the extra `note`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from formation.cli.options import add_json
from formation.cli.speech import harmless, say

HELP = "the technical note on a run, as a PDF"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="NAME.ofb", help="a sealed bundle")
    parser.add_argument("--out", type=Path, default=Path("note.pdf"), metavar="FILE", help="default: note.pdf here; replaced if it is there")
    parser.add_argument("--token", type=int, default=1, metavar="T", help="the token of the figures, from 1 (default 1, the anchor token)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.ledger.files import write_whole
    from formation.note import make_note

    say("verifying the bundle, then setting the note")
    data = make_note(args.bundle, token=args.token)
    write_whole(args.out, data)
    facts = {"note": str(args.out), "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    print(json.dumps(facts) if args.json else harmless(f"{args.out}: {len(data)} bytes, sha256:{facts['sha256']}"))
    return 0
