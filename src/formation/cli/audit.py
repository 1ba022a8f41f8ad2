"""Execute parts of a recorded run again, with the weights, and compare every bit: drawn cells, one layer at all positions, or everything.

Without --cells, --column or --full: one drawn column and 44 drawn cells. Embedding, head, sampler and token are always checked, for every
token. Several bundles of one checkpoint are audited in one pass over the weights, each with a result of its own; one that cannot be audited stops
no other. Exit code 0: everything that was executed again is as recorded. 1: something, of any bundle, is not, or could not be opened.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.options import add_json, add_streaming, read_checkpoint
from formation.cli.speech import LiveLine, harmless

if TYPE_CHECKING:
    from formation.audit import AuditReport
    from formation.audit.odds import Point
    from formation.errors import FormationError
    from formation.run.executor import Progress

HELP = "execute parts of a recorded run again, with the weights"
LISTED = 20  # differences that are printed
SHOWN = {"passed": "passed", "failed": "FAILED", "refused": "REFUSED"}  # outcomes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", type=Path, nargs="+", metavar="NAME.ofb", help="a recorded bundle; several are audited together")
    parser.add_argument("--checkpoint", required=True, metavar="CKPT", help="folder with the weights that they were recorded from")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--cells", type=int, metavar="K", help="K cells, drawn from all")
    what.add_argument("--column", type=int, metavar="L", help="one layer at all positions: finds every edit in that layer")
    what.add_argument("--full", action="store_true", help="everything, in one pass over the weights")
    parser.add_argument("--seed-from", metavar="VALUE", help="draw from this value, hexadecimal or text, that a third party names afterwards")
    parser.add_argument("--out", type=Path, metavar="PATH", help="where the result goes, of one bundle (default: audit.json in a sealed bundle)")
    parser.add_argument("--key", type=Path, metavar="PATH", help="the auditor's private key (default: the user's own, made on first use)")
    add_streaming(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.audit import audit_together
    from formation.errors import FormationError

    check(args)
    progress, done = LiveProgress(), []
    reports = audit_together(
        args.bundles, read_checkpoint(args), cells=args.cells, column=args.column, full=args.full, seed_from=args.seed_from, memory=args.memory,
        threads=args.threads, progress=progress,
    )  # fmt: skip
    for bundle, found in zip(args.bundles, reports, strict=True):
        progress.end()
        if isinstance(found, FormationError) and len(args.bundles) == 1:
            raise found
        done.append(Refused(bundle, found) if isinstance(found, FormationError) else written(args, bundle, found))
        if not args.json:
            print(harmless("\n".join([f"{bundle}", *done[-1].lines(), ""] if len(args.bundles) > 1 else done[-1].lines())))
    print(json.dumps(document(done)) if args.json else harmless("\n".join(closing_lines(done))))
    return 1 if any(each.outcome == "failed" for each in done) else max(each.exit_code for each in done)


def check(args: argparse.Namespace) -> None:
    """Raises UsageError."""
    from formation.errors import UsageError

    if args.out and len(args.bundles) > 1:
        raise UsageError(f"--out: expected one bundle, got {len(args.bundles)}", hint="the result of each goes to its own audit.json")
    names = [bundle.resolve() for bundle in args.bundles]
    if twice := next((bundle for bundle, name in zip(args.bundles, names, strict=True) if names.count(name) > 1), None):
        raise UsageError(f"{twice}: expected each bundle once, got it twice")


def written(args: argparse.Namespace, bundle: Path, report: AuditReport) -> Audited:
    """Its result at once, so that none is lost if a later pass fails; where it cannot be written the audit still says what it found."""
    from formation.audit.seal import write_audit
    from formation.errors import FormationError
    from formation.evidence import keys

    path = args.out or (bundle / "audit.json" if report.attestation_sha256 else None)
    try:
        if path:
            write_audit(report, path, keys.load_or_create(args.key) if report.attestation_sha256 else None)
    except FormationError as error:
        return Audited(bundle, report, None, error)
    return Audited(bundle, report, path)


# ---- what came of it


@dataclass(frozen=True)
class Audited:
    """One bundle, and where its result went, or why nowhere."""

    bundle: Path
    report: AuditReport
    path: Path | None
    fault: FormationError | None = None

    @property
    def outcome(self) -> str:
        return "passed" if self.report.passed else "failed"

    @property
    def exit_code(self) -> int:
        return 1 if not self.report.passed else self.fault.exit_code if self.fault else 0

    def lines(self) -> list[str]:
        return [*lines(self.report, self.path), *([f"NOT WRITTEN    {self.fault}"] if self.fault else [])]

    def facts(self) -> dict[str, Any]:
        report = self.report
        head = {"run_id": report.run_id, "tree_size": report.tree_size, "tree_root": report.tree_root, "signer": report.signer}
        cost = {"bytes_read": report.bytes_read, "seconds": report.seconds, "shared_by": report.shared_by}
        return {
            "outcome": self.outcome,
            **head,
            **report.result(),
            **cost,
            "written": str(self.path or ""),
            **({"not_written": str(self.fault)} if self.fault else {}),
        }


@dataclass(frozen=True)
class Refused:
    """One that cannot be audited."""

    bundle: Path
    error: FormationError
    outcome = "refused"

    @property
    def exit_code(self) -> int:
        return self.error.exit_code

    def lines(self) -> list[str]:
        return [f"audit          REFUSED: {self.error}", *([f"hint           {self.error.hint}"] if self.error.hint else [])]

    def facts(self) -> dict[str, Any]:
        return {"outcome": self.outcome, "error": str(self.error), "hint": self.error.hint}


def document(done: Sequence[Audited | Refused]) -> dict[str, Any]:
    """Of one bundle its facts; of several each one's, by bundle"""
    if len(done) == 1:
        return done[0].facts()
    return {"audits": [{"bundle": str(each.bundle), **each.facts()} for each in done]}


def closing_lines(done: Sequence[Audited | Refused]) -> list[str]:
    from formation.audit.report import HONESTY

    counts = Counter(each.outcome for each in done)
    told = ", ".join(f"{counts[outcome]} {shown}" for outcome, shown in SHOWN.items() if counts[outcome])
    return [*([f"audits         {told}"] if len(done) > 1 else []), HONESTY]


def lines(report: AuditReport, path: Path | None) -> list[str]:
    from formation.evidence.audited import UNSEALED
    from formation.run.machine import show_bytes

    speed = show_bytes(report.bytes_read / max(report.seconds, 1e-9))
    shared = f", for {report.shared_by} bundles together" if report.shared_by > 1 else ""
    unsealed = "UNSEALED: nobody has signed these bytes" if report.seal == UNSEALED else "with a seal that DOES NOT HOLD"
    sealed = f"sealed by {report.signer}" if report.signer else unsealed
    told = [
        f"run            {report.run_id[:16]}…, {report.tree_size} lines under {report.tree_root[:16]}…, {sealed}",
        f"executed       {report.executed()}",
        f"not executed   {report.not_executed()}",
        f"prompt         {report.prompt}",
        f"compared       {report.values_compared} values bit for bit, {report.rows_opened} committed rows opened",
        f"weights        {len(report.tensors)} of {report.all_tensors} tensors hashed and used, {report.known_tensors} of them held against "
        f"digests in the bundle; {show_bytes(report.bytes_read)} read at {speed}/s{shared}",
        *seed_lines(report), *curve_lines(report), *difference_lines(report),
    ]  # fmt: skip
    return [*told, f"audit          {'passed' if report.passed else 'FAILED'}{': ' + str(path) if path else ''}"]


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
