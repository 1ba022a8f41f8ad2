"""A checkpoint in several folders: every byte from one of them, counted apart; what is no copy is refused, and a failing disk is replaced."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from counted_disk import check, expert, new_stream, units
from synthetic_shards import experts_checkpoint

from formation.errors import CheckpointError, ReadError
from formation.weights.checkpoint import Checkpoint, open_checkpoint
from formation.weights.mirror import open_several, with_mirrors
from formation.weights.reader import Reader
from formation.weights.stream import WeightStream


@pytest.fixture
def made(tmp_path: Path) -> tuple[Checkpoint, Path, dict]:
    _, arrays = experts_checkpoint(tmp_path / "own", 8, 50_000, cores=3, core_size=120_000)
    shutil.copytree(tmp_path / "own", tmp_path / "mirror")
    return open_checkpoint(tmp_path / "own"), tmp_path / "mirror", arrays


class Disks:
    """The read call of two folders: what each gave, and one of them failing."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.asked, self._lock = failing, {"own": 0, "mirror": 0}, threading.Lock()

    def preadv(self, descriptor: int, views: list[memoryview], offset: int) -> int:
        folder = Path(f"/proc/self/fd/{descriptor}").readlink().parent.name
        with self._lock:
            self.asked[folder] += 1
        if folder == self.failing:
            raise OSError(5, "Input/output error")
        return os.preadv(descriptor, views, offset)


def read_everything(checkpoint: Checkpoint, disks: Disks, arrays: dict) -> tuple[WeightStream, dict[str, int]]:
    reader = Reader(checkpoint, preadv=disks.preadv)
    with WeightStream(checkpoint, units(), 10**7, reader=reader) as stream:
        stream.prefetch([unit.key for unit in units()])
        for unit in units():
            with stream.use(unit.key) as tensors:
                check(tensors, arrays)
    return stream, {place.folder.name: place.bytes_read for place in reader.places}


def test_both_folders_give_bytes_and_are_counted_apart(made):
    checkpoint, mirror, arrays = made
    disks = Disks()
    stream, read = read_everything(with_mirrors(checkpoint, [mirror]), disks, arrays)
    assert min(disks.asked.values()) > 0
    assert min(read.values()) > 0
    assert stream.bytes_read == sum(read.values())
    account = stream.take_accounting()
    assert (stream.bytes_read, read["mirror"]) == (account.disk_bytes, account.mirror_bytes)
    alone, only = read_everything(checkpoint, Disks(), arrays)
    assert {"own": alone.bytes_read} == only
    assert alone.bytes_read == stream.bytes_read


@pytest.mark.parametrize("failing", ["own", "mirror"])
def test_a_folder_whose_disk_fails_is_replaced_by_the_other_and_named(made, failing: str):
    checkpoint, mirror, arrays = made
    disks = Disks(failing)
    stream, read = read_everything(with_mirrors(checkpoint, [mirror]), disks, arrays)
    assert 0 == read[failing]
    assert disks.asked[failing] <= 8  # one for each thread at most, then nobody asks it
    assert f"{failing} is not read any more: tensor" in stream.reader.advice
    assert "Input/output error" in stream.reader.advice


def test_when_all_folders_fail_the_read_is_refused(made):
    checkpoint, mirror, _ = made

    def preadv(descriptor: int, views: list[memoryview], offset: int) -> int:
        raise OSError(5, "Input/output error")

    both = with_mirrors(checkpoint, [mirror])
    with (
        WeightStream(both, units(), 10**7, reader=Reader(both, preadv=preadv)) as stream,
        pytest.raises(ReadError, match=r"tensor 'expert\.0\.a' in .*: expected bytes, got Input/output error"),
        stream.use(expert(0)),
    ):
        pass


def test_a_mirror_may_hold_some_of_the_shards(made):
    checkpoint, mirror, arrays = made
    (mirror / "model-1-of-3.safetensors").unlink()
    both = with_mirrors(checkpoint, [mirror])
    assert [0, 1, 1] == [len(shard.copies) for shard in both.shards]
    read_everything(both, Disks(), arrays)


def test_a_mirror_without_any_shard_is_refused(made, tmp_path: Path):
    checkpoint, _, _ = made
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty: expected a mirror with shards such as model-1-of-3\.safetensors, got none"):
        with_mirrors(checkpoint, [tmp_path / "empty"])


def test_of_several_checkpoints_each_has_the_mirrors_that_are_its_own(made, tmp_path: Path):
    checkpoint, mirror, _ = made
    experts_checkpoint(tmp_path / "other", 4, 30_000, cores=2, core_size=60_000)  # its shards have the same names
    shutil.copytree(tmp_path / "other", tmp_path / "again")
    own, other = open_several([checkpoint.path, tmp_path / "other"], [mirror, tmp_path / "again"])
    assert ((mirror,), (tmp_path / "again",)) == (own.mirrors, other.mirrors)
    assert (checkpoint, other) == (replace(own, shards=checkpoint.shards, mirrors=()), open_several([tmp_path / "other"], [tmp_path / "again"])[0])


def test_a_mirror_of_none_of_several_checkpoints_is_refused(made, tmp_path: Path):
    _, mirror, _ = made
    experts_checkpoint(tmp_path / "other", 4, 30_000, cores=2, core_size=60_000)
    with pytest.raises(CheckpointError, match=r"mirror: expected a mirror with shards of .*other, got none of them"):
        open_several([tmp_path / "other"], [mirror])


def test_a_folder_named_twice_is_refused(made):
    checkpoint, mirror, _ = made
    for folders in ([mirror, mirror], [checkpoint.path]):
        with pytest.raises(CheckpointError, match="expected each mirror once"):
            with_mirrors(checkpoint, folders)


@pytest.mark.parametrize(("where", "said"), [(60, "header of"), (-5, "expected the bytes of"), (None, "expected a copy of")])
def test_a_file_that_is_no_copy_is_refused(made, where: int | None, said: str):
    checkpoint, mirror, _ = made
    path = mirror / "model-3-of-3.safetensors"
    data = bytearray(path.read_bytes())
    if where is None:
        data += b"more"
    else:
        data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=said) as caught:
        with_mirrors(checkpoint, [mirror])
    assert "model-3-of-3" in str(caught.value)
    assert caught.value.hint


def test_a_copy_that_changes_during_the_run_is_refused(made):
    checkpoint, mirror, _ = made
    both = with_mirrors(checkpoint, [mirror])
    for shard in both.shards:
        os.utime(shard.copies[0].path, ns=(1, 1))
    with (
        WeightStream(both, units(), 10**7) as stream,
        pytest.raises(ReadError, match=r"mirror.*: expected the file that was opened"),
    ):
        for unit in units():
            with stream.use(unit.key):
                pass


def test_every_byte_can_be_had_when_the_mirror_alone_is_left(made):
    checkpoint, mirror, arrays = made
    both = with_mirrors(checkpoint, [mirror])
    with new_stream(both, 10**7) as stream:
        for shard in checkpoint.shards[1:]:
            shard.path.unlink()  # the first is open
        for unit in units():
            with stream.use(unit.key) as tensors:
                check(tensors, arrays)
