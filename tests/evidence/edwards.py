"""Ed25519 written from RFC 8032, slowly and in the open, to make signatures that honest software does not: the tests' independent reference.

Points are affine (x, y) on -x^2 + y^2 = 1 + d x^2 y^2 over integers mod p. Verification here is the bare equation, without any check of points.
"""

from __future__ import annotations

import hashlib
from functools import cache
from itertools import count

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
ZERO: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    t = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + t, -1, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - t, -1, P)
    return x % P, y % P


def times(n: int, a: Point) -> Point:
    total = ZERO
    while n:
        total = add(total, a) if n & 1 else total
        a, n = add(a, a), n >> 1
    return total


def encode(a: Point) -> bytes:
    return (a[1] | (a[0] & 1) << 255).to_bytes(32, "little")


def decode(data: bytes) -> Point | None:
    """RFC 8032, 5.1.3, but for its two refusals: y of p or more is taken mod p, and a sign of x = 0 is not looked at."""
    bits = int.from_bytes(data, "little")
    y, sign = (bits & (1 << 255) - 1) % P, bits >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return None
    return ((P - x) % P if x & 1 != sign else x), y


BASE = decode((4 * pow(5, -1, P) % P).to_bytes(32, "little")) or ZERO


@cache
def small_order() -> list[Point]:
    """The eight points whose order divides 8: multiples of [L]Q for any Q that gives one of order 8."""
    for y in count(2):
        found = decode(y.to_bytes(32, "little"))
        generator = times(L, found) if found else ZERO
        if times(4, generator) != ZERO:
            return [times(i, generator) for i in range(8)]
    raise AssertionError


def challenge(r: bytes, a: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + a + message).digest(), "little") % L


def secret_scalar(secret: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(secret).digest()
    scalar = int.from_bytes(digest[:32], "little")
    return scalar & ~7 & (1 << 254) - 1 | 1 << 254, digest[32:]


def sign(secret: bytes, message: bytes) -> tuple[bytes, bytes]:
    """(public key, signature), RFC 8032, 5.1.6"""
    a, prefix = secret_scalar(secret)
    public = encode(times(a, BASE))
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % L
    point = encode(times(r, BASE))
    return public, point + ((r + challenge(point, public, message) * a) % L).to_bytes(32, "little")


def equation_holds(public: bytes, message: bytes, signature: bytes, cofactor: int = 1) -> bool:
    """[S]B = R + [k]A as points, all multiplied by `cofactor`: what a verifier without checks computes."""
    a, r, s = decode(public), decode(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None:
        return False
    k = challenge(signature[:32], public, message)
    return times(cofactor, times(s, BASE)) == times(cofactor, add(r, times(k, a)))
