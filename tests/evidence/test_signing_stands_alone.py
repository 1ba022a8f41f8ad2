"""Verifying needs no model, no weights and no network; and `cryptography` only when a signature is looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.evidence import vectors

import formation

MODULES = [f"formation.evidence.{name}" for name in ("strict", "keys", "note", "envelope", "receipt", "payloads", "seal")]
HEAVY = {"numpy", "tokenizers", "tiktoken", "jinja2", "rich", "torch", "socket", "ssl", "http", "urllib.request", "asyncio"}
ROOTS = ("errors", "version", "exact", "strict_json", "philox", "ledger", "evidence")
BELOW = tuple(f"formation.{name}" for name in ROOTS)


def loaded(code: str, *, site: bool) -> set[str]:
    command = [sys.executable, *([] if site else ["-S"]), "-c", f"import sys, importlib\n{code}\nprint(*sys.modules)"]
    source = str(Path(formation.__file__).parents[1])
    return set(subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": source}).stdout.split())


def test_the_modules_need_nothing_but_the_standard_library() -> None:
    found = loaded(f"for m in {MODULES}: importlib.import_module(m)", site=False)
    assert set(MODULES) <= found
    assert set() == found & HEAVY
    assert "cryptography" not in found
    assert set() == {name for name in found if name.startswith("formation.") and not name.startswith(BELOW)}


def test_verifying_an_attestation_and_a_receipt_loads_no_model_and_no_network() -> None:
    code = f"envelope.read({vectors.attestation()!r}, envelope.RUN)\nreceipt.read({vectors.a_receipt()!r})"
    found = loaded(f"from formation.evidence import envelope, receipt\n{code}", site=True)
    assert "cryptography" in found
    assert set() == found & HEAVY
