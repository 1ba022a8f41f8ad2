"""A long ledger is shared out among processes: the report is the one that a single process makes, whatever the bundle holds."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.evidence.broken_bundles import edit, flip, report_of, states
from tests.evidence.test_verify_mutations import HOSTILE, places
from tests.evidence.whole_bundles import SAMPLE, Kind, edit_lines, make, reseal
from tests.ledger.small_ledger import Line

from formation.errors import EnvironmentFault
from formation.evidence import ledger_parts, verify, worker
from formation.evidence.container import Container
from formation.evidence.ledger_pass import Found, read_ledger
from formation.evidence.worker import Worker
from formation.ledger import canonical
from formation.ledger.anchor import Anchor
from formation.ledger.gaps import Gap, Tally

pytestmark = [
    pytest.mark.usefixtures("no_keys_of_the_user"),
    pytest.mark.skipif(sys.platform != "linux", reason="one process elsewhere"),
]


class Used:
    """How many workers verifying has, and whether what they found was the answer"""

    def __init__(self) -> None:
        self.workers, self.in_parts = 1, False

    def reading(self, container: Container, sizes: Any, anchor: Anchor) -> AbstractContextManager[Callable[[], Found]]:
        return ledger_parts.reading(container, sizes, anchor, workers=self.workers)

    def finished(self, *args: Any) -> Found:
        found = Used.original(*args)
        self.in_parts = True
        return found

    original = staticmethod(ledger_parts.finished)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Used:
    made = Used()
    monkeypatch.setattr(ledger_parts, "finished", made.finished)
    monkeypatch.setattr(verify, "ledger_parts", made)
    return made


def documents(used: Used, folder: Path, workers: int) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """By one process, by several, and whether the parts were the answer"""
    used.workers, used.in_parts = 1, False
    alone = report_of(folder).document()
    used.workers = workers
    return alone, report_of(folder).document(), used.in_parts


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(Kind(prompt=(3, 5, 3, 5), tokens=4), id="all rows"),
        pytest.param(Kind(tokens=6, rows="none", sampler=SAMPLE), id="sampled"),
        pytest.param(Kind(prompt=(3,), tokens=7, rows="boundaries", steps="minimal"), id="minimal"),
        pytest.param(Kind(tokens=5, rows="boundaries", steps="full"), id="full"),
        pytest.param(Kind(prompt=(3,), tokens=66, rows="boundaries", steps="minimal", repeat=True), id="two files of rows"),
    ],
)
def test_parts_are_found_to_be_what_the_whole_is(kind: Kind, workers: int, used: Used, tmp_path: Path) -> None:
    alone, shared, in_parts = documents(used, make(tmp_path / "run.ofb", kind), workers)
    assert alone == shared
    assert ("verified", True) == (shared["verdict"], in_parts)


def test_parts_of_a_zip_are_found_to_be_what_the_whole_is(used: Used, tmp_path: Path) -> None:
    folder = make(tmp_path / "run.ofb", Kind(tokens=5))
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(folder))
    alone, shared, in_parts = documents(used, tmp_path / "run.zip", 2)
    assert alone == shared
    assert ("verified", True) == (shared["verdict"], in_parts)


# ---- what does not hold


ROWS, ROUTER = "rows/00000000.safetensors", "router/00000000.safetensors"
BROKEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "V9 a line in another form": ("V9", lambda folder: space(folder)),
    "V13 a line of another run": ("V13", lambda folder: change(folder, lambda lines: lines[30].update(run_id="ab" * 32))),
    "V14 the last line is missing": ("V14", lambda folder: change(folder, lambda lines: lines[:-1])),
    "V14 the last position is missing": ("V14", lambda folder: change(folder, lambda lines: lines[: -len(lines) // 8])),
    "V14 a line twice": ("V14", lambda folder: change(folder, lambda lines: [*lines, lines[-1]])),
    "V14 two lines in another order": ("V14", lambda folder: change(folder, lambda lines: [*lines[:20], lines[21], lines[20], *lines[22:]])),
    "V14 a run that goes on behind a stop id": ("V14", lambda folder: edit(folder, 5, "token", "id", lambda _: 38)),
    "V15 a derived value": ("V15", lambda folder: edit(folder, 6, "layer 1", "gate_sum", lambda value: value + 1)),
    "V26 a token spelled in two ways": ("V26", lambda folder: spell(folder)),
    "V28 a row": ("V28", lambda folder: (flip(folder / ROUTER, -1), reseal(folder))),
    "V28 a header": ("V28", lambda folder: (flip(folder / ROWS, 9), reseal(folder))),
    "V28 rows behind the last position": ("V28", lambda folder: longer(folder)),
}


def change(folder: Path, how: Callable[[list[Line]], Any]) -> None:
    edit_lines(folder, how)
    reseal(folder)


def space(folder: Path) -> None:
    lines = (folder / "ledger.jsonl").read_bytes().split(b"\n")
    lines[-2] = lines[-2].replace(b",", b", ", 1)
    (folder / "ledger.jsonl").write_bytes(b"\n".join(lines))
    reseal(folder)


def spell(folder: Path) -> None:
    """The last token gets the id of an earlier one, by another spelling of that one"""

    def respell(lines: list[Line]) -> None:
        tokens = [line for line in lines if line["slot"] == "token"]
        tokens[-1]["measured"] |= {"id": tokens[0]["measured"]["id"], "bytes": "AAAA"}

    change(folder, respell)


def longer(folder: Path) -> None:
    other = make(folder.parent / "longer.ofb", Kind(prompt=(3, 5, 3, 5), tokens=6))
    (other / ROUTER).rename(folder / ROUTER)
    reseal(folder)


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_hold_is_told_as_by_one_process(name: str, used: Used, tmp_path: Path) -> None:
    check, breaking = BROKEN[name]
    folder = make(tmp_path / "run.ofb", Kind(prompt=(3, 5, 3, 5), tokens=5))
    breaking(folder)
    alone, shared, in_parts = documents(used, folder, 2)
    assert alone == shared
    assert ("failed", False) == (shared["verdict"], in_parts)
    assert "failed" == next(c["state"] for c in shared["checks"] if c["id"] == check)


@pytest.mark.parametrize("behind", [1, 2, 8])
def test_rows_behind_the_last_position_are_found_whosever_they_are(behind: int, used: Used, tmp_path: Path) -> None:
    """8 positions: those behind them fall to the first worker, or to both"""
    folder = make(tmp_path / "run.ofb", Kind(prompt=(3,), tokens=8, rows="boundaries", steps="minimal", repeat=True))
    more = make(tmp_path / "more.ofb", Kind(prompt=(3,), tokens=8 + behind, rows="boundaries", steps="minimal", repeat=True))
    (more / ROUTER).rename(folder / ROUTER)
    reseal(folder)
    alone, shared, in_parts = documents(used, folder, 2)
    assert alone == shared
    assert ("failed", False) == (shared["verdict"], in_parts)


def test_files_of_rows_of_two_layouts_are_no_rows_of_one_run(used: Used, tmp_path: Path) -> None:
    """Each would do for itself"""
    kind = {"prompt": (3,), "tokens": 66, "steps": "minimal", "repeat": True}
    folder, other = (make(tmp_path / f"{rows}.ofb", Kind(rows=rows, **kind)) for rows in ("boundaries", "all"))
    name = "rows/00000064.safetensors"
    (other / name).rename(folder / name)
    reseal(folder)
    alone, shared, in_parts = documents(used, folder, 2)
    assert alone == shared
    assert ("failed", False) == (shared["verdict"], in_parts)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("bundles") / "run.ofb", Kind(prompt=(3, 5), tokens=4, sampler=SAMPLE))


@pytest.mark.parametrize("seed", range(40))
def test_a_line_changed_by_its_owner_is_judged_as_by_one_process(seed: int, sound: Path, used: Used, tmp_path: Path) -> None:
    folder, chance = shutil.copytree(sound, tmp_path / "run.ofb"), random.Random(seed)
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_bytes().split(b"\n")[:-1]]
    inside = chance.choice(lines)
    path = chance.choice([path for path in places(inside) if path])
    for key in path[:-1]:
        inside = inside[key]
    old = inside[path[-1]]
    inside[path[-1]] = old * 1.001 if isinstance(old, float) and seed % 2 else chance.choice(HOSTILE)
    (folder / "ledger.jsonl").write_bytes(b"".join(canonical.encode(line) + b"\n" for line in lines))
    reseal(folder)
    alone, shared, in_parts = documents(used, folder, 2)
    assert alone == shared
    if in_parts:
        assert "failed" not in [c["state"] for c in shared["checks"] if c["level"] == "LEDGER"]


# ---- joined tallies


def test_two_tallies_joined_are_as_one() -> None:
    chance = random.Random(0)
    gaps = [Gap(chance.choice("ab"), chance.choice([0.0, 0.5, 1.0, 2.0, float("nan")]), 1.0, str(n)) for n in range(200)]
    whole, joined = Tally("abc"), Tally("abc")
    whole.take(gaps)
    for begin in range(0, 200, 7):
        part = Tally("abc")
        part.take(gaps[begin : begin + 7])
        joined.join(part.results())
    assert repr(whole.results()) == repr(joined.results())


# ---- processes


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Beside those that other tests of this process keep"""
    before = children()
    yield
    assert before == children()


@pytest.mark.usefixtures("no_process_left")
def test_a_worker_that_dies_is_no_verdict(used: Used, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_parts, "of_position", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    used.workers = 2
    with pytest.raises(EnvironmentFault, match="expected every process of the verification to finish, got one killed by signal 9"):
        report_of(sound)


@pytest.mark.usefixtures("no_process_left")
def test_a_worker_that_fails_is_no_verdict(used: Used, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_parts, "of_position", lambda *_: 1 / 0)
    used.workers = 2
    with pytest.raises(EnvironmentFault, match="got one that ended with code 1"):
        report_of(sound)


@pytest.mark.usefixtures("no_process_left")
def test_who_stops_before_the_lines_are_asked_for_leaves_no_process_behind(used: Used, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers began with the anchor"""
    begun: list[int] = []

    def stop(*_: object) -> None:
        begun.append(len(children()))
        raise KeyboardInterrupt

    before = len(children())
    monkeypatch.setattr(verify.checkpoint_json, "read", stop)
    used.workers = 2
    with pytest.raises(KeyboardInterrupt):
        report_of(sound)
    assert [before + 2] == begun


@pytest.mark.usefixtures("no_process_left")
def test_one_process_looks_at_what_does_not_hold_without_the_others(used: Used, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, left = len(children()), []
    monkeypatch.setattr(ledger_parts, "of_position", lambda *_: {"sha256": "00" * 32, "results": [], "outside": {}})
    monkeypatch.setattr(ledger_parts, "read_ledger", lambda *args: left.append(len(children())) or read_ledger(*args))
    used.workers = 2
    assert () == report_of(sound).failed
    assert [before] == left


def test_lines_that_change_between_the_readers_are_read_again_by_one(used: Used, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a worker had read other bytes than were digested here"""
    original = ledger_parts.of_position
    monkeypatch.setattr(ledger_parts, "of_position", lambda *position: original(*position) | {"sha256": "00" * 32})
    alone, shared, in_parts = documents(used, sound, 2)
    assert alone == shared
    assert ("verified", False) == (shared["verdict"], in_parts)


def forever() -> Iterator[bytes]:
    while True:
        yield b"1" * 4096


@pytest.mark.usefixtures("no_process_left")
def test_who_stops_asking_leaves_no_process_behind() -> None:
    with pytest.raises(KeyboardInterrupt), Worker(forever) as first, Worker(forever) as second:
        assert [b"1" * 4096] * 2 == [first.receive(), second.receive()]
        raise KeyboardInterrupt


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, time\nfrom formation.evidence.worker import Worker\n"
        "def slowly():\n    while True:\n        yield b'1'\n        time.sleep(0.01)\n"
        "workers = [Worker(slowly), Worker(slowly)]\nprint(*(worker._pid for worker in workers), flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    assert -signal.SIGKILL == done.returncode
    left = {Path(f"/proc/{pid}") for pid in done.stdout.split()}
    assert 2 == len(left)
    while any(alive(path) for path in left):  # the test's own limit of time ends it
        time.sleep(0.01)


def alive(process: Path) -> bool:
    """Neither gone nor waiting to be reaped"""
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_short_ledger_is_read_by_this_process() -> None:
    assert 1 == worker.processes(worker.LONG - 1)


def test_checks_of_the_parts_are_those_of_the_whole(used: Used, sound: Path) -> None:
    used.workers = 2
    assert {"passed", "not claimed"} == set(states(report_of(sound)).values())
