"""Sealed recordings that the audit's tests read and none writes into."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.sealed_runs import sealed
from formation.evidence import keys
from formation.evidence.keys import PrivateKey
from formation.ledger.progress import Watch


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    return keys.create(tmp_path_factory.mktemp("keys") / "key.pem")


@pytest.fixture(scope="session")
def standard(k25_folder: Path, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tokens, four layers, eight positions"""
    return sealed(k25_folder, tmp_path_factory.mktemp("standard") / "run.ofb", key)


@pytest.fixture(scope="session")
def full(k25_folder: Path, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same at the full level everywhere, with all rows"""
    return sealed(k25_folder, tmp_path_factory.mktemp("full") / "run.ofb", key, Watch("full", "full", "all"))
