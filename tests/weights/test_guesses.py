"""Units read on a guess: when nothing else is to be read, told apart in the accounts, and dropped as soon as nobody stands by them."""

from __future__ import annotations

from counted_disk import EXPERT_BYTES, SLOT, Disk, check, expert, new_stream, reading, until


def test_a_right_guess_is_there_when_it_is_used_and_counted_as_a_guess(made):
    checkpoint, arrays = made
    disk = Disk()
    with new_stream(checkpoint, 10**7, disk) as stream:
        stream.guess([expert(3)])
        until(lambda: disk.bytes >= EXPERT_BYTES and not reading(stream))
        before = disk.bytes
        with stream.use(expert(3)) as tensors:
            check(tensors, arrays)
        assert before == disk.bytes
        account = stream.take_accounting()
        assert account.guessed_bytes == account.used_bytes == before
        with stream.use(expert(3)):
            pass
        assert 0 == stream.take_accounting().guessed_bytes


def test_a_wrong_guess_is_counted_when_it_goes(made):
    checkpoint, _ = made
    disk = Disk()
    with new_stream(checkpoint, 2 * SLOT, disk) as stream:
        stream.guess([expert(3)])
        until(lambda: disk.bytes >= EXPERT_BYTES and not reading(stream))
        wasted = disk.bytes
        stream.guess([])
        for e in (0, 1, 2):
            with stream.use(expert(e)):
                pass
        account = stream.take_accounting()
        assert wasted == account.guessed_unused_bytes == account.unused_bytes
        assert 0 == account.guessed_bytes


def test_what_was_asked_for_is_read_before_what_was_guessed(made):
    checkpoint, _ = made
    disk = Disk()
    disk.open.clear()
    with new_stream(checkpoint, 10**7, disk, threads=1) as stream:
        stream.guess([expert(0), expert(1), expert(2)])
        until(lambda: reading(stream))
        stream.prefetch([expert(5)])
        disk.open.set()
        with stream.use(expert(5)):
            read = disk.bytes
        assert read < 3 * EXPERT_BYTES  # the guess in flight, and what was asked for


def test_a_guess_that_is_dropped_before_it_begins_is_not_read(made):
    checkpoint, _ = made
    disk = Disk()
    disk.open.clear()
    with new_stream(checkpoint, 10**7, disk, threads=1) as stream:
        stream.guess([expert(0), expert(1), expert(2)])
        until(lambda: reading(stream))
        stream.guess([])
        disk.open.set()
        with stream.use(expert(7)):
            pass
        assert disk.bytes < 3 * EXPERT_BYTES


def test_a_dropped_guess_that_is_wanted_after_all_has_the_right_bytes(made):
    checkpoint, arrays = made
    disk = Disk()
    disk.open.clear()
    with new_stream(checkpoint, 10**7, disk, threads=1) as stream:
        stream.guess([expert(0), ("core", 1)])
        until(lambda: reading(stream))
        stream.guess([])
        stream.prefetch([expert(0)])
        disk.open.set()
        for key in (expert(0), ("core", 1)):
            with stream.use(key) as tensors:
                check(tensors, arrays)


def test_a_guess_takes_no_room_from_what_is_wanted(made):
    checkpoint, arrays = made
    disk = Disk()
    with new_stream(checkpoint, 3 * SLOT, disk) as stream:
        stream.prefetch([expert(0), expert(1), expert(2)])
        until(lambda: disk.bytes >= 3 * EXPERT_BYTES and not reading(stream))
        stream.guess([expert(4), expert(5)])
        for e in (0, 1, 2):
            with stream.use(expert(e)) as tensors:
                check(tensors, arrays)
        assert 0 == stream.take_accounting().unused_bytes


def test_a_right_guess_that_is_still_being_read_goes_on_when_the_next_guesses_are_made(made):
    checkpoint, arrays = made
    disk = Disk()
    disk.open.clear()
    with new_stream(checkpoint, 10**7, disk, threads=1) as stream:
        stream.guess([expert(0)])
        until(lambda: reading(stream))
        stream.prefetch([expert(0)], first=True)  # chosen
        stream.guess([expert(4)])
        disk.open.set()
        with stream.use(expert(0)) as tensors:
            check(tensors, arrays)
        account = stream.take_accounting()
    assert account.guessed_bytes >= EXPERT_BYTES
    assert 0 == account.guessed_unused_bytes


def test_what_only_a_guess_reads_is_missing_until_somebody_has_used_it(made):
    checkpoint, _ = made
    disk = Disk()
    with new_stream(checkpoint, 10**7, disk) as stream:
        stream.guess([expert(3)])
        until(lambda: disk.bytes >= EXPERT_BYTES and not reading(stream))
        assert {expert(3), expert(4)} == stream.missing([expert(3), expert(4)])
        with stream.use(expert(3)):
            pass
        assert {expert(4)} == stream.missing([expert(3), expert(4)])


def test_what_is_in_memory_comes_before_what_is_not(made):
    checkpoint, _ = made
    disk = Disk()
    with new_stream(checkpoint, 10**7, disk) as stream:
        assert expert(1) == stream.first_there([expert(1), expert(2), expert(3)])
        with stream.use(expert(2)):
            pass
        assert expert(2) == stream.first_there([expert(1), expert(2), expert(3)])
        assert 0 == stream.take_accounting().cache_uses


def test_what_is_in_memory_when_it_is_asked_for_is_not_evicted_for_what_is_asked_for_with_it(made):
    checkpoint, _ = made
    disk = Disk()
    with new_stream(checkpoint, 3 * SLOT, disk) as stream:
        for e in (6, 1, 2):  # 6 is the first to go
            with stream.use(expert(e)):
                pass
        before = disk.bytes
        stream.prefetch([expert(3), expert(6)], first=True)
        until(lambda: disk.bytes > before and not reading(stream))
        read = disk.bytes
        for e in (3, 6):
            with stream.use(expert(e)):
                pass
        assert read == disk.bytes
