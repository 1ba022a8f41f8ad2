"""Which cells and which column are re-executed: drawn uniformly, without replacement, after the ledger was hashed.

The draw can be repeated by anyone who knows the seed and the ledger's root:

    block i = SHA-256("formation-audit/1 " | purpose | 0x00 | root | SHA-256(seed) | i as 8 bytes, big-endian), i = 0, 1, …
    u       = its first 8 bytes, big-endian; skipped if u >= floor(2^64 / N) * N, or if u mod N was drawn before
    drawn   = u mod N

The seed is 32 bytes of the operating system's randomness, or a value that a third party names. The root is in the hash, but a named value must
still be one that nobody knew when the ledger was closed: who knows it before can try ledgers until the draw misses what they changed.
Cell number n is layer n mod L at position n div L. Purposes are `cells` and `column`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from formation.errors import UsageError

SEED_BYTES = 32
RANGE = 1 << 64


@dataclass(frozen=True)
class Seed:
    """`source`: "system" or "named"."""

    value: bytes
    source: str


def system_seed() -> Seed:
    return Seed(os.urandom(SEED_BYTES), "system")


def named_seed(text: str) -> Seed:
    """Pairs of hexadecimal digits are the bytes they spell, any other text its UTF-8. Raises UsageError for an empty one."""
    if not text:
        raise UsageError("seed: expected a hexadecimal value or a text, got nothing")
    digits = set(text) <= set("0123456789abcdefABCDEF") and len(text) % 2 == 0
    return Seed(bytes.fromhex(text) if digits else text.encode("utf-8", "surrogateescape"), "named")


def draw(seed: Seed, root: bytes, purpose: str, population: int, count: int) -> tuple[int, ...]:
    """`count` different numbers below `population`, in the order they were drawn. Raises UsageError if there are not so many."""
    if not 1 <= count <= population:
        raise UsageError(f"{purpose}: expected 1 to {population} to draw, got {count}")
    drawn: dict[int, None] = {}
    numbers = uniform(seed, root, purpose, population)
    while len(drawn) < count:
        drawn[next(numbers)] = None
    return tuple(drawn)


def uniform(seed: Seed, root: bytes, purpose: str, population: int) -> Iterator[int]:
    begin = b"formation-audit/1 " + purpose.encode() + b"\0" + root + sha256(seed.value).digest()
    limit, counter = RANGE // population * population, 0
    while True:
        u = int.from_bytes(sha256(begin + counter.to_bytes(8, "big")).digest()[:8], "big")
        counter += 1
        if u < limit:
            yield u % population
