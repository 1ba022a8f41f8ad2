"""A process that computes for another does not outlive it, however that ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from formation.run.child import ORPHANED, ask

CHILD = """
import fcntl, pathlib, time
from formation.run.child import asked_of_parent
folder = pathlib.Path(asked_of_parent()["folder"])
with (folder / "alive").open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("begun", file=(folder / "begun").open("w"), flush=True)
    time.sleep(60)
    (folder / "outlived").touch()
"""
PARENT = "import sys; from formation.audit.parity import in_fresh_process; in_fresh_process('long_child', {'folder': sys.argv[1]})"


def test_a_repetition_ends_when_its_recorder_is_killed(tmp_path: Path) -> None:
    (tmp_path / "long_child.py").write_text(CHILD)
    os.mkfifo(tmp_path / "begun")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], env=environment)
    assert "begun\n" == (tmp_path / "begun").read_text()
    parent.kill()
    assert -signal.SIGKILL == parent.wait()
    with (tmp_path / "alive").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for the child's end
    assert not (tmp_path / "outlived").exists()


@pytest.mark.parametrize("module", ["formation.run.replay", "formation.audit.stepwise", "formation.recording"])
def test_each_process_that_is_asked_ends_with_its_pipe(module: str) -> None:
    theirs, ours = os.pipe()
    with subprocess.Popen([sys.executable, "-m", module, str(theirs)], stdin=subprocess.PIPE, pass_fds=(theirs,)) as child:
        os.close(theirs)
        os.close(ours)
        assert ORPHANED == child.wait()


def open_files() -> set[str]:
    return {path.name for path in Path("/dev/fd").iterdir()}


def test_a_child_is_asked_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo.py").write_text("from formation.run.child import asked_of_parent\nprint(asked_of_parent())")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    before = open_files()
    done = ask("echo", {"ids": [1, "a\nb"]})
    assert (0, "{'ids': [1, 'a\\nb']}\n", "") == (done.returncode, done.stdout, done.stderr)
    assert before == open_files()
