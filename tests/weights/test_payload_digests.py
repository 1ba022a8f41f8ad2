"""Hashing tensors: the digests of the arrays, each tensor read once however often the pass is stopped, and never a number for a changed file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from synthetic_shards import random_tensors, write_folder

from formation.errors import ReadError
from formation.weights import payload
from formation.weights.checkpoint import open_checkpoint
from formation.weights.payload import HashProgress, hash_tensors

NAMES = ["a", "b", "empty", "ö", "big"]
SIZES = [1, 4097, 0, 100, payload.CHUNK_BYTES + 3]


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return random_tensors(3, NAMES, SIZES)


@pytest.fixture
def folder(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    shards = {"model-1-of-2.safetensors": NAMES[:2], "model-2-of-2.safetensors": NAMES[2:]}
    write_folder(tmp_path / "ckpt", {file: {name: arrays[name] for name in names} for file, names in shards.items()})
    return tmp_path / "ckpt"


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def run(folder: Path, cache: Path, *, stop_after: int | None = None) -> tuple[dict[str, str], HashProgress]:
    """The digests, and how far the pass said it was at its end; stopped, as by Ctrl-C, after so many tensors."""
    seen: list[HashProgress] = []

    def progress(p: HashProgress) -> None:
        seen.append(p)
        if p.tensors == stop_after:
            raise KeyboardInterrupt

    return hash_tensors(open_checkpoint(folder), threads=2, cache=cache, progress=progress), seen[-1]


def test_digests_are_those_of_the_arrays(folder: Path, tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    found, last = run(folder, tmp_path / "cache")
    assert {name: digest(array) for name, array in arrays.items()} == found
    assert (5, 5, sum(SIZES), sum(SIZES), sum(SIZES)) == (last.tensors, last.total_tensors, last.done_bytes, last.total_bytes, last.read_bytes)


def test_a_second_pass_reads_nothing(folder: Path, tmp_path: Path) -> None:
    first, _ = run(folder, tmp_path / "cache")
    second, last = run(folder, tmp_path / "cache")
    assert first == second
    assert 0 == last.read_bytes
    assert last.seconds_left is None


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_a_pass_that_was_stopped_goes_on_where_it_was(folder: Path, tmp_path: Path, stop_after: int, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "cache", stop_after=stop_after)
    found, last = run(folder, tmp_path / "cache")
    order = [*sorted("ab", key=NAMES.index), *NAMES[2:]]
    assert {name: digest(array) for name, array in arrays.items()} == found
    assert sum(arrays[name].nbytes for name in order[stop_after:]) == last.read_bytes


DAMAGES = {
    "cut": b"",
    "torn": b'{"name": "a", "beg',
    "not text": b"\xff\xfe\n",
    "too little": b'{"name": "a"}\n',
    "other types": b'{"name": 1, "begin": "x", "end": [], "sha256": 3}\n',
    "no digest": b'{"name": "b", "begin": 1, "end": 2, "sha256": ""}\n',
}


@pytest.mark.parametrize("damage", list(DAMAGES.values()), ids=list(DAMAGES))
def test_a_torn_or_strange_cache_costs_reading_and_nothing_else(folder: Path, tmp_path: Path, damage: bytes) -> None:
    first, _ = run(folder, tmp_path / "cache")
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] + damage)
    assert first == run(folder, tmp_path / "cache")[0]
    assert 0 == run(folder, tmp_path / "cache")[1].read_bytes


def test_a_shard_that_changed_is_read_anew(folder: Path, tmp_path: Path) -> None:
    first, _ = run(folder, tmp_path / "cache")
    path = folder / "model-1-of-2.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    os.utime(path, ns=(1, 1))
    second, last = run(folder, tmp_path / "cache")
    assert {"b"} == {name for name in NAMES if first[name] != second[name]}
    assert 1 + 4097 == last.read_bytes


def test_a_shard_that_changes_under_the_pass_is_an_error_and_never_a_number(folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(folder)
    os.utime(folder / "model-2-of-2.safetensors", ns=(1, 1))
    with pytest.raises(ReadError, match="expected the file that was opened"):
        hash_tensors(checkpoint, threads=2, cache=tmp_path / "cache")
    known = [line for path in (tmp_path / "cache").iterdir() for line in path.read_bytes().splitlines()]
    assert 2 == len(known)


def test_a_shard_that_became_shorter_or_went_away_is_an_error(folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(folder)
    path = folder / "model-2-of-2.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ReadError, match="model-2-of-2"):
        hash_tensors(checkpoint, threads=1, cache=tmp_path / "cache")
    path.unlink()
    with pytest.raises(ReadError, match="No such file"):
        hash_tensors(checkpoint, threads=1, cache=tmp_path / "cache")


def test_the_cache_is_where_the_user_keeps_such_things(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path / "formation" / "tensor-digests" == payload.cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path / ".cache" / "formation" / "tensor-digests" == payload.cache_folder()
