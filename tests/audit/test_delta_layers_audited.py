"""Cells, columns and everything of a model with delta layers, computed again: a delta cell comes from the state that rows 0 to p leave."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import formation
from audit.forger import Forger, change, one_ulp
from audit.sealed_runs import MEMORY, check, places, sealed
from formation.audit import AuditReport, audit, reexecute
from formation.audit.report import Challenge
from formation.evidence.keys import PrivateKey
from formation.kernels import ops
from formation.ledger import fields
from formation.ledger.progress import Watch
from formation.model.architecture import parts_of
from formation.model.catalog import read_model
from formation.run.order import Order
from small_models import qwen_config, small_checkpoint

POSITIONS, LAYERS, HIDDEN, EXPERTS = 8, 4, 96, 4
DELTA, ATTENTION = 1, 3  # layers
MINE = [field for field in fields.FIELDS if fields.ATTENTION_LAYER in field.absent or field.name.startswith("shared_")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("qwen") / "model", qwen_config())


@pytest.fixture(scope="module")
def run(folder: Path, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed(folder, tmp_path_factory.mktemp("run") / "run.ofb", key)


@pytest.fixture(scope="module")
def full(folder: Path, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed(folder, tmp_path_factory.mktemp("full") / "run.ofb", key, Watch("full", "full", "all"))


def of_cell(monkeypatch: pytest.MonkeyPatch, bundle: Path, folder: Path, *cells: tuple[int, int]) -> AuditReport:
    """An audit of just these cells, as if they had been drawn"""
    monkeypatch.setattr(reexecute, "make_challenge", lambda ledger, *rest: Challenge("cells", cells, (), b"", "named"))
    return check(bundle, folder, cells=len(cells))


# ---- honest runs


@pytest.mark.parametrize("what", [{}, {"column": DELTA}, {"column": ATTENTION}, {"full": True}], ids=["profile", "delta", "attention", "full"])
@pytest.mark.parametrize("level", ["run", "full"])
def test_an_honest_run_passes(request: pytest.FixtureRequest, folder: Path, level: str, what: dict) -> None:
    report = check(request.getfixturevalue(level), folder, **what)
    assert () == report.differences
    assert report.passed and report.challenged_cells == report.executed_cells > 0


def test_every_value_that_weights_can_give_is_compared(full: Path, folder: Path) -> None:
    lines = [json.loads(line) for line in (full / "ledger.jsonl").read_text().splitlines()][1:]
    joined = {"dla_logit", "lm_head_rounding", "arrival_layer"}
    expected = sum(len((line["measured"] | line["derived"]).keys() - joined) for line in lines)
    run_line, seal_head, checkpoint = 7, 1, 1
    assert expected + run_line + seal_head + checkpoint == check(full, folder, full=True).values_compared


def test_every_single_cell_passes_alone(run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for position in range(POSITIONS):
        report = of_cell(monkeypatch, run, folder, (position, DELTA), (position, ATTENTION))
        assert report.passed and 2 == report.executed_cells


@pytest.mark.parametrize("options", [{"threads": 1}, {"keep_cache": False}, {"memory": "3MiB"}], ids=["one thread", "no cache", "a small budget"])
def test_a_run_computed_otherwise_passes(folder: Path, tmp_path: Path, key: PrivateKey, options: dict) -> None:
    out = sealed(folder, tmp_path / "run.ofb", key, **options)
    assert check(out, folder, full=True).passed


@pytest.mark.parametrize("isa", [name for name in ("avx2", "plain") if ops.isa_available(name)])
def test_an_audit_on_another_instruction_set_passes(run: Path, folder: Path, tmp_path: Path, isa: str) -> None:
    command = [sys.executable, "-m", "formation.cli.main", "audit", str(run), "--checkpoint", str(folder), "--full", "--json", "--threads", "1"]
    done = subprocess.run(
        [*command, "--memory", MEMORY, "--out", str(tmp_path / "audit.json")], capture_output=True, text=True, check=False,
        env=os.environ | {"FORMATION_ISA": isa, "XDG_CONFIG_HOME": str(tmp_path)},
    )  # fmt: skip
    assert (0, "passed") == (done.returncode, json.loads(done.stdout)["outcome"])


def test_longer_runs_than_a_chunk_are_remembered_in_parts_and_without_rows_all_at_once(folder: Path, tmp_path: Path, key: PrivateKey) -> None:
    out = sealed(folder, tmp_path / "run.ofb", key, order=Order(tuple(range(90)), 2))
    report = audit(out, folder, cells=40, seed_from="later", memory="3MiB", threads=2)
    assert report.passed and max(position for position, _ in report.challenge.cells) > 64
    bare = sealed(folder, tmp_path / "bare.ofb", key, Watch("minimal", "minimal", "none"), Order((5, 6, 7), 2))
    assert check(bare, folder, full=True).passed


# ---- what is read


@pytest.mark.parametrize("layer", [DELTA, ATTENTION])
def test_a_cell_reads_its_layers_mixer_and_router_its_experts_and_the_ends_of_the_tokens_and_nothing_else(
    run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, layer: int
) -> None:
    position = 6
    report = of_cell(monkeypatch, run, folder, (position, layer))
    assert report.passed
    checkpoint = formation.open(folder)
    parts = parts_of(read_model(checkpoint.config), checkpoint.tensors)
    chosen = json.loads((run / "ledger.jsonl").read_text().splitlines()[line_of(position, layer)])["measured"]["chosen"]
    assert EXPERTS == len(chosen)
    needed = [("head",), ("layer", layer), *(("expert", layer, expert) for expert in chosen)]
    names = {name for key in needed for name in parts[key].names}
    assert names == set(report.tensors)
    payload = sum(checkpoint.tensors[name].nbytes for name in names)
    rows = POSITIONS * HIDDEN * 2  # of the embedding, bf16
    spare = 4096 * (len(names) + POSITIONS)  # reads begin and end at whole blocks
    assert payload + rows <= report.bytes_read <= payload + rows + spare


def line_of(position: int, layer: int) -> int:
    """Its number: four prompt positions have five lines each, the steps eight"""
    return 1 + 4 * 5 + (position - 4) * 8 + 1 + layer


# ---- forgeries, hashed anew and signed by the right key


@settings(max_examples=8, deadline=None)  # each writes, seals and audits a bundle
@given(st.integers(0, POSITIONS - 1), st.integers(0, LAYERS), st.integers(0, HIDDEN - 1), st.sampled_from([np.inf, -np.inf]))
def test_one_ulp_in_any_row_is_found_by_the_column_that_holds_it(
    folder: Path, run: Path, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory, position: int, boundary: int, dimension: int, towards: float
) -> None:
    forger = Forger(run, tmp_path_factory.mktemp("forged") / "run.ofb", key)
    forger.row(position, boundary, one_ulp(dimension, towards))
    report = check(forger.finish(), folder, column=max(boundary - 1, 0))
    slot = f"layer {boundary - 1}" if boundary else "embed"
    assert not report.passed
    assert (position, slot, "residual_sha256") in places(report)
    shutil.rmtree(forger.folder)


def test_a_row_changed_early_is_found_in_the_states_of_all_later_positions(folder: Path, run: Path, key: PrivateKey, tmp_path: Path) -> None:
    forger = Forger(run, tmp_path / "run.ofb", key)
    forger.row(2, DELTA, one_ulp(0))
    report = check(forger.finish(), folder, column=DELTA)
    assert set(range(2, POSITIONS)) == {position for position, slot, field in places(report) if field == "delta_state_sha256"}


@pytest.mark.parametrize("field", MINE, ids=lambda field: field.name)
def test_any_value_of_a_delta_net_or_of_a_gated_shared_expert_is_held_against_the_weights(
    folder: Path, full: Path, key: PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: fields.Field
) -> None:
    forger = Forger(full, tmp_path / "run.ofb", key)
    change(forger.line(6, f"layer {DELTA}"), field)
    report = of_cell(monkeypatch, forger.finish(), folder, (6, DELTA))
    assert {(6, f"layer {DELTA}", field.name)} == places(report)


def test_layers_said_to_be_of_another_kind_are_found_before_anything_is_computed(folder: Path, run: Path, key: PrivateKey, tmp_path: Path) -> None:
    """With all lines of the layer as those of attention would be"""
    forger = Forger(run, tmp_path / "run.ofb", key)
    forger.lines[0]["measured"]["delta"]["heads"] = 8
    report = check(forger.finish(), folder, full=True)
    assert {(-1, "run", "delta")} == places(report) and 0 == report.executed_cells
