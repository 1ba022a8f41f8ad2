"""Whole sealed bundles, and a user without keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.evidence.whole_bundles import SAMPLE, Kind, make


@pytest.fixture
def no_keys_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "run.ofb", Kind(rows="none"))


@pytest.fixture
def with_rows(tmp_path: Path) -> Path:
    return make(tmp_path / "run.ofb")


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    return make(tmp_path / "run.ofb", Kind(rows="none", sampler=SAMPLE))
