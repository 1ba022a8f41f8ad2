"""What it means that a token's probability is "zero": nine different things, and the one that it is not.

A softmax over finite logits is never zero. What is called so is decided from the log probability and from what took the token away, never from an
exponentiated probability, which a dtype prints as 0 while its logarithm is finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

LN2 = float.fromhex("0x1.62e42fefa39efp-1")


class Kind(StrEnum):
    POSITIVE = "POSITIVE"  # not zero
    UNDERFLOW = "UNDERFLOW"  # positive, but this dtype prints 0
    MASKED = "MASKED"  # an edit of the logits put the token out
    TRUNCATED = "TRUNCATED"  # the sampler's filter cut it off
    NO_SUCH_TOKEN = "NO_SUCH_TOKEN"  # the id is none of the vocabulary, the text is no single token
    UNREACHABLE_BY_TOKENIZER = "UNREACHABLE_BY_TOKENIZER"  # an id to which its own text is not encoded: a model can say it, nobody can type it
    UNSELECTABLE_BY_RNG = "UNSELECTABLE_BY_RNG"  # positive in the sampler's distribution, but no draw of 53 bits falls into its interval
    BELOW_REPORT = "BELOW_REPORT"  # a server reported the best tokens only: a bound, not a value
    SENTINEL = "SENTINEL"  # a server's way to say that it has no value
    NONFINITE = "NONFINITE"  # NaN or an infinity


@dataclass(frozen=True)
class Zero:
    """`detail` is the dtype, rule, bound or value that the kind is about."""

    kind: Kind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}({self.detail})" if self.detail else str(self.kind)


POSITIVE = Zero(Kind.POSITIVE)
NO_SUCH_TOKEN = Zero(Kind.NO_SUCH_TOKEN)
UNSELECTABLE = Zero(Kind.UNSELECTABLE_BY_RNG)

# dtype -> n: rounding to nearest prints 0 for every p up to 2^-n, half of the smallest number above 0. ln p: -17.33, -92.88, -103.97, -745.13
HALF_OF_SMALLEST: Mapping[str, int] = {"float16": 25, "bfloat16": 134, "float32": 150, "float64": 1075}
DTYPES = tuple(HALF_OF_SMALLEST)  # from narrow to wide
SENTINELS = (-9999.0, -100.0)
ROUNDING = 1e-3  # what a server's log probability may be above 0 by its own arithmetic


def prints_zero(logprob_nats: float, dtype: str) -> bool:
    """Whether exp(logprob) is 0 in `dtype`"""
    return logprob_nats <= -HALF_OF_SMALLEST[dtype] * LN2


def of_logprob(logprob_nats: float, dtypes: tuple[str, ...] = DTYPES) -> Zero:
    """Of a token that nothing took away: UNDERFLOW names the widest of `dtypes` (given from narrow to wide) that prints 0."""
    if not math.isfinite(logprob_nats):
        return Zero(Kind.NONFINITE, str(logprob_nats))
    printing = [dtype for dtype in dtypes if prints_zero(logprob_nats, dtype)]
    return Zero(Kind.UNDERFLOW, printing[-1]) if printing else POSITIVE


def of_report(logprob_nats: float | None, *, listed: bool = True, floor_nats: float | None = None) -> Zero:
    """Of what a server reports. A token that is not `listed` among the most likely has at most the log probability of the last that is."""
    if not listed:
        return Zero(Kind.BELOW_REPORT, "" if floor_nats is None else f"at most {floor_nats!r}")
    if logprob_nats is None:
        return Zero(Kind.SENTINEL, "null")
    if logprob_nats in SENTINELS or ROUNDING < logprob_nats < math.inf:
        return Zero(Kind.SENTINEL, repr(logprob_nats))
    return of_logprob(logprob_nats)
