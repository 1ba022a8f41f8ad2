"""Checkpoints that many tests read and none writes into."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from small_models import small_checkpoint


@pytest.fixture(scope="session")
def k25_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint in the layout of Kimi K2.5."""
    return small_checkpoint(tmp_path_factory.mktemp("small") / "k25")


@pytest.fixture(scope="session", autouse=True)
def _no_files_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keys and caches of the tests are their own, those of commands that they start too."""
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        os.environ[name] = str(tmp_path_factory.mktemp(name.lower()))
