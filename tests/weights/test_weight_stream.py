"""The stream: right bytes, one read per unit, and the budget as a bound."""

from __future__ import annotations

import random
import threading
import time

import pytest
from counted_disk import (
    CORE_BYTES,
    EXPERT_BYTES,
    SLOT,
    Disk,
    check,
    expert,
    first_read,
    identity,
    new_stream,
    reading,
    units,
    until,
    use_and_check,
)

from formation.errors import BudgetError, ReadError
from formation.weights.reader import Reader
from formation.weights.stream import ReadAccount, WeightStream


@pytest.mark.parametrize("budget", [3 * SLOT, 6 * SLOT, 10**7])
def test_any_order_of_uses_and_prefetches_gives_the_bytes_within_the_budget_and_accounts_for_each(made, budget: int):
    checkpoint, arrays = made
    disk, events, chance = Disk(), [], random.Random(budget)
    with new_stream(checkpoint, budget, disk) as stream:
        stream.events = events.append
        for _ in range(120):
            keys = [chance.choice(units()).key for _ in range(4)]
            if chance.random() < 0.6:
                stream.prefetch(keys, first=chance.random() < 0.5)
            if chance.random() < 0.1:
                stream.cancel_prefetch()
            if chance.random() < 0.5:
                stream.guess([chance.choice(units()).key for _ in range(3)])
            for key in keys:
                with stream.use(key) as tensors:
                    check(tensors, arrays)
                assert stream.mapped_bytes <= budget
        stream.cancel_prefetch()
        until(lambda: not reading(stream))
        account = stream.take_accounting()
        assert account.disk_bytes == disk.bytes == stream.bytes_read
        assert account.used_bytes == sum(event.bytes for event in events)
        assert account.used_bytes + account.unused_bytes <= disk.bytes
        assert account.guessed_bytes <= account.used_bytes
        assert account.guessed_unused_bytes <= account.unused_bytes
        assert account.disk_uses + account.cache_uses == len(events) == 480
        assert stream.peak_bytes <= budget
        assert {event.tier for event in events} == {"disk", "cache"}
        assert all(event.bytes == 0 for event in events if event.tier == "cache")
        assert all(event.bytes > 0 and event.seconds >= 0 for event in events if event.tier == "disk")


def test_every_byte_from_disk_is_accounted_for_once(made):
    checkpoint, _ = made
    disk = Disk()
    with new_stream(checkpoint, 7 * SLOT, disk) as stream:
        stream.pin([("core", 0)])
        stream.rows("core.1", [5])
        stream.prefetch([expert(1), expert(2)])
        until(lambda: disk.bytes > CORE_BYTES + 2 * EXPERT_BYTES)
        for key in (expert(0), expert(0), expert(1)):
            with stream.use(key):
                pass
        stream.cancel_prefetch()
        for e in (3, 4, 5, 6, 7):  # the least recently used, 2 among them, lose their slots
            with stream.use(expert(e)):
                pass
        account = stream.take_accounting()
        assert account.disk_bytes == disk.bytes == stream.bytes_read
        assert account.disk_bytes == account.used_bytes + account.pinned_bytes + account.row_bytes + account.unused_bytes
        assert account.unused_bytes >= EXPERT_BYTES
        assert (account.disk_uses, account.cache_uses) == (7, 1)
        assert account.seconds_waited > 0
        assert stream.take_accounting() == ReadAccount()


def test_a_unit_in_memory_is_not_read_again(made):
    checkpoint, arrays = made
    disk = Disk()
    with new_stream(checkpoint, 10**7, disk) as stream:
        for _ in range(3):
            for unit in units():
                with stream.use(unit.key) as tensors:
                    check(tensors, arrays)
        assert len(units()) == len(disk.calls) == len(set(disk.calls))
        assert (len(units()), 2 * len(units())) == ((account := stream.take_accounting()).disk_uses, account.cache_uses)


def test_the_least_recently_used_expert_is_the_one_that_is_read_again(made):
    checkpoint, _ = made
    tiers = []
    with new_stream(checkpoint, 3 * SLOT) as stream:
        stream.events = lambda event: tiers.append((event.key[2], event.tier))
        for e in (0, 1, 2, 0, 3, 0, 2, 1):
            with stream.use(expert(e)):
                pass
    cached = "cache"
    assert [(0, "disk"), (1, "disk"), (2, "disk"), (0, cached), (3, "disk"), (0, cached), (2, cached), (1, "disk")] == tiers


def test_a_unit_that_is_being_read_is_waited_for_not_read_twice(made):
    checkpoint, arrays = made
    disk = Disk()
    with new_stream(checkpoint, 10**7, disk) as stream:
        disk.open.clear()
        stream.prefetch([expert(0), expert(0), expert(1)])
        stream.prefetch([expert(0)])
        threads = [threading.Thread(target=lambda: use_and_check(stream, expert(0), arrays)) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        disk.open.set()
        for thread in threads:
            thread.join()
        until(lambda: len(disk.calls) == 2)
        use_and_check(stream, expert(1), arrays)
        assert len(disk.calls) == 2


def test_what_somebody_waits_for_goes_before_what_was_asked_ahead(made):
    checkpoint, _ = made
    disk = Disk()
    with WeightStream(checkpoint, units(), 10**7, threads=1, reader=Reader(checkpoint, preadv=disk.preadv)) as stream:
        disk.open.clear()
        stream.prefetch([expert(e) for e in range(6)])
        until(lambda: reading(stream))  # the first is with the disk
        demand = threading.Thread(target=lambda: use_and_check(stream, expert(7), {**made[1]}))
        demand.start()
        until(lambda: stream._cache.get(expert(7)) is not None)
        stream.prefetch([("core", 1)], first=True)
        disk.open.set()
        demand.join()
        until(lambda: len(disk.calls) == 8)
    expected = [expert(0), expert(7), ("core", 1), *(expert(e) for e in range(1, 6))]
    assert disk.calls == [first_read(checkpoint, key) for key in expected]


def test_prefetch_waits_for_room_and_goes_on_when_there_is_some(made):
    checkpoint, arrays = made
    disk = Disk()
    with new_stream(checkpoint, 2 * SLOT, disk) as stream:
        with stream.use(expert(0)) as tensors:
            stream.prefetch([expert(1), expert(2), expert(3)])
            until(lambda: len(disk.calls) == 2)
            time.sleep(0.02)
            assert len(disk.calls) == 2  # 0 is held and 1 is wanted
            check(tensors, arrays)
        until(lambda: len(disk.calls) == 3)
        for e in (1, 2, 3):
            use_and_check(stream, expert(e), arrays)
        assert len(disk.calls) == 4


def test_a_cancelled_prefetch_is_not_read_and_gives_way(made):
    checkpoint, _ = made
    disk = Disk()
    with WeightStream(checkpoint, units(), 10**7, threads=1, reader=Reader(checkpoint, preadv=disk.preadv)) as stream:
        disk.open.clear()
        stream.prefetch([expert(e) for e in range(6)])
        until(lambda: reading(stream))
        stream.cancel_prefetch()
        disk.open.set()
        until(lambda: not reading(stream))
        assert len(disk.calls) == 1


def test_pinned_units_stay_whatever_else_is_used(made):
    checkpoint, arrays = made
    disk = Disk()
    with new_stream(checkpoint, 5 * SLOT, disk) as stream:
        stream.pin([("core", 0), ("core", 0)])
        stream.pin([("core", 0)])
        for unit in units():
            use_and_check(stream, unit.key, arrays)
        before = len(disk.calls)
        use_and_check(stream, ("core", 0), arrays)
        assert before == len(disk.calls)
        account = stream.take_accounting()
        assert account.pinned_bytes >= CORE_BYTES
        assert account.disk_bytes == account.pinned_bytes + account.used_bytes


def test_the_budget_error_says_how_much_is_needed_and_for_what(made):
    checkpoint, _ = made
    with new_stream(checkpoint, 2 * SLOT) as stream:
        assert stream.bytes_of(expert(0)) == SLOT
        with pytest.raises(BudgetError, match=r"room for unit \('core', 0\): \d+ bytes, got a budget of 114688 bytes with 0 pinned and 0 in use"):
            stream.use(("core", 0)).__enter__()
        with pytest.raises(BudgetError, match=r"room for pinning 3 units: 172032 bytes, got a budget of 114688 bytes with 0 pinned") as caught:
            stream.pin([expert(0), expert(1), expert(2)])
        assert caught.value.hint == "give at least 172032 bytes"
        with stream.use(expert(0)), stream.use(expert(1)), pytest.raises(BudgetError, match="with 0 pinned and 114688 in use"):
            stream.use(expert(2)).__enter__()
        with pytest.raises(BudgetError, match=r"room for layer 0: 172032 bytes"):
            stream.check_room([expert(0), expert(1), expert(2)], "layer 0")
        stream.check_room([expert(0), expert(1)], "layer 0")
        with stream.use(expert(2)), pytest.raises(BudgetError, match=r"room for rows of 'core.0': 12\d+ bytes"):
            stream.rows("core.0", [1])


def test_an_error_in_a_reading_thread_is_raised_where_the_unit_is_used_and_a_second_try_reads_again(made):
    checkpoint, arrays = made
    disk = Disk()
    with new_stream(checkpoint, 6 * SLOT, disk) as stream:
        disk.fails_in = identity(checkpoint, checkpoint.tensors["expert.0.a"].file)
        with pytest.raises(ReadError, match=r"tensor 'expert.0.a' in model-1-of-3.safetensors at byte 0: expected bytes, got Input/output error"):
            stream.use(expert(0)).__enter__()
        stream.prefetch([expert(1)])
        until(lambda: expert(1) in stream._failed)
        disk.fails_in = None
        with pytest.raises(ReadError, match="Input/output error"):
            stream.use(expert(1)).__enter__()
        for e in (0, 1, 2, 3):
            use_and_check(stream, expert(e), arrays)
        disk.fails_in = identity(checkpoint, "model-3-of-3.safetensors")
        with pytest.raises(ReadError, match="Input/output error"):
            stream.rows("core.0", [3])
        with pytest.raises(ReadError, match="Input/output error"):
            stream.pin([expert(0), ("core", 0)])
        disk.fails_in = None
        stream.pin([expert(0), ("core", 0)])
        use_and_check(stream, ("core", 0), arrays)
