"""Make a receipt: a small file that proves, to whoever knows the signer's key, that one line is in a sealed ledger."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from formation.cli.options import add_json
from formation.cli.speech import harmless, say

if TYPE_CHECKING:
    from formation.evidence.keys import PublicKey

HELP = "prove one line of a sealed ledger"
SLOTS = ("embed", "lm_head", "sampler", "token", "run")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="NAME.ofb", help="a sealed bundle")
    parser.add_argument("--token", type=int, metavar="T", help="of the step that formed the T-th token, from 1")
    parser.add_argument("--position", type=int, metavar="P", help="instead of --token: any position, prompt included, from 0")
    parser.add_argument("--layer", required=True, type=_slot, metavar="L", help=f"a layer from 0, or {', '.join(SLOTS)} (run: the first line)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: NAME-pP-SLOT.tlog-proof in this folder")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.evidence import receipt
    from formation.ledger.files import write_whole

    position = find_position(args)
    data = receipt.make(args.bundle, receipt.find_line(args.bundle, position, args.layer), claimed_signer(args.bundle))
    found = receipt.read(data)
    place = "run" if args.layer == "run" else f"p{position}-{args.layer.replace(' ', '-')}"
    out = args.out or Path(f"{args.bundle.resolve().stem}-{place}.tlog-proof")
    write_whole(out, data)
    facts = {
        "receipt": str(out), "run_id": found.head.run_id, "index": found.index, "position": found.line["position"], "slot": found.line["slot"],
        "signer": found.signer.fingerprint, "proves": found.proves, "does_not_prove": receipt.NOT_PROVEN,
    }  # fmt: skip
    print(json.dumps(facts) if args.json else harmless(str(out)))
    if not args.json:
        say(f"proves: {found.proves}\n{receipt.NOT_PROVEN}")
    return 0


def find_position(args: argparse.Namespace) -> int:
    from formation.errors import UsageError
    from formation.evidence import receipt

    if (args.token is not None) + (args.position is not None) + (args.layer == "run") != 1:
        raise UsageError("receipt: expected one of --token, --position and --layer run, got none or several")
    if args.token is not None:
        return receipt.step_of_token(args.bundle, args.token)
    return -1 if args.layer == "run" else int(args.position)


def claimed_signer(bundle: Path) -> PublicKey:
    """Who sealed the bundle, as its own attestation says."""
    from formation.errors import UsageError
    from formation.evidence import envelope
    from formation.evidence.seal import ATTESTATION
    from formation.ledger.files import read_whole

    if not (bundle / ATTESTATION).exists():
        raise UsageError(f"{bundle}: expected a sealed bundle, got one without {ATTESTATION}", hint=f"formation seal {bundle}")
    return envelope.read(read_whole(bundle / ATTESTATION), envelope.RUN).signer


def _slot(text: str) -> str:
    if text in SLOTS:
        return text
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a layer's number or one of {', '.join(SLOTS)}, got {text!r}")
    return f"layer {int(text)}"
