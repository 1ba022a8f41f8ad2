"""The generator against published vectors, truncation against cases worked out by hand, and draws against their distribution."""

from __future__ import annotations

import numpy as np
import pytest

from formation import philox
from formation.kernels import ops

ALMOST_ONE = 1 - 2.0**-53


def sample(logits, draw, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    return ops.sample(np.asarray(logits, np.float32), temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, draw=draw)


def survivors(logits, **settings) -> list[int]:
    """The tokens that some draw returns"""
    return sorted({sample(logits, u, **settings).id for u in np.linspace(0, ALMOST_ONE, 400)})


RANDOM123 = [  # Random123's kat_vectors for philox4x32, 10 rounds: counter, key, first two output words
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB)),
]


@pytest.mark.parametrize(("counter", "key", "words"), RANDOM123)
def test_uniform_is_philox_of_the_published_vectors(counter, key, words):
    position, branch = counter[0] | counter[1] << 32, counter[2] | counter[3] << 32
    u = ops.uniform(key[0] | key[1] << 32, branch, position)
    assert (words[0] << 32 | words[1]) >> 11 == u * 2.0**53
    assert words == philox.philox(counter, key)[:2]


def test_draws_differ_by_seed_by_branch_and_by_position():
    draws = {ops.uniform(seed, branch, position) for seed in range(8) for branch in range(8) for position in range(8)}
    assert len(draws) == 512


def test_uniform_refuses_more_than_64_bits():
    for arguments in ((2**64, 0, 0), (0, -1, 0), (0, 0, 2**64)):
        with pytest.raises(ValueError, match="64 bits"):
            ops.uniform(*arguments)


def test_frequencies_follow_the_distribution():
    """20,000 draws; chi-square of 5 degrees of freedom, above 25.7 once in 10,000"""
    logits = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -0.5], np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum()
    counts = np.bincount([sample(logits, ops.uniform(1, 2, i)).id for i in range(20_000)], minlength=6)
    assert ((counts - 20_000 * p) ** 2 / (20_000 * p)).sum() < 25.7


def test_temperature_sharpens_and_flattens():
    cold, hot = sample([0.0, 1.0], 0.999, temperature=0.1), sample([0.0, 1.0], 0.0, temperature=10.0)
    assert (cold.id, cold.high) == (1, 1.0)
    assert np.isclose(1 / (1 + np.exp(0.1)), hot.high)


def test_the_interval_of_the_chosen_token_holds_the_draw():
    logits = np.array([0.3, -0.2, 1.5, 0.0], np.float32)
    for u in np.linspace(0, ALMOST_ONE, 101):
        d = sample(logits, u)
        assert d.low <= u < d.high
        assert u == d.draw and d.kept == 4 and d.kept_mass == 1.0


def test_top_k_keeps_the_largest_and_ties_at_the_border_go_to_lower_ids():
    assert survivors([0.0, 2.0, 1.0, 1.0, 1.0], top_k=2) == [1, 2]
    assert survivors([1.0, 1.0, 1.0, 1.0], top_k=2) == [0, 1]
    assert survivors([1.0, 1.0, 1.0], top_k=9) == [0, 1, 2]


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass():
    logits = np.log([0.1, 0.4, 0.2, 0.3])
    assert survivors(logits, top_p=0.39) == [1]
    assert survivors(logits, top_p=0.69) == [1, 3]
    assert survivors(logits, top_p=0.71) == [1, 2, 3]
    assert survivors([0.0, 0.0, 0.0, 0.0], top_p=0.25) == [0]
    assert survivors([0.0, 0.0, 0.0, 0.0], top_p=0.26) == [0, 1]
    assert survivors([0.0, 0.0], top_p=1e-300) == [0]


def test_top_p_is_taken_of_what_top_k_left():
    """Of 0.4, 0.3 the first is 0.571: enough for 0.57, not for 0.58"""
    logits = np.log([0.1, 0.4, 0.2, 0.3])
    assert survivors(logits, top_k=2, top_p=0.57) == [1]
    assert survivors(logits, top_k=2, top_p=0.58) == [1, 3]


def test_min_p_is_relative_to_the_largest_probability():
    logits = np.log([0.1, 0.4, 0.2, 0.3])
    assert survivors(logits, min_p=0.49) == [1, 2, 3]
    assert survivors(logits, min_p=0.51) == [1, 3]
    assert survivors(logits, min_p=1.0) == [1]


def test_kept_mass_is_the_share_of_the_untruncated_distribution():
    d = sample(np.log([0.1, 0.4, 0.2, 0.3]), 0.0, top_k=2)
    assert (d.kept, d.id) == (2, 1)
    assert np.isclose(0.7, d.kept_mass)


def test_a_token_of_no_probability_is_never_returned_and_never_counted():
    logits = np.array([-1000.0, 0.0, -1000.0], np.float32)
    for u in (0.0, 2.0**-53, 0.5, ALMOST_ONE):
        d = sample(logits, u)
        assert (d.id, d.kept, d.low, d.high) == (1, 1, 0.0, 1.0)


def test_a_draw_close_to_one_returns_the_last_token_of_positive_probability():
    for size in (2, 3, 7, 1000):
        logits = np.concatenate([np.sin(np.arange(size)), [-2000.0]]).astype(np.float32)
        assert size - 1 == sample(logits, ALMOST_ONE).id


def test_a_token_of_tiny_probability_is_returned_only_by_its_own_interval():
    logits = np.array([-36.0, 0.0], np.float32)
    assert sample(logits, 0.0).id == 0
    assert sample(logits, 2.0**-51).id == 1


def test_a_temperature_that_overflows_keeps_the_largest_logit():
    d = sample([1.0, 3.0, 2.0], ALMOST_ONE, temperature=1e-300)
    assert (d.id, d.kept) == (1, 1)


def test_argmax_takes_the_lower_id_on_ties():
    assert ops.argmax(np.array([0.0, 2.0, 2.0, 1.0], np.float32)) == 1
    assert ops.argmax(np.array([-0.0, 0.0], np.float32)) == 0
    with pytest.raises(ValueError, match="at least one"):
        ops.argmax(np.zeros(0, np.float32))


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.0}, {"temperature": float("inf")}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"min_p": -0.1}, {"draw": 1.0},
     {"draw": -0.1}, {"draw": float("nan")}, {"logits": [0.0, float("nan")]}, {"logits": [0.0, float("-inf")]}, {"logits": []}],
)  # fmt: skip
def test_arguments_outside_the_domain_are_refused(settings):
    with pytest.raises(ValueError, match="sample"):
        sample(**{"logits": [0.0, 1.0], "draw": 0.5, **settings})
