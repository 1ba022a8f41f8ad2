"""Work left for later: every piece once, in an order that holds whenever it is done, and no failure that nobody hears of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formation.probe.aside import Aside, Job, Piece


def noting(told: list[str], name: str, *then: str) -> Piece:
    """A piece that says its name, and whose continuations say theirs"""

    def piece(threads: int) -> Piece | None:
        told.append(f"{name}/{threads}")
        return noting(told, *then) if then else None

    return piece


def put_some(aside: Aside, told: list[str], name: str) -> Job:
    def phases() -> Iterator[Iterable[Piece]]:
        told.append(f"{name}: begun")
        yield [noting(told, f"{name}2", f"{name}3"), noting(told, f"{name}4")]
        told.append(f"{name}: half")
        yield []
        told.append(f"{name}: done")

    job = aside.job()
    job.put(noting(told, f"{name}0"))
    job.put(noting(told, f"{name}1"))
    job.go(phases())
    return job


def wanted(name: str, threads: int) -> list[str]:
    return [
        f"{name}0/{threads}", f"{name}1/{threads}", f"{name}: begun", f"{name}2/{threads}", f"{name}3/{threads}", f"{name}4/{threads}",
        f"{name}: half", f"{name}: done",
    ]  # fmt: skip


@given(st.lists(st.sampled_from(["idle", "a", "b"]), max_size=30))
def test_pieces_are_done_once_and_in_order_whenever_there_is_time(moments: list[str]) -> None:
    told: list[str] = []
    aside = Aside(3)
    jobs = {"a": put_some(aside, told, "a"), "b": put_some(aside, told, "b")}
    for moment in moments:
        aside.do_one() if moment == "idle" else jobs[moment].do_one()
    for job in jobs.values():
        job.wait()
    assert not aside.do_one()
    for name in jobs:
        assert wanted(name, 3) == [t for t in told if t.startswith(name)]


def test_the_oldest_job_goes_first() -> None:
    told: list[str] = []
    aside = Aside(1)
    put_some(aside, told, "a")
    put_some(aside, told, "b")
    while aside.do_one():
        pass
    assert wanted("a", 1) + wanted("b", 1) == told


def test_without_later_nothing_waits() -> None:
    told: list[str] = []
    aside = Aside(2, later=False)
    aside.job().put(noting(told, "x", "y", "z"))
    assert ["x/2", "y/2", "z/2"] == told
    assert not aside.do_one()


@pytest.mark.parametrize("place", ["piece", "phase"])
def test_what_fails_is_raised_where_it_happens_and_to_whoever_waits(place: str) -> None:
    def fail(threads: int) -> None:
        raise OSError("full")

    def phases() -> Iterator[Iterable[Piece]]:
        if place == "phase":
            raise OSError("full")
        yield [fail, noting(told, "never")]

    told: list[str] = []
    aside = Aside()
    job = aside.job()
    job.go(phases())
    with pytest.raises(OSError, match="full"):
        while aside.do_one():
            pass
    with pytest.raises(OSError, match="full"):
        job.wait()
    assert [] == told and not aside.do_one()


def test_a_cancelled_job_is_not_done() -> None:
    told: list[str] = []
    aside = Aside()
    job = put_some(aside, told, "a")
    aside.do_one()
    job.cancel()
    assert not aside.do_one()
    job.wait()
    assert ["a0/1"] == told
