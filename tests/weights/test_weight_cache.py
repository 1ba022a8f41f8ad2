"""Slots under one bound, and who loses its slot when another needs the room."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from formation.weights.arena import Arena
from formation.weights.cache import Cache, Resident
from formation.weights.layout import ALIGN, Layout
from formation.weights.policy import Recency

PAGE = ALIGN


def layout(pages: int) -> Layout:
    return Layout(pages * PAGE, (), ())


def add(cache: Cache, key: tuple[object, ...], pages: int, *, ahead: bool = False) -> Resident | None:
    resident = cache.add(key, layout(pages), ahead=ahead)
    if resident is not None:
        cache.settle(resident)
    return resident


def use(cache: Cache, resident: Resident) -> None:
    cache.hold(resident)
    cache.release(resident)


def test_a_freed_slot_is_used_again_the_latest_first():
    arena = Arena(4 * PAGE)
    first, second = arena.take(PAGE), arena.take(PAGE)
    arena.give(first)
    arena.give(second)
    assert second is arena.take(PAGE)
    assert first is arena.take(PAGE)
    assert arena.mapped_bytes == 2 * PAGE


def test_an_arena_maps_no_byte_more_than_its_budget():
    arena = Arena(3 * PAGE)
    slot = arena.take(2 * PAGE)
    assert arena.take(2 * PAGE) is None
    arena.give(slot)
    assert arena.take(2 * PAGE) is slot
    arena.give(slot)
    assert arena.unmap_one()
    assert not arena.unmap_one()
    assert arena.take(3 * PAGE) is not None
    assert (arena.mapped_bytes, arena.peak_bytes) == (3 * PAGE, 3 * PAGE)


def test_a_slot_is_page_aligned_and_read_only_for_who_computes():
    slot = Arena(PAGE).take(PAGE)
    assert slot.data.ctypes.data % PAGE == 0
    assert not slot.data.flags.writeable
    slot.view[7] = 9
    assert slot.data[7] == 9


def test_the_least_recently_used_expert_goes_first():
    cache = Cache(3 * PAGE, Recency())
    experts = [add(cache, ("expert", 0, e), 1) for e in range(3)]
    for resident in experts:
        use(cache, resident)
    use(cache, experts[0])
    add(cache, ("expert", 0, 3), 1)
    assert [cache.get(("expert", 0, e)) is not None for e in range(4)] == [True, False, True, True]


def test_what_passes_gives_its_slot_before_any_expert_does():
    cache = Cache(3 * PAGE, Recency())
    for key in [("expert", 0, 0), ("core", 0), ("core", 1)]:
        use(cache, add(cache, key, 1))
    add(cache, ("expert", 0, 1), 1)
    assert [cache.get(key) is not None for key in [("expert", 0, 0), ("core", 0), ("core", 1)]] == [True, True, False]


def test_the_reserve_of_passing_slots_survives_experts_of_another_size():
    cache = Cache(6 * PAGE, Recency())
    cache.reserve_bytes = 4 * PAGE
    for key, pages in [(("core", 0), 2), (("core", 1), 2), (("expert", 0, 0), 1), (("expert", 0, 1), 1)]:
        use(cache, add(cache, key, pages))
    add(cache, ("expert", 0, 2), 1)
    assert cache.get(("expert", 0, 0)) is None
    assert cache.get(("core", 0)) is not None
    assert cache.get(("core", 1)) is not None


def test_reading_ahead_evicts_neither_what_is_in_use_nor_what_is_wanted():
    cache = Cache(2 * PAGE, Recency())
    held = add(cache, ("expert", 0, 0), 1)
    cache.hold(held)
    wanted = add(cache, ("expert", 0, 1), 1, ahead=True)
    assert add(cache, ("expert", 0, 2), 1, ahead=True) is None
    assert wanted is cache.get(("expert", 0, 1))
    assert add(cache, ("expert", 0, 2), 1) is not None  # somebody waits for this one
    assert cache.get(("expert", 0, 1)) is None
    assert held is cache.get(("expert", 0, 0))


def test_what_nobody_wants_any_more_may_go():
    cache = Cache(2 * PAGE, Recency())
    for expert in range(2):
        add(cache, ("expert", 0, expert), 1, ahead=True)
    cache.unwant_all()
    assert add(cache, ("expert", 0, 2), 1, ahead=True) is not None


class AnyOrderOfCalls(RuleBasedStateMachine):
    """Whatever is asked in whatever order: the bound holds, the held stay, and a refusal is never a mistake."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(10 * PAGE, Recency())
        self.cache.reserve_bytes = 2 * PAGE
        self.held: list[Resident] = []
        self.pinned: list[Resident] = []

    @rule(kind=st.sampled_from(["expert", "core"]), number=st.integers(0, 5), pages=st.integers(1, 4), ahead=st.booleans())
    def ask(self, kind: str, number: int, pages: int, ahead: bool) -> None:
        key = (kind, number)
        resident = self.cache.get(key)
        if resident is None:
            locked = self.cache.locked_bytes
            resident = add(self.cache, key, pages, ahead=ahead)
            if resident is None:
                assert ahead or locked + pages * PAGE > self.cache.arena.budget_bytes
                return
        if ahead:
            self.cache.want(resident)
        else:
            self.cache.hold(resident)
            self.held.append(resident)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.cache.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @precondition(lambda self: self.held and len(self.pinned) < 2)
    @rule()
    def pin(self) -> None:
        self.cache.pin(self.held[0])
        self.pinned.append(self.held[0])

    @rule()
    def cancel(self) -> None:
        self.cache.unwant_all()

    @invariant()
    def the_bound_holds_and_nothing_in_use_was_evicted(self) -> None:
        assert self.cache.locked_bytes <= self.cache.arena.mapped_bytes <= self.cache.arena.budget_bytes
        distinct = {id(resident): resident for resident in self.held + self.pinned}.values()
        assert sum(resident.slot.size_bytes for resident in distinct) == self.cache.locked_bytes
        for resident in distinct:
            assert resident is self.cache.get(resident.key)


TestAnyOrderOfCalls = AnyOrderOfCalls.TestCase
TestAnyOrderOfCalls.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
