"""Canonical JSON: one value, one sequence of bytes; the RFC's own samples, and every text that must be refused."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from formation.ledger import canonical
from formation.ledger.canonical import CanonicalRefusal, Limits

ROOMY = Limits(size_bytes=1 << 16, depth=8)
LARGEST = 2**53 - 1

floats = st.floats(min_value=-LARGEST, max_value=LARGEST).map(canonical.number)
scalars = st.none() | st.booleans() | st.integers(-LARGEST, LARGEST) | floats | st.text(st.characters(codec="utf-8"), max_size=8)
names = st.text(st.characters(codec="ascii"), max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12)
many = settings(max_examples=200, deadline=None)

# RFC 8785, appendix B
NUMBER_SAMPLES = """
0000000000000000 0
0000000000000001 5e-324
8000000000000001 -5e-324
7fefffffffffffff 1.7976931348623157e+308
ffefffffffffffff -1.7976931348623157e+308
4340000000000000 9007199254740992
c340000000000000 -9007199254740992
4430000000000000 295147905179352830000
44b52d02c7e14af5 9.999999999999997e+22
44b52d02c7e14af6 1e+23
44b52d02c7e14af7 1.0000000000000001e+23
444b1ae4d6e2ef4e 999999999999999700000
444b1ae4d6e2ef4f 999999999999999900000
444b1ae4d6e2ef50 1e+21
3eb0c6f7a0b5ed8c 9.999999999999997e-7
3eb0c6f7a0b5ed8d 0.000001
41b3de4355555553 333333333.3333332
41b3de4355555554 333333333.33333325
41b3de4355555555 333333333.3333333
41b3de4355555556 333333333.3333334
41b3de4355555557 333333333.33333343
becbf647612f3696 -0.0000033333333333333333
43143ff3c1cb0959 1424953923781206.2
"""


def refusal(data: bytes, limits: Limits = ROOMY) -> str:
    with pytest.raises(CanonicalRefusal) as caught:
        canonical.decode(data, limits=limits)
    return str(caught.value)


@pytest.mark.parametrize("sample", NUMBER_SAMPLES.strip().splitlines())
def test_numbers_are_laid_out_as_in_the_samples_of_the_rfc(sample):
    bits, expected = sample.split()
    assert expected == canonical.number_text(struct.unpack(">d", bytes.fromhex(bits))[0])


def test_strings_literals_and_order_are_those_of_the_samples_of_the_rfc():
    """Section 3.2.2, without its 1E30, which lies outside the profile"""
    text = r"""{"numbers": [333333333.33333329, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false], "1": "One", "\r": "Carriage Return"}"""
    expected = (
        r'{"\r":"Carriage Return","1":"One","literals":[null,true,false],"numbers":[333333333.3333333,4.5,0.002,1e-27],'
        r'''"string":"€$\u000f\nA'B\"\\\\\"/"}'''
    )
    assert expected.encode() == canonical.encode(json.loads(text))


@many
@given(st.floats(allow_nan=False, allow_infinity=False).filter(bool))
@example(2.0**-1074)
@example(1e16)
@example(1e-5)
@example(123456789012345680000.0)
def test_number_texts_mean_the_number_and_have_no_shorter_form(x):
    text = canonical.number_text(x)
    assert x == float(text)
    digits = text.lstrip("-").partition("e")[0].replace(".", "").strip("0")
    assert len(digits) <= 17
    assert all(float(f"{x:.{places}e}") != x for places in range(max(0, len(digits) - 1)))


@many
@given(values)
def test_what_is_encoded_is_decoded_to_an_equal_value(value):
    data = canonical.encode(value)
    assert value == canonical.decode(data, limits=ROOMY)
    assert json.loads(data) == value


@many
@given(values)
def test_an_independent_implementation_writes_the_same_bytes(value):
    rfc8785 = pytest.importorskip("rfc8785")
    assert rfc8785.dumps(value) == canonical.encode(value)


@many
@given(values, st.booleans(), st.sampled_from([None, 1]), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_other_texts_of_the_same_value_are_refused(value, ascii_only, indent, separators):
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators).encode()
    if data == canonical.encode(value):
        assert value == canonical.decode(data, limits=ROOMY)
    else:
        assert refusal(data)


@many
@given(values, st.data())
def test_a_changed_byte_is_refused_or_is_the_canonical_text_of_another_value(value, data):
    text = bytearray(canonical.encode(value))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255))
    try:
        found = canonical.decode(bytes(text), limits=ROOMY)
    except CanonicalRefusal:
        return
    assert bytes(text) == canonical.encode(found)


@many
@given(st.binary(max_size=40) | st.text('{}[]",:\\ue0123456789-+. nultrefasNI\n', max_size=40).map(str.encode))
def test_any_bytes_are_a_value_or_a_refusal(data):
    try:
        value = canonical.decode(data, limits=ROOMY)
    except CanonicalRefusal:
        return
    assert data == canonical.encode(value)


REFUSED = {
    "nothing": (b"", "expecting value"),
    "a byte-order mark": (b'\xef\xbb\xbf{"a":1}', "byte-order mark"),
    "two byte order marks of UTF-16": ('{"a":1}'.encode("utf-16"), "UTF-8"),
    "a broken UTF-8 sequence": (b'"\xc3"', "UTF-8"),
    "an overlong UTF-8 sequence": (b'"\xc0\xaf"', "UTF-8"),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', "UTF-8"),
    "a lone surrogate as an escape": (rb'"\ud800"', "lone surrogate"),
    "a pair of surrogates as escapes": (rb'"\ud83d\ude00"', "from byte 1"),
    "a name twice": (b'{"a":1,"a":1}', "'a' 2 times"),
    "a name twice under two spellings": (rb'{"a":1,"\u0061":1}', "'a' 2 times"),
    "names out of order": (b'{"b":1,"a":2}', "from byte 2"),
    "a name outside ASCII": ('{"é":1}'.encode(), "ASCII"),
    "a confusable name": ('{"pоsition":1}'.encode(), "ASCII"),
    "NaN": (b"NaN", "finite"),
    "infinity": (b"[Infinity]", "finite"),
    "negative infinity": (b"[-Infinity]", "finite"),
    "a number that overflows to infinity": (b"1e999", "finite"),
    "minus zero": (b"-0", "-0"),
    "minus zero with a fraction": (b"-0.0", "-0"),
    "minus zero by underflow": (b"-1e-999", "-0"),
    "2^53": (b"9007199254740992", "2^53"),
    "2^53 + 1": (b"9007199254740993", "2^53"),
    "-2^53": (b"-9007199254740992", "2^53"),
    "2^53 with an exponent": (b"9.007199254740992e15", "2^53"),
    "an integer written as 1e30": (b"1e+30", "2^53"),
    "a fraction that rounds to 2^53": (b"9007199254740991.9", "2^53"),
    "1.0": (b"1.0", "from byte 1"),
    "an upper-case exponent": (b"1E-7", "from byte 1"),
    "an exponent with a leading zero": (b"1e-07", "from byte 3"),
    "too many digits": (b"0.30000000000000000001", "from byte 3"),
    "a leading zero": (b"01", "extra data"),
    "a leading plus": (b"+1", "expecting value"),
    "a space": (b'{"a": 1}', "from byte 5"),
    "a trailing line feed": (b"1\n", "from byte 1"),
    "a leading space": (b" 1", "from byte 0"),
    "a carriage return at the end": (b'{"a":1}\r', "from byte 7"),
    "an escaped slash": (rb'"\/"', "from byte 1"),
    "an escaped letter": (rb'"\u0041"', "from byte 1"),
    "an upper-case escape": (rb'"\u000F"', "from byte 6"),
    "a long escape for a line feed": (rb'"\u000a"', "from byte 2"),
    "a raw control character": (b'"\x01"', "control character"),
    "a comment": (b"1/**/", "extra data"),
    "two values": (b"1 2", "extra data"),
    "a trailing comma": (b"[1,]", "error at character"),
    "single quotes": (b"{'a':1}", "error at character"),
    "nesting beyond the limit": (b"[" * 9 + b"]" * 9, "nesting of at most 8"),
    "a size beyond the limit": (b'"' + b"a" * (1 << 16) + b'"', "at most 65536 bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_text_is_refused_for(case):
    data, reason = REFUSED[case]
    assert reason in refusal(data)


def test_nesting_up_to_the_limit_is_read_and_brackets_in_strings_do_not_count():
    assert [[[[[[[[]]]]]]]] == canonical.decode(b"[" * 8 + b"]" * 8, limits=ROOMY)
    brackets = "[{" * 50 + '"\\[' * 50
    assert [brackets] == canonical.decode(canonical.encode([brackets]), limits=ROOMY)
    side_by_side = [{"a": [1]}, [{}]] * 50
    assert side_by_side == canonical.decode(canonical.encode(side_by_side), limits=ROOMY)


QUADRATIC = {
    "escaped quotes in a string that never ends": b'"' + b'\\"' * 500_000 + b"[" * 20,
    "nesting a million deep": b"[" * 1_000_000,
    "objects nested": b'{"a":' * 200_000,
    "an integer of a million digits": b"1" * 1_000_000,
    "a fraction of a million digits": b"0." + b"1" * 1_000_000,
    "strings and brackets that never end": b'["",' * 250_000,
    "a backslash at the very end": b'["' + b"[" * 20 + b"\\",
    "a hundred thousand equal names": b"{" + b",".join([b'"a":1'] * 100_000) + b"}",
}


@pytest.mark.parametrize("case", QUADRATIC)
def test_a_megabyte_that_would_take_a_quadratic_reader_hours_is_refused(case):
    assert refusal(QUADRATIC[case], canonical.LINE)


COMMAS = canonical.MOST_COMMAS


@pytest.mark.parametrize("data", [b"[" + b"[]," * (COMMAS + 1) + b"[]]", b'"' + b"," * (COMMAS + 1) + b'"'], ids=["empty lists", "text"])
def test_more_commas_than_a_document_may_have_are_refused_before_anything_is_made_of_them(data):
    assert f"expected at most {COMMAS} commas, got {COMMAS + 1}" == refusal(data, canonical.DOCUMENT)
    with pytest.raises(canonical.CanonicalRefusal, match="commas"):
        canonical.encode("," * (COMMAS + 1), limits=canonical.DOCUMENT)
    assert COMMAS == len(canonical.decode(b'"' + b"," * COMMAS + b'"', limits=canonical.DOCUMENT))


def test_the_size_is_looked_at_before_the_text():
    assert "at most 10 bytes" in refusal(b"\xef\xbb\xbf" + b"x" * 10, Limits(size_bytes=10, depth=1))


def test_the_longest_number_of_the_profile_is_read():
    longest = b"-0.0000012345678901234567"
    assert canonical.LONGEST_NUMBER == len(longest)
    assert -1.2345678901234567e-06 == canonical.decode(longest, limits=ROOMY)


def test_a_limit_of_depth_near_that_of_the_interpreter_is_refused():
    with pytest.raises(ValueError, match="at most 100"):
        Limits(size_bytes=10, depth=1000)


def test_a_refusal_shows_hostile_text_without_its_control_characters():
    sentence = refusal('{"\u202e\x1b[31m":1}'.encode().replace(b"\x1b", rb"\u001b"))
    assert sentence.isascii() and sentence.isprintable()
    assert len(refusal(b'{"' + b"a" * 5000 + b'":1,"' + b"a" * 5000 + b'":1}')) < 200


class Label(str):
    pass


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, -0.0, 2.0**53, -(2**53), 10**400, (1, 2), {1, 2}, b"bytes", Label("x"), {1: 2}, {"é": 1}, {Label("a"): 1},
     "\ud800", {"a": "\udfff"}, object],
    ids=ascii,
)  # fmt: skip
def test_values_without_one_meaning_are_not_written(value):
    with pytest.raises(CanonicalRefusal):
        canonical.encode({"value": value})


def test_a_value_that_contains_itself_is_not_written():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(CanonicalRefusal, match="nesting"):
        canonical.encode(loop)


def test_a_value_over_the_size_limit_is_not_written():
    with pytest.raises(CanonicalRefusal, match="at most 10 bytes"):
        canonical.encode("a" * 9, limits=Limits(size_bytes=10, depth=1))


@many
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_binary32_scalar_keeps_its_exact_value_and_loses_only_the_sign_of_zero(x):
    assert x == canonical.number(x)
    assert x == float(canonical.number_text(canonical.number(x)))
    assert math.copysign(1, canonical.number(x)) == (math.copysign(1, x) if x else 1)


@many
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20))
def test_a_vector_comes_back_bit_for_bit(vector):
    data = struct.pack(f"<{len(vector)}f", *vector)
    assert data == canonical.decode_f32(canonical.encode_f32(data))
    assert tuple(vector) == canonical.values_f32(data)


def test_a_vector_is_little_endian_base64():
    assert "AACAPwAAAMA=" == canonical.encode_f32(struct.pack("<2f", 1.0, -2.0))


@pytest.mark.parametrize(
    "text",
    ["AACAPwAAAMA", "AACAPwAAAMA==", "AACAPwAAAMB=", "AACAPw AAAMA=", "AACAPwAAAMA=\n", "AACAPwAAAMA=AAAA", "AACA_wAAAMA=", "AACAPw=", "é",
     "AACAPwA=", "AADAfw==", "AACAfw=="],
)  # fmt: skip
def test_a_vector_in_any_other_form_is_refused(text):
    with pytest.raises(CanonicalRefusal):
        canonical.decode_f32(text)


@pytest.mark.parametrize("bits", ["0000c07f", "0000807f", "000080ff", "0100807f"])
def test_a_vector_with_a_number_that_is_not_finite_is_not_written(bits):
    with pytest.raises(CanonicalRefusal, match="finite"):
        canonical.encode_f32(bytes.fromhex(bits))
