"""Recording from storage that misbehaves: it ends with the same bytes, or stops with a sentence and goes on later to the same bytes.

The read call is replaced underneath a whole recording; the parity pass runs in a process of its own, on the real disk.
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from formation import recording
from formation.errors import ReadError
from formation.ledger.progress import Watch
from formation.recording import Means
from formation.run.order import Order
from formation.weights.checkpoint import Checkpoint, open_checkpoint
from formation.weights.loader import Loader
from formation.weights.reader import Reader
from small_models import small_checkpoint

ORDER = Order((5, 17, 2, 40), 3)
MEANS = Means(memory="1.6MB", parity="none")  # less than the weights: they are read again at every step
WATCH = Watch("standard", "minimal", "boundaries")
PAGE = 4096
Read = Callable[[int, list[memoryview], int], int]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(small_checkpoint(tmp_path_factory.mktemp("checkpoint") / "weights"))


@pytest.fixture(scope="module")
def expected(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return recorded(checkpoint, tmp_path_factory.mktemp("whole") / "run.ofb")


def recorded(checkpoint: Checkpoint, out: Path) -> bytes:
    recording.begin(checkpoint, ORDER, WATCH, out, MEANS)
    return (out / "ledger.jsonl").read_bytes()


@contextmanager
def disk(read: Read) -> Iterator[None]:
    with mock.patch.dict(Reader.__init__.__kwdefaults__, preadv=read):
        yield


class Chance:
    """Which of all calls misbehave: a seeded share, whatever thread asks."""

    def __init__(self, seed: int, share: float) -> None:
        self._random, self._share, self._lock, self.hits = random.Random(seed), share, threading.Lock(), 0

    def __call__(self) -> bool:
        with self._lock:
            hit = self._random.random() < self._share
            self.hits += hit
            return hit


def short(chance: Chance) -> Read:
    """Gives whole pages, but fewer than asked for, as a signal or a network file system may."""

    def read(descriptor: int, views: list[memoryview], offset: int) -> int:
        less = max(PAGE, len(views[0]) // 2 // PAGE * PAGE)
        return os.preadv(descriptor, [views[0][:less]] if chance() and len(views[0]) > PAGE else views, offset)

    return read


def slow(chance: Chance) -> Read:
    def read(descriptor: int, views: list[memoryview], offset: int) -> int:
        time.sleep(0.02 * chance())
        return os.preadv(descriptor, views, offset)

    return read


@pytest.mark.parametrize("kind", [short, slow])
def test_short_and_late_reads_change_no_byte(kind, checkpoint: Checkpoint, expected: bytes, tmp_path: Path):
    chance = Chance(3, 0.3)
    with disk(kind(chance)):
        assert expected == recorded(checkpoint, tmp_path / "run.ofb")
    assert chance.hits > 10


def failing(after: int, then: Read) -> Read:
    """A disk that answers so many calls and then does something else."""
    left, lock = [after], threading.Lock()

    def read(descriptor: int, views: list[memoryview], offset: int) -> int:
        with lock:
            left[0] -= 1
        return os.preadv(descriptor, views, offset) if left[0] >= 0 else then(descriptor, views, offset)

    return read


def input_output_error(*_: object) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def stale_handle(*_: object) -> int:
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def end_of_file(*_: object) -> int:
    return 0


@pytest.mark.parametrize("calls", [3, 40, 90])
@pytest.mark.parametrize("then", [input_output_error, stale_handle, end_of_file])
def test_a_failing_mount_stops_the_recording_and_resume_gives_the_same_bytes(calls, then, checkpoint, expected, tmp_path: Path):
    out = tmp_path / "run.ofb"
    with disk(failing(calls, then)), pytest.raises(ReadError, match=r"tensor '.*' in model.* at byte \d+: expected") as caught:
        recorded(checkpoint, out)
    assert caught.value.hint
    assert not (out / "ledger.jsonl").exists()  # unfinished, and it says so
    recording.resume(checkpoint, out, MEANS)
    assert expected == (out / "ledger.jsonl").read_bytes()


def test_a_mount_that_hangs_stops_the_recording_after_the_time_it_is_given(checkpoint, expected, tmp_path: Path):
    out, back = tmp_path / "run.ofb", threading.Event()

    def hang(*_: object) -> int:
        assert back.wait(30)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    try:
        with (
            disk(failing(40, hang)),
            mock.patch("formation.weights.stream.Loader", lambda *args: Loader(*args[:3], patience=0.3)),
            pytest.raises(ReadError, match=r"model.*: expected bytes within 0\.3 seconds, got none"),
        ):
            recorded(checkpoint, out)
    finally:
        back.set()
    recording.resume(checkpoint, out, MEANS)
    assert expected == (out / "ledger.jsonl").read_bytes()


def test_a_shard_that_comes_back_with_another_content_stops_the_recording(tmp_path: Path):
    checkpoint, out = open_checkpoint(small_checkpoint(tmp_path / "weights")), tmp_path / "run.ofb"

    def changed_underneath(descriptor: int, views: list[memoryview], offset: int) -> int:
        got = os.preadv(descriptor, views, offset)
        for shard in checkpoint.shards:
            with shard.path.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"?")
        return got

    with disk(failing(40, changed_underneath)), pytest.raises(ReadError, match="expected a file that stays as it was opened"):
        recorded(checkpoint, out)
    with pytest.raises(ReadError, match="expected the file that was opened"):
        recording.resume(checkpoint, out, MEANS)
    assert not (out / "ledger.jsonl").exists()
