"""Challenges: drawn without replacement, evenly, from the ledger's root and a seed, so that anyone can draw them again."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formation.audit.challenge import Seed, draw, named_seed, system_seed
from formation.errors import UsageError

ROOT = bytes(range(32))


def test_the_derivation_is_the_one_that_is_written_down() -> None:
    seed, population = b"a beacon of tomorrow", 50
    expected: list[int] = []
    counter = 0
    while len(expected) < 5:
        block = sha256(b"formation-audit/1 cells\0" + ROOT + sha256(seed).digest() + counter.to_bytes(8, "big")).digest()
        u = int.from_bytes(block[:8], "big")
        if u < 2**64 // population * population and u % population not in expected:
            expected.append(u % population)
        counter += 1
    assert tuple(expected) == draw(Seed(seed, "named"), ROOT, "cells", population, 5)


@given(st.binary(max_size=40), st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_no_number_is_drawn_twice(seed: bytes, sizes: tuple[int, int]) -> None:
    drawn = draw(Seed(seed, "named"), ROOT, "cells", *sizes)
    assert sizes[1] == len(set(drawn)) == len(drawn)
    assert all(0 <= n < sizes[0] for n in drawn)


def test_every_number_is_as_likely_as_any_other() -> None:
    counts = Counter(n for i in range(3000) for n in draw(Seed(i.to_bytes(4, "big"), "named"), ROOT, "cells", 10, 3))
    assert 10 == len(counts)
    assert all(abs(count - 900) < 150 for count in counts.values())  # five standard deviations


def test_root_purpose_and_seed_each_decide() -> None:
    base = draw(Seed(b"x", "named"), ROOT, "cells", 1 << 40, 4)
    assert base == draw(Seed(b"x", "system"), ROOT, "cells", 1 << 40, 4)
    assert base != draw(Seed(b"y", "named"), ROOT, "cells", 1 << 40, 4)
    assert base != draw(Seed(b"x", "named"), bytes(32), "cells", 1 << 40, 4)
    assert base != draw(Seed(b"x", "named"), ROOT, "column", 1 << 40, 4)


def test_a_value_is_hexadecimal_if_it_can_be_and_text_otherwise() -> None:
    assert b"\xab\xcd" == named_seed("abCD").value
    assert b"abc" == named_seed("abc").value
    assert "tomorrow’s draw".encode() == named_seed("tomorrow’s draw").value
    assert named_seed(system_seed().value.hex()).source == "named"


@pytest.mark.parametrize("count", [0, -1, 11])
def test_drawing_none_or_more_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match="cells: expected 1 to 10 to draw"):
        draw(system_seed(), ROOT, "cells", 10, count)


def test_an_empty_value_is_refused() -> None:
    with pytest.raises(UsageError, match="got nothing"):
        named_seed("")


def test_the_system_gives_another_seed_each_time() -> None:
    assert system_seed() != system_seed()
