"""One pass over ledger.jsonl, and beside it over rows/ and router/: bytes to digests, lines to a Merkle root, positions to the rules.

What is hashed, what is decoded and what is checked are the same bytes, read once. Memory holds one position, and what is known of each id.
The kinds of positions, and where the run must end, follow from the anchor and from the tokens as they come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any, BinaryIO

from formation.evidence.run_facts import INPUTS, SAMPLER, RunFacts
from formation.evidence.sidecar_pass import ROWS, Sidecars
from formation.ledger import canonical, merkle, routing, rules
from formation.ledger.anchor import Anchor
from formation.ledger.gaps import Gap, RuleResult, Tally, fact
from formation.ledger.lines import LineRefusal
from formation.ledger.reader import whole_lines

RUN = "run"
RULES = (RUN, *rules.RULES, INPUTS, SAMPLER, ROWS, rules.ADDITION, routing.ALL_EXPERTS)


@dataclass
class Found:
    """What the pass found. `broken` says why the lines end before the file does; then the rules speak of the lines before."""

    sha256: str = ""
    lines: int = 0
    root: bytes = merkle.EMPTY_ROOT
    broken: str = ""
    positions: int = 0
    steps: int = 0
    layers: int = 0
    results: dict[str, RuleResult] = field(default_factory=dict)

    @property
    def cells(self) -> int:
        return self.positions * self.layers


class Lines:
    """The decoded lines of a file, digested on the way. Ends at the first that is none, and says so in `broken`."""

    def __init__(self, file: BinaryIO, run_id: str) -> None:
        self._file, self._run_id = file, run_id
        self._whole, self._tree = hashlib.sha256(), merkle.Tree()
        self._bytes = 0
        self.broken = self.foreign = ""

    def raw(self) -> Iterator[bytes]:
        """Digested and not decoded"""
        for data in whole_lines(self._file):
            self._whole.update(data + b"\n")
            self._bytes += len(data) + 1
            self._tree.append(merkle.leaf_hash(data))
            yield data

    def __iter__(self) -> Iterator[Any]:
        for data in self.raw():
            try:
                line = canonical.decode(data, limits=canonical.LINE)
            except canonical.CanonicalRefusal as refusal:
                self.broken = f"line {self._tree.size}: {refusal}"
                return
            if not self.foreign and (type(line) is not dict or line.get("run_id") != self._run_id):
                self.foreign = f"line {self._tree.size}: expected run_id {self._run_id}, got another"
            yield line

    def finish(self, found: Found, size_bytes: int) -> None:
        """After the last line: nothing lies behind it"""
        if not self.broken and (self._bytes != size_bytes or not size_bytes):
            self.broken = f"expected lines of at most {canonical.LINE.size_bytes} bytes that end in LF, got another after line {self._tree.size}"
        found.sha256, found.lines, found.root, found.broken = self._whole.hexdigest(), self._tree.size, self._tree.root(), self.broken


def read_ledger(file: BinaryIO, size_bytes: int, anchor: Anchor, sidecars: Sidecars) -> Found:
    """Raises nothing that the bytes can cause: what is wrong with them is in the results."""
    lines, tally, found = Lines(file, anchor.run_id), Tally(RULES), Found()
    source = iter(lines)
    try:
        check_positions(source, anchor, sidecars, tally, found)
    except LineRefusal as refusal:
        rule = rules.CENSUS if found.layers else RUN
        tally.take([Gap(rule, inf, 0.0, str(refusal))])
    for _ in source:  # the digests are of all lines
        pass
    return finished(found, lines, size_bytes, anchor, tally)


def finished(found: Found, lines: Lines, size_bytes: int, anchor: Anchor, tally: Tally) -> Found:
    lines.finish(found, size_bytes)
    tally.take([fact(RUN, not lines.foreign, lines.foreign or f"{found.lines} lines of run {anchor.run_id}")])
    found.results = {result.rule: result for result in tally.results()}
    return found


def check_positions(source: Iterator[object], anchor: Anchor, sidecars: Sidecars, tally: Tally, found: Found) -> None:
    """Raises LineRefusal for what the census refuses."""
    run = rules.first_line(source, tally)
    found.layers = run.shape.layers
    facts = RunFacts(anchor, run)
    tally.take(facts.of_anchor())
    for position in rules.positions(source, run, facts.kinds(), tally):
        found.positions += 1
        tally.take(rules.of_lines(position))
        tally.take(facts.of_position(position))
        found.steps = facts.steps
        tally.take(sidecars.of_position(position, run))
    tally.take(sidecars.at_end(found.positions))
