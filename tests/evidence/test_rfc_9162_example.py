"""The tree of seven leaves that RFC 9162, 2.1.5, draws: its nodes a to l, put together here by hand, are the proofs that it lists."""

from __future__ import annotations

from hashlib import sha256

import pytest

from formation.ledger import merkle


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


LEAVES = [sha256(b"\x00d%d" % i).digest() for i in range(7)]
A, B, C, D, E, F, J = LEAVES  # the RFC calls the hashes of d0 … d5 a … f, and that of d6 j
G, H, I_ = node(A, B), node(C, D), node(E, F)
K, L = node(G, H), node(I_, J)
ROOT = node(K, L)


def test_the_root_is_the_one_drawn() -> None:
    assert ROOT == merkle.root_of(LEAVES)


@pytest.mark.parametrize(("index", "path"), [(0, [B, H, L]), (3, [C, G, L]), (4, [F, J, K]), (6, [I_, K])], ids=["d0", "d3", "d4", "d6"])
def test_inclusion_paths_are_those_listed(index: int, path: list[bytes]) -> None:
    assert path == merkle.inclusion_path(LEAVES, index, 7)
    merkle.verify_inclusion(LEAVES[index], index, 7, path, ROOT)


OLDER = {"hash0, 3 leaves": (3, node(G, C), [C, D, G, L]), "hash1, 4 leaves": (4, K, [L]), "hash2, 6 leaves": (6, node(K, I_), [I_, J, K])}


@pytest.mark.parametrize(("size", "root", "path"), list(OLDER.values()), ids=list(OLDER))
def test_consistency_paths_are_those_listed(size: int, root: bytes, path: list[bytes]) -> None:
    assert path == merkle.consistency_path(LEAVES, size, 7)
    merkle.verify_consistency(size, 7, root, ROOT, path)
