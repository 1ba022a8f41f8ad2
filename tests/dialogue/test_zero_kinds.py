"""What a probability of zero means, against the formats themselves; and which texts are tokens."""

from __future__ import annotations

import math
from pathlib import Path

import mpmath
import numpy as np
import pytest

from formation.dialogue import reach
from formation.ledger.zero import DTYPES, HALF_OF_SMALLEST, Kind, Zero, of_logprob, of_report, prints_zero
from formation.samples import folder
from formation.text import Tokenizer, load_tokenizer
from formation.text.files import read_object

BITS = {"float16": (np.float16, 25), "float32": (np.float32, 150), "float64": (np.float64, 1075)}


@pytest.mark.parametrize(("dtype", "told"), [("float16", -17.33), ("bfloat16", -92.88), ("float32", -103.97), ("float64", -745.13)])
def test_the_borders_are_those_that_are_told(dtype: str, told: float) -> None:
    border = float(-HALF_OF_SMALLEST[dtype] * mpmath.log(2))
    assert told == round(border, 2)
    assert (True, False) == (prints_zero(math.nextafter(border, -math.inf), dtype), prints_zero(border + 1e-12 * abs(border), dtype))


@pytest.mark.parametrize("dtype", BITS)
def test_a_dtype_prints_zero_where_it_is_said_to(dtype: str) -> None:
    kind, power = BITS[dtype]
    for shift in (-1e-9, 1e-9):
        with mpmath.workprec(200):
            p = mpmath.mpf(2) ** -power * (1 + shift)
            scaled = float(p * 2**power)
            nearest = kind(0) if scaled <= 1 else np.nextafter(kind(0), kind(1))  # numpy rounds twice from a wider type near its own border
            assert (nearest == 0) == prints_zero(float(mpmath.log(p)), dtype)


def test_bfloat16_prints_zero_below_half_of_its_smallest_number() -> None:
    smallest = float(np.array([1 << 16], np.uint32).view(np.float32)[0])  # the bits 0x0001
    assert smallest / 2 == 2.0 ** -HALF_OF_SMALLEST["bfloat16"]


def test_underflow_names_the_widest_dtype_that_prints_zero() -> None:
    found = [str(of_logprob(x)) for x in (-1.0, -18.0, -93.0, -104.0, -746.0, -1e300)]
    assert ["POSITIVE", "UNDERFLOW(float16)", "UNDERFLOW(bfloat16)", "UNDERFLOW(float32)", "UNDERFLOW(float64)", "UNDERFLOW(float64)"] == found
    assert "POSITIVE" == str(of_logprob(-104.0, ("float64",)))
    assert ("float16", "bfloat16", "float32", "float64") == DTYPES


def test_numbers_that_are_none_are_not_finite() -> None:
    assert ["NONFINITE(nan)", "NONFINITE(-inf)", "NONFINITE(inf)"] == [str(of_logprob(x)) for x in (math.nan, -math.inf, math.inf)]


def test_a_server_says_nothing_in_several_ways() -> None:
    assert Zero(Kind.SENTINEL, "null") == of_report(None)
    assert ["SENTINEL(-9999.0)", "SENTINEL(-100.0)", "SENTINEL(3.5)"] == [str(of_report(x)) for x in (-9999.0, -100.0, 3.5)]
    assert ["NONFINITE(-inf)", "POSITIVE", "POSITIVE"] == [str(of_report(x)) for x in (-math.inf, -0.5, 1e-7)]
    assert "BELOW_REPORT(at most -4.25)" == str(of_report(None, listed=False, floor_nats=-4.25))
    assert "BELOW_REPORT" == str(of_report(-1.0, listed=False))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    sample = Path(folder("kimi_k25"))
    return load_tokenizer(sample, read_object(sample / "config.json"))


def test_a_text_is_one_token_several_or_a_name_that_nobody_can_type(tokenizer: Tokenizer) -> None:
    one = reach.of_text(tokenizer, "a")
    assert (1, None) == (len(one.ids), one.zero)
    assert one.token == one.ids[0]
    several = reach.of_text(tokenizer, "an unlikely single token ®®")
    assert (None, "NO_SUCH_TOKEN") == (several.token, str(several.zero))
    assert len(several.ids) > 1
    name, number = next(iter(tokenizer.specials.items()))
    special = reach.of_text(tokenizer, name)
    assert (number, Kind.UNREACHABLE_BY_TOKENIZER) == (special.token, special.zero and special.zero.kind)
    assert number not in special.ids
    assert Zero(Kind.NO_SUCH_TOKEN) == reach.of_text(tokenizer, "").zero
