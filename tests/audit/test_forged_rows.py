"""Rows changed by someone who has the right key and hashes and signs everything anew: the column that holds them finds it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.forger import Forger, one_ulp
from audit.sealed_runs import check, places, sealed
from formation.audit import audit
from formation.audit.recorded import open_ledger
from formation.errors import EvidenceError
from formation.evidence.keys import PrivateKey
from formation.run.order import Order
from recorded_runs import IDS
from small_models import small_checkpoint, small_config

POSITIONS, LAYERS, HIDDEN = 8, 4, 96


@settings(max_examples=12, deadline=None)  # each writes, seals and audits a bundle
@given(st.integers(0, POSITIONS - 1), st.integers(0, LAYERS), st.integers(0, HIDDEN - 1), st.sampled_from([np.inf, -np.inf]))
def test_one_ulp_in_any_row_is_found_by_the_column_that_holds_it(
    k25_folder: Path, standard: Path, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory, position: int, boundary: int, dimension: int,
    towards: float,
) -> None:  # fmt: skip
    forger = Forger(standard, tmp_path_factory.mktemp("forged") / "run.ofb", key)
    forger.row(position, boundary, one_ulp(dimension, towards))
    report = check(forger.finish(), k25_folder, column=max(boundary - 1, 0))
    slot = f"layer {boundary - 1}" if boundary else "embed"
    assert not report.passed
    assert (position, slot, "residual_sha256") in places(report)
    shutil.rmtree(forger.folder)


def test_the_next_column_finds_it_too_because_it_starts_from_it(k25_folder: Path, standard: Path, key: PrivateKey, tmp_path: Path) -> None:
    forger = Forger(standard, tmp_path / "run.ofb", key)
    forger.row(3, 2, one_ulp(0))
    report = check(forger.finish(), k25_folder, column=2)
    assert {2} == {d.layer for d in report.differences}
    assert 3 == min(d.position for d in report.differences)  # positions before it do not see it


def test_a_column_elsewhere_does_not_find_it_and_says_that_it_did_not_look(
    k25_folder: Path, standard: Path, key: PrivateKey, tmp_path: Path
) -> None:
    forger = Forger(standard, tmp_path / "run.ofb", key)
    forger.row(3, 1, one_ulp(0))
    report = check(forger.finish(), k25_folder, column=3)
    assert report.passed
    assert "was not looked for" in report.not_executed()
    assert not check(forger.folder, k25_folder, full=True).passed


def test_a_row_that_is_not_its_digests_closes_every_cell_that_needs_it(k25_folder: Path, standard: Path, key: PrivateKey, tmp_path: Path) -> None:
    forger = Forger(standard, tmp_path / "run.ofb", key)
    digest = forger.line(3, "layer 0")["measured"]["residual_sha256"]
    forger.row(3, 1, one_ulp(0))
    forger.line(3, "layer 0")["measured"]["residual_sha256"] = digest
    report = check(forger.finish(), k25_folder, column=1)
    assert (3, "layer 0", "row of the residual") in places(report)
    assert 3 == report.executed_cells < report.challenged_cells == 8
    assert not report.passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_no_row(k25_folder: Path, standard: Path, key: PrivateKey, tmp_path: Path, value: float) -> None:
    forger = Forger(standard, tmp_path / "run.ofb", key)
    before = dict(forger.line(2, "layer 1")["measured"])

    def put(values: np.ndarray) -> None:
        values[5] = value

    forger.row(2, 2, put)
    digest = forger.line(2, "layer 1")["measured"]["residual_sha256"]
    forger.line(2, "layer 1")["measured"] = before | {"residual_sha256": digest}
    report = check(forger.finish(), k25_folder, column=2)
    assert (2, "layer 1", "row of the residual") in places(report)
    assert 2 == report.executed_cells


def test_a_row_of_huge_numbers_ends_in_a_finding_and_not_in_a_crash(k25_folder: Path, standard: Path, key: PrivateKey, tmp_path: Path) -> None:
    forger = Forger(standard, tmp_path / "run.ofb", key)

    def huge(values: np.ndarray) -> None:
        values[:] = np.finfo(np.float32).max / 16

    forger.row(2, 2, huge)
    forger.line(2, "layer 1")["measured"] |= {"residual_norm": 1.5, "residual_largest": 1.5}
    forger.finish()
    for what in ({"column": 2}, {"cells": 32}, {"full": True}):
        assert not check(forger.folder, k25_folder, **what).passed


@pytest.mark.parametrize("tensor", ["logits", "selection"])
def test_a_router_row_is_held_against_the_router(k25_folder: Path, standard: Path, key: PrivateKey, tmp_path: Path, tensor: str) -> None:
    forger = Forger(standard, tmp_path / "run.ofb", key)
    forger.router_row(6, 2, tensor, one_ulp(11))
    assert places(check(forger.finish(), k25_folder, column=2)) == {(6, "layer 2", f"router_{tensor}_sha256")}


def test_a_missing_file_of_rows_fails_the_audit(k25_folder: Path, standard: Path, tmp_path: Path) -> None:
    for gone in ("rows/00000000.safetensors", "rows", "router/00000000.safetensors"):
        shutil.copytree(standard, tmp_path / "run.ofb", dirs_exist_ok=True)
        path = tmp_path / "run.ofb" / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        report = check(tmp_path / "run.ofb", k25_folder, cells=3)
        assert not report.passed
        assert report.difference_count
        shutil.rmtree(tmp_path / "run.ofb")


@pytest.mark.parametrize(
    ("folder", "name"),
    [("rows", "residual"), ("rows", "attention_write"), ("rows", "mlp_write"), ("router", "router_logits"), ("router", "router_selection")],
)
def test_a_committed_row_that_is_not_its_digests_is_found_by_the_column_that_made_it(
    k25_folder: Path, full: Path, key: PrivateKey, tmp_path: Path, folder: str, name: str
) -> None:
    """Of a prompt position, with all rows kept; the digest in the ledger is the true one"""
    forger = Forger(full, tmp_path / "run.ofb", key)
    true = dict(forger.line(2, "layer 2")["measured"])
    tensor = name.removeprefix("router_")
    forger.patch(folder, 2, tensor, {"residual": 3, "attention_write": 2, "mlp_write": 2}.get(tensor, 1), one_ulp(4))
    assert true == forger.line(2, "layer 2")["measured"]
    report = check(forger.finish(), k25_folder, column=2)
    assert (2, "layer 2") in {(d.position, d.slot) for d in report.differences}
    assert all(d.field.startswith("row of") for d in report.differences)


def test_a_line_that_changes_while_it_is_audited_is_not_read(standard: Path, tmp_path: Path) -> None:
    shutil.copytree(standard, tmp_path / "run.ofb")
    ledger = open_ledger(tmp_path / "run.ofb")
    ledger.line(5, "layer 1")
    data = (tmp_path / "run.ofb/ledger.jsonl").read_bytes()
    (tmp_path / "run.ofb/ledger.jsonl").write_bytes(data.replace(b'"gate_sum":', b'"gate_sun":'))
    with pytest.raises(EvidenceError, match="as it was hashed"):
        ledger.line(5, "layer 1")


def test_rows_of_another_run_are_no_rows_of_this_one(k25_folder: Path, standard: Path, tmp_path: Path, key: PrivateKey) -> None:
    other = sealed(k25_folder, tmp_path / "other.ofb", key, order=Order(IDS, 2))
    wider = sealed(small_checkpoint(tmp_path / "wide", small_config(num_hidden_layers=5)), tmp_path / "wider.ofb", key)
    for source in (other, wider):
        shutil.copytree(standard, tmp_path / "run.ofb")
        shutil.rmtree(tmp_path / "run.ofb/rows")
        shutil.copytree(source / "rows", tmp_path / "run.ofb/rows")
        for what in ({"cells": 2}, {"column": 1}, {"full": True}):
            report = check(tmp_path / "run.ofb", k25_folder, **what)
            assert {(-1, "run", "rows")} == places(report)
            assert (0, 0) == (report.executed_cells, report.executed_steps)
        shutil.rmtree(tmp_path / "run.ofb")


def test_cells_behind_a_row_that_cannot_be_opened_are_not_executed_however_the_rows_are_cut(
    k25_folder: Path, tmp_path: Path, key: PrivateKey
) -> None:
    bundle = sealed(k25_folder, tmp_path / "long.ofb", key, order=Order(tuple(range(90)), 2))
    forger = Forger(bundle, tmp_path / "run.ofb", key)
    forger.patch("rows", 70, "residual", 1, one_ulp(0))
    report = audit(forger.finish(), k25_folder, cells=150, memory="2500KiB", threads=2)
    closed = {(position, layer) for position, layer in report.challenge.cells if layer == 1 and position >= 70}
    assert closed
    assert 150 - len(closed) == report.executed_cells
    assert (70, "layer 0", "row of the residual") in places(report)
    assert not {d.layer for d in report.differences} - {0}
