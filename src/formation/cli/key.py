"""The key that seals: show its fingerprint and public half, or make a new one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from formation.cli.options import add_json
from formation.cli.speech import say

HELP = "show or make the key that seals bundles"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("show", "new"), help="show the public half, or make a key where none is")
    parser.add_argument("--key", type=Path, metavar="PATH", help="a private key file (default: formation/key.pem in the user's configuration folder)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.errors import UsageError
    from formation.evidence import keys

    path = args.key or keys.key_path()
    try:
        key = keys.create(path) if args.action == "new" else keys.load(path)
    except FileExistsError:
        hint = "what it signed is verified by its public half: keep that, move the file away, then make a new one"
        raise UsageError(f"{path}: expected no key, got one", hint=hint) from None
    facts = {"path": str(path), "fingerprint": key.public.fingerprint, "public_key": key.public.text}
    print(json.dumps(facts) if args.json else "\n".join(f"{name:13}{value}" for name, value in facts.items()))
    if not args.json:
        say(f"others who trust it write into {keys.config_folder() / 'known_signers'}: NAME {key.public.text}")
    return 0
