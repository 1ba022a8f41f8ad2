from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from formation import samples
from samples.shards import Stored, read


@pytest.fixture(scope="session")
def folder() -> Path:
    return samples.folder("kimi_k25")


@pytest.fixture(scope="session")
def stored(folder: Path) -> dict[str, Stored]:
    return read(folder)


@pytest.fixture(scope="session")
def config(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return loaded


@pytest.fixture(scope="session")
def qwen_folder(folder: Path) -> Path:
    return folder.parent / "qwen3_next"


@pytest.fixture(scope="session")
def qwen_stored(qwen_folder: Path) -> dict[str, Stored]:
    return read(qwen_folder)


@pytest.fixture(scope="session")
def qwen_config(qwen_folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((qwen_folder / "config.json").read_text())
    return loaded
