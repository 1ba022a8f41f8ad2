"""Rotary frequencies: plain ones are correctly rounded powers, YaRN keeps the fast pairs and stretches the slow ones."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from tools.synthetic_checkpoint import YARN_OF_K25

from formation.model.config import Keys
from formation.model.rope import read_rope


def rope(width: int = 64, **keys: object):
    return read_rope(Keys(keys), width)


@pytest.mark.parametrize("theta", [10000.0, 50000.0, 1e7])
def test_plain_frequencies_are_within_half_an_ulp_of_the_exact_power(theta: float) -> None:
    found = rope(16, rope_theta=theta).inverse_frequencies
    for i, value in enumerate(found):
        # value = theta^(-2i/16) exactly means value^8 = theta^-i: compare with the neighbours half an ulp away
        low, high = (Fraction(float(np.nextafter(value, np.float32(d)))) for d in (0, 2))
        below, above = (low + Fraction(float(value))) / 2, (high + Fraction(float(value))) / 2
        assert below**8 <= Fraction(int(theta)) ** -i <= above**8


def test_the_first_pair_of_yarn_turns_as_before_and_the_last_one_factor_times_slower() -> None:
    plain, yarn = rope(rope_theta=50000.0), rope(rope_theta=50000.0, rope_scaling=YARN_OF_K25)
    fast, slow = plain.inverse_frequencies, yarn.inverse_frequencies
    assert slow[0] == fast[0]
    assert slow[-1] == fast[-1] / 64
    assert np.all(np.diff(slow) < 0)


def test_equal_mscales_leave_the_tables_alone_and_sharpen_the_scores() -> None:
    k25 = rope(rope_theta=50000.0, rope_scaling=YARN_OF_K25)
    assert k25.table_factor == 1.0
    assert k25.score_factor == pytest.approx((0.1 * np.log(64) + 1) ** 2, rel=1e-15)


def test_without_mscale_all_dim_the_tables_carry_the_magnitude() -> None:
    yarn = rope(rope_theta=10000.0, rope_scaling={"rope_type": "yarn", "factor": 40, "original_max_position_embeddings": 4096})
    assert yarn.table_factor == pytest.approx(0.1 * np.log(40) + 1, rel=1e-15)
    assert yarn.score_factor == 1.0
