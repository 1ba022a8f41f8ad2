"""What an audit says, what it reads, and what it writes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import formation
from audit.sealed_runs import MEMORY, check, sealed
from formation.audit import audit
from formation.cli.main import main
from formation.errors import BudgetError, EnvironmentFault, EvidenceError, UsageError
from formation.evidence import envelope
from formation.evidence.keys import PrivateKey
from formation.evidence.payloads import write as write_digests
from formation.evidence.seal import seal
from formation.run.order import Order
from formation.weights.payload import hash_tensors
from recorded_runs import IDS


def test_the_report_says_what_was_executed_and_what_was_not(standard: Path, k25_folder: Path) -> None:
    report = check(standard, k25_folder, column=2)
    assert "all 8 cells of layer 2" in report.executed()
    assert "head, sampler and token of all 4 tokens" in report.executed()
    assert report.not_executed().startswith("24 of 32 cells")
    assert "nothing" == check(standard, k25_folder, full=True).not_executed()


def test_a_chosen_column_claims_no_odds_for_the_others(standard: Path, k25_folder: Path) -> None:
    report = check(standard, k25_folder, column=2)
    assert () == report.cell_curve == report.column_curve
    drawn = check(standard, k25_folder)
    assert 0.25 == drawn.column_curve[-1].probability
    assert 32 == len(drawn.challenge.cells)  # 44, but there are no more


def test_the_same_value_draws_the_same_cells_and_the_seed_repeats_a_draw(standard: Path, k25_folder: Path) -> None:
    first, second = (check(standard, k25_folder, cells=5, seed_from="lottery of 2026-11-23") for _ in range(2))
    assert first.challenge == second.challenge
    assert b"lottery of 2026-11-23" == first.challenge.seed
    own = check(standard, k25_folder, cells=5)
    assert own.challenge.seed is not None
    assert own.challenge.cells == check(standard, k25_folder, cells=5, seed_from=own.challenge.seed.hex()).challenge.cells


@pytest.mark.parametrize(
    "what", [{"cells": 0}, {"cells": -1}, {"cells": 33}, {"column": 4}, {"column": -1}, {"cells": 1, "full": True}, {"full": True, "seed_from": "x"}]
)
def test_what_cannot_be_audited_is_a_wrong_call(standard: Path, k25_folder: Path, what: dict) -> None:
    with pytest.raises(UsageError):
        check(standard, k25_folder, **what)


def test_an_incomplete_ledger_is_not_audited(standard: Path, k25_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run.ofb").mkdir()
    for name in ("anchor.json", "ledger.jsonl"):
        (tmp_path / "run.ofb" / (name + ".part" * name.endswith("l"))).write_bytes((standard / name).read_bytes())
    with pytest.raises(EvidenceError, match="INCOMPLETE"):
        check(tmp_path / "run.ofb", k25_folder, full=True)


# ---- what is read


def test_one_cell_reads_its_layer_its_experts_and_what_is_always_checked(
    standard: Path, k25_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, budgets = spied(monkeypatch)
    report = check(standard, k25_folder, cells=1, seed_from="0a")
    ((position, layer),) = report.challenge.cells
    assert layer > 0
    lines = [json.loads(line) for line in (standard / "ledger.jsonl").read_text().splitlines()]
    (cell,) = [line for line in lines if (line["position"], line["slot"]) == (position, f"layer {layer}")]
    expected = {("head",), ("layer", layer), *(("expert", layer, expert) for expert in cell["measured"]["chosen"])}
    assert expected == set(used)
    (stream,) = budgets
    slots = sum(stream.bytes_of(key) for key in expected)
    rows = 8 * 2 * 4096  # of the embedding, each within two pages
    assert report.bytes_read <= slots + rows
    assert {name for key in expected for name in stream._units[key].names} == set(report.tensors)


def test_a_column_reads_one_layer_and_a_full_audit_everything_once(standard: Path, k25_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used, _ = spied(monkeypatch)
    check(standard, k25_folder, column=2)
    assert {("head",), ("layer", 2)} <= set(used)
    assert {2} == {key[1] for key in used if key[0] != "head"}
    del used[:]
    check(standard, k25_folder, full=True)
    assert len(used) == len(set(used))
    assert {0, 1, 2, 3} == {key[1] for key in used if key[0] == "layer"}


def spied(monkeypatch: pytest.MonkeyPatch) -> tuple[list, list]:
    """What is used of the weights, in order, and the streams"""
    from formation.audit import weights

    used: list = []
    streams: list = []

    class Spied(weights.WeightStream):
        def __init__(self, *args: object, **more: object) -> None:
            super().__init__(*args, **more)
            streams.append(self)
            self.events = lambda event: used.append(event.key)

    monkeypatch.setattr(weights, "WeightStream", Spied)
    return used, streams


# ---- digests of the weights


def test_tensors_are_hashed_and_held_against_the_digests_of_the_bundle(k25_folder: Path, tmp_path: Path, key: PrivateKey) -> None:
    out = sealed(k25_folder, tmp_path / "run.ofb", key)
    assert 0 == check(out, k25_folder, column=1).known_tensors
    digests = hash_tensors(formation.open(k25_folder), threads=1, cache=tmp_path / "cache")
    write_digests(out, digests)
    seal(out, key)
    report = check(out, k25_folder, column=1)
    assert report.passed
    assert report.known_tensors == len(report.tensors) > 10
    assert report.tensors.items() <= digests.items()


# ---- the command and its file


def test_the_command_writes_a_signed_result_that_is_bound_to_the_seal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, k25_folder: Path, tmp_path: Path, key: PrivateKey
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    out = sealed(k25_folder, tmp_path / "run.ofb", key)
    assert main(["audit", str(out), "--checkpoint", str(k25_folder), "--memory", MEMORY]) == 0
    told = capsys.readouterr().out
    for said in ("all 8 cells of layer", "32 cells drawn from 32", "not executed   nothing", "seed", "99 % needs", "audit          passed"):
        assert said in told
    assert "nor hardware" in told
    found = envelope.read((out / "audit.json").read_bytes(), envelope.AUDIT)
    attestation = (out / "attestation.json").read_bytes()
    assert {"attestation.json": hashlib.sha256(attestation).hexdigest()} == found.statement.subjects
    predicate = found.statement.predicate
    assert "passed" == predicate["outcome"]
    assert envelope.read(attestation, envelope.RUN).statement.predicate["tree_head"] == predicate["tree_head"]
    assert 32 == predicate["result"]["executed"]["cells"]
    assert found.signer != key.public


def test_an_unsealed_bundle_is_audited_and_called_so(
    capsys: pytest.CaptureFixture[str], standard: Path, k25_folder: Path, tmp_path: Path
) -> None:
    from formation.ledger.files import read_document
    from recorded_runs import run

    run(k25_folder, tmp_path / "run.ofb", Order(IDS, 2), parity="none")
    command = ["audit", str(tmp_path / "run.ofb"), "--checkpoint", str(k25_folder), "--column", "1", "--memory", MEMORY]
    assert main(command) == 0
    assert "UNSEALED" in capsys.readouterr().out
    assert not (tmp_path / "run.ofb/audit.json").exists()
    assert main([*command, "--out", str(tmp_path / "draft.json"), "--json"]) == 0
    assert "passed" == json.loads(capsys.readouterr().out)["outcome"] == read_document(tmp_path / "draft.json")["outcome"]


def test_a_budget_that_cannot_hold_a_column_is_refused_with_what_it_takes(standard: Path, k25_folder: Path) -> None:
    with pytest.raises(BudgetError, match="the audit of 8 positions keeps"):
        audit(standard, k25_folder, full=True, memory="1MiB")


def test_a_file_is_no_bundle(k25_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run.zip").write_bytes(b"PK")
    for path, got in ((tmp_path / "run.zip", "a file"), (tmp_path / "none", "nothing")):
        with pytest.raises(EnvironmentFault, match=f"expected the folder of a bundle, got {got}"):
            check(path, k25_folder)


@pytest.mark.parametrize("more", [["--cells", "1", "--full"], ["--cells", "x"], []], ids=["two at once", "no number", "no checkpoint"])
def test_a_wrong_call_exits_2(standard: Path, k25_folder: Path, more: list[str]) -> None:
    checkpoint = ["--checkpoint", str(k25_folder)] if more else []
    with pytest.raises(SystemExit) as left:
        main(["audit", str(standard), *checkpoint, *more])
    assert 2 == left.value.code


def test_what_cannot_be_drawn_exits_2_and_says_how_many_there_are(
    capsys: pytest.CaptureFixture[str], standard: Path, k25_folder: Path
) -> None:
    assert 2 == main(["audit", str(standard), "--checkpoint", str(k25_folder), "--cells", "33"])
    captured = capsys.readouterr()
    assert "cells: expected 1 to 32 to draw, got 33" in captured.err
    assert "" == captured.out
