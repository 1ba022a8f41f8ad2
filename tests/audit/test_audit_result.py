"""What an auditor writes is what verify reads: every mode, passed and failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audit.sealed_runs import check, sealed
from formation.audit import AuditReport
from formation.evidence import audited, seal
from formation.evidence.keys import PrivateKey


def read(report: AuditReport) -> audited.Audited:
    outcome = "passed" if report.passed else "failed"
    return audited.read(report.result(), outcome).of_run(report.positions, report.layers, report.steps)


@pytest.mark.parametrize("what", [{}, {"cells": 3}, {"column": 2}, {"full": True}], ids=str)
def test_an_audit_is_read_as_it_was_made(what: dict[str, Any], k25_folder: Path, tmp_path: Path, key: PrivateKey) -> None:
    report = check(sealed(k25_folder, tmp_path / "run.ofb", key), k25_folder, **what)
    found = read(report)
    assert found.passed
    assert f"{report.executed_cells} of 32 cells, head and sampler of 4 tokens, {report.values_compared} values" in str(found)
    assert report.not_executed() == "nothing" or report.not_executed().startswith(str(found).split("; ")[1].split(" ")[0])


def test_a_failed_audit_is_read_as_that(k25_folder: Path, tmp_path: Path, key: PrivateKey) -> None:
    out = sealed(k25_folder, tmp_path / "run.ofb", key)
    (out / seal.TREE_HEAD).write_bytes(b"garbled")
    report = check(out, k25_folder, column=1)
    assert not report.passed
    assert not read(report).passed
    assert report.difference_count == read(report).differences
