"""kill -9 at any moment and a full disk leave a recording that can be read, and goes on to the bytes it would have had."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from formation.cli.main import main
from formation.ledger import store
from formation.recording import Recording
from recorded_runs import HERE, WATCHED, asked, check_resumed, contents, run

KILLS = 12


@pytest.fixture(scope="module")
def whole(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Never cut off"""
    return run(k25_folder, tmp_path_factory.mktemp("whole") / "run.ofb", asked(k25_folder), WATCHED, parity="none")


# ---- kill -9


def record_in_child(folder: Path, out: Path, fatal: int) -> None:
    """Kills itself at its `fatal`th sync or rename, before or after it, if there are so many."""
    seen = 0

    def counted(action: Callable[..., object]) -> Callable[..., object]:
        def act(*arguments: object, **options: object) -> object:
            nonlocal seen
            seen += 2
            if seen - 1 == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            result = action(*arguments, **options)
            if seen == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return act

    for name in ("fsync", "rename", "replace"):
        setattr(os, name, counted(getattr(os, name)))
    run(folder, out, asked(folder), WATCHED, parity="none")
    (out.parent / "events").write_text(str(seen))


@pytest.fixture(scope="module")
def child() -> Iterator[Callable[..., multiprocessing.Process]]:
    """Starts a process of its own that records; a forkserver has the imports ready."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_killed_recordings"])

    def begin(folder: Path, out: Path, fatal: int = 0) -> multiprocessing.Process:
        process = context.Process(target=record_in_child, args=(folder, out, fatal))
        process.start()
        return process

    yield begin


@pytest.fixture(scope="module")
def events(child: Callable[..., multiprocessing.Process], k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, float]:
    """How many moments a whole recording has to be killed at, and how long it takes."""
    child(k25_folder, tmp_path_factory.mktemp("first") / "run.ofb").join()  # also starts the server
    out, began = tmp_path_factory.mktemp("events") / "run.ofb", time.monotonic()
    child(k25_folder, out).join()
    return int((out.parent / "events").read_text()), time.monotonic() - began


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_recorder_killed_between_any_two_writes_goes_on(
    child: Callable[..., multiprocessing.Process], events: tuple[int, float], whole: Recording, k25_folder: Path, tmp_path: Path, kill: int
) -> None:
    """The first and the last three moments, and some between."""
    count = events[0]
    fatal = [1, 3, 5, *random.Random(7).sample(range(6, count - 2), KILLS - 6), count - 2, count - 1, count][kill]
    process = child(k25_folder, tmp_path / "run.ofb", fatal)
    process.join()
    assert -signal.SIGKILL == process.exitcode
    check_resumed(k25_folder, tmp_path / "run.ofb", whole)


@pytest.mark.parametrize("seed", range(KILLS // 2))
def test_a_recorder_killed_at_a_random_moment_goes_on(
    child: Callable[..., multiprocessing.Process], events: tuple[int, float], whole: Recording, k25_folder: Path, tmp_path: Path, seed: int
) -> None:
    process = child(k25_folder, tmp_path / "run.ofb")
    time.sleep(random.Random(seed).uniform(0.0, events[1]))
    process.kill()
    process.join()
    check_resumed(k25_folder, tmp_path / "run.ofb", whole)


# ---- the disk is full


class Full:
    """A disk with room for so many bytes"""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = os.pwrite(descriptor, data[: self.room], offset)
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 40_000, 100_000])
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, k25_folder: Path, whole: Recording, tmp_path: Path, room: int
) -> None:
    out = tmp_path / "run.ofb"
    with monkeypatch.context() as patch:
        patch.setattr(store, "create", partial(store.create, write=Full(room).write))
        assert 3 == main(["record", str(k25_folder), *HERE, "--out", str(out)])
    said = capsys.readouterr()
    assert "got a full disk" in said.err and "then resume" in said.err and said.out == ""
    check_resumed(k25_folder, out, whole)


@pytest.fixture
def small_disk(tmp_path: Path, whole: Recording) -> Iterator[Path]:
    """A real file system with room for two thirds of the bundle."""
    folder = tmp_path / "disk"
    folder.mkdir()
    room = sum(len(data) for data in contents(whole.folder, without=()).values()) * 2 // 3
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", f"size={room}", "tmpfs", folder], capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted only as root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_real_disk_that_is_full(capsys: pytest.CaptureFixture[str], small_disk: Path, k25_folder: Path, whole: Recording) -> None:
    out = small_disk / "run.ofb"
    assert 3 == main(["record", str(k25_folder), *HERE, "--out", str(out)])
    assert "got a full disk" in capsys.readouterr().err
    assert 3 == main(["record", str(k25_folder), *HERE, "--resume", "--out", str(out)])
    assert "got a full disk" in capsys.readouterr().err
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    check_resumed(k25_folder, out, whole)
