"""Publish a sealed run as a folder for any web server: a first page, explorer, verify page, note, ledger, receipts, the bundle, and their digests.

The bundle is verified first, and the page carries that verdict with the means to compute one's own. What fails is refused; with
--allow-unverified it is published all the same, and the page begins with that. The same bundle gives the same bytes: no clock is read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.options import add_json
from formation.cli.speech import harmless, say

if TYPE_CHECKING:
    from formation.explorer.gallery.publish import Published

HELP = "a folder for a web server: the page to link to, with the evidence"
TO_READERS = {"your own key": "the key of whoever published this page", "given by --signer": "a key that whoever published this page named"}
KNOWN = "a key known to whoever published this page"  # under a name that is nobody else's business


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="NAME.ofb", help="a sealed bundle, a folder or a ZIP")
    parser.add_argument("out", type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--signer", metavar="KEY", action="append", default=[], help="the only key to accept: base64, or its fingerprint sha256:HEX")
    parser.add_argument("--allow-unknown-signer", action="store_true", help="go on with a key you do not know; the page says so")
    parser.add_argument("--allow-unverified", action="store_true", help="publish what does not verify; the page begins with that")
    parser.add_argument("--replace", action="store_true", help="DIR may be a former gallery with nothing else in it")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.cli.verify import known
    from formation.explorer.gallery.publish import Terms, publish

    say("verifying the bundle, then writing the gallery")
    signers = {key: TO_READERS.get(how, KNOWN) for key, how in known(args).items()}
    made = publish(args.bundle, args.out, Terms(signers, args.allow_unknown_signer, args.allow_unverified, args.replace, find_note()))
    print(json.dumps(document(args.out, made)) if args.json else harmless("\n".join(told(args.out, made))))
    if not args.json:
        for name, why in made.missing.items():
            say(f"without {name}: {why}")
        if made.left_out:
            say(f"{len(made.left_out)} files of the bundle are too much for one page: explorer.html does not show or check them")
        if not made.report.verified:
            say(f"published although it does not verify: {harmless(str(made.report.failed[0]))}")
    return 0


def find_note() -> Callable[[Path], bytes] | None:
    """What makes a note, if its extra is there"""
    from formation.errors import EnvironmentFault
    from formation.note.document import make_note, typesetter

    try:
        typesetter()
    except EnvironmentFault:
        return None
    return make_note


def document(out: Path, made: Published) -> dict[str, Any]:
    return {
        "kind": "formation-gallery/1", "gallery": str(out), "page": str(out / "index.html"), "verdict": made.report.document()["verdict"],
        "levels": made.report.levels(), "bundle": made.report.facts.get("bundle"), "missing": dict(made.missing), "left_out": list(made.left_out),
        "files": {name: {"bytes": file.size_bytes, "sha256": file.sha256 or None, "count": file.count} for name, file in made.files.items()},
    }  # fmt: skip


def told(out: Path, made: Published) -> list[str]:
    lines = [f"{file.size_bytes:>12} {name}{f' ({file.count} files)' if file.count > 1 else ''}" for name, file in made.files.items()]
    verdict = "verified" if made.report.verified else "failed"
    return [*lines, f"{verdict:>12} {out / 'index.html'}: open it in a browser, or put the folder on a web server"]
