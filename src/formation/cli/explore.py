"""Look into a recorded run: how each token formed, layer by layer and expert by expert, with every number's provenance.

The page is one file that opens from disk and asks no network for anything; the bundle's bytes are in it, and it verifies them itself. With --serve
the same page asks a server on this machine for the parts that are looked at: for bundles too big for one file. Of a dialogue, or a scored
transcript, the page shows every token, and checks the log.
"""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from pathlib import Path

from formation.cli.options import add_json
from formation.cli.speech import say
from formation.errors import UsageError

HELP = "a recorded run as one page to look into"
OUT, PORT = Path("explorer.html"), 8617


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="NAME.ofb", type=Path, help="a recorded bundle, a folder or a ZIP; or what dialogue or score made")
    parser.add_argument("--with", dest="other", type=Path, metavar="B.ofb", help="another recorded bundle, to compare with in the same page")
    parser.add_argument("--claims", type=Path, metavar="FILE", help="of a dialogue: the object that formation claims --json gives")
    parser.add_argument("--forks", type=Path, metavar="FOLDER", help="of a dialogue: what formation fork made, or its tree.json alone")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"where to write the page (default: {OUT})")
    parser.add_argument("--serve", action="store_true", help="serve the page on 127.0.0.1 instead, until Ctrl-C")
    parser.add_argument("--port", type=_port, metavar="N", help=f"of --serve (default: {PORT}; 0: any that is free)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.dialogue import page

    if not args.serve and args.port is not None:
        raise UsageError("explore: expected --serve with --port, got none")
    for name, given in (("--out", args.out), ("--with", args.other)):
        if args.serve and given:
            raise UsageError(f"explore: expected --serve or {name}, got both", hint="--serve shows one bundle, and writes no file")
    if page.kind_of(args.bundle):
        return _write_dialogue(args)
    if args.claims or args.forks:
        raise UsageError("explore: expected a dialogue with --claims and --forks, got a bundle")
    return _serve(args) if args.serve else _write(args)


def _write_dialogue(args: argparse.Namespace) -> int:
    from formation.dialogue import page
    from formation.ledger.files import write_whole

    if args.serve or args.other:
        raise UsageError("explore: expected a bundle with --serve and --with, got a dialogue")
    made, out = page.packed(args.bundle, args.claims, args.forks), args.out or OUT
    write_whole(out, made.page)
    written = {"page": str(out), "bytes": len(made.page), "kind": made.kind, "dropped_bytes": made.dropped_bytes}
    print(json.dumps(written) if args.json else f"{out}: {len(made.page) / 1e6:.1f} MB; open it in a browser")
    if made.dropped_bytes:
        say(f"the last line of the log was cut off: its {made.dropped_bytes} bytes are not in the page")
    return 0


def _write(args: argparse.Namespace) -> int:
    from formation.explorer.view import SERVE, packed
    from formation.ledger.files import write_whole

    made, out = packed(args.bundle, args.other), args.out or OUT
    write_whole(out, made.page)
    written = {"page": str(out), "bytes": len(made.page), "left_out": list(made.left_out)}
    print(json.dumps(written) if args.json else f"{out}: {len(made.page) / 1e6:.1f} MB; open it in a browser")
    if made.left_out:
        say(f"rows/ and router/ ({len(made.left_out)} files) were too much for one page: it does not show or check them, and says so; {SERVE}")
    return 0


def _serve(args: argparse.Namespace) -> int:
    """Until Ctrl-C, which is how it ends"""
    from formation.cli import serve
    from formation.explorer import view

    with view.opened(args.bundle) as (bundle, contents):
        page = view.served(args.bundle, bundle, contents)
        site, port = serve.Site(serve.new_root(), page, bundle, contents.sizes), PORT if args.port is None else args.port
        with serve.listening(site, port) as server, suppress(KeyboardInterrupt):
            say("open this address in a browser on this machine; Ctrl-C ends it")
            print(json.dumps({"address": server.address}) if args.json else server.address, flush=True)
            server.serve_forever()
    return 0


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)
