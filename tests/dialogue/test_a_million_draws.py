"""A million draws of the sampler, and the distribution that is said to be theirs."""

from __future__ import annotations

import ctypes
import math

import mpmath
import numpy as np

from formation.dialogue.chain import Chain
from formation.kernels.native import DrawStruct, load
from formation.run.distributions import distributions
from formation.run.sample import Sample

DRAWS = 10**6


def counts(chain: Chain, z: np.ndarray) -> list[int]:
    """How often each token comes in a million draws of one step. The library is called directly: the thin functions in front of it, which other
    tests hold against it, would take most of the time."""
    library, out, found, s = load(), DrawStruct(), [0] * len(z), chain.sampler
    assert isinstance(s, Sample)
    place, size, at = z.ctypes.data_as(ctypes.c_void_p), len(z), ctypes.byref(out)
    sample, uniform, settings = library.fk_sample, library.fk_uniform, (s.temperature, s.top_k, s.top_p, s.min_p)
    for position in range(DRAWS):
        sample(place, size, *settings, uniform(s.seed, s.branch, position), at)
        found[out.id] += 1
    return found


def test_a_million_draws_never_return_a_token_of_no_probability_and_follow_the_others() -> None:
    """A fair sampler is further away once in 100,000 seeds; this seed is fixed."""
    z = np.array([*(2.0 - 0.4 * (7 * place % 18) for place in range(18)), -2000.0, -900.0], np.float32)
    chain = Chain(Sample(1.25, top_k=15, top_p=0.97, min_p=0.06, seed=9))
    found = distributions(chain.sampler, z, chain.edited(z))
    assert {"POSITIVE", "TRUNCATED(top-k)", "TRUNCATED(top-p)", "TRUNCATED(min-p)"} == {str(found.zero(token)) for token in range(len(z))}
    logs = [found.sampler.logprob_nats(token) for token in range(len(z))]
    pairs = list(zip(counts(chain, z), logs, strict=True))
    assert [0] == sorted({count for count, log in pairs if log is None})
    possible = [(count, DRAWS * math.exp(log)) for count, log in pairs if log is not None]
    assert DRAWS == sum(count for count, _ in possible) and abs(DRAWS - sum(expected for _, expected in possible)) < 1e-6
    statistic = sum((count - expected) ** 2 / expected for count, expected in possible)
    assert 1e-5 < mpmath.gammainc((len(possible) - 1) / 2, statistic / 2, regularized=True) < 1 - 1e-5
