"""Breaking whole bundles, and what the verifier must say of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import vectors
from tests.evidence.whole_bundles import edit_lines, reseal
from tests.ledger.small_ledger import Line, at

from formation.cli.main import main
from formation.evidence.checks import CHECKS
from formation.evidence.container import open_container
from formation.evidence.report import REFUSED, Report
from formation.evidence.verify import verify

KNOWN = {vectors.key().public.fingerprint: "the test's own"}
STEP = 2  # the first step's position


def report_of(folder: Path, **asked: Any) -> Report:
    with open_container(folder) as container:
        return verify(container, signers=asked.pop("signers", KNOWN), **asked)


def states(report: Report) -> dict[str, str]:
    return {outcome.check.id: outcome.state for outcome in report.outcomes}


def refused(capsys: pytest.CaptureFixture[str], folder: Path, check: str, *options: str, also: tuple[str, ...] = ()) -> str:
    """What the command says of a bundle that must fail this check, and no other but `also`"""
    name = next(c.name for c in CHECKS if c.id == check)
    options = options or ("--signer", vectors.key().public.text)
    assert 1 == main(["verify", str(folder), *options])
    said = "".join(capsys.readouterr())
    assert f"{check} {name}: " in said
    assert "verified" not in said
    assert REFUSED in said
    assert 1 == main(["verify", str(folder), *options, "--json"])
    out = capsys.readouterr().out
    verdict = json.loads(out)
    failed = [c["id"] for c in verdict["checks"] if c["state"] == "failed"]
    assert sorted({check, *also}) == sorted(failed)
    assert "failed" == verdict["verdict"]
    assert "failed" == verdict["levels"][next(c.level for c in CHECKS if c.id == check)]
    assert "verified" not in out
    return said


def edit(folder: Path, position: int, slot: str, name: str, change: Callable[[Any], Any]) -> None:
    """One value of the ledger, which is signed again"""

    def apply(lines: list[Line]) -> None:
        line = at(lines, position, slot)
        tag = "measured" if name in line["measured"] else "derived"
        line[tag][name] = change(line[tag][name])

    edit_lines(folder, apply)
    reseal(folder)


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def replace_row(folder: Path, name: str, change: Callable[[bytes], bytes], position: int, slot: str, field: str) -> None:
    """A row and its digest, both changed by their owner"""
    wanted: list[str] = []
    edit(folder, position, slot, field, lambda digest: wanted.append(digest) or digest)
    path = folder / name
    data = path.read_bytes()
    width = 16 * 4 if name.startswith("rows") else 8 * 4
    begin = next(i for i in range(len(data) - width, 0, -width) if sha256(data[i : i + width]).hexdigest() == wanted[0])
    changed = change(data[begin : begin + width])
    path.write_bytes(data[:begin] + changed + data[begin + width :])
    edit(folder, position, slot, field, lambda _: sha256(changed).hexdigest())
