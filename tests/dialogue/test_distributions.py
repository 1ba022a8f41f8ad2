"""The five distributions against arithmetic of fifty digits, and against the sampler that draws from them."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formation.dialogue import event_table
from formation.dialogue.chain import Chain, chain_of, documents
from formation.dialogue.edits import Edits, Mask
from formation.dialogue.measure import document, measure
from formation.errors import EvidenceError, UsageError
from formation.kernels import ops, readout
from formation.ledger import canonical, formulas
from formation.ledger.fields import TOPS
from formation.ledger.zero import NO_SUCH_TOKEN, Kind
from formation.run.distributions import DRAWS, Distributions, distributions
from formation.run.sample import Choice, Greedy, Sample

mpmath.mp.dps = 50
F = np.float32


def of(chain: Chain, logits: list[float], history: tuple[int, ...] = ()) -> Distributions:
    z = np.array(logits, F)
    return distributions(chain.sampler, z, chain.edited(z, history))


LOGITS = st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=24)
SAMPLERS = st.builds(
    Sample, st.sampled_from([1.0, 0.5, 1.7, 30.0]), st.integers(0, 8), st.sampled_from([1.0, 0.9, 0.5]), st.sampled_from([0.0, 0.05, 0.5]),
    st.integers(0, 2**64 - 1),
)  # fmt: skip


# ---- against exact arithmetic


def exact(scores: list[float], temperature: float = 1.0) -> list[mpmath.mpf]:
    weights = [mpmath.exp(mpmath.mpf(float(z)) / mpmath.mpf(temperature)) for z in scores]
    return [weight / mpmath.fsum(weights) for weight in weights]


def close(expected: mpmath.mpf, found: float, scale: float = 1.0) -> bool:
    return abs(expected - mpmath.mpf(found)) <= 1e-12 * max(scale, abs(expected))


@settings(max_examples=60, deadline=None)
@given(LOGITS, st.sampled_from([1.0, 0.5, 1.7, 30.0]))
def test_model_and_tempered_are_what_exact_arithmetic_says(logits: list[float], temperature: float) -> None:
    found = of(Chain(Sample(temperature)), logits)
    for distribution, p in ((found.model, exact(logits)), (found.tempered, exact(logits, temperature))):
        logs = [mpmath.log(each) for each in p]
        entropy = -mpmath.fsum(each * log for each, log in zip(p, logs, strict=True))
        varentropy = mpmath.fsum(each * log * log for each, log in zip(p, logs, strict=True)) - entropy**2
        for token, log in enumerate(logs):
            assert close(log, distribution.logprob_nats(token))
        assert close(entropy, distribution.entropy_nats, 60)
        assert close(varentropy, distribution.varentropy, 3600)
        assert -1e-12 <= distribution.entropy_nats <= math.log(len(logits)) + 1e-12
        ordered = sorted(p, reverse=True)
        for count, mass in zip(TOPS, distribution.top_masses(TOPS), strict=True):
            assert close(mpmath.fsum(ordered[:count]), mass)


@settings(max_examples=60, deadline=None)
@given(LOGITS, SAMPLERS)
def test_the_samplers_distribution_is_the_tempered_one_of_what_is_left_renormalised(logits: list[float], sampler: Sample) -> None:
    found = of(Chain(sampler), logits)
    p = exact(logits, sampler.temperature)
    left = mpmath.fsum(p[token] for token in found.ids)
    for token in range(len(logits)):
        log_q = found.sampler.logprob_nats(token)
        assert (token in found.ids) == (log_q is not None)
        if log_q is not None:
            assert close(mpmath.log(p[token] / left), log_q)
    assert close(left, found.kept_mass)
    assert abs((1 - left) - found.truncated_mass) <= 1e-12 * (1 - left) + 1e-45


def test_what_is_cut_off_keeps_its_digits() -> None:
    found = of(Chain(Sample(top_k=1)), [0.0, -80.0])
    assert close(mpmath.exp(-80), found.truncated_mass, 0.0)
    assert 1.0 == found.kept_mass


def test_the_model_has_the_ledgers_numbers_to_the_last_bit() -> None:
    z = np.random.default_rng(3).normal(scale=5, size=500).astype(F)
    facts = readout.logit_statistics(z[None], threads=1)
    model = of(Chain(), z.tolist()).model
    assert formulas.logprob(float(z[7]), float(facts.log_sum_exp[0])) == model.logprob_nats(7)
    assert formulas.entropy_nats(float(facts.log_sum_exp[0]), float(facts.mean[0])) == model.entropy_nats
    ranks = readout.ranks(z[None], 7, threads=1)
    assert (int(ranks.low[0]), int(ranks.high[0])) == model.ranks(7)


# ---- against the sampler


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, -800.0, 90.0]) | st.floats(-40, 40, width=32), min_size=1, max_size=20),
    st.sampled_from([1.0, 0.3, 1e-300, 1e6]), st.integers(0, 22), st.sampled_from([1.0, 0.7, 1e-300]), st.sampled_from([0.0, 1e-20, 0.3, 1.0]),
    st.sets(st.integers(0, 19), max_size=4), st.integers(0, 2**32),
)  # fmt: skip
def test_each_draw_is_one_of_the_described_distribution_bit_for_bit(logits, temperature, top_k, top_p, min_p, banned, position) -> None:
    masks = (Mask("banned", frozenset(token for token in banned if token < len(logits))),)
    chain, z = Chain(Sample(temperature, top_k, top_p, min_p, 5), Edits(masks=masks)), np.array(logits, F)
    if len(masks[0].ids) == len(logits):
        with pytest.raises(UsageError, match="at least one token that is left"):
            chain.choose(z, position)
        return
    choice = chain.choose(z, position)
    found = distributions(chain.sampler, z, chain.edited(z))
    assert choice.draw is not None
    found.check(choice.draw)
    assert choice.id not in masks[0].ids
    assert found.selectable(choice.id)
    assert found.zero(choice.id).kind in (Kind.POSITIVE, Kind.UNDERFLOW)


def test_a_draw_of_another_distribution_is_found_out() -> None:
    z = np.array([0.0, 1.0, 2.0], F)
    choice = Chain(Sample()).choose(z, 0)
    for chain, logits in ((Chain(Sample(0.9)), z), (Chain(Sample(top_k=2)), z), (Chain(Sample()), np.array([0.0, 1.0, 2.0000002], F))):
        with pytest.raises(EvidenceError, match="expected a draw with interval"):
            measure(chain, logits, choice, "sample")


# ---- zero kinds


def test_each_token_says_what_took_it_away() -> None:
    logits = [5.0, 4.0, 3.9, 3.0, -2.0, 4.5, -800.0]
    chain = Chain(Sample(1.0, top_k=5, top_p=0.95, min_p=0.15), Edits(masks=(Mask("banned", frozenset({5})), Mask("late", frozenset({5, 6})))))
    found = of(chain, logits)
    assert ["POSITIVE", "POSITIVE", "POSITIVE", "TRUNCATED(min-p)", "TRUNCATED(top-p)", "MASKED(banned)", "MASKED(late)"] == [
        str(found.zero(token)) for token in range(7)
    ]
    assert ["UNDERFLOW(float64)", "MASKED(late)"] == [str(found.model.zero(6)), str(found.edited.zero(6))]
    assert "TRUNCATED(top-k)" == str(of(Chain(Sample(top_k=1)), logits).zero(1))
    assert "TRUNCATED(greedy)" == str(of(Chain(), logits).zero(1))
    assert NO_SUCH_TOKEN == found.model.zero(7) == found.zero(-1)


def test_a_mass_that_binary64_cannot_hold_is_cut_off_though_its_logarithm_is_finite() -> None:
    found = of(Chain(Sample()), [0.0, -800.0])
    assert (-800.0, None) == (found.tempered.logprob_nats(1), found.sampler.logprob_nats(1))
    assert "UNDERFLOW(float64)" == str(found.sampler.zero(1)) == str(found.tempered.zero(1))
    assert found.tempered is found.model


def test_a_token_between_two_draws_is_positive_and_cannot_be_selected() -> None:
    """2^-60 lies between the draws 0 and 2^-53; of all tokens only the first interval holds the draw 0"""
    found = of(Chain(Sample()), [0.0, -60 * math.log(2), 0.0])
    assert ("POSITIVE", "UNDERFLOW(float16)") == (str(found.zero(0)), str(found.sampler.zero(1)))
    assert "UNSELECTABLE_BY_RNG" == str(found.zero(1))
    assert [True, False, True] == [found.selectable(token) for token in range(3)]
    first = of(Chain(Sample()), [-60 * math.log(2), 0.0])
    assert "UNDERFLOW(float16)" == str(first.zero(0))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-45, 5, width=32), min_size=2, max_size=8), st.integers(0, DRAWS - 1))
def test_what_cannot_be_selected_is_never_drawn(logits: list[float], k: int) -> None:
    found, z = of(Chain(Sample()), logits), np.array(logits, F)
    chosen = ops.sample(z, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, draw=k * 2.0**-53).id
    assert found.selectable(chosen)
    for token in found.ids:  # the first draw of each interval gives the token, if there is one
        low = found.interval(int(token))[0]
        near = [min(max(math.floor(low * DRAWS) + step, 0), DRAWS - 1) for step in range(-3, 4)]
        drawn = {ops.sample(z, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, draw=each * 2.0**-53).id for each in near}
        assert int(token) in drawn if found.selectable(int(token)) else int(token) not in drawn


# ---- edits


def test_edits_are_done_in_their_order_each_operation_in_binary32() -> None:
    chain = Chain(Greedy(), Edits(1.5, 0.25, 0.1, ((0, 2.0), (3, -1.0))))
    z = np.array([1.0, -1.0, 3.0, 0.5], F)
    expected = [F(2.0) + (F(1.0) / F(1.5) - F(0.25) - F(0.1) * F(2)), F(-1.0) * F(1.5) - F(0.25) - F(0.1) * F(1), F(3.0), F(0.5) + F(-1.0)]
    assert expected == chain.edited(z, (0, 1, 0)).logits.tolist()
    assert [1.0, -1.0, 3.0, 0.5] == z.tolist()


def test_an_allowing_mask_puts_all_others_out_and_ties_stay_with_the_lower_id() -> None:
    z = np.array([9.0, 1.0, 1.0, 1.0], F)
    chain = Chain(Greedy(), Edits(masks=(Mask("only", frozenset({2, 3}), allow=True),)))
    assert 2 == chain.choose(z, 0).id
    found = distributions(chain.sampler, z, chain.edited(z))
    assert ["MASKED(only)", "MASKED(only)", "POSITIVE", "TRUNCATED(greedy)"] == [str(found.zero(token)) for token in range(4)]
    assert (1, 2) == found.edited.ranks(3) and None is found.edited.ranks(0)


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [({"repetition": 0.0}, "repetition penalty"), ({"presence": math.nan}, "presence penalty"), ({"frequency": 1e9}, "frequency penalty"),
     ({"bias": ((1, math.inf),)}, "bias: expected finite"), ({"bias": ((1, 1.0), (1, 2.0))}, "each token once"),
     ({"masks": (Mask("a", frozenset()), Mask("a", frozenset()))}, "different names"), ({"masks": (Mask("", frozenset()),)}, "different names")],
    ids=["repetition", "presence", "frequency", "bias", "bias twice", "mask twice", "mask without a name"],
)  # fmt: skip
def test_edits_that_mean_nothing_are_refused(edits: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Edits(**edits)


def test_edits_that_leave_nothing_finite_or_name_no_token_are_refused() -> None:
    z = np.array([3e38, 1.0], F)
    for edits, sentence in (
        (Edits(bias=((0, 3e38),)), "stay finite"), (Edits(bias=((2, 1.0),)), "bias: expected ids from 0 to 1, got 2"),
        (Edits(masks=(Mask("m", frozenset({-1})),)), "mask m: expected ids"), (Edits(0.5), "history: expected ids"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=sentence):
            Chain(Greedy(), edits).edited(z, (5,) if "history" in sentence else ())


# ---- all of it, of one token


def test_a_step_that_changes_nothing_makes_no_new_distribution() -> None:
    z, names = np.array([0.0, 1.0, 2.0], F), ("model", "edited", "tempered", "sampler")
    for chain, expected in (
        (Chain(Sample()), ("model", "model", "model")),
        (Chain(Sample(0.5)), ("model", None, "tempered")),
        (Chain(Sample(top_k=1)), ("model", "model", None)),
        (Chain(Sample(), Edits(bias=((0, 1.0),))), (None, "edited", "edited")),
        (Chain(), ("model", "model", None)),
    ):
        choice = chain.choose(z, 0)
        told = document(measure(chain, z, choice, "sample" if choice.draw else "greedy"))
        assert expected == tuple(told[name] if isinstance(told[name], str) else None for name in names[1:])
        event_table.check(told, "measured", "measured")
        canonical.encode(told)


def test_a_forced_token_carries_its_p_and_its_q() -> None:
    z, chain = np.array([0.0, 3.0, 1.0], F), Chain(Sample(top_k=2))
    told = measure(chain, z, Choice(2), "forced")
    assert close(mpmath.log(exact([0.0, 3.0, 1.0])[2]), told.model.logprob_nats)
    assert close(mpmath.log(exact([3.0, 1.0])[1]), told.sampler.logprob_nats)
    cut = measure(chain, z, Choice(0), "forced")
    assert (None, None, "TRUNCATED(top-k)") == (cut.sampler.logprob_nats, cut.sampler.rank_low, str(cut.sampler.zero))
    assert {"absent": "no probability"} == document(cut)["sampler"]["logprob_nats"]
    assert {"absent": "not sampled"} == document(cut)["draw"]
    assert close(mpmath.log(exact([0.0, 3.0, 1.0])[0], 2), cut.model.logprob_bits)


def test_a_forced_token_that_no_draw_gives_says_so_in_the_samplers_view_only() -> None:
    told = measure(Chain(Sample()), np.array([0.0, -41.6, 0.0], F), Choice(1), "forced")
    assert ("UNDERFLOW(float16)", "UNSELECTABLE_BY_RNG") == (str(told.model.zero), str(told.sampler.zero))
    assert told.model.logprob_nats == told.sampler.logprob_nats


def test_a_chain_comes_back_from_its_documents() -> None:
    masks = (Mask("a", frozenset({3, 1})), Mask("b", frozenset({2}), allow=True))
    for chain in (Chain(), Chain(Sample(0.7, 5, 0.9, 0.1, 2**64 - 1, 3), Edits(1.1, 0.2, -0.3, ((4, 1.5), (1, -2.0)), masks))):
        told = canonical.decode(canonical.encode(documents(chain)), limits=canonical.LINE)
        assert chain == chain_of(told["sampler"], told["edits"])


def test_measuring_wants_a_method_and_a_token_of_the_vocabulary() -> None:
    for choice, method in ((Choice(2), "greedy"), (Choice(0), "guessed")):
        with pytest.raises(ValueError, match="expected a method"):
            measure(Chain(), np.zeros(2, F), choice, method)
