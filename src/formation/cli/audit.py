"""Execute parts of a recorded run again, with the weights, and compare every bit: drawn cells, one layer at all positions, or everything.

Without --cells, --column or --full: one drawn column and 44 drawn cells. Embedding, head, sampler and token are always checked, for every
token. Exit code 0: everything that was executed again is as recorded. 1: something is not, or could not be opened.
"""

from __future__ import annotations

import argparse
import json
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.options import add_json, add_machine
from formation.cli.speech import LiveLine, harmless

if TYPE_CHECKING:
    from formation.audit import AuditReport
    from formation.audit.odds import Point
    from formation.run.executor import Progress

HELP = "execute parts of a recorded run again, with the weights"
LISTED = 20  # differences that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="NAME.ofb", help="a recorded bundle")
    parser.add_argument("--checkpoint", required=True, metavar="CKPT", help="folder with the weights that it was recorded from")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--cells", type=int, metavar="K", help="K cells, drawn from all")
    what.add_argument("--column", type=int, metavar="L", help="one layer at all positions: finds every edit in that layer")
    what.add_argument("--full", action="store_true", help="everything, in one pass over the weights")
    parser.add_argument("--seed-from", metavar="VALUE", help="draw from this value, hexadecimal or text, that a third party names afterwards")
    parser.add_argument("--out", type=Path, metavar="PATH", help="where the result goes (default: audit.json in a sealed bundle)")
    parser.add_argument("--key", type=Path, metavar="PATH", help="the auditor's private key (default: the user's own, made on first use)")
    add_machine(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.audit import audit
    from formation.audit.seal import write_audit
    from formation.evidence import keys

    progress = LiveProgress()
    report = audit(
        args.bundle, args.checkpoint, cells=args.cells, column=args.column, full=args.full, seed_from=args.seed_from, memory=args.memory,
        threads=args.threads, progress=progress,
    )  # fmt: skip
    progress.end()
    path = args.out or (args.bundle / "audit.json" if report.attestation_sha256 else None)
    if path:
        write_audit(report, path, keys.load_or_create(args.key) if report.attestation_sha256 else None)
    print(json.dumps(facts(report, path)) if args.json else "\n".join(map(harmless, lines(report, path))))
    return 0 if report.passed else 1


def facts(report: AuditReport, path: Path | None) -> dict[str, Any]:
    outcome = "passed" if report.passed else "failed"
    head = {"run_id": report.run_id, "tree_size": report.tree_size, "tree_root": report.tree_root, "signer": report.signer}
    return {"outcome": outcome, **head, **report.result(), "bytes_read": report.bytes_read, "seconds": report.seconds, "written": str(path or "")}


def lines(report: AuditReport, path: Path | None) -> list[str]:
    from formation.audit.report import HONESTY
    from formation.evidence.audited import UNSEALED
    from formation.run.machine import show_bytes

    speed = show_bytes(report.bytes_read / max(report.seconds, 1e-9))
    unsealed = "UNSEALED: nobody has signed these bytes" if report.seal == UNSEALED else "with a seal that DOES NOT HOLD"
    sealed = f"sealed by {report.signer}" if report.signer else unsealed
    told = [
        f"run            {report.run_id[:16]}…, {report.tree_size} lines under {report.tree_root[:16]}…, {sealed}",
        f"executed       {report.executed()}",
        f"not executed   {report.not_executed()}",
        f"prompt         {report.prompt}",
        f"compared       {report.values_compared} values bit for bit, {report.rows_opened} committed rows opened",
        f"weights        {len(report.tensors)} of {report.all_tensors} tensors hashed and used, {report.known_tensors} of them held against "
        f"digests in the bundle; {show_bytes(report.bytes_read)} read at {speed}/s",
        *seed_lines(report), *curve_lines(report), *difference_lines(report),
    ]  # fmt: skip
    told.append(f"audit          {'passed' if report.passed else 'FAILED'}{': ' + str(path) if path else ''}")
    return [*told, HONESTY]


def seed_lines(report: AuditReport) -> list[str]:
    if report.challenge.seed is None:
        return []
    source = "this system's randomness" if report.challenge.seed_source == "system" else "the value that was named"
    return [f"seed           {report.challenge.seed.hex()}, from {source}; --seed-from it repeats the draw"]


def curve_lines(report: AuditReport) -> list[str]:
    """What would have been found, had it been there"""
    if report.challenge.mode == "full":
        return ["would find     any edit of any cell"]
    told = [f"would find     any edit in layer {layer}" for layer in report.challenge.columns]
    told += [point_line(point, "cells edited anywhere", "cells") for point in report.cell_curve]
    return told + [point_line(point, "layers edited", "columns") for point in report.column_curve]


def point_line(point: Point, what: str, unit: str) -> str:
    shown = floor(point.probability * 10_000 + 1e-9) / 10_000  # rounded up it would claim too much
    return f"  {point.edited:>7} of {point.of} {what:22} {shown:>8.2%}   99 % needs {point.for_99} {unit}"


def difference_lines(report: AuditReport) -> list[str]:
    told = [f"DIFFERS        {difference}" for difference in report.differences[:LISTED]]
    left = report.difference_count - len(told)
    return [*told, *([f"               and {left} more"] if left > 0 else [])]


class LiveProgress(LiveLine):
    def __call__(self, p: Progress) -> None:
        if self.is_due():
            self.show(progress_line(p))


def progress_line(p: Progress) -> str:
    where = {"layer": f"layer {p.layer + 1}/{p.layers}", "head": "embedding and head", "done": "done"}[p.stage]
    speed = p.bytes_read / 1e9 / max(p.seconds, 1e-9)
    left = f" · {p.seconds / p.layer * (p.layers - p.layer):.0f} s left" if p.stage == "layer" and p.layer else ""
    return f"auditing {p.positions} positions · {where} · {p.bytes_read / 1e9:.2f} GB read, {speed:.2f} GB/s{left}"
