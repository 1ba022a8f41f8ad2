"""The browser's arithmetic has the bits of Python's, which are those of the C library: over random bits, not over chosen numbers."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from math import fsum, inf, ldexp, nan

import pytest

from formation import exact32, exact64
from formation.philox import philox, uniform

COUNT = 10_000
EDGES = [0.0, -0.0, 5e-324, -5e-324, 2.0**-1022, 2.0**-1023, 1.0, -1.0, 1.5, 2.0**53, 2.0**53 - 1, 1.7976931348623157e308, inf, -inf, nan,
         0.6931471805599453, 1.5707963267948966, 709.782712893384, 709.7827128933841, -745.1332191019411, -745.2, 2.0**21, -(2.0**21)]  # fmt: skip

APPLY = """([file, name, bytes, size]) => {
  const view = new DataView(bytes.buffer), f = m[file][name], get = size === 8 ? "getFloat64" : "getFloat32", set = get.replace("g", "s");
  for (let at = 0; at < bytes.length; at += size) view[set](at, f(view[get](at, true)), true);
  return bytes;
}"""


def doubles(seed: int) -> list[float]:
    """Half of them any bits, half of a size at which the functions do something"""
    source = random.Random(seed)
    wild = [struct.unpack("<d", source.randbytes(8))[0] for _ in range(COUNT // 2)]
    return EDGES + wild + [ldexp(source.uniform(-1, 1), source.randint(-20, 12)) for _ in range(COUNT // 2)]


def singles(seed: int) -> list[float]:
    source = random.Random(seed)
    wild = [struct.unpack("<f", source.randbytes(4))[0] for _ in range(COUNT // 2)]
    return [exact32.f32(x) for x in EDGES] + wild + [exact32.f32(ldexp(source.uniform(-1, 1), source.randint(-20, 8))) for _ in range(COUNT // 2)]


def packed(values: Sequence[float], form: str) -> bytes:
    return struct.pack(f"<{len(values)}{form}", *(nan if x != x else x for x in values))  # one NaN for all: payloads are nobody's business


def expect_equal_bits(run, file: str, name: str, function: Callable[[float], float], values: Sequence[float], form: str) -> None:
    expected = packed([function(x) for x in values], form)
    found = run(APPLY, [file, name, packed(values, form), len(expected) // len(values)])
    found = packed(struct.unpack(f"<{len(values)}{form}", found), form)
    size = len(expected) // len(values)
    differing = [values[i] for i in range(len(values)) if expected[i * size : i * size + size] != found[i * size : i * size + size]]
    assert [] == differing


@pytest.mark.parametrize("name", ["exp64", "log64"])
def test_a_function_of_binary64_has_the_same_bits(run, name):
    expect_equal_bits(run, "exact64.js", name, getattr(exact64, name), doubles(1), "d")


@pytest.mark.parametrize("name", ["sin64", "cos64"])
def test_a_rotary_function_has_the_same_bits(run, name):
    values = [x for x in doubles(2) if abs(x) <= 2.0**21]
    assert len(values) > COUNT // 2
    expect_equal_bits(run, "exact64.js", name, getattr(exact64, name), values, "d")


def test_powers_have_the_same_bits(run):
    source = random.Random(3)
    pairs = [(ldexp(source.random() + 2**-53, source.randint(-60, 60)), source.uniform(-40, 40)) for _ in range(600)]
    found = run("(pairs) => pairs.map(([x, e]) => m['exact64.js'].pow64(x, e))", pairs)
    assert [exact64.pow64(x, e) for x, e in pairs] == list(map(float, found))


@pytest.mark.parametrize("name", ["exp", "log", "sigmoid", "silu", "softplus", "sqrt"])
def test_a_function_of_binary32_has_the_same_bits(run, name):
    expect_equal_bits(run, "exact32.js", name, getattr(exact32, name), singles(4), "f")


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 300])
def test_sums_and_dots_go_through_the_same_sixteen_lanes(run, length):
    source = random.Random(length)
    a, b = ([exact32.f32(source.gauss(0, 1)) for _ in range(length)] for _ in range(2))
    found = run("([a, b]) => [m['exact32.js'].laneSum(a), m['exact32.js'].dot(a, b)]", [a, b])
    assert [exact32.lane_sum(a), exact32.dot(a, b)] == found


def test_exact_sums_are_rounded_once_as_in_python(run):
    source = random.Random(5)
    sums = [[ldexp(source.uniform(-1, 1), source.randint(-60, 60)) for _ in range(source.randint(0, 40))] for _ in range(1000)]
    sums += [[*values, *(-x for x in values), 2.0**-80] for values in sums[:200]]
    sums += [[1e16, 1.0, 1e-16], [1e16, 1.0, -1e-16], [2.0**53, 1.0, 2.0**-60], [2.0**53, -1.0, -(2.0**-60)], [0.1] * 10]
    assert [fsum(values) for values in sums] == list(map(float, run("(sums) => sums.map(m['gaps.js'].exactSum)", sums)))


def test_draws_are_those_of_the_reference(run):
    source = random.Random(6)
    keys = [(source.getrandbits(64), source.getrandbits(64), source.getrandbits(40)) for _ in range(500)]
    found = run("(keys) => keys.map(([s, b, p]) => m['philox.js'].uniform(BigInt(s), BigInt(b), p))", [[str(s), str(b), p] for s, b, p in keys])
    assert [uniform(*key) for key in keys] == found
    words = [[source.getrandbits(32) for _ in range(6)] for _ in range(200)]
    assert [list(philox(tuple(w[:4]), tuple(w[4:]))) for w in words] == run(
        "(w) => w.map((x) => m['philox.js'].philox(x.slice(0, 4), x.slice(4)))", words
    )
