"""How streams end: errors, changed files, closing, interrupts, and memory that goes back."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from counted_disk import (
    SLOT,
    Disk,
    check,
    expert,
    new_stream,
    reading,
    units,
    until,
    use_and_check,
)
from synthetic_shards import experts_checkpoint, random_tensors, write_folder

from formation.errors import CheckpointError, ReadError
from formation.weights.checkpoint import open_checkpoint
from formation.weights.reader import Reader
from formation.weights.stream import ReadEvent, Unit, WeightStream


def test_a_file_changed_during_the_run_stops_it(made):
    checkpoint, arrays = made
    with new_stream(checkpoint, 2 * SLOT) as stream:
        use_and_check(stream, expert(0), arrays)
        os.utime(checkpoint.shards[0].path, ns=(5, 5))
        with pytest.raises(ReadError, match="expected a file that stays as it was opened"):
            stream.use(expert(1)).__enter__()


def test_rows_are_read_singly_in_the_order_asked_for(tmp_path: Path):
    matrix = np.random.default_rng(3).integers(0, 256, (4000, 700), np.uint8)
    write_folder(tmp_path, {"model.safetensors": {"first": np.zeros(123, np.uint8), "m": matrix}})
    disk = Disk()
    checkpoint = open_checkpoint(tmp_path)
    with WeightStream(checkpoint, [], 2**20, reader=Reader(checkpoint, preadv=disk.preadv)) as stream:
        assert stream.rows("m", []).shape == (0, 700)
        for indices in ([5], [0, 3999, 5, 5, 6, 0], list(np.random.default_rng(4).integers(0, 4000, 300))):
            rows = stream.rows("m", indices)
            assert ("m", "U8", (len(indices), 700)) == (rows.name, rows.dtype, rows.shape)
            assert matrix[indices].tobytes() == rows.data.tobytes()
        assert disk.bytes == stream.take_accounting().row_bytes < matrix.size
        assert stream.peak_bytes <= 2**18
        with pytest.raises(CheckpointError, match=r"tensor 'm': expected rows within \[4000, 700\], got \[4000, 4001\)"):
            stream.rows("m", [4000])


def test_a_matrix_may_be_streamed_in_slices_and_empty_tensors_need_no_read(tmp_path: Path):
    matrix = np.random.default_rng(3).integers(0, 256, (100, 900), np.uint8)
    write_folder(tmp_path, {"model.safetensors": {"m": matrix, "none": np.zeros((0, 4), np.uint8)}})
    slices = [Unit(("head", n), ("m",), rows=(n * 30, min(30, 100 - n * 30))) for n in range(4)]
    with WeightStream(open_checkpoint(tmp_path), [*slices, Unit(("nothing",), ("none",))], 90_000) as stream:
        got = []
        for unit in slices:
            with stream.use(unit.key) as tensors:
                got.append(tensors["m"].data.reshape(tensors["m"].shape).copy())
        assert matrix.tobytes() == np.concatenate(got).tobytes()
        with stream.use(("nothing",)) as tensors:
            assert tensors["none"].data.size == 0


def test_several_threads_use_one_stream(made):
    checkpoint, arrays = made
    failures = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(60):
                stream.prefetch([chance.choice(units()).key])
                use_and_check(stream, chance.choice(units()).key, arrays)
        except BaseException as failure:
            failures.append(failure)

    with new_stream(checkpoint, 12 * SLOT) as stream:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stream.peak_bytes <= 12 * SLOT
    assert failures == []


def test_a_unit_that_names_no_tensor_or_a_key_used_twice_is_refused_before_reading(made):
    checkpoint, _ = made
    with pytest.raises(CheckpointError, match=r"unit \('x',\): expected tensor 'none' in the checkpoint"):
        WeightStream(checkpoint, [Unit(("x",), ("none",))], 10**6)
    with pytest.raises(ValueError, match="once"):
        WeightStream(checkpoint, [units()[0], units()[0]], 10**6)


def test_closing_twice_is_closing_once_and_leaves_no_thread_and_no_memory(made):
    checkpoint, arrays = made
    before = set(threading.enumerate())
    stream = new_stream(checkpoint, 10**7)
    stream.rows("core.1", [4])
    stream.prefetch([unit.key for unit in units()])
    with stream.use(expert(0)) as tensors:
        assert set(threading.enumerate()) > before
        stream.close()
        check(tensors, arrays)  # who computes when another closes goes on with the right bytes
    stream.close()
    assert before == set(threading.enumerate())
    assert stream.mapped_bytes == 0
    with pytest.raises(ReadError, match="expected an open weight stream, got one that was closed"):
        stream.use(expert(0)).__enter__()
    with pytest.raises(ReadError, match="closed"):
        stream.rows("core.0", [1])


def test_closing_wakes_who_waits(made):
    checkpoint, _ = made
    disk, caught = Disk(), []
    stream = new_stream(checkpoint, 10**7, disk)
    disk.open.clear()

    def wait() -> None:
        try:
            stream.use(expert(0)).__enter__()
        except ReadError as error:
            caught.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: reading(stream))
    closing = threading.Thread(target=stream.close)
    closing.start()
    waiting.join(10)
    assert not waiting.is_alive()
    disk.open.set()
    closing.join(10)
    assert not closing.is_alive()
    assert "closed" in caught[0]


INTERRUPTED = """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[2])
from formation.weights.checkpoint import open_checkpoint
from formation.weights.reader import Reader
from formation.weights.stream import Unit, WeightStream
checkpoint = open_checkpoint(sys.argv[1])
main = threading.main_thread()
once = threading.Lock()
def preadv(descriptor, views, offset):
    if once.acquire(blocking=False):
        signal.pthread_kill(main.ident, signal.SIGINT)
    return os.preadv(descriptor, views, offset)
keys = [("expert", 0, e) for e in range(8)]
try:
    with WeightStream(checkpoint, [Unit(k, (f"expert.{k[2]}.a",)) for k in keys], 10**7, reader=Reader(checkpoint, preadv=preadv)) as stream:
        stream.prefetch(keys)
        for n in range(10**6):
            with stream.use(keys[n % 8]):
                pass
except KeyboardInterrupt:
    print("interrupted", threading.active_count())
"""

RESIDENT = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from formation.weights.checkpoint import open_checkpoint
from formation.weights.stream import Unit, WeightStream
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
checkpoint = open_checkpoint(sys.argv[1])
units = [Unit(("expert", 0, e), (f"expert.{e}.a", f"expert.{e}.b")) for e in range(16)]
units += [Unit(("core", c), (f"core.{c}",)) for c in range(3)]
budget, most = 8 * 2**20, 0
with WeightStream(checkpoint, units[:1], 2**22) as stream:
    with stream.use(units[0].key):
        pass
start = resident()
with WeightStream(checkpoint, units, budget) as stream:
    for _ in range(3):
        for unit in units:
            stream.prefetch([unit.key for unit in units[::5]])
            with stream.use(unit.key) as tensors:
                assert sum(int(tensor.data[::4096].sum()) for tensor in tensors.values()) > 0
            most = max(most, resident() - start)
    assert stream.peak_bytes <= budget, stream.peak_bytes
print(budget, most, resident() - start)
"""


def run_script(script: str, folder: Path) -> str:
    source = str(Path(sys.modules["formation.weights"].__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), source], capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs begin with it ignored
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_interrupt_while_waiting_ends_the_process_and_its_threads(made):
    checkpoint, _ = made
    assert run_script(INTERRUPTED, checkpoint.path) == "interrupted 1\n"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc: resident memory was not measured")
def test_the_memory_of_the_process_grows_by_the_budget_and_no_more(tmp_path: Path):
    experts_checkpoint(tmp_path, 16, 2**20, cores=3, core_size=5 * 2**19)
    budget, most, after = map(int, run_script(RESIDENT, tmp_path).split())
    assert budget / 2 < most < budget + 2 * 2**20
    assert after < 2 * 2**20


def test_a_mapping_kept_beyond_its_block_loses_its_tensors_with_the_slot(made):
    checkpoint, _ = made
    with new_stream(checkpoint, SLOT) as stream:
        with stream.use(expert(0)) as tensors:
            assert len(tensors) == 2
        with stream.use(expert(1)):
            assert tensors == {}


def test_events_carry_key_tier_bytes_and_seconds(made):
    checkpoint, _ = made
    events = []
    with new_stream(checkpoint, 10**6) as stream:
        stream.events = events.append
        for _ in range(2):
            with stream.use(expert(3)):
                pass
        assert [ReadEvent(expert(3), "disk", stream.bytes_read, events[0].seconds), ReadEvent(expert(3), "cache", 0, events[1].seconds)] == events


def test_units_of_a_few_bytes_share_no_memory(tmp_path: Path):
    tensors = random_tensors(5, [f"t{n}" for n in range(20)], [7] * 20)
    write_folder(tmp_path, {"model.safetensors": tensors})
    with WeightStream(open_checkpoint(tmp_path), [Unit(("expert", 0, n), (f"t{n}",)) for n in range(20)], 10 * 8192) as stream:
        held = [stream.use(("expert", 0, n)) for n in range(10)]
        views = [context.__enter__() for context in held]
        for view in views:
            check(view, tensors)
        for context in held:
            context.__exit__(None, None, None)


def test_a_disk_that_stops_answering_ends_the_wait_with_the_names_of_the_files(made):
    checkpoint, _ = made
    disk = Disk()
    stream = new_stream(checkpoint, 10**7, disk, patience=0.2)
    disk.open.clear()
    try:
        with (
            pytest.raises(ReadError, match=r"model-1-of-3\.safetensors: expected bytes within 0\.2 seconds, got none") as caught,
            stream.use(expert(0)),
        ):
            pass
        assert "resume" in caught.value.hint
        stream.close()  # returns, though the threads still hang in the read
    finally:
        disk.open.set()


def test_a_disk_that_pauses_for_less_is_waited_for(made):
    checkpoint, arrays = made
    disk = Disk()
    disk.open.clear()
    threading.Timer(0.3, disk.open.set).start()
    with new_stream(checkpoint, 10**7, disk, patience=5.0) as stream, stream.use(expert(0)) as tensors:
        check(tensors, arrays)
