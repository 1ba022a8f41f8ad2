"""What an audit says when it has ended: what was challenged, what was executed again, what differed, and what it would have found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from formation.audit.compare import Difference
from formation.audit.odds import Point, cell_curve, column_curve
from formation.evidence.audited import FULL, PROFILE
from formation.version import __version__

HONESTY = (
    "an audit proves the computation, and only of what it executed again; it proves neither that the run was not picked from many, "
    "nor wall time, nor hardware, nor who signed"
)


@dataclass(frozen=True)
class Challenge:
    """What was asked for. `cells` are (position, layer), in the order drawn; `seed` is None where nothing was drawn."""

    mode: str
    cells: tuple[tuple[int, int], ...] = ()
    columns: tuple[int, ...] = ()
    seed: bytes | None = None
    seed_source: str = ""

    def by_layer(self, layers: int) -> dict[int, list[int]]:
        """Layer -> positions of single cells, for layers that no column covers"""
        found: dict[int, list[int]] = {}
        for position, layer in sorted(self.cells):
            if layer not in self.columns:
                found.setdefault(layer, []).append(position)
        return {layer: found[layer] for layer in range(layers) if layer in found}

    def count(self, positions: int) -> int:
        """Different cells"""
        return len(self.columns) * positions + sum(layer not in self.columns for _, layer in self.cells)


@dataclass(frozen=True)
class AuditReport:
    """`differences` are the run's first, then by position and layer; `difference_count` counts also those that are not listed.
    `tensors` are the digests of all tensors that were used, `known_tensors` how many of them the bundle had committed to. `bytes_read` and
    `seconds` are those of the pass, which was `shared_by` so many bundles."""

    run_id: str
    tree_size: int
    tree_root: str
    seal: str
    signer: str | None  # the fingerprint of its key, if the seal holds
    attestation_sha256: str | None  # None if there is no attestation
    challenge: Challenge
    prompt: str  # what can be said of the prompt's text
    layers: int
    positions: int
    steps: int
    executed_cells: int
    executed_steps: int
    values_compared: int
    rows_opened: int
    difference_count: int
    differences: tuple[Difference, ...]
    tensors: Mapping[str, str]
    known_tensors: int
    all_tensors: int
    bytes_read: int
    seconds: float
    shared_by: int = 1

    @property
    def cells(self) -> int:
        return self.positions * self.layers

    @property
    def challenged_cells(self) -> int:
        return self.challenge.count(self.positions)

    @property
    def passed(self) -> bool:
        """Nothing differed, and everything that was challenged was executed"""
        return not self.difference_count and self.executed_cells == self.challenged_cells and self.executed_steps == self.steps

    @property
    def cell_curve(self) -> tuple[Point, ...]:
        """For edits anywhere: the cells drawn alone. Everything that was executed, for a full audit"""
        drawn = self.cells if self.challenge.mode == FULL else len(self.challenge.cells)
        return cell_curve(self.cells, drawn) if drawn else ()

    @property
    def column_curve(self) -> tuple[Point, ...]:
        """For edits of whole layers: the columns, where they were drawn. One that was chosen says nothing of the others"""
        drawn = self.challenge.mode == PROFILE
        return column_curve(self.layers, len(self.challenge.columns)) if drawn else ()

    def executed(self) -> str:
        always = f"embedding of all {self.positions} positions; head, sampler and token of all {self.steps} tokens"
        if self.challenge.mode == FULL:
            return f"all {self.cells} cells; {always}"
        columns = "".join(f"all {self.positions} cells of layer {layer}; " for layer in self.challenge.columns)
        cells = f"{len(self.challenge.cells)} cells drawn from {self.cells}; " if self.challenge.cells else ""
        return f"{columns}{cells}{always}"

    def not_executed(self) -> str:
        left = self.cells - self.challenged_cells
        return f"{left} of {self.cells} cells: an edit that lies only there was not looked for" if left else "nothing"

    def result(self) -> dict[str, Any]:
        """As audit.json has it"""
        drawn = self.challenge
        return {
            "challenge": {
                "mode": drawn.mode, "cells": [list(cell) for cell in drawn.cells], "columns": list(drawn.columns),
                "seed": drawn.seed.hex() if drawn.seed is not None else None, "seed_source": drawn.seed_source or None,
            },
            "executed": {
                "cells": self.executed_cells, "cells_in_all": self.cells, "embeddings": self.positions, "tokens": self.executed_steps,
                "values": self.values_compared, "rows_opened": self.rows_opened,
            },
            "seal": self.seal,
            "summary": self.executed(),
            "not_executed": self.not_executed(),
            "prompt": self.prompt,
            "differences": [asdict(difference) for difference in self.differences],
            "difference_count": self.difference_count,
            "curve": {"cells": list(map(asdict, self.cell_curve)), "columns": list(map(asdict, self.column_curve))},
            "weights": {
                "in_all": self.all_tensors, "compared": self.known_tensors,
                "tensors": [{"name": name, "sha256": self.tensors[name]} for name in sorted(self.tensors, key=str.encode)],
            },
        }  # fmt: skip

    def predicate(self, tree_head: Mapping[str, Any]) -> dict[str, Any]:
        outcome = "passed" if self.passed else "failed"
        return {"formation": __version__, "outcome": outcome, "tree_head": dict(tree_head), "result": self.result()}
