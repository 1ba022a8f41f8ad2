"""A checkpoint in several folders: every byte from one of them, counted apart; what is no copy is refused, and a failing disk is replaced."""

from __future__ import annotations

import argparse
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from counted_disk import check, expert, new_stream, units
from synthetic_shards import experts_checkpoint, random_tensors, write_folder

from formation import samples
from formation.certify import certify
from formation.cli import challenge, claims
from formation.cli.main import build_parser
from formation.cli.speech import LiveText
from formation.dialogue.certificate import lm_head
from formation.dialogue.transcripts.transcript import Message, Transcript
from formation.errors import CheckpointError, EvidenceError, ReadError, UsageError
from formation.weights.checkpoint import Checkpoint, open_checkpoint
from formation.weights.mirror import open_several, with_mirrors
from formation.weights.reader import Reader
from formation.weights.stream import WeightStream


@pytest.fixture
def made(tmp_path: Path) -> tuple[Checkpoint, Path, dict]:
    _, arrays = experts_checkpoint(tmp_path / "own", 8, 50_000, cores=3, core_size=120_000)
    shutil.copytree(tmp_path / "own", tmp_path / "mirror")
    return open_checkpoint(tmp_path / "own"), tmp_path / "mirror", arrays


UNCOMPARED = -150_000  # of a shard of 2,000,000 bytes: between the last piece that is compared and the one before


@pytest.fixture
def large(tmp_path: Path) -> tuple[Checkpoint, Path]:
    experts_checkpoint(tmp_path / "own", 4, 1_000, cores=1, core_size=2_000_000)
    shutil.copytree(tmp_path / "own", tmp_path / "mirror")
    return open_checkpoint(tmp_path / "own"), tmp_path / "mirror"


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


def change(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def fine_tune(checkpoint: Checkpoint, folder: Path, *, at: int) -> Path:
    """The same headers and sizes, and one other byte in the third shard"""
    shutil.copytree(checkpoint.path, folder)
    change(folder / "model-3-of-3.safetensors", at)
    return folder


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


def test_a_mirror_of_none_of_several_checkpoints_is_refused_with_what_each_would_say(made, tmp_path: Path):
    checkpoint, mirror, _ = made
    experts_checkpoint(tmp_path / "other", 4, 30_000, cores=2, core_size=60_000)
    change(mirror / "model-3-of-3.safetensors", -5)
    with pytest.raises(CheckpointError, match=r"mirror: expected a mirror of .*own or .*other, got one of none: .*") as caught:
        open_several([checkpoint.path, tmp_path / "other"], [mirror])
    assert "expected the bytes of" in str(caught.value) and "expected a copy of" in str(caught.value)
    assert caught.value.hint


def test_a_mirror_of_another_checkpoint_than_the_one_is_refused_with_what_is_wrong(made, tmp_path: Path):
    checkpoint, mirror, _ = made
    experts_checkpoint(tmp_path / "other", 4, 30_000, cores=2, core_size=60_000)
    with pytest.raises(CheckpointError, match=r"mirror/model-1-of-3\.safetensors: expected a copy of \d+ bytes"):
        open_several([tmp_path / "other"], [mirror])
    change(mirror / "model-3-of-3.safetensors", -5)
    for paths in ([checkpoint.path], [checkpoint.path, checkpoint.path]):
        with pytest.raises(CheckpointError, match=r"mirror/model-3-of-3\.safetensors: expected the bytes of .* from \d+ on, got others"):
            open_several(paths, [mirror])


def test_a_mirror_goes_to_the_checkpoint_whose_bytes_it_has_and_not_to_one_with_its_headers(made, tmp_path: Path):
    checkpoint, mirror, _ = made
    tune = fine_tune(checkpoint, tmp_path / "tune", at=-5)
    shutil.copytree(tune, tmp_path / "again")
    for mirrors, own, other in (([mirror], (mirror,), ()), ([tmp_path / "again", mirror], (mirror,), (tmp_path / "again",))):
        base, tuned = open_several([checkpoint.path, tune], mirrors)
        assert (own, other) == (base.mirrors, tuned.mirrors)
    assert (checkpoint.path, tune) == (base.path, tuned.path)


def test_a_mirror_that_may_be_of_two_checkpoints_is_refused(large, tmp_path: Path):
    checkpoint, mirror = large
    tune = fine_tune(checkpoint, tmp_path / "tune", at=UNCOMPARED)
    for paths in ([checkpoint.path, tune], [tune, checkpoint.path]):
        with pytest.raises(CheckpointError, match=r"mirror: expected a mirror of one checkpoint, got .* of ") as caught:
            open_several(paths, [mirror])
        assert all(str(path) in str(caught.value) for path in paths)
        assert "only one checkpoint streams" in str(caught.value.hint)


def test_a_shard_that_two_checkpoints_share_is_no_mirror_of_either_alone(made, tmp_path: Path):
    checkpoint, mirror, _ = made
    tune = fine_tune(checkpoint, tmp_path / "tune", at=-5)  # in the third shard
    (mirror / "model-3-of-3.safetensors").unlink()
    with pytest.raises(CheckpointError, match="expected a mirror of one checkpoint"):
        open_several([checkpoint.path, tune], [mirror])


def test_one_of_the_checkpoints_is_no_mirror_of_another(large, tmp_path: Path):
    checkpoint, _ = large
    tune = fine_tune(checkpoint, tmp_path / "tune", at=UNCOMPARED)
    with pytest.raises(CheckpointError, match="none to be the checkpoint"):
        open_several([checkpoint.path, tune], [tune])


def test_a_folder_with_other_files_of_two_checkpoints_is_a_mirror_of_both(made, tmp_path: Path):
    checkpoint, mirror, _ = made
    write_folder(tmp_path / "other", {"other.safetensors": random_tensors(3, ["alone"], [500])})
    shutil.copy(tmp_path / "other" / "other.safetensors", mirror)
    assert [(mirror,), (mirror,)] == [each.mirrors for each in open_several([checkpoint.path, tmp_path / "other"], [mirror])]


def test_a_checkpoint_that_is_named_twice_is_not_several(made):
    checkpoint, mirror, _ = made
    first, again = open_several([checkpoint.path, checkpoint.path / ".." / "own"], [mirror])
    assert (mirror,) == first.mirrors
    assert first == again


def test_a_mirror_where_nothing_streams_is_refused(made):
    _, mirror, _ = made
    with pytest.raises(CheckpointError, match=r"mirror: expected a mirror of a checkpoint, got one of none: nothing streams here"):
        open_several([], [mirror])


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


# ---- commands that open a checkpoint in their own way


@pytest.fixture
def sample_mirrors(tmp_path: Path) -> list[Path]:
    """One of each sample: its shards"""
    for name in ("kimi_k25", "qwen3_next"):
        (tmp_path / name).mkdir()
        for shard in samples.folder(name).glob("*.safetensors"):
            shutil.copy(shard, tmp_path / name)
    return [tmp_path / "kimi_k25", tmp_path / "qwen3_next"]


def asked(command: str, *words: str, mirrors: list[Path]) -> argparse.Namespace:
    options = [word for mirror in mirrors for word in ("--mirror", str(mirror))]
    return build_parser([command]).parse_args([command, *words, *options])


SIDES = [f"lamp={samples.folder('kimi_k25')}", f"owl={samples.folder('qwen3_next')}"]


def test_the_stand_ins_of_claims_have_their_mirrors(sample_mirrors: list[Path]):
    sides = [word for side in SIDES for word in ("--as", side)]
    transcript = Transcript(("lamp", "owl"), (Message(0, "hello"), Message(1, "hello")))
    with LiveText(0, echo=False) as live:
        models = claims.models_of(asked("claims", "t.md", *sides, mirrors=sample_mirrors), transcript, live)
    assert [(mirror,) for mirror in sample_mirrors] == [models.of(side).checkpoint.mirrors for side in (0, 1)]


def test_the_certificate_of_a_challenge_reads_the_mirror_of_its_side(sample_mirrors: list[Path], monkeypatch: pytest.MonkeyPatch):
    opened = []

    class Watched(lm_head.LmHead):
        def __init__(self, checkpoint: Checkpoint, **means: Any) -> None:
            opened.append(checkpoint)
            super().__init__(checkpoint, **means)

    monkeypatch.setattr(lm_head, "LmHead", Watched)
    words = ["--a", SIDES[0], "--b", SIDES[1], "--out", "nothing", "--memory", "48MiB", "--threads", "1"]
    args = asked("challenge", *words, mirrors=sample_mirrors)
    found = challenge.certificate_of(args, challenge.roles_of(args))
    args.mirror = []
    assert repr(challenge.certificate_of(args, challenge.roles_of(args))) == repr(found)
    assert [(sample_mirrors[1],), ()] == [checkpoint.mirrors for checkpoint in opened]


def test_certify_audits_with_the_mirrors(sample_mirrors: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = []

    def watched(bundle: Path, *, checkpoint: Checkpoint, **means: Any) -> Any:
        opened.append(checkpoint)
        return certify(bundle, checkpoint=checkpoint, **means)

    monkeypatch.setattr("formation.certify.certify", watched)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    words = [str(tmp_path), "--checkpoint", str(samples.folder("kimi_k25"))]
    args = asked("certify", *words, mirrors=sample_mirrors[:1])
    with pytest.raises(EvidenceError, match="expected a bundle that verifies"):
        args.run(args)
    assert [(sample_mirrors[0],)] == [checkpoint.mirrors for checkpoint in opened]


@pytest.mark.parametrize(("command", "said"), [("claims", "expected --as with --mirror"), ("certify", "expected --checkpoint with --mirror")])
def test_a_mirror_without_a_checkpoint_is_refused(command: str, said: str, sample_mirrors: list[Path], tmp_path: Path):
    place = {"certify": tmp_path, "claims": Path(__file__).parents[2] / "examples/small-talk/transcript.md"}[command]
    args = asked(command, str(place), mirrors=sample_mirrors)
    with pytest.raises(UsageError, match=said) as refused:
        args.run(args)
    assert 2 == refused.value.exit_code
