"""Canonical JSON, anchors and vectors: the browser accepts what Python accepts, with the same value, and refuses the rest for the same reason.

The words before ", got" are compared: what was expected. What was found is quoted as each language does.
"""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import pytest
from test_canonical_json import NUMBER_SAMPLES, QUADRATIC, REFUSED, ROOMY

from formation.ledger import anchor, canonical

LIMITS = {"sizeBytes": ROOMY.size_bytes, "depth": ROOMY.depth}
DECODE = """([texts, limits]) => texts.map((text) => {
  const { decode, encode } = m["canonical.js"];
  try { return encode(decode(text, limits), limits); }
  catch (refusal) { if (!(refusal instanceof m["refusals.js"].CanonicalRefusal)) throw refusal; return refusal.message; } })"""


def verdict(data: bytes, limits: canonical.Limits) -> bytes | str:
    try:
        return canonical.encode(canonical.decode(data, limits=limits), limits=limits)
    except canonical.CanonicalRefusal as refusal:
        return reason(str(refusal))


def reason(sentence: bytes | str) -> bytes | str:
    return sentence.partition(", got")[0] if isinstance(sentence, str) else sentence


def expect_same(run: Any, texts: list[bytes], limits: canonical.Limits = ROOMY) -> list[bytes | str]:
    expected = [verdict(text, limits) for text in texts]
    found = run(DECODE, [texts, {"sizeBytes": limits.size_bytes, "depth": limits.depth}])
    differing = [(text[:80], a, b) for text, a, b in zip(texts, expected, map(reason, found), strict=True) if a != b]
    assert [] == differing
    return expected


def test_every_refused_text_of_the_python_tests_is_refused_for_the_same_reason(run):
    expected = expect_same(run, [data for data, _ in REFUSED.values()])
    assert all(isinstance(each, str) for each in expected)


def test_a_megabyte_made_to_be_slow_is_refused_for_the_same_reason(run):
    expect_same(run, list(QUADRATIC.values()), canonical.LINE)


DECODE_LARGE = """(most) => [most, most + 1].map((commas) => {
  const { DOCUMENT, decode } = m["canonical.js"];
  try { return decode(m["bytes.js"].utf8(`"${",".repeat(commas)}"`), DOCUMENT).length; } catch (refusal) { return refusal.message; } })"""


def test_commas_are_counted_alike(run):
    most = canonical.MOST_COMMAS
    assert most == len(canonical.decode(b'"' + b"," * most + b'"', limits=canonical.DOCUMENT))
    with pytest.raises(canonical.CanonicalRefusal) as refusal:
        canonical.decode(b'"' + b"," * (most + 1) + b'"', limits=canonical.DOCUMENT)
    assert [most, str(refusal.value)] == run(DECODE_LARGE, most)


def test_numbers_of_the_rfc_and_ten_thousand_others_are_written_alike(run):
    source = random.Random(1)
    samples = [struct.unpack(">d", bytes.fromhex(line.split()[0]))[0] for line in NUMBER_SAMPLES.strip().splitlines()]
    wild = [struct.unpack("<d", source.randbytes(8))[0] for _ in range(5000)]
    near = [source.choice([1, -1]) * source.randrange(1, 10**17) * 10.0 ** source.randint(-30, 5) for _ in range(5000)]
    whole = [float(2**n + d) for n in range(70) for d in (-1, 0, 1)]
    texts = [canonical.number_text(x).encode() for x in samples + wild + near + whole if x == x and abs(x) != float("inf")]
    expected = expect_same(run, texts)
    assert 3000 < sum(isinstance(each, bytes) for each in expected) < len(texts)


def test_other_spellings_of_numbers_are_refused_alike(run):
    source = random.Random(2)
    pieces = ["0", "00", "1", "12", "-", "+", ".", ".0", ".5", "e", "E", "e+", "e-", "e0", "e5", "e+21", "9007199254740991", "9007199254740992",
              "NaN", "Infinity", "123456789012345678901234567"]  # fmt: skip
    expect_same(run, ["".join(source.choices(pieces, k=source.randint(1, 4))).encode() for _ in range(2000)])


def value(source: random.Random, depth: int = 3) -> Any:
    kind = source.randrange(8 if depth else 6)
    if kind == 6:
        return [value(source, depth - 1) for _ in range(source.randrange(4))]
    if kind == 7:
        return {source.choice(["a", "b", "10", "9", "__proto__", "constructor", "", "\n", "\x7f", "Z"]): value(source, depth - 1) for _ in range(3)}
    whole = source.randint(-(2**53) + 1, 2**53 - 1)
    return [None, True, whole, source.gauss(0, 1), text(source), canonical.number(float(source.randint(-9, 9)))][kind]


def text(source: random.Random) -> str:
    return "".join(source.choice('ab"\\/\n\r\t\b\f\x00\x1f\x7f\u0080é€\u2028\u2029\ufeff\uffff🙂[{}]:, ') for _ in range(source.randrange(8)))


INSERTED = [b'"', b"\\", b"\\u0061", b"\\ud83d", b" ", b"[", b"}", b",", b":", b"0", b"\xef\xbb\xbf", b"\xf0\x9f"]


def mutated(source: random.Random, data: bytes) -> bytes:
    at = source.randrange(len(data))
    kind = source.randrange(5)
    if kind == 0:
        return data[:at] + bytes([source.randrange(256)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[at + 1 :]
    if kind == 2:
        return data[:at] + source.choice(INSERTED) + data[at:]
    return data[:at] + data[source.randrange(len(data)) :] if kind == 3 else data[:at]


def test_random_values_and_their_mutants_are_read_alike(run):
    source = random.Random(3)
    honest = [canonical.encode(value(source)) for _ in range(1000)]
    loose = [json.dumps(value(source), ensure_ascii=source.random() < 0.5, sort_keys=source.random() < 0.5).encode() for _ in range(500)]
    expected = expect_same(run, honest + loose + [mutated(source, data) for data in honest * 3])
    assert honest == expected[: len(honest)]


@pytest.mark.parametrize("depth", range(12))
def test_nesting_is_counted_alike(run, depth):
    source = random.Random(depth)
    shapes = [[source.choice([("[", "]"), ('{"a":', "}")]) for _ in range(depth)] for _ in range(20)]
    alternating = [[("[", "]"), ('{"a":', "}")][n % 2] for n in range(depth)]
    texts = ["".join(a for a, _ in shape) + "1" + "".join(b for _, b in reversed(shape)) for shape in [*shapes, alternating]]
    empty = [t.replace("1", "[]") for t in texts]
    expected = expect_same(run, [t.encode() for t in texts + empty])
    assert all(isinstance(each, bytes) == (depth <= ROOMY.depth) for each in expected[: len(texts)])


VECTORS = ["", "AACAPwAAAMA=", "AACAPwAAAMA", "AACAPwAAAMA==", "AACAPwAAAMB=", "AACAPw AAAMA=", "AACAPwAAAMA=\n", "AACAPwAAAMA=AAAA", "AACA_wAAAMA=",
           "AACAPw=", "é", "AACAPwA=", "AADAfw==", "AACAfw==", "AAAAgA==", "====", "A===", "AA=A", "AAAA"]  # fmt: skip
READ_VECTOR = """(texts) => texts.map((text) => {
  const { bytesF32, decodeF32 } = m["canonical.js"];
  try { return bytesF32(decodeF32(text)); }
  catch (refusal) { if (!(refusal instanceof m["refusals.js"].CanonicalRefusal)) throw refusal; return false; } })"""


def test_vectors_are_read_alike(run):
    source = random.Random(4)
    honest = [canonical.encode_f32(struct.pack(f"<{n}f", *(source.gauss(0, 1) for _ in range(n)))) for n in range(40)]
    mutants = [mutated(source, each.encode()).decode("latin-1") for each in honest[1:] * 20]

    def read(text: str) -> bytes | bool:
        try:
            return canonical.decode_f32(text)
        except canonical.CanonicalRefusal:
            return False

    texts = VECTORS + honest + mutants
    assert [read(each) for each in texts] == run(READ_VECTOR, texts)


ANCHOR = anchor.Anchor((1, 2, 3), "What?", "ab" * 32, "cd" * 32, "f32x16/1", "ef" * 32, {"method": "greedy"}, 5, (7,), None)
SAMPLED = {"method": "sample", "temperature": 0.7, "top_k": 40, "top_p": 1, "min_p": 0, "seed": "1", "branch": "0"}
ODD = [None, True, 0, -1, 1.5, 2**53 - 1, "", "x", "AB" * 32, [], [1], [1.5], [True], {}, {"method": "sample"}, SAMPLED, {**SAMPLED, "top_k": 0.5},
       {**SAMPLED, "seed": 1}, {"method": "hasOwnProperty"}, {"method": "forced"}, {"ids": [1], "text": None}, {"ids": [], "text": "a"}]  # fmt: skip
READ_ANCHOR = """(texts) => texts.map((text) => {
  const { AnchorRefusal, CanonicalRefusal } = m["refusals.js"];
  try { m["anchor.js"].decodeAnchor(text); return "an anchor"; }
  catch (refusal) { if (!(refusal instanceof AnchorRefusal || refusal instanceof CanonicalRefusal)) throw refusal; return refusal.message; } })"""


def edited_anchors() -> list[bytes]:
    """Every field of an anchor replaced by every odd value, left out, and joined by another"""
    found = []
    for base in (ANCHOR.document(), {**ANCHOR.document(), "sampler": SAMPLED}):
        paths = [(name,) for name in base] + [(a, b) for a in base if isinstance(base[a], dict) for b in base[a]]
        for path in paths:
            for odd in [*ODD, "left out", "joined"]:
                copy = json.loads(json.dumps(base))
                table = copy if len(path) == 1 else copy[path[0]]
                if odd == "left out":
                    del table[path[-1]]
                elif odd == "joined":
                    table["more"] = 1
                else:
                    table[path[-1]] = odd
                found.append(canonical.encode(copy))
    return found


def test_anchors_are_read_alike(run):
    texts = [ANCHOR.encode(), *edited_anchors(), b"[]", b"1", b"{}"]
    expected = []
    for text in texts:
        try:
            anchor.decode(text)
            expected.append("an anchor")
        except (anchor.AnchorRefusal, canonical.CanonicalRefusal) as refusal:
            expected.append(str(refusal).partition(": expected")[0])
    found = [sentence.partition(": expected")[0] for sentence in run(READ_ANCHOR, texts)]
    assert expected == found
    assert {"an anchor"} < set(expected)
