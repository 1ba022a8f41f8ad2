"""Values of lines changed, hashed and signed anew with the right key: what is computed again names each of them, and no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import formation
from audit.forger import Forger, change, changed
from audit.sealed_runs import check, places, sealed
from formation.cli.main import main
from formation.evidence import envelope, keys
from formation.evidence.keys import PrivateKey
from formation.evidence.payloads import write as write_digests
from formation.ledger import fields
from formation.ledger.formulas import WHOLE_POSITION
from formation.run.order import Order
from formation.run.sample import Sample
from formation.weights.payload import hash_tensors
from recorded_runs import IDS

JOINED = {*WHOLE_POSITION, "lm_head_rounding"}  # from lines of all layers: `verify` recomputes these
LAYER_FIELDS = [  # that a layer with attention and experts has; a row's digest closes the row
    f for f in fields.fields_of("layer", "full") if f.name != "residual_sha256" and not {"attention layer", "no gate"} & set(f.absent)
]
HEAD_FIELDS = [f for slot in ("embed", "lm_head") for f in fields.fields_of(slot, "full") if f.name not in JOINED]


def test_every_value_of_a_cell_is_found_by_its_column_where_it_was_changed(
    k25_folder: Path, full: Path, key: PrivateKey, tmp_path: Path
) -> None:
    """One field in each of the twelve cells of steps in layers with experts, in as many rounds as all fields take"""
    for first in range(0, len(LAYER_FIELDS), 12):
        forger = Forger(full, tmp_path / f"run{first}.ofb", key)
        cells = [line for line in forger.cells() if line["kind"] == "generated" and line["slot"] != "layer 0"]
        edits = list(zip(cells, LAYER_FIELDS[first : first + 12], strict=False))
        for cell, field in edits:
            change(cell, field)
        report = check(forger.finish(), k25_folder, full=True)
        expected = {(cell["position"], cell["slot"], field.name) for cell, field in edits}
        assert expected == {place for place in places(report) if not place[2].startswith("row of")}
    assert 80 <= len(LAYER_FIELDS)


def test_every_value_of_embedding_head_sampler_and_token_is_found_whatever_is_drawn(
    k25_folder: Path, tmp_path: Path, key: PrivateKey
) -> None:
    bundle = sealed(k25_folder, tmp_path / "run.ofb", key, order=Order(IDS, 4, Sample(seed=3)))
    steps = range(4, 8)
    edited = [*HEAD_FIELDS, *(f for f in fields.fields_of("sampler", "full") if f.name != "method")]
    for first in range(0, len(edited), 4):
        forger = Forger(bundle, tmp_path / f"run{first}.ofb", key)
        edits = list(zip(steps, edited[first : first + 4], strict=False))
        for position, field in edits:
            change(forger.line(position, field.slot), field)
        report = check(forger.finish(), k25_folder, cells=1)
        assert {(position, field.slot, field.name) for position, field in edits} <= places(report)
        assert {position for position, _ in edits} == {d.position for d in report.differences}


def test_another_token_other_bytes_and_another_method_are_found(k25_folder: Path, standard: Path, key: PrivateKey, tmp_path: Path) -> None:
    forger = Forger(standard, tmp_path / "run.ofb", key)
    forger.line(5, "token")["measured"]["id"] ^= 1
    forger.line(6, "token")["measured"]["bytes"] = "PHNjcmlwdD4="
    report = check(forger.finish(), k25_folder, cells=1)
    assert {(5, "token", "id"), (6, "token", "bytes")} <= places(report)
    assert (6, "embed", "residual_sha256") in places(report)  # the other token's embedding is another


def test_the_biases_of_a_router_that_the_run_line_claims_are_held_against_the_weights(
    k25_folder: Path, standard: Path, key: PrivateKey, tmp_path: Path
) -> None:
    forger = Forger(standard, tmp_path / "run.ofb", key)
    row = forger.lines[0]["measured"]["router_biases"][1]
    assert 2 == row["layer"]
    row["biases"] = changed(fields.Field("", "", "", "f32[]", "", "", ""), row["biases"])
    report = check(forger.finish(), k25_folder, column=2)
    assert [(-1, "run", "router_biases of layer 2")] == sorted(places(report))


def test_a_line_that_is_no_line_fails_what_needs_it(k25_folder: Path, standard: Path, key: PrivateKey, tmp_path: Path) -> None:
    for slot, what in (("layer 2", {"column": 2}), ("embed", {"cells": 1}), ("lm_head", {"cells": 1}), ("token", {"full": True})):
        forger = Forger(standard, tmp_path / f"{slot}.ofb", key)
        forger.line(6, slot)["measured"]["extra"] = 1
        report = check(forger.finish(), k25_folder, **what)
        assert not report.passed
        assert (6, slot, "line") in places(report)


# ---- anchor, seal, exit code


def test_a_seal_of_another_ledger_is_a_finding(k25_folder: Path, standard: Path, tmp_path: Path) -> None:
    forger = Forger(standard, tmp_path / "run.ofb")  # without a key: the old seal stays
    change(forger.line(5, "lm_head"), field("lm_head", "log_sum_exp"))
    report = check(forger.finish(), k25_folder, full=True)
    assert [(-1, "seal", "tree head")] == sorted(places(report))
    assert 0 == report.executed_cells


@pytest.mark.parametrize(
    ("name", "data", "named"),
    [
        ("attestation.json", b"{}", "envelope"),
        ("attestation.json", None, "envelope"),
        ("tree-head.txt", b"", "tree-head"),
        ("tree-head.txt", None, "tree-head"),
    ],
)
def test_a_seal_that_does_not_hold_is_a_finding(
    capsys: pytest.CaptureFixture[str], k25_folder: Path, standard: Path, tmp_path: Path, name: str, data: bytes | None, named: str
) -> None:
    shutil.copytree(standard, tmp_path / "run.ofb")
    path = tmp_path / "run.ofb" / name
    path.unlink() if data is None else path.write_bytes(data)
    report = check(tmp_path / "run.ofb", k25_folder, full=True)
    assert [(-1, "seal", named)] == sorted(places(report))
    assert (None, 0) == (report.signer, report.executed_cells)
    command = ["audit", str(tmp_path / "run.ofb"), "--checkpoint", str(k25_folder), "--memory", "24MiB", "--out", str(tmp_path / "audit.json")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        assert 1 == main(command)
    told = capsys.readouterr().out
    assert "DOES NOT HOLD" in told
    assert "passed" not in told


def test_a_signature_of_another_key_under_the_same_tree_head_is_a_finding(k25_folder: Path, standard: Path, tmp_path: Path) -> None:
    other = sealed(k25_folder, tmp_path / "other.ofb", keys.create(tmp_path / "other.pem"))
    shutil.copytree(standard, tmp_path / "run.ofb")
    shutil.copy(other / "tree-head.txt", tmp_path / "run.ofb")
    assert [(-1, "seal", "signature")] == sorted(places(check(tmp_path / "run.ofb", k25_folder, full=True)))


def test_files_of_the_bundle_that_are_not_what_was_sealed_are_findings(k25_folder: Path, tmp_path: Path, key: PrivateKey) -> None:
    bundle = sealed(k25_folder, tmp_path / "run.ofb", key)
    write_digests(bundle, hash_tensors(formation.open(k25_folder), threads=1, cache=tmp_path / "cache"))
    assert [(-1, "seal", "tensor-digests.json")] == sorted(places(check(bundle, k25_folder, cells=1)))  # it was not there when it was sealed
    (bundle / "tensor-digests.json").unlink()
    for data in (b"{", (bundle / "checkpoint.json").read_bytes().replace(b"model-00001", b"model-00002")):
        (bundle / "checkpoint.json").write_bytes(data)
        assert [(-1, "checkpoint", "checkpoint.json")] == sorted(places(check(bundle, k25_folder, cells=1)))


def test_a_run_that_ends_early_or_late_is_not_its_anchors(k25_folder: Path, standard: Path, key: PrivateKey, tmp_path: Path) -> None:
    forger = Forger(standard, tmp_path / "run.ofb", key)
    forger.lines = [line for line in forger.lines if line["position"] < 7]
    shutil.rmtree(forger.folder / "rows")
    shutil.rmtree(forger.folder / "router")
    report = check(forger.finish(), k25_folder, full=True)
    assert [(-1, "run", "number of tokens")] == sorted(places(report))


def test_a_failed_audit_exits_1_names_the_first_difference_and_is_written_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, k25_folder: Path, standard: Path, key: PrivateKey, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    forger = Forger(standard, tmp_path / "run.ofb", key)
    change(forger.line(6, "layer 2"), field("layer", "mlp_write_norm"))
    command = ["audit", str(forger.finish()), "--checkpoint", str(k25_folder), "--column", "2", "--memory", "24MiB"]
    assert 1 == main(command)
    told = capsys.readouterr().out
    assert "DIFFERS        layer 2 at position 6, mlp_write_norm: expected " in told
    assert "audit          FAILED" in told
    assert "passed" not in told
    found = envelope.read((forger.folder / "audit.json").read_bytes(), envelope.AUDIT).statement.predicate
    assert ("failed", 1) == (found["outcome"], found["result"]["difference_count"])


def field(slot: str, name: str) -> fields.Field:
    return next(f for f in fields.FIELDS if (f.slot, f.name) == (slot, name))
