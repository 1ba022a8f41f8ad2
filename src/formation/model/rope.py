"""Rotary frequencies as a config asks for them: plain, or YaRN (arXiv 2309.00071, section 3.2), in the contract's binary64.

All of it is computed in binary64 with the contract's log and pow, and rounded once to binary32 at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from formation.errors import UnsupportedError
from formation.kernels import ops
from formation.kernels.tensor import F32, I64
from formation.model.config import Keys

PI = 3.141592653589793


def _log(value: float) -> float:
    return float(ops.log64(np.array([value], np.float64))[0])


@dataclass(frozen=True)
class Yarn:
    factor: float
    original: int  # positions the model was first trained on
    beta_fast: float
    beta_slow: float
    mscale: float
    mscale_all_dim: float

    def magnitude(self, mscale: float) -> float:
        """0.1 · mscale · ln(factor) + 1: how much longer contexts sharpen attention."""
        return 1.0 if self.factor <= 1.0 else 0.1 * mscale * _log(self.factor) + 1.0


@dataclass(frozen=True)
class Rope:
    """Rotation of `width` dimensions in pairs; `yarn` None means plain frequencies theta^(-2i/width)."""

    width: int
    theta: float
    yarn: Yarn | None

    @property
    def table_factor(self) -> float:
        """What cosines and sines are multiplied by."""
        if self.yarn is None:
            return 1.0
        y = self.yarn
        if y.mscale and y.mscale_all_dim:
            return y.magnitude(y.mscale) / y.magnitude(y.mscale_all_dim)
        return y.magnitude(1.0)

    @property
    def score_factor(self) -> float:
        """What the softmax scale is multiplied by: magnitude(mscale_all_dim) squared."""
        if self.yarn is None or not self.yarn.mscale_all_dim:
            return 1.0
        magnitude = self.yarn.magnitude(self.yarn.mscale_all_dim)
        return magnitude * magnitude

    def table(self, positions: I64) -> tuple[F32, F32]:
        """Cosines and sines of every position's angles                                           [T, width / 2] both"""
        return ops.rope_table(positions, self.inverse_frequencies, self.table_factor)

    @cached_property
    def inverse_frequencies(self) -> F32:
        """One per pair                                                                          [width / 2]"""
        half = self.width // 2
        exponents = np.array([2 * i / self.width for i in range(half)], np.float64)
        plain = 1.0 / ops.pow64(np.full(half, self.theta, np.float64), exponents)
        if self.yarn is None:
            return plain.astype(np.float32)
        low, high = self._ramp_ends(self.yarn)
        ramp = np.array([min(max((i - low) / (high - low), 0.0), 1.0) for i in range(half)])
        blended: NDArray[np.float64] = plain / self.yarn.factor * ramp + plain * (1.0 - ramp)
        return blended.astype(np.float32)

    def _ramp_ends(self, yarn: Yarn) -> tuple[float, float]:
        """Pairs that turn more than beta_fast times over the original context keep their frequency; less than beta_slow, all is stretched."""
        low = np.floor(self._pair_that_turns(yarn.beta_fast, yarn.original))
        high = np.ceil(self._pair_that_turns(yarn.beta_slow, yarn.original))
        low, high = max(low, 0.0), min(high, self.width - 1.0)
        return float(low), float(high if high != low else high + 0.001)

    def _pair_that_turns(self, times: float, positions: int) -> float:
        return self.width * _log(positions / (times * 2 * PI)) / (2 * _log(self.theta))


def read_partial_rope(keys: Keys, head: int, usual: float) -> Rope:
    """As `read_rope`, of the first part of a head's dimensions: `partial_rotary_factor` of them, `usual` where the config says nothing."""
    name = "partial_rotary_factor"
    section = _section(keys) or Keys({})
    inner, outer = (owner.number(name, owner.values.get(name, usual), low=0.0, high=1.0) for owner in (section, keys))
    if {name} <= section.values.keys() & keys.values.keys() and inner != outer:
        raise keys.refusal(name, f"{inner} as in {section.where}")
    width = int(head * (inner if name in section.values else outer))
    if width < 2 or width % 2:
        raise keys.refusal(name, f"an even share of {head} dimensions")
    return read_rope(keys, width, known=(name,))


def _section(keys: Keys) -> Keys | None:
    """`rope_parameters`, or `rope_scaling` as older configs say; both only if they say the same."""
    newer, older = keys.section("rope_parameters"), keys.section("rope_scaling")
    if newer and older and newer.values != older.values:
        raise keys.refusal("rope_scaling", "nothing beside rope_parameters, or the same")
    return newer or older


def read_rope(keys: Keys, width: int, known: tuple[str, ...] = ()) -> Rope:
    """Reads `rope_theta` and `rope_scaling` (or `rope_parameters`, as newer configs write both together).
    `known` are keys of that section that were read before."""
    if width % 2:
        raise UnsupportedError(f"{keys.where}: expected an even number of dimensions to rotate, got {width}")
    section, theta = _section(keys), keys.number("rope_theta", 10000.0, low=1.0001)
    if section is None:
        return Rope(width, theta, None)
    inner = section.number("rope_theta", theta, low=1.0001)
    if inner != theta and "rope_theta" in keys.values:
        raise keys.refusal("rope_theta", f"{inner} as in {section.where}")
    theta = inner
    name = "rope_type" if "rope_type" in section.values else "type"
    kind = section.choice(name, ("yarn", "default"))
    section.skip("type", "rope_type", *known)
    yarn = _read_yarn(section) if kind == "yarn" else None
    section.finish(frozenset())
    return Rope(width, theta, yarn)


def _read_yarn(section: Keys) -> Yarn:
    if section.values.get("attention_factor") is not None or section.values.get("truncate") not in (None, True):
        raise UnsupportedError(f"{section.where}: expected YaRN without 'attention_factor' and with truncation, got {dict(section.values)}")
    section.skip("attention_factor", "truncate")
    mscale, all_dim = section.values.get("mscale"), section.values.get("mscale_all_dim")
    if not (mscale and all_dim) and (all_dim or mscale not in (None, 1)):
        # the publisher's code and transformers read these two differently
        raise section.refusal("mscale", "mscale and mscale_all_dim both above 0, or neither (mscale may then be 1)")
    return Yarn(
        factor=section.number("factor", low=1.0),
        original=section.integer("original_max_position_embeddings"),
        beta_fast=section.number("beta_fast", 32.0, low=0.001),
        beta_slow=section.number("beta_slow", 1.0, low=0.001),
        mscale=section.number("mscale", 0.0),
        mscale_all_dim=section.number("mscale_all_dim", 0.0),
    )
