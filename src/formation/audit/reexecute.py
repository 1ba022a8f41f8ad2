"""The audit in one page: hash the ledger, draw, hold the checkpoint against its identity, check every token's ends, compute what was drawn again.

    from formation.audit import audit

    report = audit("run.ofb", "path/to/Kimi-K2.5", column=7)
    print(report.passed, report.differences[:1])
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from formation.audit import challenge as draws
from formation.audit.compare import Difference, Findings
from formation.audit.execution import Execution
from formation.audit.kept import KeptRows
from formation.audit.prompt import check_prompt
from formation.audit.recorded import Ledger, Rows, open_ledger
from formation.audit.report import AuditReport, Challenge
from formation.audit.seal import Seal, known_payloads, read_seal
from formation.audit.weights import Weights
from formation.errors import BudgetError, EnvironmentFault, EvidenceError, UsageError
from formation.evidence.audited import CELLS, COLUMN, FULL, PROFILE, UNSEALED
from formation.ledger import canonical
from formation.ledger.fields import LEVELS
from formation.ledger.files import read_whole
from formation.ledger.start import CHECKPOINT, Start
from formation.model.architecture import Model
from formation.model.catalog import read_model
from formation.probe.cost import capture_bytes
from formation.probe.run_line import run_values
from formation.run import machine
from formation.run.check import check_tensors
from formation.run.executor import Progress
from formation.run.identity import check_same, identify
from formation.run.order import Order, order_of
from formation.run.plan import Plan, Sizes, make_plan, slot_sizes
from formation.text import load_tokenizer
from formation.weights.checkpoint import Checkpoint, open_checkpoint

PROFILE_CELLS = 44  # find with 99 % what changed a tenth of all cells, wherever
AIM_BYTES = 3 * 8  # of a step and dimension: three rows in binary64
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
    began, findings = time.monotonic(), Findings()
    if not Path(bundle).is_dir():
        raise EnvironmentFault(f"{bundle}: expected the folder of a bundle, got {'a file' if Path(bundle).exists() else 'nothing'}")
    ledger = open_ledger(Path(bundle))
    seal = read_seal(ledger, findings)
    asked = make_challenge(ledger, cells, column, full, seed_from)
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    budget = machine.default_budget_bytes() if memory is None else machine.parse_bytes(memory)
    examination = Examination(ledger, seal, asked, opened, findings, budget, threads or machine.cores(), progress)
    examination.execute()
    return examination.report(time.monotonic() - began)


def make_challenge(ledger: Ledger, cells: int | None, column: int | None, full: bool, seed_from: str | None) -> Challenge:
    """Raises UsageError. The ledger was hashed before the seed is taken."""
    if (cells is not None) + (column is not None) + full > 1:
        raise UsageError("audit: expected one of cells, column and full, got more")
    if full or column is not None:
        if seed_from is not None:
            raise UsageError("audit: expected a seed where something is drawn, got one where nothing is")
        if column is not None and not 0 <= column < ledger.layers:
            raise UsageError(f"column: expected a layer from 0 to {ledger.layers - 1}, got {column}")
        return Challenge(FULL, (), tuple(range(ledger.layers))) if full else Challenge(COLUMN, (), (column or 0,))
    seed = draws.system_seed() if seed_from is None else draws.named_seed(seed_from)
    population = ledger.positions * ledger.layers
    count = min(PROFILE_CELLS, population) if cells is None else cells
    drawn = draws.draw(seed, ledger.root, "cells", population, count)
    columns = draws.draw(seed, ledger.root, "column", ledger.layers, 1) if cells is None else ()
    places = tuple((n // ledger.layers, n % ledger.layers) for n in drawn)
    return Challenge(PROFILE if cells is None else CELLS, places, columns, seed.value, seed.source)


@dataclass
class Examination:
    """One audit between the draw and the report."""

    ledger: Ledger
    seal: Seal | None
    asked: Challenge
    checkpoint: Checkpoint
    findings: Findings
    budget: int
    threads: int
    progress: Callable[[Progress], None] | None
    known: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    prompt: str = "not looked at"
    executed_cells: int = 0
    executed_steps: int = 0
    rows_opened: int = 0
    bytes_read: int = 0

    def execute(self) -> None:
        """Stops before anything is computed if bundle, seal and checkpoint do not belong together, or if there is nothing to start from."""
        self.known = known_payloads(self.ledger, self.seal, self.findings)
        order = self._check_identity()
        if order is None:
            return
        model = read_model(self.checkpoint.config)
        self._check_model(model)
        rows = Rows(self.ledger)
        if not rows.committed and self.asked.mode != "full":
            self.findings.add(Difference(-1, "run", "rows", "rows to start from: without them only a full audit is possible", "none"))
        if max(order.prompt_ids) >= model.shape.vocabulary or self.ledger.positions > model.shape.context:
            limits = f"ids below {model.shape.vocabulary}, at most {model.shape.context} positions"
            got = f"id {max(order.prompt_ids)}, {self.ledger.positions} positions"
            self.findings.add(Difference(-1, "run", "prompt", limits, got))
        if not self.findings.count:
            self._execute(model, rows, order)

    def _check_identity(self) -> Order | None:
        """That this is the checkpoint and the contract of the anchor, whose order is one that can be followed, and that checkpoint.json says so"""
        identity = identify(self.checkpoint)
        try:
            check_same(self.ledger.anchor, identity, self._listed())
            order = order_of(self.ledger.anchor)
        except (EvidenceError, UsageError) as error:
            self.findings.add(Difference(-1, "checkpoint", "identity", "that of the anchor", str(error)))
            return None
        expected = canonical.encode(identity.document(), limits=canonical.DOCUMENT)
        self.findings.equal(-1, "checkpoint", CHECKPOINT, sha256(expected).hexdigest(), sha256(self._document()).hexdigest())
        return order

    def _listed(self) -> Sequence[dict[str, Any]]:
        """The files that checkpoint.json names, for a sentence about what differs; whether it is as it must be is compared after that"""
        try:
            return Start(self.ledger.anchor, self.ledger.folder).listed_files()
        except EnvironmentFault:
            return ()

    def _document(self) -> bytes:
        path = self.ledger.folder / CHECKPOINT
        return read_whole(path) if path.exists() else b""

    def _check_model(self, model: Model) -> None:
        """The run line's values but for the routers' biases, which layers.py compares for the layers that it reads"""
        run, stored = self.ledger.run, self.ledger.run_line()["measured"]
        some = {0: np.zeros(0, np.float32)} if model.shape.expert_layers() and model.bias_name(model.shape.dense_layers) else {}
        for name, value in run_values(model, run.prompt_level, run.step_level, some).items():
            if name != "router_biases":
                self.findings.equal(-1, "run", name, value, stored[name])

    def _execute(self, model: Model, rows: Rows, order: Order) -> None:
        parts = check_tensors(model, self.checkpoint)
        plan = self._plan(model, slot_sizes(parts, model.shape, self.checkpoint.tensors))
        tokenizer = load_tokenizer(self.checkpoint.path, self.checkpoint.config)
        self.prompt = check_prompt(self.ledger.anchor, self.checkpoint, tokenizer, self.findings)
        with (
            closing(rows), closing(KeptRows(model.shape.hidden)) as kept,
            Weights(self.checkpoint, parts, plan.stream_bytes, self.known, self.findings, threads=self.threads) as weights,
        ):  # fmt: skip
            execution = Execution(
                self.ledger, rows, self.asked, self.findings, model, weights, kept, order, tokenizer.token_bytes,
                threads=self.threads, chunk=plan.chunk, progress=self.progress,
            )  # fmt: skip
            execution.run()
            self.executed_cells, self.executed_steps = execution.layers.checked, execution.steps.checked
            self.tensors, self.bytes_read, self.rows_opened = weights.digests, weights.stream.bytes_read, rows.opened

    def _plan(self, model: Model, sizes: Sizes) -> Plan:
        """Raises BudgetError. Columns keep what a recorder keeps of a pass over all positions, single cells what it keeps of one."""
        run, rows = self.ledger.run, self.ledger.positions if self.asked.columns else 1
        level = max(run.prompt_level, run.step_level, key=LEVELS.index)
        kept = capture_bytes(model, rows, level=level, prompt_level=level) + AIM_BYTES * model.shape.hidden * len(self.ledger.steps)
        if kept >= self.budget:
            needed, got = machine.show_bytes(kept), machine.show_bytes(self.budget)
            raise BudgetError(f"memory budget: expected more than the {needed} that the audit of {rows} positions keeps, got {got}", hint=HINT)
        return make_plan(model, sizes, self.budget - kept, self.ledger.positions, 2)

    def report(self, seconds: float) -> AuditReport:
        ledger, seal = self.ledger, self.seal
        return AuditReport(
            run_id=ledger.run.run_id,
            tree_size=ledger.size,
            tree_root=ledger.root.hex(),
            seal=seal.state if seal else UNSEALED,
            signer=seal.signer if seal else None,
            attestation_sha256=seal.attestation_sha256 if seal else None,
            challenge=self.asked,
            prompt=self.prompt,
            layers=ledger.layers,
            positions=ledger.positions,
            steps=len(ledger.steps),
            executed_cells=self.executed_cells,
            executed_steps=self.executed_steps,
            values_compared=self.findings.values,
            rows_opened=self.rows_opened,
            difference_count=self.findings.count,
            differences=self.findings.differences(),
            tensors=self.tensors,
            known_tensors=len(self.tensors.keys() & self.known.keys()),
            all_tensors=len(self.checkpoint.tensors),
            bytes_read=self.bytes_read,
            seconds=seconds,
        )
