"""What a bundle committed to, as an audit opens it: the lines of its ledger by place, and the rows beside it, held against the lines' digests.

Everything here was written by whoever is audited. The ledger is hashed as a whole first; a line that is used later must still be the leaf that
was hashed. A row is used only if it has the digest that its line says.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from formation.audit.compare import Difference, Unopened
from formation.errors import EvidenceError
from formation.kernels.tensor import F32
from formation.ledger import canonical, lines, merkle, reader, sidecar
from formation.ledger.anchor import Anchor
from formation.ledger.blocks import SidecarRefusal, router_tensors, row_tensors
from formation.ledger.lines import STEP_SLOTS, Line, LineRefusal, Place, Run
from formation.ledger.start import read_anchor
from formation.ledger.steps import Steps
from formation.probe.encode import digest

HASH = merkle.HASH_BYTES


@dataclass(frozen=True)
class Ledger:
    """A complete ledger. `_ends` are the bytes at which its lines end, `_leaves` their hashes, one after the other; `_places` those of lines
    that were held against the field table: what has the same hash need not be again."""

    folder: Path
    anchor: Anchor
    run: Run
    root: bytes
    _ends: array[int] = field(repr=False)
    _leaves: bytes = field(repr=False)
    _places: dict[int, Place] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        return len(self._ends)

    @property
    def layers(self) -> int:
        return self.run.shape.layers

    @property
    def positions(self) -> int:
        return self.steps.positions

    @property
    def has_rows(self) -> bool:
        """Whether rows were committed beside it"""
        return (self.folder / "rows").exists()

    @cached_property
    def steps(self) -> Steps:
        """Raises EvidenceError if the lines do not make whole positions."""
        found = self.anchor.steps_in(self.size, self.layers)
        if not found:
            before = self.anchor.steps().first
            raise EvidenceError(f"{self.folder}: expected the lines of {before} prompt positions and of whole steps, got {self.size} lines")
        return found

    def number(self, position: int, slot: str) -> int:
        """Of the line, from 0, which is the run's"""
        before = 1 + position * (1 + self.layers) + self.steps.before(position) * len(STEP_SLOTS)
        layer = lines.layer_of(slot)
        return before + (0 if slot == "embed" else 1 + layer if layer >= 0 else 1 + self.layers + STEP_SLOTS.index(slot))

    def line(self, position: int, slot: str) -> tuple[Place, Line]:
        """The line that stands there. Raises Unopened."""
        number = self.number(position, slot)
        try:
            line = canonical.decode(self._leaf(number), limits=canonical.LINE)
            place = self._places.get(number) or lines.check_line(line, self.run)
        except (LineRefusal, canonical.CanonicalRefusal) as refusal:
            raise Unopened(Difference(position, slot, "line", "a line of the ledger", str(refusal))) from None
        if (place.position, place.slot, place.kind == "prompt") != (position, slot, position not in self.steps):
            raise Unopened(Difference(position, slot, "line", "that line", f"{place} of kind {place.kind}"))
        self._places[number] = place
        return place, line

    def run_line(self) -> Line:
        return dict(canonical.decode(self._leaf(0), limits=canonical.LINE))

    def _leaf(self, number: int) -> bytes:
        """Raises EvidenceError if the file is not what was hashed."""
        begin = self._ends[number - 1] if number else 0
        with reader.open_for_reading(self.folder / reader.NAME) as file:
            file.seek(begin)
            data = file.read(self._ends[number] - begin - 1)
        if merkle.leaf_hash(data) != self._leaves[number * HASH : number * HASH + HASH]:
            raise EvidenceError(f"{self.folder / reader.NAME}: expected line {number + 1} as it was hashed, got another", hint="who writes to it?")
        return data


def open_ledger(folder: Path) -> Ledger:
    """Hashes the whole ledger. Raises EvidenceError for one that is INCOMPLETE or not of its anchor, and EnvironmentFault."""
    anchor = read_anchor(folder)
    if reader.find(folder).name != reader.NAME:
        raise EvidenceError(f"{folder}: expected a complete ledger, got an INCOMPLETE one", hint="formation record --resume finishes it")
    ends, leaves, tree = array("q"), bytearray(), merkle.Tree()
    for line in reader.lines(folder):
        leaf = merkle.leaf_hash(line)
        ends.append((ends[-1] if ends else 0) + len(line) + 1)
        leaves += leaf
        tree.append(leaf)
    if not ends or ends[-1] != (folder / reader.NAME).stat().st_size:
        raise EvidenceError(f"{folder / reader.NAME}: expected whole lines, got something else after line {len(ends)}")
    return Ledger(folder, anchor, read_run(folder, anchor), tree.root(), ends, bytes(leaves))


def read_run(folder: Path, anchor: Anchor) -> Run:
    try:
        run = lines.read_run(canonical.decode(next(reader.lines(folder)), limits=canonical.LINE))
    except (LineRefusal, canonical.CanonicalRefusal) as refusal:
        raise EvidenceError(f"{folder / reader.NAME}, line 1: {refusal}") from None
    if run.run_id != anchor.run_id:
        raise EvidenceError(f"{folder}: expected the ledger of run {anchor.run_id}, which anchor.json names, got that of {run.run_id}")
    return run


# ---- rows


class Rows:
    """The rows beside a ledger; `committed` is whether there are any."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._fault = ""
        self._readers: dict[str, sidecar.Reader] = {}
        self.opened = 0
        self._digests: dict[tuple[int, int], str] = {}
        for name in ("rows", "router"):
            if (ledger.folder / name).exists():
                self._open(name)
        self.committed = ledger.has_rows

    def _open(self, name: str) -> None:
        shape = self._ledger.run.shape
        try:
            found = sidecar.Reader(self._ledger.folder / name)
        except SidecarRefusal as refusal:
            self._fault = str(refusal)
            return
        self._readers[name] = found
        allowed = [row_tensors(mode, shape.layers, shape.hidden) for mode in ("boundaries", "all")]
        if name == "router":
            allowed = [router_tensors(shape.layers - shape.dense_layers, shape.experts)]
        if found.tensors not in allowed or found.positions != self._ledger.positions:
            self._fault = f"{name}/ holds {found.tensors} of {found.positions} positions"

    def residual(self, position: int, boundary: int) -> F32:
        """x at this boundary [D]. Raises Unopened for a row that is not there, is not its digest's or is not finite."""
        if self._fault or "rows" not in self._readers:
            raise Unopened(Difference(-1, "run", "rows", f"rows of {self._ledger.positions} positions", self._fault or "none"))
        data = self._readers["rows"].row(position, "residual", boundary)
        return self._checked(position, boundary, data)

    def _checked(self, position: int, boundary: int, data: bytes) -> F32:
        values: F32 = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
        slot, found = slot_before(boundary), digest(values)
        if found != (expected := self._residual_digest(position, boundary)):
            raise Unopened(Difference(position, slot, "row of the residual", f"the row whose digest is {expected}", f"one of {found}"))
        if not np.isfinite(values).all():
            raise Unopened(Difference(position, slot, "row of the residual", "finite values", "others"))
        self.opened += 1
        return values

    def _residual_digest(self, position: int, boundary: int) -> str:
        known = self._digests.get((position, boundary))
        if known is None:
            _, line = self._ledger.line(position, slot_before(boundary))
            known = self._digests[position, boundary] = line["measured"]["residual_sha256"]
        return known

    def check_cell(self, place: Place, line: Line) -> None:
        """What else was committed of a cell: the row at its end, its writes, its router's rows. Raises Unopened."""
        self.residual(place.position, place.layer + 1)
        tensors = [("rows", name, place.layer, f"{name}_sha256") for name in ("attention_write", "mlp_write")]
        expert_layer = place.layer - self._ledger.run.shape.dense_layers
        if expert_layer >= 0:
            tensors += [("router", name, expert_layer, f"router_{name}_sha256") for name in ("logits", "selection")]
        for folder, tensor, index, name in tensors:
            if folder in self._readers and tensor in self._readers[folder].tensors:
                row = self._readers[folder].row(place.position, tensor, index)
                found = digest(np.frombuffer(row, "<f4").astype(np.float32, copy=False))
                if found != line["measured"][name]:
                    raise Unopened(Difference(place.position, place.slot, f"row of {name}", line["measured"][name], found))

    def close(self) -> None:
        for each in self._readers.values():
            each.release()


def slot_before(boundary: int) -> str:
    """The slot whose line has the digest of the row at this boundary"""
    return f"layer {boundary - 1}" if boundary else "embed"
