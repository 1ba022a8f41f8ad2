"""The gated delta rule and grouped attention: C gives the bits of the numpy twin, one row at a time gives those of all rows at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_inputs import few, magnitudes, numbers, same_bits, seeds

from formation.kernels import delta, ops, reference, reference_delta

widths = st.integers(1, 70)
threads = st.integers(1, 3)
bounded = st.sampled_from([1.0, 2.0**-128, 2.0**-20])  # what overflows is not specified, and long keys make a state grow


def rule_inputs(seed: int, rows: int, groups: int, shared: int, key: int, value: int, scale: float = 1.0) -> list[np.ndarray]:
    heads = groups * shared
    q, k = (numbers(seed + i, rows, groups, key, scale=scale) for i in (0, 1))
    gates = [np.abs(numbers(seed + i, rows, heads)) for i in (3, 4)]
    return [q, k, numbers(seed + 2, rows, heads, value, scale=scale), *gates]


@few
@given(seeds, st.integers(0, 4), st.integers(1, 3), st.integers(1, 3), widths, widths, bounded, threads)
def test_the_rule_and_the_state_that_it_leaves(seed, rows, groups, shared, key, value, scale, threads):
    inputs = rule_inputs(seed, rows, groups, shared, key, value, scale)
    states = [delta.new_state(groups * shared, key, value) for _ in range(2)]
    for _ in range(2):  # from nothing, and from a state
        expected = reference_delta.delta_rule(*inputs, 0.25, states[0])
        assert same_bits(expected, delta.delta_rule(*inputs, 0.25, states[1], threads=threads))
        assert same_bits(*states)


@few
@given(seeds, st.integers(1, 12), st.integers(1, 2), st.integers(1, 2), widths, widths, st.lists(st.integers(0, 100), max_size=4))
def test_the_rule_in_any_split_of_its_rows(seed, rows, groups, shared, key, value, cuts):
    inputs = rule_inputs(seed, rows, groups, shared, key, value)
    whole, parts = (delta.new_state(groups * shared, key, value) for _ in range(2))
    expected = delta.delta_rule(*inputs, 0.5, whole, threads=2)
    edges = sorted({0, rows, *(cut % (rows + 1) for cut in cuts)})
    found = [delta.delta_rule(*(a[i:j].copy() for a in inputs), 0.5, parts, threads=1 + i % 2) for i, j in pairwise(edges)]
    assert same_bits(expected, np.concatenate(found)) and same_bits(whole, parts)


def test_the_rule_is_that_of_its_paper():
    """In binary64 and whole matrices: S = a S (I - b k k^T) + b v k^T, transposed, as arXiv 2412.06464 writes it"""
    q, k, v, decay, beta = rule_inputs(5, 20, 2, 2, 24, 20)
    k = delta.l2norm(k.reshape(-1, 24), 1e-6, threads=1).reshape(k.shape)
    state = delta.new_state(4, 24, 20)
    found = delta.delta_rule(q, k, v, decay, beta, 1.0, state, threads=2)
    for h in range(4):
        S, keys = np.zeros((20, 24)), k[:, h // 2].astype(np.float64)
        for t in range(20):
            a, b = float(decay[t, h]), float(beta[t, h])
            S = a * S @ (np.eye(24) - b * np.outer(keys[t], keys[t])) + b * np.outer(v[t, h], keys[t])
            assert np.allclose(S @ q[t, h // 2], found[t, h], rtol=0, atol=1e-5)
        assert np.allclose(S.T, delta.state_matrices(state, 24, 20)[h], rtol=0, atol=1e-5)


@few
@given(seeds, st.integers(0, 5), st.integers(1, 90), st.integers(1, 20), magnitudes, threads)
def test_convolution(seed, rows, channels, taps, scale, threads):
    x, w = numbers(seed, rows + taps - 1, channels, scale=scale * 8), numbers(seed + 1, taps, channels)
    assert same_bits(reference_delta.conv_silu(x, w), delta.conv_silu(x, w, threads=threads))


def test_convolution_sees_no_later_row():
    x, w = numbers(1, 12, 30), numbers(2, 4, 30)
    changed = x.copy()
    changed[8:] = 7
    before, after = delta.conv_silu(x, w, threads=1), delta.conv_silu(changed, w, threads=1)
    assert same_bits(before[:5], after[:5]) and (before[5:] != after[5:]).any(axis=1).all()


@few
@given(seeds, st.integers(0, 5), widths, magnitudes, st.sampled_from([0.0, 1e-6]), threads)
def test_norms(seed, rows, width, scale, eps, threads):
    x, z, w = numbers(seed, rows, width, scale=scale), numbers(seed + 1, rows, width, scale=30), numbers(seed + 2, width)
    assert same_bits(reference_delta.l2norm(x, eps), delta.l2norm(x, eps, threads=threads))
    assert same_bits(reference_delta.rmsnorm_gated(x, z, w, eps), delta.rmsnorm_gated(x, z, w, eps, threads=threads))


@few
@given(seeds, st.integers(0, 5), st.integers(1, 40), st.sampled_from([1.0, 8.0, 100.0, 2.0**-128]), threads)
def test_gates(seed, rows, heads, scale, threads):
    b, a = (numbers(seed + i, rows, heads, scale=scale) for i in (0, 1))
    own = [numbers(seed + i, heads, scale=4) for i in (2, 3)]
    for expected, found in zip(reference_delta.delta_gates(b, a, *own), delta.delta_gates(b, a, *own, threads=threads), strict=True):
        assert same_bits(expected, found)


@few
@given(seeds, st.integers(0, 4), st.integers(1, 4), st.integers(1, 20), st.integers(0, 8), magnitudes)
def test_rotation_by_halves_in_a_slice_leaves_the_rest_alone(seed, rows, heads, half, after, scale):
    expected = numbers(seed, rows, heads, 2 * half + after, scale=scale)
    found, (cos, sin) = expected.copy(), (numbers(seed + i, rows, half) for i in (1, 2))
    reference.rope_halves(expected[..., : 2 * half], cos, sin)
    ops.rope_halves(found[..., : 2 * half], cos, sin, threads=2)
    assert same_bits(expected, found)


@few
@given(seeds, st.integers(0, 70), magnitudes, st.booleans())
def test_sigmoid_mul_also_in_place(seed, n, scale, in_place):
    gate, x = numbers(seed, n, scale=scale * 16), numbers(seed + 1, n, scale=scale)
    expected = reference.sigmoid_mul(gate, x)
    assert same_bits(expected, ops.sigmoid_mul(gate, x, threads=2, out=gate if in_place else None))


@few
@given(
    seeds, st.lists(st.integers(0, 90), min_size=1, max_size=3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 40), st.integers(0, 40),
    threads, st.sampled_from([1.0, 60.0, 2.0**-128]),
)  # fmt: skip
def test_grouped_attention_and_its_weights(seed, positions, groups, shared, key, value, threads, scale):
    cache = ops.new_cache(max(positions) + 1, groups * (key + value))
    ops.cache_store(cache, 0, numbers(seed, cache.shape[0] * 16, cache.shape[1]))  # keys beyond a row's position must not matter
    q, where = numbers(seed + 1, len(positions), groups * shared, key, scale=scale), np.array(positions, np.int64)
    expected_weights = np.full((len(positions), groups * shared, 95), 7, np.float32)
    weights = expected_weights.copy()
    expected = reference.gqa_attend(q, cache, where, 0.25, groups, weights=expected_weights)
    assert same_bits(expected, ops.gqa_attend(q, cache, where, 0.25, groups, threads=threads, weights=weights))
    assert same_bits(expected_weights, weights)


def test_one_group_is_latent_attention_with_the_value_beside_the_key():
    entries, q, where = numbers(1, 40, 30 + 20), numbers(2, 3, 4, 30), np.array([0, 20, 39])
    grouped, latent = ops.new_cache(40, 50), ops.new_cache(40, 30)
    ops.cache_store(grouped, 0, entries)
    ops.cache_store(latent, 0, np.ascontiguousarray(entries[:, :30]))
    weights = [np.empty((3, 4, 40), np.float32) for _ in range(2)]
    ops.gqa_attend(q, grouped, where, 0.5, 1, threads=2, weights=weights[0])
    ops.mla_attend(q, latent, where, 0.5, 10, threads=2, weights=weights[1])
    assert same_bits(*weights)


STATE, ROWS = delta.new_state(4, 10, 12), rule_inputs(1, 3, 2, 2, 10, 12)


def grouped(heads: int, width: int, position: int, groups: int):
    return lambda: ops.gqa_attend(numbers(1, 1, heads, width), ops.new_cache(5, 16), np.array([position]), 1.0, groups, threads=1)


REFUSED = [
    ("too few rows before the first", "x: expected", lambda: delta.conv_silu(numbers(1, 2, 5), numbers(2, 4, 5), threads=1)),
    ("a convolution of other width", "x: expected shape", lambda: delta.conv_silu(numbers(1, 5, 5), numbers(2, 4, 6), threads=1)),
    ("a gate of another shape", "z: expected shape", lambda: delta.rmsnorm_gated(ROWS[3], ROWS[3][:2], ROWS[3][0], 1e-6, threads=1)),
    ("a bias for other heads", "dt_bias: expected shape", lambda: delta.delta_gates(ROWS[3], ROWS[4], ROWS[3][0], ROWS[3][0, :3].copy(), threads=1)),
    ("a state of other heads", "state: expected shape", lambda: delta.delta_rule(*ROWS, 1.0, STATE[:3].copy(), threads=1)),
    ("key heads that do not divide the value heads", "k: expected key heads",
     lambda: delta.delta_rule(*(numbers(1, 3, 3, 10),) * 2, *ROWS[2:], 1.0, STATE.copy(), threads=1)),
    ("groups that do not divide the heads", "groups: expected", grouped(3, 4, 3, 2)),
    ("no groups", "groups: expected", grouped(3, 4, 3, 0)),
    ("keys wider than the cache", "groups: expected", grouped(2, 9, 3, 2)),
    ("a position beyond the cache", "positions", grouped(2, 4, 16, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "call"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_wrong_argument_is_named(sentence, call):
    with pytest.raises(ValueError, match=sentence):
        call()
