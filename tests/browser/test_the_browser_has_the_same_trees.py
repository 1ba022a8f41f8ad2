"""The browser's digests are those of hashlib and of WebCrypto, and its Merkle trees and proofs those of Python, honest and damaged."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256

from formation.ledger import merkle


def test_digests_are_those_of_hashlib_and_of_the_browser_in_pieces_of_any_size(run):
    source = random.Random(7)
    texts = [source.randbytes(size) for size in (*range(0, 130), 1000, 65_536, 300_001)]
    whole = "(texts) => texts.map((t) => m['sha256.js'].sha256(t))"
    pieces = """(texts) => texts.map((t) => {
      const state = new (m['sha256.js'].Sha256)();
      for (let at = 0, step = 1; at < t.length; at += step, step = (step * 7) % 193) state.update(t.subarray(at, at + step));
      return state.digest(); })"""
    platform = "(texts) => Promise.all(texts.map(async (t) => new Uint8Array(await crypto.subtle.digest('SHA-256', t))))"
    expected = [sha256(text).digest() for text in texts]
    assert expected == run(whole, texts)
    assert expected == run(pieces, texts)
    assert expected == run(platform, texts)


def test_a_digest_counts_bits_beyond_what_32_of_them_hold(run):
    size = 2**29 + 7
    found = run("(size) => { const s = new (m['sha256.js'].Sha256)(); const zeros = new Uint8Array(1 << 20);"
                "for (let left = size; left > 0; left -= zeros.length) s.update(zeros.subarray(0, left)); return s.digest(); }", size)  # fmt: skip
    state = sha256()
    for _ in range(size >> 20):
        state.update(bytes(1 << 20))
    state.update(bytes(size % (1 << 20)))
    assert state.digest() == found


LEAVES = [merkle.leaf_hash(bytes([n])) for n in range(70)]
VERDICTS = """(cases) => cases.map(([name, ...rest]) => {
  try { m["merkle.js"][name](...rest); return true; }
  catch (refusal) { if (!(refusal instanceof m["refusals.js"].ProofRefusal)) throw refusal; return refusal.message; } })"""


def verdict(function: Callable[..., None], *arguments: object) -> bool | str:
    try:
        function(*arguments)
    except merkle.ProofRefusal as refusal:
        return str(refusal)
    return True


def damaged(source: random.Random, path: list[bytes]) -> list[bytes]:
    kind = source.randrange(5)
    if kind == 0 and path:
        return path[:-1]
    if kind == 1:
        return [*path, source.randbytes(32)]
    if kind == 2 and path:
        at = source.randrange(len(path))
        return [*path[:at], source.randbytes(source.choice([32, 32, 31])), *path[at + 1 :]]
    return path[::-1] if kind == 3 else path


def test_roots_of_trees_of_every_size_are_the_same(run):
    expected = [merkle.root_of(LEAVES[:size]) for size in range(len(LEAVES))]
    assert expected == run("(leaves) => leaves.map((_, n) => m['merkle.js'].rootOf(leaves.slice(0, n)))", LEAVES)


def test_inclusion_proofs_honest_and_damaged_get_the_same_verdict(run):
    source = random.Random(8)
    cases = []
    for _ in range(1500):
        size = source.randint(1, 70)
        index = source.randrange(size)
        path, root = merkle.inclusion_path(LEAVES, index, size), merkle.root_of(LEAVES[:size])
        lies = [(index, size), (index, size), (source.randrange(80), size), (index, source.randrange(80)), (-1, size)]
        cases.append([LEAVES[index], *source.choice(lies), damaged(source, path), root])
    expected = [verdict(merkle.verify_inclusion, *case) for case in cases]
    assert expected == run(VERDICTS, [["verifyInclusion", *case] for case in cases])
    assert {True} < set(expected)


def test_consistency_proofs_honest_and_damaged_get_the_same_verdict(run):
    source = random.Random(9)
    cases = []
    for _ in range(1500):
        size = source.randint(1, 70)
        old = source.randint(1, size)
        path = damaged(source, merkle.consistency_path(LEAVES, old, size))
        lies = [(old, size), (old, size), (source.randrange(80), size), (old, source.randrange(80))]
        cases.append([*source.choice(lies), merkle.root_of(LEAVES[:old]), merkle.root_of(LEAVES[:size]), path])
    expected = [verdict(merkle.verify_consistency, *case) for case in cases]
    assert expected == run(VERDICTS, [["verifyConsistency", *case] for case in cases])
    assert {True} < set(expected)
