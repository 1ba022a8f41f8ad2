"""The README's example runs as it stands, and its commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from formation.cli.main import build_parser

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_ten_lines_of_the_readme_run() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(code.strip().splitlines()) <= 10
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 5


def test_every_command_of_the_readme_is_one() -> None:
    commands = re.findall(r"^    formation (\S+)(.*?)(?:#.*)?$", README, re.M)
    known = {"inspect", "generate", "record", "show", "export", "explore", "verify", "publish", "audit", "doctor"}
    assert {name for name, _ in commands} == known | {"bench", "certificate", "challenge", "claims", "fork"}
    for name, rest in commands:
        arguments = shlex.split(rest)
        assert build_parser().parse_args([name, *arguments]).command == name
