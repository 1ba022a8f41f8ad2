"""A second implementation, written from docs/spec alone (independent_arithmetic, independent_values), finds the values that a run recorded.

Formation is used only to record the run. Digests, norms, routing, expert writes, attribution, lens: bit for bit. What holds sums of
exponentials in binary64: up to rounding, because the page leaves exp64 and log64 to their source.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from independent_arithmetic import Weights, norm
from independent_values import NOT_FROM_ROWS, Cell, Head, Near, Recorded, Step, Values, field_table, sha256

from formation.cli import main
from formation.samples import folder

SAMPLE = folder("kimi_k25")
PAGE = (Path(__file__).parents[2] / "docs/spec/ledger.md").read_text()
TABLE = field_table(PAGE)
ELSEWHERE = {"attention layer", "no gate"}  # why fields of other models are absent here


@dataclass(frozen=True)
class Found:
    """One value: where it stands, what the ledger says, what was computed"""

    position: int
    slot: str
    tag: str
    name: str
    recorded: Any
    computed: Any

    @property
    def agrees(self) -> bool:
        return agree(self.recorded, self.computed)


def agree(recorded: Any, computed: Any) -> bool:
    if isinstance(computed, Near):
        return abs(recorded - computed.value) <= computed.tolerance
    if isinstance(computed, list) and any(isinstance(each, Near) for each in computed):
        return len(recorded) == len(computed) and all(map(agree, recorded, computed))
    return type(recorded) is not bool and bool(recorded == computed)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    out = tmp_path_factory.mktemp("recorded") / "run.ofb"
    asked = ["record", str(SAMPLE), "--prompt", "What does len do?", "--tokens", "4", "--out", str(out), "--rows", "all",
             "--capture", "full", "--capture-prompt", "full", "--parity", "none"]  # fmt: skip
    assert 0 == main.main(asked)
    return Recorded(out)


@pytest.fixture(scope="module")
def found(run: Recorded) -> list[Found]:
    return list(recomputed(run))


def recomputed(run: Recorded) -> Iterator[Found]:
    """Every value of every line but the first"""
    weights = Weights(SAMPLE)
    head = Head(weights, run.run["norm_eps"])
    for position in range(len(run.ids) - 1):
        cells = [Cell(run, weights, position, layer) for layer in range(run.run["shape"]["layers"])]
        measured = [cell.measured() for cell in cells]
        step = Step(head, cells, run.token[position]) if position in run.token else None
        yield from compare(run, position, "embed", embedding(run, weights, cells[0], position), step.embed() if step else {})
        for layer, cell in enumerate(cells):
            line = run.lines[position, f"layer {layer}"]["measured"]
            derived = cell.derived(line) | (step.layer(cell) if step else {})
            yield from compare(run, position, f"layer {layer}", measured[layer], derived)
        if step:
            lines = {slot: run.lines[position, slot] for slot in ("lm_head", "embed")}
            layers = [run.lines[position, f"layer {layer}"]["derived"] for layer in range(len(cells))]
            derived = step.derived(lines["lm_head"]["measured"], lines["embed"]["derived"], layers)
            yield from compare(run, position, "lm_head", step.measured(), derived)
            yield from compare(run, position, "token", {"id": int(step.z.argmax())}, {})  # greedy


def embedding(run: Recorded, weights: Weights, first: Cell, position: int) -> Values:
    assert weights.tensor("model.embed_tokens")[run.ids[position]].tobytes() == first.x.tobytes()
    return {"residual_sha256": sha256(first.x), "residual_norm": float(norm(first.x))}


def compare(run: Recorded, position: int, slot: str, measured: Values, derived: Values) -> Iterator[Found]:
    """Each field of the spec's table that the line has, with what was computed, or with the reason for which there is nothing"""
    line, reasons = run.lines[position, slot], holding(run, position, slot)
    for tag, values in (("measured", measured), ("derived", derived)):
        for name, allowed in TABLE.get((slot.split()[0], tag), {}).items():
            if name not in NOT_FROM_ROWS:
                why = [reason for reason in allowed if reason in reasons]
                yield Found(position, slot, tag, name, line[tag][name], {"absent": why[0]} if why else values[name])


def holding(run: Recorded, position: int, slot: str) -> set[str]:
    dense = slot in {f"layer {layer}" for layer in range(run.run["shape"]["dense_layers"])}
    return ELSEWHERE | ({"dense layer"} if dense else set()) | (set() if position in run.token else {"not a step"})


def test_the_page_lists_the_fields_that_the_ledger_has(run: Recorded) -> None:
    for (_, slot), line in run.lines.items():
        for tag in ("measured", "derived"):
            assert sorted(TABLE.get((slot.split()[0], tag), {})) == sorted(line[tag])


def test_every_derived_value_was_recomputed_and_every_measured_one_that_rows_give(found: list[Found]) -> None:
    slots = {(f.slot.split()[0], f.tag, f.name) for f in found if not isinstance(f.computed, dict)}
    for (slot, tag), fields in TABLE.items():
        if slot not in ("run", "sampler"):
            missing = {name for name, reasons in fields.items() if (slot, tag, name) not in slots and not ELSEWHERE & set(reasons)}
            assert missing <= (NOT_FROM_ROWS if tag == "measured" else set()), (slot, tag)
    assert not NOT_FROM_ROWS & {name for (_, tag), fields in TABLE.items() if tag == "derived" for name in fields}


def test_the_ledger_says_what_was_computed(found: list[Found]) -> None:
    assert [] == [f for f in found if not f.agrees]
    assert len(found) > 2_000


def test_one_ulp_more_in_any_number_is_seen(found: list[Found]) -> None:
    exact = [f for f in found if not isinstance(f.computed, Near)]
    for f in exact:
        if isinstance(f.recorded, float):
            assert not agree(math.nextafter(f.recorded, math.inf), f.computed), f
        elif isinstance(f.recorded, (int, str)):
            assert not agree(f.recorded + 1 if isinstance(f.recorded, int) else f.recorded[:-2] + "zz", f.computed), f
    for f in found:
        if isinstance(f.computed, Near):
            assert not agree(f.recorded + 1e-9 * (1 + abs(f.recorded)), f.computed), f
