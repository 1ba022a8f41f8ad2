"""The ledger file: what is written is read back, accidents leave a readable prefix, and a resumed ledger has the same bytes."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_run import LINES_IN_A_PASS, PASSES, commit_after, expected_lines, observation, record

from formation.errors import EnvironmentFault
from formation.ledger import canonical, merkle, reader, store
from formation.ledger.reader import NAME, PART_NAME, Commit

LINES = expected_lines()
WHOLE = b"".join(line + b"\n" for line in LINES)
ENDS = [commit_after(LINES[: LINES_IN_A_PASS * (i + 1)]) for i in range(PASSES)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run.ofb"


def finish(folder: Path, at: Commit) -> None:
    """Resumes after `at` and records the rest of the run"""
    with store.resume(folder, at) as writer:
        record(writer, from_pass=at.lines // LINES_IN_A_PASS)
        assert ENDS[-1] == writer.close()
    assert WHOLE == (folder / NAME).read_bytes()


def test_a_closed_ledger_holds_one_canonical_line_for_each_observation(folder):
    with store.create(folder) as writer:
        assert ENDS == record(writer)
        assert ENDS[-1] == writer.close()
    assert WHOLE == (folder / NAME).read_bytes()
    assert [NAME] == [path.name for path in folder.iterdir()]
    assert LINES == list(reader.lines(folder))
    assert reader.Survey(folder / NAME, True, ENDS[-1], 0) == reader.survey(folder)


def test_a_line_is_a_leaf_without_its_line_feed(folder):
    with store.create(folder) as writer:
        assert merkle.leaf_hash(LINES[0]) == writer.append(observation(0, 0))
        assert merkle.leaf_hash(LINES[0]) == writer.commit().root
        assert 1 == writer.lines


def test_a_ledger_that_was_not_closed_is_readable_and_incomplete(folder):
    with pytest.raises(KeyboardInterrupt), store.create(folder) as writer:
        writer.append(observation(0, 0))
        raise KeyboardInterrupt
    found = reader.survey(folder)
    assert (False, PART_NAME, 1, 0) == (found.complete, found.path.name, found.readable.lines, found.dropped_bytes)
    assert not (folder / NAME).exists()


def test_what_was_committed_is_in_the_file_before_the_ledger_ends(folder):
    writer = store.create(folder)
    writer.append(observation(0, 0))
    end = writer.commit()
    assert end == reader.survey(folder).readable
    writer.abandon()


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, len(WHOLE)))
def test_after_a_cut_at_any_byte_the_whole_lines_are_read_and_the_run_resumes_to_the_same_bytes(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    (folder / PART_NAME).write_bytes(WHOLE[:cut])
    whole = WHOLE[:cut].count(b"\n")
    found = reader.survey(folder)
    assert commit_after(LINES[:whole]) == found.readable
    assert cut - found.readable.size_bytes == found.dropped_bytes
    assert LINES[:whole] == list(reader.lines(folder))
    durable = [end for end in [Commit(0, 0, merkle.EMPTY_ROOT), *ENDS] if end.size_bytes <= cut]
    finish(folder, durable[-1])


@pytest.mark.parametrize("rubbish", [b"\0" * 5000, b"\xff\n" * 9, b"\n", b'{"b":1,"a":2}\n', b'{"a": 1}\n{"a":1}\n', b"x" * (3 << 20)])
def test_rubbish_behind_the_last_commit_ends_the_readable_prefix_and_is_dropped_on_resume(folder, rubbish):
    """What a file system may show after a power failure: the size grew, the bytes did not arrive"""
    folder.mkdir()
    (folder / PART_NAME).write_bytes(WHOLE[: ENDS[3].size_bytes] + rubbish)
    found = reader.survey(folder)
    assert ENDS[3] == found.readable
    assert len(rubbish) == found.dropped_bytes
    finish(folder, ENDS[3])


def test_kill_9_at_any_moment_leaves_a_prefix_that_resumes_to_the_same_bytes(tmp_path):
    chance = random.Random(20261122)
    script = Path(__file__).parent / "ledger_run.py"
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])}
    for round_number in range(14):
        folder = tmp_path / str(round_number)
        with subprocess.Popen([sys.executable, script, folder], stdout=subprocess.PIPE, text=True, env=environment) as recorder:
            first = recorder.stdout.readline()
            time.sleep(chance.random() * 0.04)
            recorder.kill()
            told = [line for line in [first, *recorder.stdout.read().splitlines(keepends=True)] if line.endswith("\n")]  # whole ones
        count, size_bytes, root = told[-1].split()
        at, found = Commit(int(count), int(size_bytes), bytes.fromhex(root)), reader.survey(folder)
        steps = found.readable.lines // LINES_IN_A_PASS + 1
        assert expected_lines(steps)[: found.readable.lines] == list(reader.lines(folder))
        assert at.lines <= found.readable.lines
        assert (folder / PART_NAME).stat().st_size == found.readable.size_bytes + found.dropped_bytes
        steps = at.lines // LINES_IN_A_PASS + 3
        with store.resume(folder, at) as writer:
            record(writer, from_pass=at.lines // LINES_IN_A_PASS, count=steps)
            assert commit_after(expected_lines(steps)) == writer.close()
        assert expected_lines(steps) == list(reader.lines(folder))


def test_a_second_recorder_in_the_folder_is_refused_while_the_first_lives(folder):
    with store.create(folder) as writer:
        writer.append(observation(0, 0))
        end = writer.commit()
        for second in (lambda: store.create(folder), lambda: store.resume(folder, end)):
            with pytest.raises(EnvironmentFault, match="another recorder"):
                second()
        code = f"from pathlib import Path; from formation.ledger import store; store.create(Path({str(folder)!r}))"
        environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])}
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert 1 == other.returncode and "another recorder" in other.stderr
    store.resume(folder, end).abandon()


def test_a_recorder_that_opened_the_file_just_before_it_was_finished_is_refused(folder, monkeypatch):
    first = store.create(folder)
    first.append(observation(0, 0))

    def finish_meanwhile(descriptor: int, flags: int) -> None:
        monkeypatch.undo()
        first.close()

    monkeypatch.setattr(store.fcntl, "flock", finish_meanwhile)
    with pytest.raises(EnvironmentFault, match="no complete ledger"):
        store.create(folder)
    assert LINES[:1] == list(reader.lines(folder))


def test_an_existing_ledger_is_never_overwritten(folder):
    with store.create(folder) as writer:
        end = record(writer, count=1)[-1]
    with pytest.raises(EnvironmentFault, match="INCOMPLETE"):
        store.create(folder)
    with store.resume(folder, end) as writer:
        writer.close()
    for again in (lambda: store.create(folder), lambda: store.resume(folder, end)):
        with pytest.raises(EnvironmentFault, match="complete"):
            again()
    assert end == reader.survey(folder).readable
    assert [NAME] == [path.name for path in folder.iterdir()]


def test_a_finished_writer_takes_nothing_more(folder):
    writer = store.create(folder)
    writer.close()
    for use in (lambda: writer.append(observation(0, 0)), writer.commit, writer.close):
        with pytest.raises(EnvironmentFault, match="closed"):
            use()


def test_an_observation_that_cannot_be_written_adds_nothing(folder):
    with store.create(folder) as writer:
        writer.append(observation(0, 0))
        with pytest.raises(canonical.CanonicalRefusal):
            writer.append({"norm": float("nan")})
        assert commit_after(LINES[:1]) == writer.commit()


@pytest.mark.parametrize(
    "change",
    [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b.replace(b"layer 1", b"layer 2", 1), lambda b: b.replace(b"\n", b" ", 1),
     lambda b: b"", lambda b: b"\n" + b],
)  # fmt: skip
def test_a_ledger_that_changed_under_its_commit_is_not_resumed(folder, change):
    folder.mkdir()
    changed = change(WHOLE[: ENDS[2].size_bytes])
    (folder / PART_NAME).write_bytes(changed)
    with pytest.raises(EnvironmentFault, match="with root"):
        store.resume(folder, ENDS[2])
    assert changed == (folder / PART_NAME).read_bytes()


def test_a_commit_inside_a_line_or_with_another_count_is_not_resumed(folder):
    folder.mkdir()
    (folder / PART_NAME).write_bytes(WHOLE)
    end = ENDS[2]
    for wrong in (Commit(end.lines, end.size_bytes - 3, end.root), Commit(end.lines + 1, end.size_bytes, end.root)):
        with pytest.raises(EnvironmentFault):
            store.resume(folder, wrong)
    assert WHOLE == (folder / PART_NAME).read_bytes()


class SmallDisk:
    """os.pwrite on a disk with `room` bytes, which takes at most `bite` bytes at once"""

    def __init__(self, room: int, bite: int) -> None:
        self.room, self.bite = room, bite

    def __call__(self, descriptor: int, data: bytes, offset: int) -> int:
        fits = min(len(data), self.bite, self.room - offset)
        if fits <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.pwrite(descriptor, data[:fits], offset)


@settings(max_examples=30, deadline=None)
@given(room=st.integers(0, len(WHOLE) - 1), bite=st.sampled_from([7, 1000, 1 << 20]))
def test_a_full_disk_is_a_clear_error_and_leaves_a_readable_prefix_that_resumes(tmp_path_factory, room, bite):
    folder, commits = tmp_path_factory.mktemp("full"), [Commit(0, 0, merkle.EMPTY_ROOT)]
    with pytest.raises(EnvironmentFault, match="full disk") as caught, store.create(folder, write=SmallDisk(room, bite)) as writer:
        for step in range(PASSES):
            for slot in range(LINES_IN_A_PASS):
                writer.append(observation(step, slot))
            commits.append(writer.commit())
    assert 3 == caught.value.exit_code and "resume" in caught.value.hint
    found = reader.survey(folder)
    assert commit_after(LINES[: WHOLE[:room].count(b"\n")]) == found.readable
    assert not found.complete
    with pytest.raises(EnvironmentFault, match="closed or failed"):
        writer.append(observation(0, 0))
    finish(folder, commits[-1])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_the_full_disk_of_the_kernel_is_the_same_error(folder):
    full = os.open("/dev/full", os.O_WRONLY)
    write = lambda _, data, offset: os.pwrite(full, data, offset)  # noqa: E731
    with pytest.raises(EnvironmentFault, match="full disk"), store.create(folder, write=write) as writer:
        record(writer, count=1)
    os.close(full)
    assert 0 == reader.survey(folder).readable.lines


def test_a_failed_sync_ends_the_writer(folder, monkeypatch):
    writer = store.create(folder)
    writer.append(observation(0, 0))
    monkeypatch.setattr(store.os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(EnvironmentFault, match=r"expected to sync /.*/run\.ofb/ledger\.jsonl\.part, got"):
        writer.commit()
    monkeypatch.undo()
    with pytest.raises(EnvironmentFault, match="closed or failed"):
        writer.commit()


def test_a_commit_is_synced_before_it_is_returned_and_the_name_changes_after_the_last_sync(folder, monkeypatch):
    """The order of the calls is the whole protection against power failures, so it is pinned"""
    calls: list[str] = []
    real_sync, real_write, real_rename = os.fsync, os.pwrite, Path.rename

    def note(name, real):
        return lambda *arguments: (calls.append(name), real(*arguments))[1]

    monkeypatch.setattr(store.os, "fsync", note("sync", real_sync))
    monkeypatch.setattr(Path, "rename", note("rename", real_rename))
    writer = store.create(folder, write=note("write", real_write))
    calls.clear()
    writer.append(observation(0, 0))
    writer.commit()
    assert ["write", "sync"] == calls
    writer.append(observation(0, 1))
    writer.close()
    assert ["write", "sync", "write", "sync", "rename", "sync"] == calls


def test_an_interrupted_flush_is_repeated_at_the_same_place(folder):
    interrupts = [KeyboardInterrupt]

    def write_and_interrupt(descriptor: int, data: bytes, offset: int) -> int:
        written = os.pwrite(descriptor, data[:50], offset)
        if interrupts:
            raise interrupts.pop()
        return written

    with pytest.raises(KeyboardInterrupt), store.create(folder, write=write_and_interrupt) as writer:
        record(writer, count=1)
    assert ENDS[0] == reader.survey(folder).readable


def test_a_complete_ledger_with_a_torn_or_foreign_line_is_refused(folder):
    folder.mkdir()
    for bad in (WHOLE[:-1], WHOLE + b"{}", WHOLE + b"\n", WHOLE.replace(b"{", b"{ ", 1), WHOLE.replace(b"\n", b"\r\n", 1)):
        (folder / NAME).write_bytes(bad)
        with pytest.raises(EnvironmentFault, match="expected canonical lines"):
            reader.survey(folder)


def test_reading_where_no_ledger_is_names_the_folder(folder):
    for read in (reader.survey, lambda f: list(reader.lines(f))):
        with pytest.raises(EnvironmentFault, match=r"expected a ledger in .*run\.ofb"):
            read(folder)
    folder.mkdir()
    with pytest.raises(EnvironmentFault, match="got none"):
        store.resume(folder, ENDS[0])


def test_a_link_in_place_of_the_file_is_not_followed(folder):
    folder.mkdir()
    (folder / "elsewhere").write_bytes(b"")
    (folder / PART_NAME).symlink_to("elsewhere")
    with pytest.raises(EnvironmentFault, match="expected to open"):
        store.create(folder)


def peak_bytes(action) -> int:
    tracemalloc.start()
    action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_lines(tmp_path):
    def write(count: int) -> None:
        with store.create(tmp_path / str(count)) as writer:
            for i in range(count):
                writer.append({"position": i, "filler": "x" * 300})
            writer.close()

    def read(count: int) -> None:
        assert count == reader.survey(tmp_path / str(count)).readable.lines
        assert count == sum(1 for _ in reader.lines(tmp_path / str(count)))
        merkle.inclusion_path(map(merkle.leaf_hash, reader.lines(tmp_path / str(count))), count // 3, count)

    for action in (write, read):
        few, many = peak_bytes(lambda: action(2_000)), peak_bytes(lambda: action(12_000))  # noqa: B023
        assert many < few + 20_000


def test_a_file_without_any_line_feed_costs_no_memory(folder):
    folder.mkdir()
    with (folder / PART_NAME).open("wb") as file:
        file.truncate(1 << 25)
    assert peak_bytes(lambda: reader.survey(folder)) < 1 << 22
    assert reader.survey(folder).dropped_bytes == 1 << 25


def test_the_longest_line_that_can_be_written_is_read(folder):
    room = canonical.LINE.size_bytes - len(b'{"a":""}')
    with store.create(folder) as writer:
        writer.append({"a": "x" * room})
        with pytest.raises(canonical.CanonicalRefusal, match="at most"):
            writer.append({"a": "x" * (room + 1)})
        end = writer.close()
    assert (1, end) == (end.lines, reader.survey(folder).readable)
