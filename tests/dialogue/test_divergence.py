"""Kullback-Leibler and Jensen-Shannon against sums in many digits; bounds, floors, and infinity exactly where the reference lacks a token."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formation.dialogue import divergence as module
from formation.dialogue.divergence import Divergence, divergence, entropy_bounds
from formation.errors import UsageError
from formation.ledger import canonical
from formation.ledger.formulas import LN2
from formation.ledger.zero import Kind, Zero
from formation.run.distributions import Distribution, of_logits

MASK = (Zero(Kind.MASKED, "test"),)


def distribution(logits: Any, out: Any = None) -> Distribution:
    z = np.array(logits, np.float32)
    return of_logits("model", z, np.zeros(len(z), np.uint8) if out is None else np.array(out, np.uint8), MASK, 1)


def between(p: Distribution, r: Distribution, **keys: Any) -> Divergence:
    return divergence(p, r, of="a", reference="b", **keys)


def exact(p: Distribution, r: Distribution) -> tuple[Any, Any]:
    """KL and JS, term by term in sixty digits"""
    a, b = masses(p), masses(r)
    kl, js = mpmath.mpf(0), mpmath.mpf(0)
    for x, y in zip(a, b, strict=True):
        middle = (x + y) / 2
        if x:
            kl += x * mpmath.log(x / y) if y else mpmath.inf
            js += x * mpmath.log(x / middle) / 2
        if y:
            js += y * mpmath.log(y / middle) / 2
    return kl, js


def masses(distribution: Distribution) -> list[Any]:
    weights = [mpmath.mpf(0) if out else mpmath.exp(mpmath.mpf(float(z))) for z, out in zip(distribution.scores, distribution.out, strict=True)]
    total = mpmath.fsum(weights)
    return [weight / total for weight in weights]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Distribution, Distribution]:
    """Near and far, flat and peaked, some tokens masked in one or the other"""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tokens, scale, apart = draw(st.integers(1, 30)), 10.0 ** draw(st.integers(-3, 2)), 10.0 ** draw(st.integers(-7, 2))
    z = rng.standard_normal(tokens) * scale
    outs = [rng.random(tokens) < draw(st.sampled_from([0.0, 0.0, 0.2])) for _ in range(2)]
    for out in outs:
        out[rng.integers(tokens)] = False
    return distribution(z, outs[0]), distribution(z + rng.standard_normal(tokens) * apart, outs[1])


@settings(max_examples=150, deadline=None)
@given(pairs())
def test_both_are_their_definitions_in_sixty_digits(two: tuple[Distribution, Distribution]) -> None:
    p, r = two
    found, most = between(p, r), 1e-15 * (4 + float(np.abs(p.scores).max() + np.abs(r.scores).max()))
    with mpmath.workdps(60):
        for got, wanted in zip((found.kl_nats, found.js_nats), exact(p, r), strict=True):
            if mpmath.isinf(wanted):
                assert math.isinf(got)
                continue
            # an error of each log probability by e moves a divergence D by at most e sqrt(2 D) + e²
            wanted = max(float(wanted), 0.0)
            assert abs(got - wanted) <= 4 * most * math.sqrt(2 * wanted) + 4 * most * most + 4e-15 * wanted


@settings(max_examples=150, deadline=None)
@given(pairs())
def test_kl_is_infinite_exactly_where_the_reference_lacks_a_token(two: tuple[Distribution, Distribution]) -> None:
    p, r = two
    lacks = bool(((p.out == 0) & (r.out != 0)).any())
    found = between(p, r)
    assert lacks == math.isinf(found.kl_nats)
    assert 0 <= found.js_nats <= LN2


@settings(max_examples=150, deadline=None)
@given(pairs())
def test_kl_of_finite_logits_is_within_the_spread_of_their_difference(two: tuple[Distribution, Distribution]) -> None:
    p, r = (distribution(each.scores) for each in two)
    found, d = between(p, r), p.scores - r.scores
    spread = float(d.max() - d.min())
    assert 0 <= found.kl_nats <= found.most_nats * (1 + 1e-12) <= spread * (1 + 1e-12)
    assert found.kl_nats <= spread * spread / 8 * (1 + 1e-12)


def test_of_two_that_share_nothing_one_is_infinite_and_the_other_ln_2() -> None:
    found = between(distribution([0.0, 0.0, 1.0], [0, 1, 1]), distribution([0.0, 0.0, 1.0], [1, 0, 0]))
    assert (math.inf, pytest.approx(LN2, rel=1e-15)) == (found.kl_nats, found.js_nats)
    assert canonical.encode(found.document()) and {"absent": "a token of it has no probability in the reference"} == found.document()["kl_nats"]


def test_a_token_that_only_the_reference_has_makes_kl_finite() -> None:
    found = between(distribution([0.0, 0.0], [0, 1]), distribution([0.0, 0.0]))
    assert (pytest.approx(LN2, rel=1e-15), math.inf) == (found.kl_nats, found.most_nats)


def test_the_same_is_no_divergence_and_one_step_of_the_last_digit_is_below_the_floor() -> None:
    z = np.random.default_rng(3).standard_normal(3000).astype(np.float32) * 12
    same, moved = between(distribution(z), distribution(z)), between(distribution(z), distribution(np.nextafter(z, np.float32(np.inf))))
    assert (0.0, 0.0, 0.0) == (same.kl_nats, same.js_nats, same.most_nats) and not same.is_above_floor
    assert 0 < moved.kl_nats < moved.floor_nats and not moved.is_above_floor
    assert between(distribution(z), distribution(z[::-1].copy())).is_above_floor


def test_a_known_error_of_the_logits_is_the_floor() -> None:
    found = between(distribution([0.0, 1.0]), distribution([0.5, 1.0]), logit_error=0.25)
    assert 0.125 == pytest.approx(found.floor_nats) and found.most_nats == 0.5**2 / 8


def test_nothing_is_lost_of_a_divergence_that_is_tiny() -> None:
    """1e-10 nats, from differences of 1e-5: naive sums of p ln p/r keep six digits of it"""
    z = np.linspace(-8, 8, 64).astype(np.float32)
    s = z + np.float32(2**-16) * np.array([1, -1] * 32, np.float32)
    p, r = distribution(z), distribution(s)
    with mpmath.workdps(60):
        kl, js = exact(p, r)
    found = between(p, r)
    assert found.kl_nats == pytest.approx(float(kl), rel=1e-9) and found.js_nats == pytest.approx(float(js), rel=1e-9) and 1e-11 < kl < 1e-9


def test_blocks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    p, r = distribution(rng.standard_normal(5000) * 5), distribution(rng.standard_normal(5000) * 5)
    whole = between(p, r)
    monkeypatch.setattr(module, "BLOCK", 333)
    assert whole == between(p, r)


def test_names_are_kept_and_vocabularies_must_be_one() -> None:
    found = divergence(distribution([0.0]), distribution([1.0]), of="message 5 of kimi", reference="the same without the dialogue")
    assert ("message 5 of kimi", "the same without the dialogue") == (found.document()["of"], found.document()["reference"])
    with pytest.raises(UsageError, match="kimi and qwen: expected one vocabulary, got 1 and 2 tokens"):
        divergence(distribution([0.0]), distribution([0.0, 0.0]), of="kimi", reference="qwen")


def test_entropy_lies_between_nothing_and_the_logarithm_of_the_vocabulary() -> None:
    assert (0.0, pytest.approx(math.log(163840), rel=1e-15)) == entropy_bounds(163840)
