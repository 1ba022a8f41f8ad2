"""Values on their way to the ledger: what is put is taken again, bit for bit, and a disk that has no room is named."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from formation.errors import EnvironmentFault
from formation.probe import spool
from formation.probe.spool import Spool

VALUES = {"norm": 0.1, "text": "x" * 1000}


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spool keeps nothing in memory, and its file is here"""
    monkeypatch.setattr(spool, "IN_MEMORY_BYTES", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def little_room() -> Iterator[None]:
    """Files of this process hold 16 KiB; the system refuses what lies beyond"""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_put_is_taken_again_in_any_order(on_disk: Path) -> None:
    kept = Spool()
    for position in (3, 4, 5):
        kept.put(position, "layer 0", VALUES, {"position": position})
    kept.put(4, "layer 0", {}, {"position": "again"})
    assert [(VALUES, {"position": 5}), ({}, {"position": "again"}), (VALUES, {"position": 3})] == [kept.take(p, "layer 0") for p in (5, 4, 3)]
    kept.close()


def test_a_disk_without_room_is_named_and_a_spool_can_still_be_closed(on_disk: Path, little_room: None) -> None:
    kept = Spool()
    with pytest.raises(EnvironmentFault, match=f"keep values of the prompt in {on_disk}, got File too large") as fault:
        for position in range(100):
            kept.put(position, "layer 0", VALUES, {})
    assert "TMPDIR" in str(fault.value.hint)
    kept.close()
