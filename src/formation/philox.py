"""The uniform draws of rule 8 of the contract in plain Python, integers and one exact product: the bits of kernels/csrc/sample.c."""

from __future__ import annotations

MASK = (1 << 32) - 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011)"""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & MASK, (a >> 32) ^ c3 ^ k1, a & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def uniform(seed: int, branch: int, position: int) -> float:
    """The draw in [0, 1) for the token at `position`: 53 bits of the words of counter (position, branch) under key seed"""
    words = philox((position & MASK, position >> 32, branch & MASK, branch >> 32), (seed & MASK, seed >> 32))
    return ((words[0] << 32 | words[1]) >> 11) * 2.0**-53
