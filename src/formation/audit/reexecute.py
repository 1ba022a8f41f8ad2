"""Audits in one page: hash the ledgers, draw, hold the checkpoint against their identity, check every token's ends, compute what was drawn again.

    from formation.audit import audit

    report = audit("run.ofb", "path/to/Kimi-K2.5", column=7)
    print(report.passed, report.differences[:1])

`audit_together` is the same of several bundles, in one pass over the weights.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from formation.audit import challenge as draws
from formation.audit.course import Course
from formation.audit.examination import Auditor, Examination, examine
from formation.audit.execution import Execution
from formation.audit.recorded import Ledger
from formation.audit.report import AuditReport, Challenge
from formation.audit.weights import Weights
from formation.errors import BudgetError, FormationError, UsageError
from formation.evidence.audited import CELLS, COLUMN, FULL, PROFILE
from formation.run import machine
from formation.run.executor import Progress
from formation.run.plan import Plan, make_plan
from formation.weights.checkpoint import Checkpoint, open_checkpoint

PROFILE_CELLS = 44  # find with 99 % what changed a tenth of all cells, wherever
MOST_TOGETHER = 100  # bundles, each with files that stay open
HINT = "give a larger --memory, or audit --cells"


def audit(
    bundle: str | Path, checkpoint: Checkpoint | str | Path, *, cells: int | None = None, column: int | None = None, full: bool = False,
    seed_from: str | None = None, memory: str | int | None = None, threads: int | None = None, progress: Callable[[Progress], None] | None = None,
) -> AuditReport:  # fmt: skip
    """Execute parts of a recorded run again: `cells` drawn ones, one `column` (a layer), all of it (`full`), or, with none of these, a column
    and 44 cells, drawn. `seed_from` is a value named by a third party to draw from (challenge.py says how).

    Whatever differs is in the report; nothing is raised for it. Raises EvidenceError for a bundle that cannot be audited at all (INCOMPLETE, not
    of its anchor), UsageError, and what reading a checkpoint raises.
    """
    (found,) = audit_together(
        [bundle], checkpoint, cells=cells, column=column, full=full, seed_from=seed_from, memory=memory, threads=threads, progress=progress
    )  # fmt: skip
    if isinstance(found, FormationError):
        raise found
    return found


def audit_together(
    bundles: Sequence[str | Path], checkpoint: Checkpoint | str | Path, *, cells: int | None = None, column: int | None = None, full: bool = False,
    seed_from: str | None = None, memory: str | int | None = None, threads: int | None = None, progress: Callable[[Progress], None] | None = None,
) -> Iterator[AuditReport | FormationError]:  # fmt: skip
    """The same of several bundles of one checkpoint, in their order: as many at a time as the budget holds, with one pass over the weights for all
    of these. Each has the report that it would have alone, but for bytes_read and seconds, which are those of the pass.

    For a bundle that cannot be audited there is the error that `audit` would raise. Raises UsageError, and what reading a checkpoint raises.
    """
    check_question(cells, column, full, seed_from)
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    budget = machine.default_budget_bytes() if memory is None else machine.parse_bytes(memory)
    auditor = Auditor(opened, budget, threads or machine.cores(), progress)
    return audits(bundles, auditor, lambda ledger: make_challenge(ledger, cells, column, full, seed_from))


# ---- what is asked


def check_question(cells: int | None, column: int | None, full: bool, seed_from: str | None) -> None:
    """Raises UsageError for what can be asked of no bundle."""
    if (cells is not None) + (column is not None) + full > 1:
        raise UsageError("audit: expected one of cells, column and full, got more")
    if (full or column is not None) and seed_from is not None:
        raise UsageError("audit: expected a seed where something is drawn, got one where nothing is")


def make_challenge(ledger: Ledger, cells: int | None, column: int | None, full: bool, seed_from: str | None) -> Challenge:
    """Raises UsageError. The ledger was hashed before the seed is taken."""
    if full:
        return Challenge(FULL, (), tuple(range(ledger.layers)))
    if column is not None:
        if not 0 <= column < ledger.layers:
            raise UsageError(f"column: expected a layer from 0 to {ledger.layers - 1}, got {column}")
        return Challenge(COLUMN, (), (column,))
    seed = draws.system_seed() if seed_from is None else draws.named_seed(seed_from)
    population = ledger.positions * ledger.layers
    count = min(PROFILE_CELLS, population) if cells is None else cells
    drawn = draws.draw(seed, ledger.root, "cells", population, count)
    columns = draws.draw(seed, ledger.root, "column", ledger.layers, 1) if cells is None else ()
    places = tuple((n // ledger.layers, n % ledger.layers) for n in drawn)
    return Challenge(PROFILE if cells is None else CELLS, places, columns, seed.value, seed.source)


# ---- one pass after the other


def audits(bundles: Sequence[str | Path], auditor: Auditor, ask: Callable[[Ledger], Challenge]) -> Iterator[AuditReport | FormationError]:
    began = time.monotonic()
    left = [examine(Path(bundle), auditor, ask) for bundle in bundles]
    while left:
        count = fit(left, auditor)
        now, left = left[:count], left[count:]
        if due := executable(now):
            execute(due, auditor)
        seconds = time.monotonic() - began
        yield from (each.outcome(seconds) if isinstance(each, Examination) else each for each in now)
        began = time.monotonic()


def executable(some: Sequence[Examination | FormationError]) -> list[Examination]:
    return [each for each in some if isinstance(each, Examination) and each.order]


def execute(due: Sequence[Examination], auditor: Auditor) -> None:
    """In one pass over the weights. Raises ReadError and BudgetError, which are of the weights; what is of one bundle ends its audit alone."""
    try:
        room = plan(due, auditor)
    except BudgetError as error:  # of a bundle that does not fit even alone
        due[0].findings.fault = error
        return
    with Weights(auditor.checkpoint, auditor.parts, room.stream_bytes, threads=auditor.threads) as weights, ExitStack() as held:
        courses: list[Course] = []
        for each in due:
            with each.findings.alone():
                courses.append(held.enter_context(each.course(weights, room.chunk)))
        Execution(courses, auditor.model, weights, threads=auditor.threads, chunk=room.chunk, progress=auditor.progress).run()
        for each in due:
            each.bytes_read, each.shared_by = weights.stream.bytes_read, len(due)


# ---- memory


def fit(left: Sequence[Examination | FormationError], auditor: Auditor) -> int:
    """How many of them, from the first, the budget holds together; one, if not even that."""
    most = min(len(left), MOST_TOGETHER)
    return bisect_left(range(2, most + 1), True, key=lambda count: not fits(executable(left[:count]), auditor)) + 1


def fits(due: Sequence[Examination], auditor: Auditor) -> bool:
    try:
        plan(due, auditor)
    except BudgetError:
        return False
    return True


def plan(due: Sequence[Examination], auditor: Auditor) -> Plan:
    """Raises BudgetError."""
    model, kept = auditor.model, sum(each.kept_bytes for each in due)
    if kept >= auditor.budget:
        needed, got = machine.show_bytes(kept), machine.show_bytes(auditor.budget)
        rows = sum(each.kept_rows for each in due)
        raise BudgetError(f"memory budget: expected more than the {needed} that the audit of {rows} positions keeps, got {got}", hint=HINT)
    lengths = [each.ledger.positions for each in due]
    return make_plan(model, auditor.sizes, auditor.budget - kept, sum(lengths), 2, lengths=lengths)
