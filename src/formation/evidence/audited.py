"""What audit.json says: what was challenged, what of it was executed again, with which tensors, and what differed.

    {"challenge": {"mode": "profile", "cells": [[18, 4], …], "columns": [2], "seed": "5e20…", "seed_source": "system"},
     "executed": {"cells": 55, "cells_in_all": 95, "embeddings": 19, "tokens": 5, "values": 2207, "rows_opened": 164},
     "seal": "holds", "summary": "…", "not_executed": "…", "prompt": "…", "differences": [], "difference_count": 0,
     "curve": {"cells": [{"edited": 10, "of": 95, "probability": 0.998, "for_99": 34}, …], "columns": […]},
     "weights": {"in_all": 958, "compared": 0, "tensors": [{"name", "sha256"}, …]}}

A cell is (position, layer); `embeddings` is the number of positions. `summary`, `not_executed` and `prompt` are sentences for people, from which
nothing is taken: what verify says of an audit follows from the counts, which must fit each other and the ledger.
This is the `result` of the predicate; the envelope around it binds the tree head, the attestation and the version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from formation.evidence.strict import Refused, digest, fields, is_count, text
from formation.ledger import canonical

CHECK = "audit"
RESULT = ("challenge", "executed", "seal", "summary", "not_executed", "prompt", "differences", "difference_count", "curve", "weights")
CHALLENGE = ("mode", "cells", "columns", "seed", "seed_source")
EXECUTED = ("cells", "cells_in_all", "embeddings", "tokens", "values", "rows_opened")
DIFFERENCE = ("position", "slot", "field", "expected", "got")
POINT = ("edited", "of", "probability", "for_99")
PROFILE, CELLS, COLUMN, FULL = MODES = ("profile", "cells", "column", "full")
HOLDS, BROKEN, UNSEALED = SEALS = ("holds", "does not hold", "none")  # of a bundle
SOURCES = ("system", "named")
LISTED = 1000  # differences; the others are counted


@dataclass(frozen=True)
class Audited:
    """The counts: `cells` of `challenged`, of `positions` times `layers` in all."""

    positions: int
    layers: int
    challenged: int
    cells: int
    tokens: int
    values: int
    differences: int
    seal: str

    @property
    def passed(self) -> bool:
        """Something was compared, everything that was challenged was executed, nothing differed"""
        return not self.differences and self.cells == self.challenged and self.seal == HOLDS and self.tokens > 0 and self.values > 0

    @property
    def outcome(self) -> str:
        return "passed" if self.passed else "failed"

    def __str__(self) -> str:
        of = self.positions * self.layers
        done = f"{self.cells} of {of} cells, head and sampler of {self.tokens} tokens, {self.values} values"
        return f"{done}; {of - self.cells} cells not executed"

    def of_run(self, positions: int, layers: int, steps: int) -> Audited:
        """The same, of a ledger of this size. Raises Refused, check `audit`."""
        if (self.positions, self.layers) != (positions, layers) or self.tokens > steps or (self.passed and self.tokens < steps):
            due = f"{positions} positions of {layers} layers and {steps} tokens, as the ledger has them"
            got = f"{self.positions} of {self.layers} and {self.tokens}"
            raise Refused(CHECK, f"audit: expected {due}, got {got}")
        return self


def example(positions: int, layers: int, tokens: int) -> dict[str, Any]:
    """The result of an audit of one cell, which passed"""
    cells = positions * layers
    return {
        "challenge": {"mode": CELLS, "cells": [[0, 0]], "columns": [], "seed": "0a", "seed_source": "named"},
        "executed": {"cells": 1, "cells_in_all": cells, "embeddings": positions, "tokens": tokens, "values": 40, "rows_opened": 2},
        "seal": HOLDS, "summary": "one cell", "not_executed": "the others", "prompt": "its text gives exactly its ids",
        "differences": [], "difference_count": 0,
        "curve": {"cells": [{"edited": 1, "of": cells, "probability": 1 / cells, "for_99": cells}], "columns": []},
        "weights": {"in_all": 3, "compared": 0, "tensors": [{"name": "a.weight", "sha256": "ab" * 32}]},
    }  # fmt: skip


def read(result: Any, outcome: str) -> Audited:
    """The result of an audit whose outcome is the one that its counts have. Raises Refused, check `audit`."""
    found = fields(CHECK, "audit, result", result, RESULT)
    executed = read_executed(found["executed"])
    positions, layers = executed["embeddings"], executed["cells_in_all"] // executed["embeddings"]
    challenged = read_challenge(found["challenge"], positions, layers)
    if executed["cells"] > challenged:
        raise Refused(CHECK, f"audit, executed: expected at most the {challenged} cells that were challenged, got {executed['cells']}")
    for name in ("summary", "not_executed", "prompt"):
        text(CHECK, f"audit, {name}", found[name])
    if found["seal"] not in SEALS:
        raise Refused(CHECK, f"audit, seal: expected one of {', '.join(SEALS)}, got {canonical.quoted(found['seal'])}")
    check_differences(found["differences"], found["difference_count"], positions)
    check_curve(found["curve"], found["challenge"], positions, layers)
    check_weights(found["weights"])
    counts = executed["cells"], executed["tokens"], executed["values"], found["difference_count"]
    audited = Audited(positions, layers, challenged, *counts, found["seal"])
    if outcome != audited.outcome:
        raise Refused(CHECK, f"audit: expected outcome {audited.outcome}, as its counts have it, got {canonical.quoted(outcome)}")
    return audited


def read_executed(value: Any) -> Mapping[str, int]:
    """Cells in all are as many at each position; a token ends a position"""
    found: dict[str, int] = fields(CHECK, "audit, executed", value, EXECUTED)
    if not all(is_count(found[name]) for name in EXECUTED):
        raise Refused(CHECK, "audit, executed: expected counts, got others")
    positions, cells = found["embeddings"], found["cells_in_all"]
    if positions < 1 or cells < positions or cells % positions or found["cells"] > cells or found["tokens"] > positions:
        raise Refused(CHECK, "audit, executed: expected counts that fit each other, got others")
    return found


def read_challenge(value: Any, positions: int, layers: int) -> int:
    """How many different cells it has: columns, and cells beside them"""
    found = fields(CHECK, "audit, challenge", value, CHALLENGE)
    mode, cells, columns = found["mode"], found["cells"], found["columns"]
    if mode not in MODES:
        raise Refused(CHECK, f"audit, challenge: expected one of {', '.join(MODES)}, got {canonical.quoted(mode)}")
    if not is_places(cells, positions, layers) or not is_layers(columns, layers):
        raise Refused(CHECK, "audit, challenge: expected different cells and columns of the run, got others")
    due = {PROFILE: 1, CELLS: 0, COLUMN: 1, FULL: layers}[mode]
    drawn = mode in (PROFILE, CELLS)
    if len(columns) != due or bool(cells) != drawn:
        raise Refused(CHECK, f"audit, challenge: expected the cells and columns of mode {mode}, got {len(cells)} and {len(columns)}")
    seeded = is_hex(found["seed"]) and found["seed_source"] in SOURCES
    if not (seeded if drawn else found["seed"] is None and found["seed_source"] is None):
        raise Refused(CHECK, "audit, challenge: expected a seed and its source where something is drawn, and only there, got others")
    return len(columns) * positions + sum(layer not in columns for _, layer in cells)


def is_places(value: Any, positions: int, layers: int) -> bool:
    """Different (position, layer) of the run"""
    if not isinstance(value, list) or not all(isinstance(cell, list) and len(cell) == 2 and all(map(is_count, cell)) for cell in value):
        return False
    return all(p < positions and n < layers for p, n in value) and len(set(map(tuple, value))) == len(value)


def is_layers(value: Any, layers: int) -> bool:
    """Ascending, so that each stands once"""
    return isinstance(value, list) and all(is_count(n) and n < layers for n in value) and all(a < b for a, b in pairwise(value))


def check_differences(listed: Any, count: Any, positions: int) -> None:
    if not isinstance(listed, list) or not is_count(count) or len(listed) != min(count, LISTED):
        raise Refused(CHECK, f"audit, differences: expected their count and a list of the first {LISTED}, got others")
    for row in listed:
        found = fields(CHECK, "audit, difference", row, DIFFERENCE)
        for name in DIFFERENCE[1:]:
            text(CHECK, f"audit, difference, {name}", found[name])
        if type(found["position"]) is not int or not -1 <= found["position"] < positions:
            raise Refused(CHECK, f"audit, difference: expected a position of the run, or -1, got {canonical.quoted(found['position'])}")


def check_curve(value: Any, challenge: Mapping[str, Any], positions: int, layers: int) -> None:
    """Odds of what was drawn, and of everything"""
    found = fields(CHECK, "audit, curve", value, ("cells", "columns"))
    due = {"cells": challenge["mode"] != COLUMN, "columns": challenge["mode"] == PROFILE}
    for name, of in (("cells", positions * layers), ("columns", layers)):
        points = found[name]
        if not isinstance(points, list) or bool(points) != due[name] or not all(is_point(point, of) for point in points):
            raise Refused(CHECK, f"audit, curve, {name}: expected probabilities for parts of {of} where they were drawn, got others")


def is_point(value: Any, of: int) -> bool:
    point = fields(CHECK, "audit, point of a curve", value, POINT)
    probability = point["probability"]
    parts = all(is_count(point[name]) and 1 <= point[name] <= of for name in ("edited", "for_99", "of")) and point["of"] == of
    return parts and type(probability) in (int, float) and bool(0 <= probability <= 1)


def check_weights(value: Any) -> None:
    """Tensors by name, those that the bundle had committed to and those of the checkpoint as counts"""
    found = fields(CHECK, "audit, weights", value, ("in_all", "compared", "tensors"))
    tensors = found["tensors"]
    if not isinstance(tensors, list) or not is_count(found["in_all"]) or not is_count(found["compared"]):
        raise Refused(CHECK, "audit, weights: expected counts and a list of tensors, got others")
    if not found["compared"] <= len(tensors) <= found["in_all"]:
        raise Refused(CHECK, "audit, weights: expected counts that fit each other, got others")
    check_ascending([read_tensor(row) for row in tensors])


def read_tensor(row: Any) -> str:
    """Its name"""
    found = fields(CHECK, "audit, tensor", row, ("name", "sha256"))
    digest(CHECK, "audit, tensor", found["sha256"])
    return text(CHECK, "audit, tensor, name", found["name"])


def check_ascending(names: Sequence[str]) -> None:
    """By the bytes of the names"""
    for a, b in pairwise(names):
        if a.encode() >= b.encode():
            raise Refused(CHECK, f"audit, weights: expected tensors in ascending order, got {canonical.quoted(b)}")


def is_hex(value: Any) -> bool:
    """Pairs of lowercase hexadecimal digits, at least one"""
    return isinstance(value, str) and bool(value) and len(value) % 2 == 0 and set(value) <= set("0123456789abcdef")
