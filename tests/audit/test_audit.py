"""An honest run passes, whoever computed it and however, and the report says what was executed again and what was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit.sealed_runs import check, sealed
from formation.audit import audit
from formation.evidence.keys import PrivateKey
from formation.ledger.progress import Watch
from formation.run.order import Order


@pytest.mark.parametrize("what", [{}, {"cells": 9}, {"column": 0}, {"column": 3}, {"full": True}], ids=["profile", "cells", "dense", "moe", "full"])
@pytest.mark.parametrize("level", ["standard", "full"])
def test_an_honest_run_passes(request: pytest.FixtureRequest, k25_folder: Path, level: str, what: dict) -> None:
    report = check(request.getfixturevalue(level), k25_folder, **what)
    assert () == report.differences
    assert report.passed
    assert report.challenged_cells == report.executed_cells > 0
    assert (4, 8, 4) == (report.executed_steps, report.positions, report.layers)


def test_every_value_that_weights_can_give_is_compared(full: Path, k25_folder: Path) -> None:
    """All of a full audit but what joins several lines (dla_logit, lm_head_rounding, arrival_layer), the anchor's run_id and the run's biases"""
    lines = [json.loads(line) for line in (full / "ledger.jsonl").read_text().splitlines()][1:]
    joined = {"dla_logit", "lm_head_rounding", "arrival_layer"}
    expected = sum(len((line["measured"] | line["derived"]).keys() - joined) for line in lines)
    report = check(full, k25_folder, full=True)
    run_line, biases, seal_head, checkpoint = 7, 3, 1, 1
    assert expected + run_line + biases + seal_head + checkpoint == report.values_compared


def test_without_rows_only_a_full_audit_is_possible(k25_folder: Path, tmp_path: Path, key: PrivateKey) -> None:
    out = sealed(k25_folder, tmp_path / "run.ofb", key, Watch("standard", "minimal", "none"))
    report = check(out, k25_folder, full=True)
    assert (True, 0, 32) == (report.passed, report.rows_opened, report.executed_cells)
    for what in ({}, {"cells": 1}, {"column": 1}):
        refused = check(out, k25_folder, **what)
        assert not refused.passed
        assert (0, "rows") == (refused.executed_cells, refused.differences[0].field)
        assert "only a full audit is possible" in str(refused.differences[0])


def test_longer_prompts_than_a_chunk_are_remembered_in_parts(k25_folder: Path, tmp_path: Path, key: PrivateKey) -> None:
    out = sealed(k25_folder, tmp_path / "run.ofb", key, Watch("standard", "minimal", "boundaries"), Order(tuple(range(90)), 2))
    report = audit(out, k25_folder, cells=30, seed_from="later", memory="2500KiB", threads=2)
    assert report.passed
    assert max(position for position, _ in report.challenge.cells) > 64
