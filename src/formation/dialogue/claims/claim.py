"""A claim, what a procedure found, and what follows: supported, refuted, undetermined, or not measurable here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from formation.ledger import canonical

SUPPORTED, REFUTED, UNDETERMINED, NOT_HERE = "supported", "refuted", "undetermined", "not measurable here"
VERDICTS = (SUPPORTED, REFUTED, UNDETERMINED, NOT_HERE)
TRANSCRIPT, STANDARD, INVENTORY = "transcript", "standard or arithmetic", "checkpoint inventory"
FORCING, LOCAL_RUN = "teacher forcing", "local run"
SCOPES = (TRANSCRIPT, STANDARD, INVENTORY, FORCING, LOCAL_RUN)

ELSEWHERE = "what the machine of the transcript ran is not known"

Value = bool | int | float | str


class NotHere(Exception):
    """Why something cannot be measured here"""


@dataclass(frozen=True)
class Claim:
    """`quote` are the characters [begin, end) of a message, by its number; `predicate` is what they are taken to say, in words. Of `inputs`, `says`
    is the value that is claimed and `relation` how it stands to what is found; the others are the procedure's."""

    message: int
    span: tuple[int, int]
    quote: str
    predicate: str
    procedure: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """What a procedure found, in which scope, and what it does not say. `value` None: nothing, for the reason in `caveat`.

    `interval` is what the value lies within, where it is not exact. `answer` is what the claim is compared with, if that is not the value.
    """

    value: Value | None
    unit: str
    scope: str
    caveat: str
    interval: tuple[float, float] | None = None
    answer: Value | None = None


@dataclass(frozen=True)
class Settled:
    claim: Claim
    finding: Finding
    verdict: str

    def document(self) -> dict[str, Any]:
        """Always these fields; a value or an interval that there is none of is null."""
        claim, found = self.claim, self.finding
        return {
            "message": claim.message, "span": list(claim.span), "quote": claim.quote, "predicate": claim.predicate, "procedure": claim.procedure,
            "inputs": dict(claim.inputs), "value": plain(found.value), "unit": found.unit,
            "interval": None if found.interval is None else [plain(edge) for edge in found.interval],
            "verdict": self.verdict, "scope": found.scope, "caveat": found.caveat,
        }  # fmt: skip


def plain(value: Value | None) -> Value | None:
    return canonical.number(value) if isinstance(value, float) else value
