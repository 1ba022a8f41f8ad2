"""Recordings of given tokens, made as far as they are missing: begun in one pass over the weights together, gone on with, or there already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from formation.errors import EvidenceError
from formation.ledger import progress, reader, start
from formation.ledger.progress import Watch
from formation.recording import Means, begin_together, fit_together, resume
from formation.run.identity import identify
from formation.run.order import Order
from formation.weights.checkpoint import Checkpoint


def ensure(checkpoint: Checkpoint, orders: Sequence[Order], watch: Watch, outs: Sequence[Path], means: Means) -> None:
    """A closed ledger of each order in its folder. Raises as `begin_together` and `resume` do, and EvidenceError for a folder with a recording of
    something else."""
    missing, begun = [], []
    for order, out in zip(orders, outs, strict=True):
        if is_new(out):
            missing.append((order, out))
            continue
        check_same(checkpoint, order, out)
        if not is_complete(out):
            begun.append(out)
    for out in begun:
        resume(checkpoint, out, means)
    while missing:
        count = fit_together(checkpoint, [order for order, _ in missing], watch, means)
        now, missing = missing[:count], missing[count:]
        begin_together(checkpoint, [order for order, _ in now], watch, [out for _, out in now], means)


def is_new(out: Path) -> bool:
    return not is_complete(out) and progress.read(out) is None


def is_complete(out: Path) -> bool:
    return (out / reader.NAME).exists()


def check_same(checkpoint: Checkpoint, order: Order, out: Path) -> None:
    found, due = start.read_anchor(out).run_id, order.anchor(identify(checkpoint)).run_id
    if found != due:
        raise EvidenceError(f"{out}: expected a recording of run {due}, got one of {found}", hint="move it away")
