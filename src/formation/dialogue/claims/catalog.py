"""Every procedure by its name, and how a claim is settled by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from formation.dialogue.claims import at_positions, in_transcript, inventory, of_a_run, standards
from formation.dialogue.claims.claim import Claim, Finding, NotHere, Settled
from formation.dialogue.claims.judge import IS, judge
from formation.dialogue.claims.procedure import Case, Procedure
from formation.dialogue.transcripts.transcript import Transcript

if TYPE_CHECKING:
    from formation.dialogue.claims.models import Models

MODULES = (in_transcript, standards, inventory, at_positions, of_a_run)
PROCEDURES: Mapping[str, Procedure] = {each.name: each for module in MODULES for each in module.PROCEDURES}


def settle(transcript: Transcript, claims: Iterable[Claim], models: Models) -> list[Settled]:
    """Raises what opening and running a checkpoint raise."""
    cases = [Case(transcript, claim, models) for claim in claims]
    models.expect(frozenset(case.message for case in cases if case.claim.procedure in at_positions.KEPT))
    return [settle_one(case) for case in cases]


def settle_one(case: Case) -> Settled:
    procedure = PROCEDURES[case.claim.procedure]
    try:
        found = procedure.find(case)
    except NotHere as reason:
        found = Finding(None, "", procedure.scope, str(reason))
    return Settled(case.claim, found, judge(found, case.get("says"), case.get("relation", IS)))
