"""Every kernel of the C library gives the bits of its numpy twin, over random shapes, kinds and magnitudes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_inputs import columns, few, kinds, magnitudes, matrix, numbers, same_bits, scale_modes, seeds

from formation.kernels import ops, reference
from formation.kernels.choices import Router
from formation.kernels.tensor import Kind

widths = st.integers(1, 150)


@few
@given(kinds, seeds, st.integers(1, 70), widths, st.integers(0, 9), magnitudes, scale_modes, st.integers(0, 3), st.integers(1, 3))
def test_linear(kind, seed, rows, cols, m, scale, mode, offset, threads):
    w = matrix(kind, seed, rows, columns(kind, cols), mode, offset)
    x = numbers(seed + 2, m, w.cols, scale=scale)
    assert same_bits(reference.linear(w, x), ops.linear(w, x, threads=threads))


@few
@given(kinds, seeds, st.integers(1, 10), st.sampled_from([992, 1024, 1056, 2080, 3104, 4128]), st.integers(1, 34), scale_modes, st.integers(1, 3))
def test_linear_across_blocks_of_inputs(kind, seed, rows, cols, m, mode, threads):
    """The kernels take 1,024 inputs at a time, 4,096 with few rows: whole blocks, a short last one, a short one before a whole one"""
    w = matrix(kind, seed, rows, cols, mode)
    x = numbers(seed + 2, m, cols)
    assert same_bits(reference.linear(w, x), ops.linear(w, x, threads=threads))


@few
@given(seeds, st.integers(1, 140), st.integers(1, 67), st.integers(1, 5), scale_modes, st.lists(st.integers(0, 10**6), max_size=3), st.integers(1, 3))
def test_few_rows_through_fp8_whatever_its_scales_and_with_codes_that_are_nan(seed, rows, lines, m, mode, places, threads):
    """Whole lines of 64 columns, up to more than the 4,096 that are taken at a time: then codes are dequantised inside the product"""
    w = matrix(Kind.FP8, seed, rows, 64 * lines, mode)
    for place in places:
        w.data[place % w.data.size] = (0x7F, 0xFF)[place % 2]
    x = numbers(seed + 2, m, w.cols)
    assert same_bits(reference.linear(w, x), ops.linear(w, x, threads=threads))


@few
@given(kinds, seeds, st.integers(1, 4), st.integers(0, 9), st.integers(0, 9), st.integers(0, 40), widths, st.integers(1, 4), st.integers(1, 3))
def test_linear_by_head_and_its_transpose(kind, seed, heads, gap, first, rows, cols, m, threads):
    stride = rows + gap
    w = matrix(kind, seed, heads * stride + first + rows, columns(kind, cols))
    if not w.rows:
        return
    x = numbers(seed + 2, m, heads, w.cols)
    expected = reference.heads_linear(w, x, stride=stride, first=first, rows=rows)
    assert same_bits(expected, ops.heads_linear(w, x, stride=stride, first=first, rows=rows, threads=threads))
    x = numbers(seed + 3, m, heads, rows)
    expected = reference.heads_linear_t(w, x, stride=stride, first=first)
    assert same_bits(expected, ops.heads_linear_t(w, x, stride=stride, first=first, threads=threads))


@few
@given(kinds, seeds, st.integers(1, 300), widths, scale_modes, st.integers(0, 3), st.lists(st.integers(0, 10**6), max_size=6))
def test_gather(kind, seed, rows, cols, mode, offset, indices):
    w = matrix(kind, seed, rows, columns(kind, cols), mode, offset)
    wanted = np.array([i % rows for i in indices], np.int64)
    assert same_bits(reference.gather(w, wanted), ops.gather(w, wanted, threads=2))


def test_gather_widens_every_code_of_fp8_and_every_bf16_and_f16():
    from formation.kernels.tensor import Kind, Weight

    codes = np.arange(256, dtype=np.uint8)
    w = Weight("codes", Kind.FP8, 1, 256, codes, np.array([1.5, 2.0**-130], np.float32).view(np.uint8))
    assert same_bits(reference.gather(w, np.array([0])), ops.gather(w, np.array([0]), threads=1))
    words = np.arange(65536, dtype="<u2").view(np.uint8)
    for kind in (Kind.BF16, Kind.F16):
        w = Weight("words", kind, 1, 65536, words)
        assert same_bits(reference.gather(w, np.array([0])), ops.gather(w, np.array([0]), threads=1))


def test_gather_dequantises_int4_for_every_finite_scale():
    """Every finite bf16 scale, denormals included, times every value of four bits"""
    from formation.kernels.tensor import Kind, Weight

    words = np.arange(65536, dtype="<u2")
    words = words[(words >> 7) & 255 != 255]
    row = np.tile(np.arange(16, dtype=np.uint8) * 17, 1)  # byte b holds value b twice
    w = Weight("scales", Kind.INT4, len(words), 32, np.tile(row, len(words)), words.view(np.uint8))
    rows = np.arange(len(words))
    assert same_bits(reference.gather(w, rows), ops.gather(w, rows, threads=2))


@few
@given(seeds, st.integers(0, 5), widths, st.integers(0, 20), magnitudes, st.sampled_from([0.0, 1e-6, 1e-5]))
def test_rmsnorm_of_a_column_slice(seed, m, width, extra, scale, eps):
    x, w = numbers(seed, m, width + extra, scale=scale)[:, extra:], numbers(seed + 1, width)
    assert same_bits(reference.rmsnorm(x, w, eps), ops.rmsnorm(x, w, eps, threads=2))


@few
@given(seeds, st.lists(st.integers(0, 300_000), max_size=4), st.integers(1, 40), st.sampled_from([1.0, 0.5, 1.3693147182464600]))
def test_rope_table(seed, positions, half, factor):
    positions, inv_freq = np.array(positions, np.int64), np.abs(numbers(seed, half))
    for expected, got in zip(
        reference.rope_table(positions, inv_freq, factor), ops.rope_table(positions, inv_freq, factor), strict=True
    ):
        assert same_bits(expected, got)


@few
@given(seeds, st.integers(0, 4), st.integers(1, 4), st.integers(1, 20), st.integers(0, 8), magnitudes)
def test_rope_in_a_slice_leaves_the_rest_alone(seed, m, heads, half, before, scale):
    expected = numbers(seed, m, heads, before + 2 * half, scale=scale)
    got = expected.copy()
    cos, sin = numbers(seed + 1, m, half), numbers(seed + 2, m, half)
    reference.rope_interleaved(expected[..., before:], cos, sin)
    ops.rope_interleaved(got[..., before:], cos, sin, threads=2)
    assert same_bits(expected, got)


@few
@given(seeds, st.integers(0, 70), magnitudes, st.booleans())
def test_add_and_silu_mul_also_in_place(seed, n, scale, in_place):
    a, b = numbers(seed, n, scale=scale * 16), numbers(seed + 1, n, scale=scale)
    for name in ("add", "silu_mul"):
        expected, operand = getattr(reference, name)(a, b), a.copy()
        got = getattr(ops, name)(operand, b, threads=2, out=operand if in_place else None)
        assert same_bits(expected, got)


@few
@given(seeds, st.integers(1, 6), st.integers(1, 70), st.booleans(), st.data())
def test_accumulate(seed, total, width, weighted, data):
    rows = np.array(data.draw(st.permutations(range(total)))[: data.draw(st.integers(0, total))], np.int64)
    y, gates = numbers(seed, len(rows), width), numbers(seed + 1, len(rows)) if weighted else None
    acc, started = numbers(seed + 2, total, width), np.arange(total, dtype=np.uint8) % 2
    expected, expected_started = acc.copy(), started.copy()
    reference.accumulate(expected, expected_started, rows, y, gates)
    ops.accumulate(acc, started, rows, y, gates, threads=2)
    assert same_bits(expected, acc) and same_bits(expected_started, started)


@few
@given(seeds, st.integers(0, 40), st.integers(0, 40), st.integers(1, 30))
def test_cache_store_and_load(seed, first, count, width):
    caches = [k.new_cache(first + count + 1, width) for k in (reference, ops)]
    keys = numbers(seed, count, width)
    for kernels, cache in zip((reference, ops), caches, strict=True):
        kernels.cache_store(cache, first, keys)
    assert same_bits(*caches)
    assert same_bits(keys, ops.cache_load(caches[1], first, count))


@few
@given(seeds, st.lists(st.integers(0, 90), min_size=1, max_size=3), st.integers(1, 9), st.integers(1, 70), st.data())
def test_attention_and_its_weights(seed, positions, heads, width, data):
    values = data.draw(st.integers(0, width))
    cache = ops.new_cache(max(positions) + 1, width)
    ops.cache_store(cache, 0, numbers(seed, cache.shape[0] * 16, width))  # keys beyond a row's position must not matter
    q = numbers(seed + 1, len(positions), heads, width, scale=data.draw(st.sampled_from([1.0, 60.0, 2.0**-128])))
    where = np.array(positions, np.int64)
    expected_weights = np.full((len(positions), heads, 95), 7, np.float32)
    weights = expected_weights.copy()
    expected = reference.mla_attend(q, cache, where, 0.25, values, weights=expected_weights)
    assert same_bits(expected, ops.mla_attend(q, cache, where, 0.25, values, threads=data.draw(st.integers(1, 3)), weights=weights))
    assert same_bits(expected_weights, weights)
    assert same_bits(expected, ops.mla_attend(q, cache, where, 0.25, values, threads=2))


@few
@given(st.lists(st.integers(0, 2**32 - 1), max_size=60))
def test_binary32_functions_of_any_bits(words):
    x = np.array(words, np.uint32).view(np.float32)
    for name in ("exp", "log", "sigmoid", "silu", "softplus"):
        assert same_bits(getattr(reference, name)(x), getattr(ops, name)(x)), name


@few
@given(seeds, st.sampled_from([1.0, 30.0, 100.0, 2.0**-120]))
def test_binary32_functions_of_ordinary_numbers(seed, scale):
    x = numbers(seed, 500, scale=scale)
    for name in ("exp", "log", "sigmoid", "silu", "softplus"):
        assert same_bits(getattr(reference, name)(x), getattr(ops, name)(x)), name


@few
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30))
def test_exp64_and_log64_of_any_number(values):
    x = np.array(values, np.float64)
    for name in ("exp64", "log64"):
        assert same_bits(getattr(reference, name)(x), getattr(ops, name)(x)), name


@few
@given(st.lists(st.floats(-(2.0**21), 2.0**21), max_size=30))
def test_sin64_and_cos64_in_their_domain(values):
    x = np.array(values, np.float64)
    for name in ("sin64", "cos64"):
        assert same_bits(getattr(reference, name)(x), getattr(ops, name)(x)), name


@few
@given(st.lists(st.tuples(st.floats(0, 1e308, exclude_min=True), st.floats(-50, 50)), max_size=20))
def test_pow64(pairs):
    x, e = np.array([p[0] for p in pairs], np.float64), np.array([p[1] for p in pairs], np.float64)
    assert same_bits(reference.pow64(x, e), ops.pow64(x, e))


@pytest.mark.parametrize("name", ["sin64", "cos64"])
@pytest.mark.parametrize("bad", [2.0**21 + 1, float("inf"), float("nan")])
def test_sin64_and_cos64_refuse_what_lies_outside(name, bad):
    for kernels in (ops, reference):
        with pytest.raises(ValueError):
            getattr(kernels, name)(np.array([0.5, bad]))


@few
@given(seeds, st.lists(st.tuples(st.integers(0, 40_000), st.sampled_from([np.nan, np.inf, -np.inf])), max_size=3))
def test_finite_names_the_first_that_is_not(seed, faults):
    x = numbers(seed, 40_001)
    for at, value in faults:
        x[at] = value
    expected = min((at for at, _ in faults), default=None)
    assert expected == ops.finite(x) == reference.finite(x)


@few
@given(seeds, st.integers(1, 6), st.integers(1, 6), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.data())
def test_route(seed, groups, width, softmax, top2, normalise, ties, data):
    top2 = top2 and (width > 1 or groups == 1)
    kept = data.draw(st.integers(1, groups))
    chosen = data.draw(st.integers(1, kept * width))
    router = Router(groups * width, chosen, groups, kept, softmax, top2, normalise, 2.5)
    logits, bias = numbers(seed, 3, router.experts, scale=4), numbers(seed + 1, router.experts)
    if ties:
        logits, bias = np.rint(logits), np.rint(bias)
    for given_bias in (bias, None):
        expected, got = reference.route(router, logits, given_bias), ops.route(router, logits, given_bias, threads=2)
        for field in ("scores", "selection", "chosen", "gates"):
            assert same_bits(getattr(expected, field), getattr(got, field)), field


@few
@given(
    seeds, st.integers(1, 80), st.sampled_from([0.01, 0.7, 1.0, 3.0]), st.integers(0, 90), st.sampled_from([1.0, 0.9, 0.5, 1e-9]),
    st.sampled_from([0.0, 0.05, 1.0]), st.floats(0, 1, exclude_max=True), st.booleans(),
)  # fmt: skip
def test_sample_and_argmax(seed, size, temperature, top_k, top_p, min_p, draw, ties):
    logits = numbers(seed, size, scale=6)
    logits = np.rint(logits) if ties else logits
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "draw": draw}
    assert reference.sample(logits, **settings) == ops.sample(logits, **settings)
    assert reference.argmax(logits) == ops.argmax(logits)


@few
@given(*[st.integers(0, 2**64 - 1)] * 3)
def test_uniform(seed, branch, position):
    assert reference.uniform(seed, branch, position) == ops.uniform(seed, branch, position)
