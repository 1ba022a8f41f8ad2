"""A bundle and its gallery, as the tests of formation publish share them: no test may change one."""

from __future__ import annotations

from pathlib import Path

import pytest
from galleries import KNOWN
from tests.evidence.whole_bundles import make

from formation.cli.main import main


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("publish") / "run.ofb")


@pytest.fixture(scope="session")
def gallery(bundle: Path) -> Path:
    assert 0 == main(["publish", str(bundle), str(bundle.parent / "gallery"), *KNOWN])
    return bundle.parent / "gallery"
