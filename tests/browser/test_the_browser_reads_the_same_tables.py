"""checkpoint.json: the page takes the tables that Python takes, and refuses the others in the same words, whatever a row is made of."""

from __future__ import annotations

import random
from typing import Any

from tests.evidence.test_checkpoint_json import BETWEEN, FILES, HOSTILE, SOUND, document, named
from verdicts import OWN_WORDS

from formation.evidence import checkpoint_json
from formation.evidence.strict import Refused
from formation.ledger.anchor import Anchor

READ = """(cases) => cases.map(([data, tensorTableRoot, checkpointSha256]) => {
  try {
    const { files, tensors } = m["documents.js"].readCheckpoint(data, { tensorTableRoot, checkpointSha256 });
    return [files, tensors.length];
  } catch (refusal) {
    if (!(refusal instanceof m["refusals.js"].Refused)) throw refusal;
    return [refusal.check, refusal.message];
  } })"""


def verdict(data: bytes, frozen: Anchor) -> list[Any]:
    try:
        found = checkpoint_json.read(data, frozen)
        return [found.files, len(found.tensors)]
    except Refused as refusal:
        return [refusal.check, str(refusal)]


def comparable(found: list[Any]) -> list[Any]:
    said, expected = str(found[1]), str(found[1]).partition("expected ")[2]
    return [found[0], said.partition(", got")[0] if expected.startswith(OWN_WORDS) or expected.startswith("canonical JSON") else found[1]]


def expect_same(run: Any, cases: list[tuple[bytes, Anchor]]) -> list[list[Any]]:
    expected = [verdict(*case) for case in cases]
    found = run(READ, [[data, frozen.tensor_table_root, frozen.checkpoint_sha256] for data, frozen in cases])
    different = [pair for pair in zip(expected, found, strict=True) if comparable(pair[0]) != comparable(pair[1])]
    assert [] == different
    return expected


def test_a_hostile_row_is_refused_in_the_same_words(run):
    alone = expect_same(run, [document(row) for row in HOSTILE])
    behind = expect_same(run, [document(SOUND[1] + b"," + row) for row in HOSTILE])
    assert 3 < sum(found == [2, 1] for found in alone) < len(HOSTILE) / 2
    assert all("checkpoint" == found[0] for found in behind)


def test_tables_made_of_odd_pieces_get_one_verdict(run):
    source = random.Random(5)
    rows = [*SOUND, *SOUND, *HOSTILE]
    texts = [[source.choice(rows) for _ in range(source.randint(1, 4))] for _ in range(300)]
    tables = [b"".join(row + source.choice([",", *BETWEEN]).encode() for row in text[:-1]) + text[-1] for text in texts]
    expect_same(run, [document(table) for table in tables])


def test_names_are_in_the_order_of_their_bytes_in_both(run):
    source = random.Random(6)
    letters = "ab\x7f\u0080é\ud7ff\ue000\uffff\U00010000🙂"
    names = [sorted({"".join(source.choices(letters, k=source.randint(0, 3))) for _ in range(4)}, key=str.encode) for _ in range(200)]
    shuffled = [source.sample(each, len(each)) for each in names]
    expected = expect_same(run, [document(b",".join(named(each))) for each in [*names, *shuffled]])
    assert [[2, len(each)] for each in names] == expected[: len(names)]
    assert any("checkpoint" == found[0] for found in expected)


def test_files_in_another_form_are_refused_in_the_same_words(run):
    odd = [b"[]", b"{}", FILES.replace(b"config", b"../config"), FILES.replace(b'"size":2', b'"size":-2'), FILES.replace(b"c0c0", b"C0c0", 1),
           FILES.replace(b'"path":"config.json"', b'"path":7'), FILES.replace(b'"file"', b'"files"'), FILES[:-1] + b"," + FILES[1:]]  # fmt: skip
    assert all("checkpoint" == found[0] for found in expect_same(run, [document(SOUND[0], files) for files in odd]))
