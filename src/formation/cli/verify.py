"""Verify a bundle, a receipt or a digest, without weights and without a network. What X is, its content tells.

A bundle gets a verdict in levels from numbered checks; a receipt proves that one line is in a signed ledger; a digest, sha256:HEX, names the
object under PATH that has it. A key found in a bundle is never trusted for being there: --signer, known_signers or your own key is.
--page writes the same verification as a page that needs nothing but a browser.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.options import add_json
from formation.cli.speech import harmless, say

if TYPE_CHECKING:
    from formation.evidence.report import Report

HELP = "check a bundle, a receipt or a digest, without weights"
DIGEST = re.compile("sha256:[0-9a-f]{64}")
WIDTH = 11


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="X", nargs="?", help="a bundle (folder or ZIP), a receipt, or sha256:HEX")
    parser.add_argument("path", metavar="PATH", type=Path, nargs="?", help="of a digest: where to look for what has it")
    parser.add_argument("--signer", metavar="KEY", action="append", default=[], help="the only key to accept: base64, or its fingerprint sha256:HEX")
    parser.add_argument("--allow-unknown-signer", action="store_true", help="go on with a key you do not know; SIGNER is then not claimed")
    parser.add_argument("--nonce", metavar="TEXT", help="that you chose before the run, and the anchor must hold")
    parser.add_argument("--checks", action="store_true", help="show every check, not only those that failed")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write verify.html, which verifies bundles and receipts in a browser, offline")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.errors import EnvironmentFault, UsageError

    if args.page is not None:
        return write_page(args)
    if args.what is None:
        raise UsageError("verify: expected a bundle, a receipt or sha256:HEX, got nothing", hint="formation verify NAME.ofb")
    if args.what.startswith("sha256:"):
        if not DIGEST.fullmatch(args.what) or args.path is None:
            raise UsageError("verify: expected sha256: with 64 hexadecimal digits and a PATH, got less", hint="formation verify sha256:HEX NAME.ofb")
        return name_digest(args)
    if args.path is not None:
        raise UsageError(f"verify: expected one path, got {args.path} too", hint="formation verify NAME.ofb")
    path = Path(args.what)
    if not path.exists():
        raise EnvironmentFault(f"{path}: expected a bundle, a receipt or sha256:HEX, got nothing there")
    return verify_receipt(args, path) if is_receipt(path) else verify_bundle(args, path)


def is_receipt(path: Path) -> bool:
    from formation.evidence.receipt import FIRST_LINE

    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(FIRST_LINE) + 1) == f"{FIRST_LINE}\n".encode()


def known(args: argparse.Namespace) -> dict[str, str]:
    """Fingerprint -> how the key is known. Raises UsageError for a --signer that is no key."""
    from formation.errors import UsageError
    from formation.evidence import keys
    from formation.evidence.strict import Refused

    if args.signer:
        try:
            return {s if DIGEST.fullmatch(s) else keys.PublicKey.read(s).fingerprint: "given by --signer" for s in args.signer}
        except Refused as refusal:
            raise UsageError(f"--signer: {refusal}", hint="formation key show prints a key") from None
    own = {keys.load(keys.key_path()).public.fingerprint: "your own key"} if keys.key_path().exists() else {}
    return own | {key.fingerprint: f"known to you as {name}" for name, key in keys.known_signers().items()}


def write_page(args: argparse.Namespace) -> int:
    from formation.errors import UsageError
    from formation.explorer.page import verify_page
    from formation.ledger.files import write_whole

    if args.what is not None:
        raise UsageError(f"verify: expected nothing to verify with --page, got {args.what}", hint="open the page and drop it there")
    write_whole(args.page, verify_page())
    print(json.dumps({"page": str(args.page)}) if args.json else f"{args.page}: open it in a browser and drop a bundle or a receipt on it")
    return 0


# ---- a bundle


def verify_bundle(args: argparse.Namespace, path: Path) -> int:
    from formation.evidence.container import ContainerRefusal, open_container
    from formation.evidence.verify import refused, verify

    try:
        with open_container(path) as container:
            report = verify(container, signers=known(args), allow_unknown_signer=args.allow_unknown_signer, nonce=args.nonce)
    except ContainerRefusal as refusal:
        report = refused(str(refusal))
    print(json.dumps(report.document()) if args.json else harmless("\n".join(told(report, str(path), all_checks=args.checks))))
    if not report.verified and not args.json:
        say(f"formation: {harmless(str(report.failed[0]))}")
        if hint := hint_of(report):
            say(f"hint: {hint}")
    return report.exit_code


def told(report: Report, path: str, *, all_checks: bool) -> list[str]:
    levels = report.levels()
    lines = [f"{'verified' if report.verified else 'failed':{WIDTH}} {path}"]
    lines += [f"{name:{WIDTH}} {value}" for name, value in report.facts.items()]
    lines += [f"{level:{WIDTH}} {state:12} {report.notes.get(level, '')}".rstrip() for level, state in levels.items()]
    for outcome in report.outcomes:
        if all_checks or outcome.state == "failed":
            lines.append(f"{outcome.state:{WIDTH}} {outcome}")
    return [*lines, report.honesty]


def hint_of(report: Report) -> str:
    name = report.failed[0].check.name
    if name == "signer":
        return "if you know whose key it is, add NAME and the key to known_signers, or give --signer; to go on without: --allow-unknown-signer"
    if name == "container" and "never sealed" in str(report.failed[0]):
        return "formation seal signs a bundle"
    return "formation show reads it, formation record --resume finishes it" if name == "complete" else ""


# ---- a receipt


def verify_receipt(args: argparse.Namespace, path: Path) -> int:
    from formation.errors import EvidenceError, UsageError
    from formation.evidence import receipt
    from formation.evidence.report import NEITHER

    if args.nonce is not None:
        raise UsageError("verify: expected --nonce with a bundle, got it with a receipt", hint="a receipt does not hold the anchor")
    with path.open("rb") as file:
        found = receipt.read(file.read(receipt.RECEIPT_BYTES + 1))
    how = known(args).get(found.signer.fingerprint)
    if how is None and not args.allow_unknown_signer:
        hint = "if you know whose key it is, give --signer; to go on without: --allow-unknown-signer"
        raise EvidenceError(f"{path}: expected a signer you know, got {found.signer.fingerprint}, public key {found.signer.text}", hint=hint)
    facts = {
        "kind": "formation-receipt-verdict/1", "verdict": "verified", "receipt": str(path), "run_id": found.head.run_id, "index": found.index,
        "lines": found.head.size, "root": found.head.root.hex(), "signer": found.signer.fingerprint,
        "levels": {"INTEGRITY": "passed", "SIGNER": "passed" if how else "not claimed"}, "how": how or "an unknown key, which was allowed",
        "line": found.line, "proves": f"{found.proves}; {receipt.NOT_PROVEN}; {NEITHER}",
    }  # fmt: skip
    print(json.dumps(facts) if args.json else harmless("\n".join(receipt_told(facts))))
    return 0


def receipt_told(facts: dict[str, Any]) -> list[str]:
    line = facts["line"]
    return [
        f"{'verified':{WIDTH}} {facts['receipt']}",
        f"{'line':{WIDTH}} {facts['index']} of {facts['lines']}: {line['slot']} at position {line['position']}",
        f"{'INTEGRITY':{WIDTH}} passed",
        f"{'SIGNER':{WIDTH}} {facts['levels']['SIGNER']:12} {facts['how']}",
        facts["proves"],
    ]  # fmt: skip


# ---- a digest


def name_digest(args: argparse.Namespace) -> int:
    from formation.errors import EvidenceError
    from formation.evidence.search import find

    found = find(args.what.removeprefix("sha256:"), args.path)
    if not found:
        raise EvidenceError(f"{args.path}: expected something with {args.what}, got nothing")
    proves = "the object is named by its digest; who signed it, or whether the rest holds, was not looked at"
    facts = {"kind": "formation-digest/1", "digest": args.what, "path": str(args.path), "found": found, "proves": proves}
    print(json.dumps(facts) if args.json else harmless("\n".join([*found, proves])))
    return 0
