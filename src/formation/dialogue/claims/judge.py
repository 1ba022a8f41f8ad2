"""The verdict: what was found, held against what the claim says. No more than comparing."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from formation.dialogue.claims.claim import NOT_HERE, REFUTED, SUPPORTED, UNDETERMINED, Finding, Value

IS, IS_NOT = "is", "is not"
ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "at least": operator.ge, "at most": operator.le, "more than": operator.gt, "less than": operator.lt,
}  # fmt: skip
RELATIONS = (IS, IS_NOT, *ORDERS)


def judge(found: Finding, says: Value | None, relation: str = IS) -> str:
    """A claim that says no value is undetermined, and so is an order that the interval does not decide. A number that lies in the interval is as good
    as what was found: the measurement cannot tell them apart."""
    answer = found.value if found.answer is None else found.answer
    if found.value is None or answer is None:
        return NOT_HERE
    if says is None:
        return UNDETERMINED
    low, high = found.interval if found.interval is not None and is_number(answer) else (answer, answer)
    if relation in ORDERS:
        outcomes = {ORDERS[relation](edge, says) for edge in (low, high)} if is_number(says) and is_number(answer) else set()
        return UNDETERMINED if len(outcomes) != 1 else SUPPORTED if outcomes == {True} else REFUTED
    same = bool(low <= says <= high) if is_number(says) and is_number(answer) else type(answer) is type(says) and answer == says  # type: ignore[operator]
    return SUPPORTED if same == (relation == IS) else REFUTED


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
