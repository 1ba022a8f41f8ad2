"""Policies replayed over routes: against a cache written plainly, and the optimum against every eviction that could be chosen."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formation.errors import UsageError
from formation.weights.policy import POLICIES, Fading, Frequency, Recency, Segmented, policy_named
from formation.weights.residency import Kept, optimum, replay


def key(n: int) -> tuple[str, int, int]:
    return ("expert", 0, n)


def single(*numbers: int) -> list[list[tuple[str, int, int]]]:
    return [[key(n)] for n in numbers]


access = st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True).map(lambda ns: [key(n) for n in ns])
routes = st.lists(access, min_size=1, max_size=12)


def best_of_all(accesses, slots: int) -> int:
    """The most hits that any choice of evictions gives."""
    states = {frozenset(): 0}
    for needed in accesses:
        then: dict[frozenset, int] = {}
        for here, hits in states.items():
            hits += sum(each in here for each in needed)
            others = sorted(here - set(needed))
            for kept in combinations(others, min(len(others), slots - len(needed))):
                state = frozenset(kept) | frozenset(needed)
                then[state] = max(then.get(state, -1), hits)
        states = then
    return max(states.values())


@settings(max_examples=200, deadline=None)
@given(accesses=routes, slots=st.integers(3, 5))
def test_the_optimum_is_the_best_that_any_evictions_give(accesses, slots):
    assert best_of_all(accesses, slots) == optimum(accesses, slots).hits


@settings(max_examples=200, deadline=None)
@given(accesses=routes, slots=st.integers(3, 6), name=st.sampled_from(sorted(POLICIES)))
def test_no_policy_beats_the_optimum_and_all_count_the_same_uses(accesses, slots, name):
    found, best = replay(POLICIES[name](), accesses, slots), optimum(accesses, slots)
    assert found.uses == best.uses == sum(map(len, accesses))
    assert found.hits <= best.hits


@settings(max_examples=200, deadline=None)
@given(accesses=routes, name=st.sampled_from(sorted(POLICIES)))
def test_with_room_for_all_only_first_uses_miss(accesses, name):
    distinct = len({each for access in accesses for each in access})
    assert Kept(sum(map(len, accesses)), sum(map(len, accesses)) - distinct) == replay(POLICIES[name](), accesses, 6) == optimum(accesses, 6)


@settings(max_examples=200, deadline=None)
@given(accesses=routes, slots=st.integers(3, 5))
def test_recency_keeps_the_last_used(accesses, slots):
    hits, order = 0, []
    for needed in accesses:
        hits += sum(each in order for each in needed)
        rest = [each for each in order if each not in needed]
        order = (rest[max(0, len(rest) + len(needed) - slots) :]) + list(needed)
    assert hits == replay(Recency(), accesses, slots).hits


def test_frequency_keeps_what_was_used_often_and_recency_does_not():
    accesses = single(1, 1, 1, 2, 3, 1, 4, 5, 1)
    assert Kept(9, 4) == replay(Frequency(), accesses, 2)
    assert Kept(9, 2) == replay(Recency(), accesses, 2)


def test_segmented_keeps_who_was_used_again_through_a_scan():
    accesses = single(1, 1, 2, 3, 4, 5, 6, 1)
    assert Kept(8, 2) == replay(Segmented(), accesses, 3)
    assert Kept(8, 1) == replay(Recency(), accesses, 3)


def test_fading_keeps_what_is_used_now_of_what_was_used_often_before():
    accesses = single(*[1] * 20, *[2, 3, 4] * 40, 1)
    assert Kept(141, 136) == replay(Fading(), accesses, 3)
    assert 136 > replay(Frequency(), accesses, 3).hits


def test_fading_keeps_what_is_used_often_through_a_scan_that_recency_forgets_it_in():
    accesses = [access for n in range(2, 14, 2) for access in single(1, 1, n, n + 1)]
    assert Kept(24, 10) == replay(Fading(), accesses, 2)
    assert Kept(24, 6) == replay(Recency(), accesses, 2)


@given(uses=st.lists(st.integers(0, 5), min_size=1, max_size=200))
def test_fading_orders_by_the_sum_of_uses_each_halved_with_its_age(uses):
    policy, clock, weights = Fading(), 0.0, dict[int, float]()
    for n in uses:
        policy.used(key(n))
        clock += 1 / max(1, len(weights))
        weights[n] = weights.get(n, 0.0) + 2**clock
    found = [weights[each[2]] for each in policy.worst_first()]
    assert len(weights) == len(found)
    assert all(before <= after * (1 + 1e-9) for before, after in pairwise(found))


def test_a_policy_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match="policy: expected one of fading, lru, lfu, segmented, got 'mru'"):
        policy_named("mru")


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_policy_forgets_who_went_and_lists_each_once(name):
    policy = POLICIES[name]()
    for n in (1, 2, 1, 3, 3, 2, 4):
        policy.used(key(n))
    assert sorted(map(key, (1, 2, 3, 4))) == sorted(policy.worst_first())
    policy.forget(key(2))
    policy.forget(key(9))
    assert sorted(map(key, (1, 3, 4))) == sorted(policy.worst_first())
    assert policy.keeps(key(1))
    assert not policy.keeps(("layer", 1))
