"""The audit of one bundle, from its ledger to its report: what is asked of it, whether it and the checkpoint belong together, what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from formation.audit.compare import Difference, Findings
from formation.audit.course import Course
from formation.audit.kept import KeptRows
from formation.audit.prompt import check_prompt
from formation.audit.recorded import Ledger, Rows, open_ledger
from formation.audit.report import AuditReport, Challenge
from formation.audit.seal import Seal, known_payloads, read_seal
from formation.audit.weights import Used, Weights
from formation.errors import CheckpointError, EnvironmentFault, EvidenceError, FormationError, ReadError, UsageError
from formation.evidence.audited import FULL, UNSEALED
from formation.ledger import canonical
from formation.ledger.fields import LEVELS
from formation.ledger.files import read_whole
from formation.ledger.start import CHECKPOINT, Start
from formation.model.architecture import Key, Model, Part
from formation.model.catalog import read_model
from formation.probe.cost import capture_bytes
from formation.probe.run_line import run_values
from formation.run.check import check_tensors
from formation.run.executor import Progress
from formation.run.identity import Identity, check_same, identify
from formation.run.order import Order, order_of
from formation.run.plan import Sizes, slot_sizes
from formation.text import Tokenizer, load_tokenizer
from formation.weights.checkpoint import Checkpoint

AIM_BYTES = 3 * 8  # of a step and dimension: three rows in binary64


@dataclass(frozen=True)
class Auditor:
    """What audits of several bundles have in common: the checkpoint, and the machine."""

    checkpoint: Checkpoint
    budget: int
    threads: int
    progress: Callable[[Progress], None] | None

    @cached_property
    def identity(self) -> Identity:
        return identify(self.checkpoint)

    @cached_property
    def model(self) -> Model:
        return read_model(self.checkpoint.config)

    @cached_property
    def parts(self) -> Mapping[Key, Part]:
        return check_tensors(self.model, self.checkpoint)

    @cached_property
    def sizes(self) -> Sizes:
        return slot_sizes(self.parts, self.model.shape, self.checkpoint.tensors)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.checkpoint.path, self.checkpoint.config)


def examine(folder: Path, auditor: Auditor, ask: Callable[[Ledger], Challenge]) -> Examination | FormationError:
    """The bundle's ledger is hashed before `ask` draws from it. The error of one that cannot be audited at all is returned; what reading a checkpoint
    raises is raised."""
    try:
        if not folder.is_dir():
            raise EnvironmentFault(f"{folder}: expected the folder of a bundle, got {'a file' if folder.exists() else 'nothing'}")
        findings, ledger = Findings(), open_ledger(folder)
        seal = read_seal(ledger, findings)
        examination = Examination(ledger, seal, ask(ledger), auditor, findings)
        examination.check()
    except (CheckpointError, ReadError):
        raise
    except FormationError as error:
        return error
    return examination


@dataclass
class Examination:
    """One audit between the draw and the report. `order` is that of the run, once it may be executed."""

    ledger: Ledger
    seal: Seal | None
    asked: Challenge
    auditor: Auditor
    findings: Findings
    order: Order | None = None
    known: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    prompt: str = "not looked at"
    executed_cells: int = 0
    executed_steps: int = 0
    rows_opened: int = 0
    bytes_read: int = 0
    shared_by: int = 1

    # ---- before anything is computed

    def check(self) -> None:
        """Nothing is computed if bundle, seal and checkpoint do not belong together, or if there is nothing to start from."""
        self.known = known_payloads(self.ledger, self.seal, self.findings)
        order = self._check_identity()
        if order is None:
            return
        model = self.auditor.model
        self._check_model(model)
        if not self.ledger.has_rows and self.asked.mode != FULL:
            self.findings.add(Difference(-1, "run", "rows", "rows to start from: without them only a full audit is possible", "none"))
        if max(order.prompt_ids) >= model.shape.vocabulary or self.ledger.positions > model.shape.context:
            limits = f"ids below {model.shape.vocabulary}, at most {model.shape.context} positions"
            got = f"id {max(order.prompt_ids)}, {self.ledger.positions} positions"
            self.findings.add(Difference(-1, "run", "prompt", limits, got))
        if not self.findings.count:
            self.order = order

    def _check_identity(self) -> Order | None:
        """That this is the checkpoint and the contract of the anchor, whose order is one that can be followed, and that checkpoint.json says so"""
        identity = self.auditor.identity
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

    # ---- executed, beside others

    @property
    def kept_rows(self) -> int:
        """In memory at once: columns take all positions, single cells one"""
        return self.ledger.positions if self.asked.columns else 1

    @property
    def kept_bytes(self) -> int:
        """Columns keep what a recorder keeps of a pass over all positions, single cells what it keeps of one."""
        run, model = self.ledger.run, self.auditor.model
        level = max(run.prompt_level, run.step_level, key=LEVELS.index)
        return capture_bytes(model, self.kept_rows, level=level, prompt_level=level) + AIM_BYTES * model.shape.hidden * len(self.ledger.steps)

    @contextmanager
    def course(self, weights: Weights, chunk: int) -> Iterator[Course]:
        """What an execution follows; what it executed is of the report when it has ended."""
        auditor, order = self.auditor, self.order
        assert order is not None
        tokenizer = auditor.tokenizer
        self.prompt = check_prompt(self.ledger.anchor, auditor.checkpoint, tokenizer, self.findings)
        used = Used(weights, self.known, self.findings)
        with closing(Rows(self.ledger)) as rows, closing(KeptRows(auditor.model.shape.hidden)) as kept:
            course = Course(
                self.ledger, rows, self.asked, self.findings, auditor.model, used, kept, order, tokenizer.token_bytes,
                threads=auditor.threads, chunk=chunk,
            )  # fmt: skip
            yield course
            self.executed_cells, self.executed_steps = course.layers.checked, course.steps.checked
            self.tensors, self.rows_opened = used.digests, rows.opened

    # ---- what came of it

    def outcome(self, seconds: float) -> AuditReport | FormationError:
        ledger, seal = self.ledger, self.seal
        return self.findings.fault or AuditReport(
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
            all_tensors=len(self.auditor.checkpoint.tensors),
            bytes_read=self.bytes_read,
            seconds=seconds,
            shared_by=self.shared_by,
        )
