"""Attacks by someone who has the right key and computes consistently: every check of `verify` passes, and only re-execution can tell.

Each is written to disk, verified (it must pass, or the attack is not the one it claims to be) and audited in full, which must name what differs.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np

from formation.audit import AuditReport, audit
from formation.certify.attack import RECORDER, WEIGHTS, Attack, Group, NotApplicable
from formation.certify.fitting import derive_all, fit, fit_experts, positions, set_row
from formation.certify.forgery import Forgery, Scene, f32_text, ulp, value_in
from formation.certify.judge import Judge, write_folder
from formation.certify.on_documents import checkpoint as other_checkpoint
from formation.certify.suite import Outcome, forged
from formation.errors import UsageError
from formation.evidence import payloads
from formation.evidence.certification import NOT_APPLICABLE, REFUSED, THROUGH
from formation.evidence.container import TENSOR_DIGESTS
from formation.ledger import canonical, routing
from formation.weights.checkpoint import Checkpoint

GROUP = Group("weights")
attack = GROUP.attack
SHAPES = 64  # bytes that the shape of a packed tensor can have
COPIED = 64 << 20  # bytes of a checkpoint that is copied to be changed


def without_writes(f: Forgery) -> None:
    if any(name != "residual" for name, _, _ in f.layout("rows").tensors):
        raise NotApplicable("the writes were kept: verify adds them up")


# ---- activations


@attack(WEIGHTS, "audit: residual_sha256")
def one_steered_cell(f: Forgery) -> None:
    """one number of one row is one binary32 step off"""
    without_writes(f)
    at, boundary = f.scene.steps[len(f.scene.steps) // 2], 1 + f.scene.run.shape.layers // 2
    set_row(f, at, boundary, ulp(f.row("rows", at, "residual", boundary), 1))
    derive_all(f)


@attack(RECORDER, "audit: residual_sha256")
def skipped_layer(f: Forgery) -> None:
    """a layer passes on what it was given, at every position"""
    without_writes(f)
    layer = f.scene.run.shape.layers // 2
    for position in positions(f):
        set_row(f, position, layer + 1, f.row("rows", position, "residual", layer))
        fit(f, position, layer + 1)
    derive_all(f)


@attack(RECORDER, "audit: residual_sha256")
def one_layer_swapped(f: Forgery) -> None:
    """two layers give what the other should, at every position"""
    without_writes(f)
    if f.scene.run.shape.layers < 2:
        raise NotApplicable("the model has one layer")
    for position in positions(f):
        rows = [f.row("rows", position, "residual", boundary) for boundary in (1, 2)]
        set_row(f, position, 1, rows[1])
        set_row(f, position, 2, rows[0])
        fit(f, position, 1)
        fit(f, position, 2)
    derive_all(f)


@attack(RECORDER, "audit: residual_sha256")
def fabricated_activations(f: Forgery) -> None:
    """the rows behind a layer are random, as long as the true ones, at every position"""
    without_writes(f)
    source = np.random.default_rng(1)
    for position in positions(f):
        row = np.frombuffer(f.row("rows", position, "residual", 1), "<f4")
        made = source.standard_normal(row.size).astype(np.float32)
        set_row(f, position, 1, (made * np.float32(np.linalg.norm(row) / np.linalg.norm(made))).astype("<f4").tobytes())
        fit(f, position, 1)
    derive_all(f)


@attack(RECORDER, "audit: cache_entry_sha256")
def lying_cache(f: Forgery) -> None:
    """what attention is said to have kept of a position is another entry"""
    f.change(positions(f)[0], layer_with(f, "attention"), cache_entry_sha256="ab" * 32)
    f.seal()


@attack(RECORDER, "audit: delta_state_sha256")
def lying_state(f: Forgery) -> None:
    """the state that a delta layer is said to have kept after a position is another"""
    f.change(positions(f)[0], layer_with(f, "delta"), delta_state_sha256="ab" * 32)
    f.seal()


def layer_with(f: Forgery, kind: str) -> str:
    if kind not in f.scene.run.kinds:
        raise NotApplicable(f"no layer has {'a delta net' if kind == 'delta' else kind}")
    return f"layer {f.scene.run.kinds.index(kind)}"


@attack(RECORDER, "audit: router_logits_sha256")
def wrong_experts(f: Forgery) -> None:
    """a cell chooses other experts, from a router's row that would choose them; scores, gates and choice follow from it"""
    shape, run, position = f.scene.run.shape, f.scene.run, f.scene.steps[0]
    if run.router is None:
        raise NotApplicable("the model has no experts")
    at, slot = shape.layers - 1 - shape.dense_layers, f"layer {shape.layers - 1}"
    logits = [*(found := canonical.values_f32(f.row("router", position, "logits", at)))[1:], found[0]]
    f.set_row("router", position, "logits", at, pack(f"<{len(logits)}f", *logits))
    route_by(f, position, slot, at, logits)
    if "expert_write_norms" in f.line(position, slot)["measured"]:
        fit_experts(f, position, slot)
    f.derive(f.step(position))
    f.seal()


def route_by(f: Forgery, position: int, slot: str, at: int, logits: list[float]) -> None:
    run = f.scene.run
    found, count = routing.route(run, run.shape.layers - 1, logits), run.shape.chosen
    selection = pack(f"<{len(logits)}f", *found.selection)
    f.set_row("router", position, "selection", at, selection)
    chosen, refused = sorted(found.ranking[:count]), found.ranking[count:][: run.runners_up]
    values: dict[str, Any] = {"chosen": chosen, "runners_up": refused, "router_selection_sha256": hashlib.sha256(selection).hexdigest()}
    values["router_logits_sha256"] = hashlib.sha256(pack(f"<{len(logits)}f", *logits)).hexdigest()
    for prefix, ids in (("chosen_", chosen), ("runner_up_", refused)):
        for name, row in (("logits", logits), ("scores", found.scores), ("selection", found.selection)):
            values[prefix + name] = f32_text(row[e] for e in ids)
        if run.router and run.router.biased:
            values[f"{prefix}biases"] = f32_text(run.biases[run.shape.layers - 1][e] for e in ids)
    values["gates"] = f32_text(routing.gates_of([found.scores[e] for e in chosen], run.router))  # type: ignore[arg-type]
    f.change(position, slot, **values)


# ---- head, attribution, text


@attack(RECORDER, "audit: logits_sha256")
def other_logits(f: Forgery) -> None:
    """the digest of all logits is another's"""
    f.change(f.scene.steps[0], "lm_head", logits_sha256="ab" * 32)
    f.seal()


@attack(RECORDER, "audit: dla")
def credit_moved(f: Forgery) -> None:
    """a contribution of 1 moves from the first attention to the embedding; all sums close"""
    step = f.step(f.scene.steps[0])
    for slot, name, change in (("embed", "dla", 1.0), ("layer 0", "dla_attention", -1.0)):
        step[slot]["derived"][name] = value_in(step[slot], name) + change
    f.derive(step)
    f.seal()


@attack(RECORDER, "audit: bytes")
def token_that_spells_otherwise(f: Forgery) -> None:
    """the first token is said to spell something else"""
    wanted = f.line(f.scene.steps[0], "token")["measured"]["id"]
    for position in f.scene.steps:
        if f.line(position, "token")["measured"]["id"] == wanted:
            f.change(position, "token", bytes="4pyT")
    f.seal()


@attack(RECORDER, "audit: residual_sha256")
def other_prompt(f: Forgery) -> None:
    """an id of the prompt is another of the vocabulary, in the anchor and so in every line's run_id"""
    ids = f.scene.frozen.prompt_ids
    used = {*ids, *(f.line(p, "token")["measured"]["id"] for p in f.scene.steps)}
    once = next((n for n, i in enumerate(ids) if ids.count(i) == 1), None)
    other = next((i for i in range(f.scene.run.shape.vocabulary) if i not in used), None)
    if once is None or other is None:
        raise NotApplicable("every id occurs twice")
    f.set_anchor(lambda a: a["prompt"]["ids"].__setitem__(once, other))
    f.seal()


@attack(RECORDER, "audit: kept_mass")
def other_filters(f: Forgery) -> None:
    """a sampled run claims a filter that it was not sampled with"""
    sampler = f.scene.frozen.sampler
    if sampler["method"] != "sample":
        raise NotApplicable("the run is greedy")
    f.set_anchor(lambda a: a["sampler"].update(top_p=0.5))
    f.seal()


@attack(RECORDER, "audit: norm_eps")
def other_epsilon(f: Forgery) -> None:
    """the final norm is said to add another epsilon"""
    line = canonical.decode(f.lines[0], limits=canonical.LINE)
    line["measured"]["norm_eps"] = 0.5
    f.lines = [canonical.encode(line), *f.lines[1:]]
    f.seal()


# ---- the checkpoint


@attack(RECORDER, "audit: identity")
def weights_swap(f: Forgery) -> None:
    """the bundle names another checkpoint: a header of other bytes, in manifest, anchor and every line"""
    headers = [row for row in f.document("checkpoint.json")["files"] if row["covers"] == "header"]
    other_checkpoint(f, lambda c: next(row for row in c["files"] if row["path"] == headers[0]["path"]).update(sha256="ab" * 32), consistent=True)


@attack(RECORDER, "audit: identity")
def other_tokenizer_or_template(f: Forgery) -> None:
    """the bundle names another tokenizer, template or config file"""
    found = [row for row in f.document("checkpoint.json")["files"] if row["covers"] == "file"]
    other_checkpoint(f, lambda c: next(row for row in c["files"] if row["path"] == found[-1]["path"]).update(sha256="ab" * 32), consistent=True)


@attack(RECORDER, "audit: payload")
def forged_layer_bytes(f: Forgery) -> None:
    """the bundle commits to other bytes of every tensor"""
    names = sorted((row["name"] for row in f.document("checkpoint.json")["tensor_table"]), key=str.encode)
    rows = [{"name": name, "sha256": "ab" * 32} for name in names]
    f.write(TENSOR_DIGESTS, {"kind": payloads.KIND, "tensor_table_root": f.frozen().tensor_table_root, "tensors": rows})
    f.seal()


# ---- making them


@dataclass
class Auditor:
    """Audits of forgeries against one checkpoint."""

    judge: Judge
    checkpoint: Checkpoint
    memory: str | int | None = None
    threads: int | None = None

    def report(self, forgery: Forgery, checkpoint: Checkpoint | Path | None = None, **what: Any) -> AuditReport:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.ofb"
            write_folder(path, forgery.files)
            return audit(path, checkpoint or self.checkpoint, memory=self.memory, threads=self.threads, **what)

    def make_all(self, lines: Mapping[int, bytes], progress: Callable[[int, int], None] | None = None) -> Iterator[Outcome]:
        """The untouched control must pass a full audit, or nothing here means anything"""
        control = self.report(self.judge.scene.forgery(), full=True)
        if not control.passed:
            first = control.differences[0] if control.differences else "not all was executed"
            yield Outcome(CONTROL, THROUGH, f"the untouched bundle fails its audit: {first}")
            return
        for done, one in enumerate(GROUP.attacks):
            if progress:
                progress(done, len(EVERY))
            yield self.make(one)
        yield from (self.spot(), self.untold(lines), self.no_challenge(), self.changed_checkpoint())

    def make(self, one: Attack) -> Outcome:
        try:
            forgery = forged(one, self.judge.scene)
        except NotApplicable as reason:
            return Outcome(one, NOT_APPLICABLE, str(reason))
        seen = self.judge.verdict(forgery)
        if not seen.verified:
            return Outcome(one, THROUGH, f"verify refused it before: {seen}")
        return self.audited(one, forgery)

    def audited(self, one: Attack, forgery: Forgery, checkpoint: Path | None = None) -> Outcome:
        try:
            return judged(one, self.report(forgery, checkpoint, full=True))
        except Exception as error:  # recorded as what it is: the auditor's failure
            return Outcome(one, THROUGH, f"crash: {type(error).__name__}: {ascii(str(error))[:120]}")

    def spot(self) -> Outcome:
        """One drawn cell: whether or not it hits, the odds must be those of one in all"""
        try:
            forgery = forged(SPOT, self.judge.scene)
        except NotApplicable as reason:
            return Outcome(SPOT, NOT_APPLICABLE, str(reason))
        report = self.report(forgery, cells=1, seed_from="formation certify")
        stated = [point.probability for point in report.cell_curve if point.edited == 1]
        right = len(stated) == 1 and abs(stated[0] - 1 / report.cells) < 1e-12
        found = f"one cell in {report.cells} drawn, which finds one edited cell with {stated[0] if stated else 0:.2%}"
        return Outcome(SPOT, REFUSED if right else THROUGH, f"{SPOT.expected}, {found}" if right else found)

    def untold(self, lines: Mapping[int, bytes]) -> Outcome:
        """All lines that `verify` took from random mutants, in one bundle: the audit must name every field of them that is not as it was"""
        if not lines:
            return Outcome(UNTOLD, NOT_APPLICABLE, "verify told all random mutants of the ledger")
        forgery = self.judge.scene.forgery()
        forgery.lines = [lines.get(n, line) for n, line in enumerate(forgery.lines)]
        forgery.seal()
        due = set(altered(self.judge.scene, lines))
        report = self.report(forgery, full=True)
        missed = sorted(due - {(d.position, d.slot, d.field.partition("[")[0]) for d in report.differences})
        if missed:
            position, slot, field = missed[0]
            return Outcome(UNTOLD, THROUGH, f"{len(missed)} of {len(due)} not named, such as {field} of {slot} at position {position}")
        return Outcome(UNTOLD, REFUSED, f"{UNTOLD.expected}, all {len(due)} values")

    def no_challenge(self) -> Outcome:
        try:
            self.report(self.judge.scene.forgery(), cells=0)
        except UsageError:
            return Outcome(NO_CHALLENGE, REFUSED, NO_CHALLENGE.expected)
        return Outcome(NO_CHALLENGE, THROUGH, "an audit of no cell ended")

    def changed_checkpoint(self) -> Outcome:
        if self.checkpoint.total_bytes > COPIED:
            return Outcome(CHANGED, NOT_APPLICABLE, f"the checkpoint is larger than {COPIED >> 20} MiB, and is not copied")
        with tempfile.TemporaryDirectory() as folder:
            other = Path(folder) / "checkpoint"
            shutil.copytree(self.checkpoint.path, other)
            flip_weights(self.checkpoint, other, self.judge.scene.run.shape.layers - 1)
            return self.audited(CHANGED, self.judge.scene.forgery(), other)


def nothing(f: Forgery) -> None:
    """For attacks that are not on the bundle"""


CONTROL = Attack("weights", "no attack", "nobody", "the untouched bundle is audited", "audit: nothing", nothing)
SPOT = Attack("weights", "one steered cell, one cell drawn", WEIGHTS, "one number is one step off, and the audit draws a single cell",
              "audit: odds stated", one_steered_cell)  # fmt: skip
UNTOLD = Attack("weights", "random mutants that verify cannot tell", RECORDER, "all values of random mutants that no rule binds, in one bundle",
                "audit: every value", nothing)  # fmt: skip
NO_CHALLENGE = Attack("weights", "audit of nothing", "the auditor's command line", "k = 0 cells are asked for", "audit: usage", nothing)
CHANGED = Attack("weights", "other weights under the same headers", WEIGHTS, "payloads of the last layer are changed, every header stays",
                 "audit: residual_sha256", nothing)  # fmt: skip
EVERY = (*GROUP.attacks, SPOT, UNTOLD, NO_CHALLENGE, CHANGED)


def altered(scene: Scene, lines: Mapping[int, bytes]) -> Iterator[tuple[int, str, str]]:
    """Position, slot and field of what is not as in the scene"""
    for n, changed in lines.items():
        before, after = (canonical.decode(data, limits=canonical.LINE) for data in (scene.lines[n], changed))
        for tag in ("measured", "derived"):
            yield from ((before["position"], before["slot"], name) for name in before[tag] if before[tag][name] != after[tag][name])


def judged(one: Attack, report: AuditReport) -> Outcome:
    names = dict.fromkeys(f"audit: {found.field.partition('[')[0].partition(' of ')[0]}" for found in report.differences)
    if report.passed or one.expected not in names:
        return Outcome(one, THROUGH, ", ".join(names) or "audit passed")
    more = f", and {len(names) - 1} more" if len(names) > 1 else ""
    return Outcome(one, REFUSED, f"{one.expected}{more}")


def flip_weights(checkpoint: Checkpoint, other: Path, layer: int) -> None:
    """A bit of every payload of a layer in the copy; no header changes"""
    source = random.Random(1)
    for name, info in checkpoint.tensors.items():
        if f"layers.{layer}." in name and info.end - info.begin > SHAPES:  # shapes are read before, and their lies refused
            with (other / info.file).open("r+b") as file:
                file.seek(info.begin)
                first = file.read(1)[0]
                file.seek(info.begin)
                file.write(bytes([first ^ 1 << source.randrange(3)]))
