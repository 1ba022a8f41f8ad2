"""Verifying needs no model, no weights and no network: what the ledger package imports, read off its text and off a running process."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import formation.ledger

PACKAGE = Path(formation.ledger.__file__).parent
MODULES = sorted(f"formation.ledger.{path.stem}" for path in PACKAGE.glob("*.py") if path.stem != "__init__")
OURS = ("formation.errors", "formation.exact32", "formation.exact64", "formation.version", "formation.ledger")
HEAVY = {"numpy", "tokenizers", "tiktoken", "jinja2", "rich", "cryptography", "rfc8785", "socket", "ssl", "http", "urllib.request", "ctypes"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} if node.module != "formation" else {f"formation.{alias.name}" for alias in node.names}
    return names


def test_every_import_is_of_the_standard_library_or_of_what_lies_below() -> None:
    found = set().union(*(imported(path) for path in [*PACKAGE.glob("*.py"), PACKAGE.parent / "exact32.py", PACKAGE.parent / "exact64.py"]))
    strangers = {name for name in found if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith(OURS)}
    assert set() == strangers
    assert set() == found & HEAVY


def test_a_process_that_uses_the_ledger_loads_no_library_no_model_and_no_network() -> None:
    code = f"import sys, importlib\nfor m in {MODULES}: importlib.import_module(m)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(PACKAGE.parents[1])})
    loaded = set(done.stdout.split())
    assert set(MODULES) <= loaded
    assert set() == loaded & HEAVY
    assert set() == {name for name in loaded if name.startswith("formation.") and not name.startswith(OURS)}
