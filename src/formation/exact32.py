"""binary32 arithmetic of the contract in plain Python: a binary32 number is a float whose value binary32 has.

Each operation is done in binary64 and rounded once more. For + - * / and square root that is the correctly rounded binary32 result:
binary64 has more than twice its 24 bits and two (Figueroa, "When is double rounding innocuous?", 1995), and what a denormal result loses
is exact before. The functions do the operations of kernels/csrc/math32.h in its order, so they have its bits; docs/spec/numerics.md
has the formulas. The process must round to nearest and keep denormals.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

LANES = 16
MAGIC = float.fromhex("0x1.8p+23")  # x + MAGIC - MAGIC is x rounded to an integer
LOG2E = float.fromhex("0x1.715476p+0")
LN2_HIGH, LN2_LOW = float.fromhex("0x1.62e4p-1"), float.fromhex("0x1.7f7d1cp-20")
MAGIC64 = float.fromhex("0x1.8p+52")  # the same in binary64
SPLIT = 2.0**29 + 1
# Highest power first.
EXP = [float.fromhex(c) for c in ("0x1.a1256cp-13", "0x1.6d43b0p-10", "0x1.1110e0p-7", "0x1.5554e8p-5", "0x1.555556p-3", "0x1p-1")]
LOG = [
    float.fromhex(c)
    for c in (
        "0x1.1d8ea6p-4", "-0x1.d635bcp-4", "0x1.dea282p-4", "-0x1.fcf4c6p-4", "0x1.23d21ap-3", "-0x1.555b4ap-3", "0x1.999d5ap-3",
        "-0x1.fffffcp-3", "0x1.555554p-2",
    )
]  # fmt: skip
SQRT2_FRACTION = 0x3504F3
GRIDS = [MAGIC64 * 2.0**last for last in (-33, -30, -28, -26)]  # of the sums of `exps` with EXP[1:5], by the last bit of their binades
SHIFTED = [c + grid for c, grid in zip(EXP[1:5], GRIDS, strict=True)]  # exact
GRID_ONE = MAGIC64 * 2.0**-23  # from 1 to 2


def f32(x: float) -> float:
    """`x` rounded to the nearest binary32 number, ties to even; infinity beyond the largest"""
    try:
        return float(struct.unpack("<f", struct.pack("<f", x))[0])
    except OverflowError:
        return math.copysign(math.inf, x)


def add(a: float, b: float) -> float:
    return f32(a + b)


def subtract(a: float, b: float) -> float:
    return f32(a - b)


def multiply(a: float, b: float) -> float:
    return f32(a * b)


def divide(a: float, b: float) -> float:
    """IEEE division: by zero too, where Python's own raises"""
    if b:
        return f32(a / b)
    return math.nan if a != a or a == 0 else math.copysign(math.inf, a) * math.copysign(1.0, b)


def sqrt(x: float) -> float:
    return f32(math.sqrt(x)) if x >= 0 else math.nan


def lane_sum(values: Sequence[float]) -> float:
    """Rule 2: lane j adds elements j, j+16, ... in order from +0; then j += j+8, j += j+4, j += j+2, j += j+1"""
    lanes = [0.0] * LANES
    for i, value in enumerate(values):
        lanes[i % LANES] = add(lanes[i % LANES], value)
    for half in (8, 4, 2, 1):
        lanes = [add(lanes[j], lanes[j + half]) for j in range(half)]
    return lanes[0]


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    """Rule 2"""
    return lane_sum([multiply(x, y) for x, y in zip(a, b, strict=True)])


def horner(coefficients: Sequence[float], x: float) -> float:
    p = coefficients[0]
    for c in coefficients[1:]:
        p = add(multiply(p, x), c)
    return p


def exp(x: float) -> float:
    if x != x:
        return x
    if x < -80.0:
        return 0.0
    y = min(x, 89.0)
    n = subtract(add(multiply(y, LOG2E), MAGIC), MAGIC)
    high, low = subtract(y, multiply(n, LN2_HIGH)), multiply(n, LN2_LOW)
    r = subtract(high, low)
    rest = subtract(subtract(high, r), low)
    curve = add(rest, multiply(multiply(r, r), horner(EXP, r)))
    e = add(add(r, curve), 1.0)
    half = int(n) >> 1
    return multiply(multiply(e, 2.0**half), 2.0 ** (int(n) - half))


def log(x: float) -> float:
    if not 0.0 < x < math.inf:
        return -math.inf if x == 0.0 else math.nan if x < 0.0 else x
    exponent, f = split_exponent(x)
    n, z = float(exponent), multiply(f, f)
    small = add(multiply(multiply(z, f), horner(LOG, f)), multiply(n, LN2_LOW))
    return add(add(f, subtract(small, multiply(0.5, z))), multiply(n, LN2_HIGH))


def split_exponent(x: float) -> tuple[int, float]:
    """x = 2^n (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); x > 0 and finite; every step is exact"""
    mantissa, exponent = math.frexp(x)  # in [1/2, 1)
    fraction = int((2.0 * mantissa - 1.0) * 2.0**23)
    if fraction >= SQRT2_FRACTION:
        return exponent, mantissa - 1.0
    return exponent - 1, 2.0 * mantissa - 1.0


def sigmoid(x: float) -> float:
    z = exp(-abs(x))
    return divide(1.0 if x >= 0 else z, add(z, 1.0))


STEPS = {float(n): (n * LN2_HIGH, f32(n * LN2_LOW), 2.0**n) for n in range(-116, 1)}


def exps(values: Sequence[float]) -> list[float]:
    """`exp` of each, without a call for each operation, which is ten times faster in Python. The values are finite, none above 0.

    With c = fl64(t SPLIT), c - (c - t) is t rounded to 24 bits (Veltkamp, 1968); a t that is halfway goes to even, as its last 28 bits are zero.
    Where the binade of a sum is known, a grid that is added and taken away rounds it. Binary32 would round what lies below its normal numbers to
    fewer bits; that occurs for |r| < 2^-62 only, where e is 1 either way. `high` is exact: unless n = 0, a difference of multiples of 2^-25
    that is less than 1/2. So is `rest`, what the rounding of r left (Fast2Sum: `high` is a multiple of the last bit of `low`).
    """
    (g1, g2, g3, g4), (c1, c2, c3, c4), found = GRIDS, SHIFTED, []
    for x in values:
        if x < -80.0:
            found.append(0.0)
            continue
        c = SPLIT * (t := x * LOG2E)
        whole, low, power = STEPS[c - (c - t) + MAGIC64 - MAGIC64]
        high = x - whole
        c = SPLIT * (t := high - low)
        r = c - (c - t)
        rest = high - r - low
        c = SPLIT * (t := EXP[0] * r)
        c = SPLIT * (t := (c - (c - t) + c1 - g1) * r)
        c = SPLIT * (t := (c - (c - t) + c2 - g2) * r)
        c = SPLIT * (t := (c - (c - t) + c3 - g3) * r)
        c = SPLIT * (t := (c - (c - t) + c4 - g4) * r)
        c = SPLIT * (t := c - (c - t) + EXP[5])
        p = c - (c - t)
        c = SPLIT * (t := r * r)
        c = SPLIT * (t := (c - (c - t)) * p)
        c = SPLIT * (t := rest + (c - (c - t)))
        c = SPLIT * (t := r + (c - (c - t)))
        c = SPLIT * (t := c - (c - t) + 1.0)
        found.append((c - (c - t)) * power)  # exact: far above denormal
    return found


def sigmoids(values: Sequence[float]) -> list[float]:
    """`sigmoid` of each, as `exps`. The values are finite."""
    z, shifted = exps([-abs(v) for v in values]), 1.0 + GRID_ONE
    return list(rounded([(1.0 if v >= 0 else t) / (t + shifted - GRID_ONE) for v, t in zip(values, z, strict=True)]))


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Each to the nearest binary32 number, ties to even; none lies beyond the largest. By C's conversion, as struct does it in native order."""
    form = f"{len(values)}f"
    return struct.unpack(form, struct.pack(form, *values))


def silu(x: float) -> float:
    return multiply(x, sigmoid(x))


def softplus(x: float) -> float:
    z = exp(-abs(x))
    u = add(z, 1.0)
    return add(max(x, 0.0), add(log(u), divide(subtract(z, subtract(u, 1.0)), u)))
