"""Seal a bundle: sign its tree head, and an attestation over all of its files. Recording does it by itself; this adds digests of the weights."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from formation.cli.options import add_json
from formation.cli.speech import LiveLine, harmless, say

if TYPE_CHECKING:
    from formation.weights.payload import HashProgress

HELP = "sign a recorded bundle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="NAME.ofb", help="a recorded bundle")
    parser.add_argument("--key", type=Path, metavar="PATH", help="a private key file (default: the user's own, made on first use)")
    parser.add_argument("--hash-tensors", action="store_true", help="hash every tensor of the checkpoint first: one pass over it, kept and resumed")
    parser.add_argument("--checkpoint", metavar="CKPT", help="where the weights are, for --hash-tensors")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.errors import UsageError
    from formation.evidence import keys
    from formation.evidence.seal import list_subjects, seal

    if args.hash_tensors != (args.checkpoint is not None):
        raise UsageError("seal: expected --hash-tensors and --checkpoint together, got one of them")
    list_subjects(args.bundle)  # refuse what cannot be sealed before hours of hashing
    key = keys.load_or_create(args.key)
    if args.hash_tensors:
        hash_weights(args.bundle, args.checkpoint)
    done = seal(args.bundle, key)
    facts = {
        "bundle": str(args.bundle), "digest": done.digest, "run_id": done.head.run_id, "lines": done.head.size, "root": done.head.root.hex(),
        "signer": done.fingerprint, "files": len(done.subjects), "weights": done.weights,
    }  # fmt: skip
    print(json.dumps(facts) if args.json else "\n".join(f"{name:9}{harmless(str(value))}" for name, value in facts.items()))
    if not args.json:
        say("sealed: these bytes are signed and can be shown to be unchanged; whether the run is true, only an audit tells")
    return 0


def hash_weights(bundle: Path, checkpoint_path: str) -> None:
    """Writes tensor-digests.json. Raises UsageError if the checkpoint is not the one that was recorded."""
    import formation
    from formation.errors import UsageError
    from formation.evidence import payloads
    from formation.run.machine import cores
    from formation.weights.identity import identify_files, tensor_rows
    from formation.weights.payload import hash_tensors

    checkpoint = formation.open(checkpoint_path)
    recorded = payloads.identity(bundle)
    if recorded["files"] != identify_files(checkpoint) or recorded["tensor_table"] != tensor_rows(checkpoint):
        raise UsageError(f"{checkpoint_path}: expected the checkpoint that {bundle} was recorded from, got another")
    progress = Progress()
    payloads.write(bundle, hash_tensors(checkpoint, threads=cores(), progress=progress))
    progress.end()


class Progress(LiveLine):
    """Its last line stays."""

    line = ""

    def __call__(self, p: HashProgress) -> None:
        self.line = progress_line(p)
        if self.is_due():
            self.show(self.line)

    def end(self) -> None:
        super().end()
        say(harmless(self.line))


def progress_line(p: HashProgress) -> str:
    from formation.run.machine import show_bytes

    speed = f"{p.read_bytes / 1e9 / p.seconds:.2f} GB/s" if p.read_bytes and p.seconds else "known from before"
    left = f" · {p.seconds_left:.0f} s left" if p.seconds_left else ""
    return f"hashing {p.shard} · tensor {p.tensors}/{p.total_tensors} · {show_bytes(p.done_bytes)} of {show_bytes(p.total_bytes)}, {speed}{left}"
