"""Small files are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from formation.errors import EnvironmentFault
from formation.ledger import accounts, canonical, files
from formation.ledger.accounts import Accounts


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for data in (b"one", b"", b"three"):
        files.write_whole(path, data)
        assert data == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(("verb", "number"), [("fsync", errno.ENOSPC), ("replace", errno.EIO), ("fsync", errno.EDQUOT)])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, number: int) -> None:
    path = tmp_path / "a.json"
    files.write_whole(path, b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, verb, fail)
    said = r"expected to write /.*/a\.json, got " if number == errno.EIO else r"room on the disk for /.*/a\.json, got a full disk"
    with pytest.raises(EnvironmentFault, match=said):
        files.write_whole(path, b"new")
    assert b"old" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (".anchor.json.12.part", "ledger.jsonl.part", ".hidden", "a.json"):
        (tmp_path / name).touch()
    files.sweep(tmp_path)
    assert {"ledger.jsonl.part", ".hidden", "a.json"} == {path.name for path in tmp_path.iterdir()}


def test_a_document_is_canonical_and_anything_else_is_refused_when_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_document(path, {"b": 1, "a": [2]})
    assert b'{"a":[2],"b":1}' == path.read_bytes()
    assert {"a": [2], "b": 1} == files.read_document(path)
    path.write_bytes(b'{"b":1,"a":[2]}')
    with pytest.raises(EnvironmentFault, match="expected canonical JSON"):
        files.read_document(path)
    with pytest.raises(EnvironmentFault, match="expected a readable file"):
        files.read_document(tmp_path / "none.json")


def test_a_file_that_is_too_large_is_not_read_as_a_whole(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(1 << 40)
    assert 65 == len(files.read_whole(tmp_path / "a.json", canonical.Limits(size_bytes=64, depth=1)))


# ---- io.jsonl


def account(position: int) -> dict[str, object]:
    guesses = {"guessed_bytes": 2, "guessed_unused_bytes": 1}
    return {"position": position, "disk_bytes": 10, **guesses, "seconds": 0.5, "shards": [f"{position % 2}.safetensors"]}


def test_accounts_keep_the_lines_of_kept_steps(tmp_path: Path) -> None:
    written = Accounts(tmp_path, 0)
    for position in range(4):
        written.append(account(position))
    written.close()
    with (tmp_path / accounts.NAME).open("ab") as file:
        file.write(b'{"torn')
    again = Accounts(tmp_path, 2)
    again.append(account(9))
    again.close()
    assert [account(0), account(1), account(9)] == list(accounts.read(tmp_path))
    assert accounts.Totals(30, 1.5, ("0.safetensors", "1.safetensors"), 6, 3) == accounts.totals(tmp_path)


def test_lost_accounts_are_told(tmp_path: Path) -> None:
    Accounts(tmp_path, 0).close()
    with pytest.raises(EnvironmentFault, match="a line for each of 3 steps, got 0"):
        Accounts(tmp_path, 3)
    (tmp_path / accounts.NAME).unlink()
    with pytest.raises(EnvironmentFault, match=r"expected to open /.*/io\.jsonl, got"):
        Accounts(tmp_path, 3)
