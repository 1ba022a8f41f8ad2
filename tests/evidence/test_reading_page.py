"""docs/reading-a-ledger.md: its example runs, its commands exist, its table of experts is the one of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import formation
from formation.cli.main import build_parser, main
from formation.ledger.tables import EXPERT
from small_bundles import small_bundle

PAGE = (Path(__file__).parents[2] / "docs" / "reading-a-ledger.md").read_text(encoding="utf-8")


def test_the_python_example_runs(tmp_path: Path) -> None:
    small_bundle(tmp_path / "run.ofb")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    source = {**os.environ, "PYTHONPATH": str(Path(formation.__file__).parents[1])}  # the example runs elsewhere
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=source)
    assert 3 == done.stdout.count("'✓'")
    assert re.search(r"expert -?\d+ of layer \d wrote \d", done.stdout)


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_bundle(tmp_path / "run.ofb")
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    formation (.*?)\s*(?:#.*)?$", PAGE, re.M)
    assert 7 == len(commands)
    for command in commands:
        build_parser().parse_args(command.split())
        assert 0 == main(command.replace("--layer 3", "--layer 2").split())


def test_the_table_of_experts_is_the_codes() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (?:absent: shared expert|`(\w+)`.*?) \|$", PAGE, re.M)
    assert list(EXPERT) == rows
