"""Recordings, sealed."""

from __future__ import annotations

from pathlib import Path

from formation.audit import AuditReport, audit
from formation.evidence.keys import PrivateKey
from formation.evidence.seal import seal
from formation.ledger.progress import Watch
from formation.run.order import Order
from recorded_runs import IDS, run

MEMORY = "24MiB"
USUAL = Watch("standard", "minimal", "boundaries")


def sealed(checkpoint: Path, out: Path, key: PrivateKey, watch: Watch = USUAL, order: Order | None = None, **options: object) -> Path:
    run(checkpoint, out, order or Order(IDS, 4), watch, **({"parity": "none"} | options))
    seal(out, key)
    return out


def check(bundle: Path, checkpoint: Path, **what: object) -> AuditReport:
    return audit(bundle, checkpoint, memory=MEMORY, threads=2, **what)


def places(report: AuditReport) -> set[tuple[int, str, str]]:
    """Position, slot and field of every difference, without the place in an array"""
    return {(d.position, d.slot, d.field.partition("[")[0]) for d in report.differences}
